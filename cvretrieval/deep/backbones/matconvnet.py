"""Networks of MatConvNet in MATLAB files: numbers alone are taken from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvretrieval._validation import StoreError


class MatConvNet(NamedTuple):
    """Weights of each layer, in order, and the mean of images.

    Attributes
    ----------
    layers : list of list of ndarray
        Empty for layers without weights.
    mean : ndarray of shape (3,) or None
        Red, green and blue in [0, 255].
    """

    layers: list[list[NDArray[Any]]]
    mean: NDArray[np.float64] | None


def read_matconvnet(path: Path) -> MatConvNet:
    """Read the structure ``net`` of a MATLAB file, as ``net_class2struct`` and MatConvNet's own programs write it.

    Raises
    ------
    StoreError
        If the file is damaged, of MATLAB's HDF5 format, or holds no such network.
    """
    from scipy.io import loadmat

    try:
        net = loadmat(path, struct_as_record=False, squeeze_me=True)["net"]
        layers = [_numbers(getattr(layer, "weights", [])) for layer in np.atleast_1d(net.layers)]
        normalization = getattr(getattr(net, "meta", None), "normalization", None)
        image = getattr(normalization, "averageImage", None)
        mean = None if image is None else np.asarray(image, dtype=np.float64).reshape(-1, 3)[0]
    except NotImplementedError as error:
        raise StoreError(f"{path} has MATLAB's HDF5 format. Save it again in MATLAB with: save('-v7', …).") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError) as error:
        raise StoreError(f"{path} is damaged, or holds no network of MatConvNet ({error}).") from error
    return MatConvNet(layers, mean)


def convolutions(net: MatConvNet) -> dict[str, Tensor]:
    """Return filters and biases of the leading convolutions, layer N as ``features.N.weight`` and ``.bias``.

    MATLAB has filters as (height, width, in, out), torch as (out, in, height, width).
    """
    found: dict[str, Tensor] = {}
    for number, weights in enumerate(net.layers):
        if len(weights) == 2 and weights[0].ndim == 4:
            found[f"features.{number}.weight"] = torch.from_numpy(weights[0].transpose(3, 2, 0, 1).copy()).float()
            found[f"features.{number}.bias"] = torch.from_numpy(weights[1].reshape(-1).copy()).float()
    return found


def _numbers(weights: Any) -> list[NDArray[Any]]:
    is_list = isinstance(weights, list) or (isinstance(weights, np.ndarray) and weights.dtype.kind == "O")
    parts = weights if is_list else [weights]
    arrays = [np.asarray(part) for part in parts]
    for array in arrays:
        if array.dtype.kind not in "fiu":
            raise ValueError(f"weights of type {array.dtype}")
    return [array for array in arrays if array.size]
