"""A backbone on its device, tried out once, and kept for the next call."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from cvretrieval.deep.backbones.backbone import Backbone

# Every classification network takes images of this size.
PROBE_SIZE = 224

# Networks of the same description on the same device, as long as any estimator uses them: several poolings of one
# network, or the clones of a search over parameters, need one copy of its weights.
_shared: WeakValueDictionary[Hashable, PreparedNetwork] = WeakValueDictionary()
_shared_lock = threading.Lock()


class PreparedNetwork:
    """A network that was found to turn images into finite feature maps, or vectors.

    Parameters
    ----------
    backbone : Backbone
    device : device
    size : int, default=224
        Side of the image that it is tried out with.
    end : {"map", "vector"}, default="map"
        What it is to return; a map is a vector, too.

    Attributes
    ----------
    network : Module
        On the device.
    device : torch.device
    n_channels : int
        Channels of its maps.
    n_values : int
        Values of the whole map or vector of an image of this size.
    """

    def __init__(self, backbone: Backbone, device: torch.device, *, size: int = PROBE_SIZE, end: str = "map") -> None:
        network = backbone.build(end=end)
        if isinstance(backbone.model, nn.Module) and any(_place(value) != _place(device) for value in _values(network)):
            network = copy.deepcopy(network)  # moving it would move the caller's
        self.network = network.to(device)
        self.device = device
        model = backbone.model
        name = type(model).__name__ if isinstance(model, nn.Module) else str(model)
        shape = self._probe(name, size, end)
        self.n_channels = int(shape[1])
        self.n_values = int(shape.numel())

    @cached_property
    def digest(self) -> str:
        """Digest of the weights, the normalisation of images included, as hexadecimal digits."""
        found = hashlib.blake2b(digest_size=16)
        for name, value in (*self.network.named_parameters(), *self.network.named_buffers()):
            if name.endswith("num_batches_tracked"):  # counted in training alone, and left out by some programs
                continue
            found.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()

    def _probe(self, name: str, size: int, end: str) -> torch.Size:
        try:
            with torch.inference_mode(), evaluating(self.network):
                found = self.network(torch.full((1, 3, size, size), 0.5, device=self.device))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"The backbone {name} does not take RGB images of shape (1, 3, {size}, {size}): {error}"
            ) from error
        if not isinstance(found, Tensor) or found.dim() not in ((4,) if end == "map" else (2, 4)):
            expected = "feature maps (B, C, H, W)" if end == "map" else "vectors (B, D) or feature maps (B, C, H, W)"
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"The backbone {name} must return {expected}. Got {what} instead; say where to cut it: "
                f"Backbone(…, layer=…)."
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError(
                f"The backbone {name} returns NaN or infinite activations of a grey image; check its weights."
            )
        return found.shape


def network_key(backbone: Backbone, device: torch.device) -> Hashable:
    """Return what a prepared network depends on."""
    params = backbone.get_params(deep=False)
    if isinstance(backbone.model, nn.Module):
        params["model"] = id(backbone.model)
    path = backbone.weights_path()
    file = None if path is None or not os.path.exists(path) else os.stat(path)
    version = None if file is None else (file.st_mtime_ns, file.st_size)
    return repr(sorted(params.items(), key=lambda item: item[0])), str(device), version


def prepare_network(
    backbone: Backbone, device: torch.device, *, size: int = PROBE_SIZE, end: str = "map"
) -> PreparedNetwork:
    """Return the network on its device; networks by name are shared, so nobody may change them."""
    by_chance = backbone.weights is None and not isinstance(backbone.random_state, (int, np.integer))
    if isinstance(backbone.model, nn.Module) or by_chance:
        return PreparedNetwork(backbone, device, size=size, end=end)
    key = (network_key(backbone, device), size, end)
    with _shared_lock:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = PreparedNetwork(backbone, device, size=size, end=end)
        return found


class NetworkCache:
    """What an estimator keeps of the last call: the network, and modules made from what was learned.

    Copies of the estimator share it; files and other processes get an empty one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Any, Any]] = {}

    def __reduce__(self) -> tuple[type[NetworkCache], tuple[()]]:
        return NetworkCache, ()

    def get(self, name: str, key: Any, make: Any) -> Any:
        """Return what `make` made for this key, or makes now."""
        with self._lock:
            if name not in self._kept or self._kept[name][0] != key:
                self._kept[name] = (key, make())
            return self._kept[name][1]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and back into what it was in."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _values(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _place(where: Tensor | torch.device) -> tuple[str, int]:
    device = where.device if isinstance(where, Tensor) else where
    return device.type, device.index or 0
