"""A network to pool, described by plain values, so that estimators with one can be cloned, searched over and stored."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import nn

from cvretrieval._validation import check_choice, check_number
from cvretrieval.deep.backbones.checkpoints import check_weights_loaded, load_weights, read_weights
from cvretrieval.deep.backbones.cutting import CutNetwork, last_map, last_vector, set_strides
from cvretrieval.deep.backbones.normalization import IMAGENET, Normalization, NormalizedNetwork
from cvretrieval.deep.backbones.timm_models import build_timm
from cvretrieval.deep.backbones.torchvision_models import build_torchvision

_TIMM = "timm/"


class Backbone(BaseEstimator):
    """Description of a network that turns images into feature maps; `build` makes it.

    Parameters
    ----------
    model : str or Module, default="resnet50"
        A classification network of torchvision by name, one of timm as "timm/NAME", or any module that takes images
        (B, 3, H, W), RGB in [0, 1], to maps (B, C, h, w). Estimators with a module given so cannot be stored in a file.
    weights : str, path or None, default="default"
        "default": those that torchvision or timm recommend, from their caches, where they are downloaded to unless they
        are there. For torchvision also one of the names it lists, such as "IMAGENET1K_V1". A path of a file: what
        ``torch.save(network.state_dict(), path)`` wrote, a training program's checkpoint with the weights among other
        things, or safetensors. None: random weights. A module given as `model` keeps its own with "default" and None.
    layer : str, optional
        Where the network ends: the name of a module ("layer4", "features.29") or of a step that torchvision's
        ``get_graph_node_names`` lists. None is the map that the classifier pools, after its ReLU; of VGG and AlexNet,
        as is custom in retrieval, before their last max-pooling. A module given as `model` is left whole.
    strides : sequence of (str, int) pairs, default=()
        Layers in which all strides above 1 are set to this one: ``(("layer4", 1),)`` doubles the resolution of a
        ResNet's map, as CGD does.
    mean, std : sequence of 3 floats, optional
        Normalisation of red, green and blue in [0, 1]. None is that of the weights; ImageNet's if they are random or
        from a file; none at all for a module given as `model`.
    random_state : int, RandomState or None, default=0
        Seed of random weights.

    Notes
    -----
    Files are read with ``weights_only=True``, so no code in them is run. Networks by name are in evaluation mode; a
    module keeps its own.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep import Backbone
    >>> network = Backbone("resnet18", weights=None, strides=(("layer4", 1),)).build()
    >>> with torch.inference_mode():
    ...     network(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 512, 4, 6])
    """

    def __init__(
        self,
        model: str | nn.Module = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "default",
        layer: str | None = None,
        strides: Sequence[tuple[str, int]] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.weights = weights
        self.layer = layer
        self.strides = strides
        self.mean = mean
        self.std = std
        self.random_state = random_state

    def build(self, *, end: str = "map") -> nn.Module:
        """Return the network: images (B, 3, H, W), RGB in [0, 1] → maps (B, C, h, w).

        A module given as `model` is part of it, not copied, unless strides or weights change it.

        Parameters
        ----------
        end : {"map", "vector"}, default="map"
            Where a network by name ends if `layer` is None. "vector": before its last fully connected layer, as
            `NeuralCodes` has it; of networks without one after their last step.

        Raises
        ------
        ValueError
            For a name or layer that does not exist, or a parameter out of its range.
        StoreError
            If the weights cannot be had, or do not fit the network.
        """
        self._check_parameters()
        check_choice("Backbone.build", "end", end, ("map", "vector"))
        path = self.weights_path()
        if isinstance(self.model, nn.Module):
            name, network, normalization = type(self.model).__name__, self.model, None
            loaded = None
            if self.strides or path is not None:
                network = copy.deepcopy(network)
        else:
            name = self.model
            network, normalization, loaded = self._build_named(None if path is not None else self.weights, end)
        if network is not self.model:
            network.eval()
        if path is not None:
            loaded = load_weights(network, read_weights(path))
        set_strides(network, self.strides)
        layer = self.layer
        if layer is None and not isinstance(self.model, nn.Module) and not name.startswith(_TIMM):
            layer = last_map(network, name) if end == "map" else last_vector(network)
        cut = network if layer is None else CutNetwork(network, layer).train(network.training)
        if loaded is not None:
            # Where a network is cut its weights have kept their names behind that of the cut's own part.
            check_weights_loaded(cut.network if isinstance(cut, CutNetwork) else cut, loaded, self._source(path), name)
        normalization = self._normalization(normalization)
        return cut if normalization is None else NormalizedNetwork(cut, normalization).train(cut.training)

    def _build_named(self, weights: Any, end: str) -> tuple[nn.Module, Normalization, set[str] | None]:
        name = str(self.model)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if name.startswith(_TIMM):
                return build_timm(name.removeprefix(_TIMM), weights, pooled=end == "vector")
            return build_torchvision(name, weights)

    def weights_path(self) -> str | None:
        """Return the file that the weights are in, or None if they are given by name or not at all."""
        if self.weights is None or self.weights == "default":
            return None
        path = os.fspath(self.weights)
        is_name = not os.path.dirname(path) and not os.path.splitext(path)[1] and not os.path.exists(path)
        if is_name and isinstance(self.model, nn.Module):
            raise ValueError(f"A module given as model has no weights named {path!r}; give a file, or 'default'.")
        return None if is_name else path

    def _params_to_store(self) -> dict[str, Any]:
        """Return the parameters with a file by its absolute path: who reads them may work in another folder."""
        path = self.weights_path()
        return {**self.get_params(deep=False), **({} if path is None else {"weights": os.path.abspath(path)})}

    def _source(self, path: str | None) -> str:
        return str(path) if path is not None else f"The file of weights {self.weights!r}"

    def _normalization(self, own: Normalization | None) -> Normalization | None:
        if self.mean is None and self.std is None:
            return own
        own = own or IMAGENET
        mean = own.mean if self.mean is None else tuple(map(float, self.mean))
        return Normalization(mean, own.std if self.std is None else tuple(map(float, self.std)))

    def _check_parameters(self) -> None:
        if not isinstance(self.model, (str, nn.Module)):
            raise TypeError(
                "The 'model' parameter of Backbone must be the name of a network or a torch module. "
                f"Got {type(self.model).__name__} instead."
            )
        for layer, stride in self.strides:
            check_number(self, f"strides of {layer}", stride, low=1, integer=True)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != 3 or not np.isfinite(values).all()):
                raise ValueError(
                    f"The {name!r} parameter of Backbone must be 3 finite numbers. Got {values!r} instead."
                )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"The 'std' parameter of Backbone must be positive. Got {self.std!r} instead.")


def check_backbone(backbone: Any) -> Backbone:
    """Return the `Backbone` that a name, a module or a `Backbone` stands for."""
    return backbone if isinstance(backbone, Backbone) else Backbone(backbone)
