"""Cutting a network at a layer, and changing the strides within one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor, nn

from cvretrieval.deep.backbones.torchvision_import import import_torchvision

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOL_CALLS = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "mean")
_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class CutNetwork(nn.Module):
    """A network up to and including one of its layers."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        extraction = import_torchvision("torchvision.models.feature_extraction")
        try:
            self.network = extraction.create_feature_extractor(
                network, return_nodes={layer: "map"}, suppress_diff_warning=True
            )
        except Exception:  # of many types; listing the steps, which takes as long again, tells why
            names = node_names(network)
            if not any(name == layer or name.startswith(f"{layer}.") for name in names):
                raise _no_such_layer(layer, names) from None
            raise

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer."""
        return self.network(x)["map"]


def node_names(network: nn.Module) -> list[str]:
    """Return the names of the steps of a network in evaluation, in order.

    Raises
    ------
    ValueError
        If it decides by its data what to compute, so that its steps cannot be listed.
    """
    extraction = import_torchvision("torchvision.models.feature_extraction")
    try:
        return list(extraction.get_graph_node_names(network, suppress_diff_warning=True)[1])
    except Exception as error:  # torch.fx raises whatever the network does with a placeholder
        raise ValueError(
            f"{type(network).__name__} cannot be cut at a layer, because its steps depend on its input ({error}). Pass "
            "a module that ends where it is to be cut, and no layer."
        ) from error


def last_map(network: nn.Module, name: str) -> str:
    """Return the name of the step whose output a classification network pools to a vector.

    As is custom in retrieval, a max-pooling right before it (VGG, AlexNet) is left out.
    """
    if name.startswith("squeezenet"):
        return "features"  # it pools the scores of the classes
    modules = dict(network.named_modules())
    names = node_names(network)
    pools = [i for i, step in enumerate(names) if isinstance(modules.get(step), _POOLS) or _is_pool_call(step)]
    if not pools or pools[-1] == 0:
        raise ValueError(
            f"{name} has no feature map that is pooled to a vector. Say where to cut it, e.g. layer={names[-2]!r}."
        )
    last = pools[-1] - 1
    return names[last - 1] if isinstance(modules.get(names[last]), nn.MaxPool2d) else names[last]


def last_vector(network: nn.Module) -> str:
    """Return the name of the step whose output the last fully connected layer of a network takes.

    Without such a layer (SqueezeNet) it is the last step. Dropout, which does nothing in evaluation, is passed over.
    """
    modules = dict(network.named_modules())
    names = node_names(network)
    linear = [i for i, step in enumerate(names) if isinstance(modules.get(step), nn.Linear)]
    if not linear:
        return names[-1]
    last = linear[-1] - 1
    while last > 0 and (isinstance(modules.get(names[last]), nn.Dropout) or names[last].startswith("dropout")):
        last -= 1
    return names[last]


def set_strides(network: nn.Module, strides: Sequence[tuple[str, int]]) -> None:
    """Set the stride of every convolution and pooling in a layer that has one above 1; in place."""
    modules = dict(network.named_modules())
    for layer, stride in strides:
        if layer not in modules:
            raise _no_such_layer(layer, list(modules))
        strided = [part for part in modules[layer].modules() if isinstance(part, _STRIDED) and _stride(part) > 1]
        if not strided:
            raise ValueError(f"The layer {layer!r} has no stride above 1 that could be changed.")
        for part in strided:
            part.stride = (stride, stride)


def _stride(part: nn.Module) -> int:
    stride = part.stride
    return int(max(stride) if isinstance(stride, tuple) else stride)


def _is_pool_call(step: str) -> bool:
    return step.rpartition("_")[0] in _POOL_CALLS or step in _POOL_CALLS


def _no_such_layer(layer: str, names: Sequence[str]) -> ValueError:
    known = dict.fromkeys(part for name in names if name for part in (name, name.partition(".")[0]))
    near = difflib.get_close_matches(layer, known, n=5) or [name for name in known if "." not in name][-5:]
    return ValueError(f"The network has no layer {layer!r}. Some that it has: {', '.join(map(repr, near))}.")
