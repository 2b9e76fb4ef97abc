"""The weights of a network as one array and a table of contents: what an estimator's file holds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: Of each weight its name, the name of its data type, and its shape.
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]


def pack_weights(weights: Mapping[str, Tensor]) -> tuple[NDArray[np.uint8], Layout]:
    """Return the bytes of weights one after the other, and where each of them is."""
    arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in weights.items()}
    layout = tuple((name, array.dtype.name, tuple(array.shape)) for name, array in arrays.items())
    data = [np.frombuffer(array.tobytes(), dtype=np.uint8) for array in arrays.values()]
    return np.concatenate(data) if data else np.empty(0, dtype=np.uint8), layout


def unpack_weights(packed: NDArray[np.uint8], layout: Sequence[Any]) -> dict[str, Tensor]:
    """Return the weights that `pack_weights` was given."""
    data, start, weights = np.ascontiguousarray(packed).tobytes(), 0, {}
    for name, dtype, shape in layout:
        array = np.frombuffer(data, dtype=np.dtype(dtype), count=int(np.prod(shape, dtype=np.int64)), offset=start)
        start += array.nbytes
        weights[str(name)] = torch.from_numpy(array.reshape([int(side) for side in shape]).copy())
    if start != len(data):
        raise ValueError(f"The weights have {len(data)} bytes, but their table of contents names {start}.")
    return weights


def load_part(module: nn.Module, weights: Mapping[str, Tensor], part: str) -> None:
    """Give a module the weights whose names begin with ``part.``; all of them must fit."""
    module.load_state_dict({name[len(part) + 1 :]: w for name, w in weights.items() if name.startswith(f"{part}.")})
