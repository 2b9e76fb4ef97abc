"""Methods that describe images by a network: their options, and the encoders these make."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

#: Method → class in `cvretrieval.deep`.
NETWORK_METHODS = {"gem": "GeM", "mac": "MAC", "spoc": "SPoC", "crow": "CroW", "rmac": "RMAC", "netvlad": "NetVLAD"}

#: Options that these methods alone have, with their defaults.
NETWORK_DEFAULTS: dict[str, Any] = {"backbone": "resnet50", "weights": "default", "layer": None, "scales": "1"}

BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="Network of torchvision, or of timm as timm/NAME, for gem, mac, spoc, crow, rmac "
                 "and netvlad.", show_default="resnet50"),
]  # fmt: skip
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="Its weights: a file, or a name that torchvision lists. The index remembers where "
                 "the file is.", show_default="those that are published"),
]  # fmt: skip
LayerOption = Annotated[
    str | None, typer.Option("--layer", help="Where the network ends, e.g. layer3.", show_default="its last map")
]
ScalesOption = Annotated[
    str | None,
    typer.Option("--scales", help="Factors that images are resized by, e.g. 1,0.7071,0.5; vectors are averaged.",
                 show_default="1"),
]  # fmt: skip


def parse_scales(text: str) -> tuple[float, ...]:
    """Return the numbers of ``"1,0.7,0.5"``, or, where commas stand for something else, ``"1+0.7+0.5"``."""
    try:
        scales = tuple(float(part) for part in text.replace("+", ",").split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"scales are positive numbers such as 1,0.7,0.5. Got {text!r} instead.")
    return scales


def weights_of(text: str) -> str:
    """Return the name of weights as it is, and a file by its absolute path."""
    is_name = not os.path.dirname(text) and not os.path.splitext(text)[1] and not os.path.exists(text)
    return text if is_name else os.path.abspath(text)


def read_option(name: str, value: Any) -> Any:
    """Return what an option means, in a form that equal ones have in common."""
    reading = {"scales": parse_scales, "weights": weights_of}
    return reading[name](value) if name in reading else value


def make_network_encoder(chosen: dict[str, Any], n_words: int, reader: Any) -> Any:
    """Return the encoder of images for the chosen options, which are all given."""
    from sklearn.pipeline import make_pipeline

    from cvretrieval import PCAWhitening, deep

    name, seed = chosen["method"], chosen["seed"]
    kind = getattr(deep, NETWORK_METHODS[name])
    whitening = None if chosen["pca"] is None else PCAWhitening(n_components=chosen["pca"])
    backbone = deep.Backbone(chosen["backbone"], weights=weights_of(chosen["weights"]), layer=chosen["layer"])
    own: dict[str, Any] = {}
    if name == "netvlad":
        own = {"n_clusters": n_words, "random_state": seed}
    elif name == "rmac":
        # Regions are whitened before they are added up, as the paper has it.
        own, whitening = {"whitening": whitening, "random_state": seed}, None
    encoder = kind(backbone, scales=parse_scales(chosen["scales"]), image_size=chosen["max_size"], reader=reader, **own)
    return encoder if whitening is None else make_pipeline(encoder, whitening)


def options_of(encoder: Any) -> dict[str, Any]:
    """Return the options that a network's encoder was made with, as `read_option` returns them."""
    backbone = encoder.backbone
    whitening = getattr(encoder, "whitening", None)
    return {
        "backbone": getattr(backbone, "model", backbone),
        "weights": getattr(backbone, "weights", "default"),
        "layer": getattr(backbone, "layer", None),
        "scales": tuple(encoder.scales),
        **({} if whitening is None else {"pca": whitening.n_components}),
    }
