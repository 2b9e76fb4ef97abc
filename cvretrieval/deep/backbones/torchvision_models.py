"""Classification networks of torchvision by name, with the weights it publishes."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones.checkpoints import load_weights, read_weights
from cvretrieval.deep.backbones.normalization import IMAGENET, Normalization
from cvretrieval.deep.backbones.torchvision_import import import_torchvision


def build_torchvision(name: str, weights: str | None) -> tuple[nn.Module, Normalization, set[str] | None]:
    """Return a network, its normalisation, and the names of the weights that were loaded; None if none were asked for.

    Parameters
    ----------
    name : str
        As in ``torchvision.models.list_models()``.
    weights : str or None
        "default", or one that torchvision lists for the network, such as "IMAGENET1K_V1".

    Raises
    ------
    ValueError
        If torchvision has no such network or weights.
    StoreError
        If the weights are neither in torch's cache nor can be downloaded into it.
    """
    models = import_torchvision("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5) or known[:5]
        raise ValueError(
            f"torchvision has no classification network {name!r}. Near ones: {', '.join(near)}. Networks of timm are "
            f"named 'timm/{name}'."
        )
    if weights is None:
        return models.get_model(name, weights=None, **_options(name)), IMAGENET, None
    published = models.get_model_weights(name)
    if weights != "default" and weights not in published.__members__:
        raise ValueError(
            f"torchvision has no weights {weights!r} of {name}, but: {', '.join(published.__members__)}. A file is "
            "given by its path."
        )
    entry = published.DEFAULT if weights == "default" else published[weights]
    # SWAG's networks and others differ in more than weights, so the number of classes is taken from the entry.
    network = models.get_model(name, weights=None, num_classes=len(entry.meta["categories"]), **_options(name))
    if name in ("googlenet", "inception_v3"):
        network.transform_input = True  # these weights were trained on [-1, 1]
    loaded = load_weights(network, _published_weights(name, entry))
    preset = entry.transforms()
    return network, Normalization(tuple(preset.mean), tuple(preset.std)), loaded


def _published_weights(name: str, entry: Any) -> dict[str, torch.Tensor]:
    file = os.path.basename(entry.url)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    if not (folder / file).is_file():
        try:
            torch.hub.load_state_dict_from_url(
                entry.url, str(folder), map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:  # no network; wrong hash
            raise StoreError(
                f"The weights {entry.name} of {name} are not at {folder / file} and cannot be fetched from {entry.url} "
                f"({error}). Put the file there, or pass one: Backbone({name!r}, weights='/path/to/{file}'), in the "
                f"shell --weights /path/to/{file}."
            ) from error
    return read_weights(folder / file)


def _options(name: str) -> dict[str, Any]:
    # Auxiliary classifiers are of no use here, and a warning about slow initialisation neither.
    return {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
