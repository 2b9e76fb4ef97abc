"""Networks of timm by name, with the weights it publishes."""

from __future__ import annotations

import difflib

from torch import nn

from cvretrieval._optional import import_optional
from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones.normalization import IMAGENET, Normalization


def build_timm(
    name: str, weights: str | None, *, pooled: bool = False
) -> tuple[nn.Module, Normalization, set[str] | None]:
    """Return a network without its classifier, its normalisation, and the names of the weights it has, or None.

    Parameters
    ----------
    name : str
        As in ``timm.list_models()``, with the tag of the weights or without.
    weights : "default" or None
    pooled : bool, default=False
        Whether it ends with the vector that its classifier takes, rather than the map before.

    Raises
    ------
    ValueError
        If timm has no such network.
    StoreError
        If the weights are neither in the cache nor can be downloaded into it.
    """
    timm = import_optional("timm", f"The backbone 'timm/{name}'")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise ValueError(f"timm has no network {name!r}. Near ones: {', '.join(near) or 'none'}.")
    if weights not in (None, "default"):
        raise ValueError(
            f"Weights of timm are part of the name, e.g. 'timm/{name.partition('.')[0]}.tag'. Got weights={weights!r}."
        )
    network = None
    try:
        options = {} if pooled else {"global_pool": ""}
        network = timm.create_model(name, pretrained=weights is not None, num_classes=0, **options)
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such file, no weights of this name
        if weights is None:
            raise
        raise StoreError(
            f"The weights of {name} are not in the cache and cannot be fetched from {_source(timm, name)} ({error}). "
            f"Pass a local file: Backbone('timm/{name}', weights='/path/to/model.safetensors'), in the shell "
            "--weights /path/to/model.safetensors."
        ) from error
    found = network.pretrained_cfg
    normalization = Normalization(tuple(found["mean"]), tuple(found["std"])) if found.get("mean") else IMAGENET
    return network, normalization, set(network.state_dict()) if weights is not None else None


def _source(timm: object, name: str) -> str:
    found = timm.get_pretrained_cfg(name)  # type: ignore[attr-defined]
    hub = getattr(found, "hf_hub_id", None)
    return (
        f"https://huggingface.co/{hub} (model.safetensors)" if hub else str(getattr(found, "url", None) or "anywhere")
    )
