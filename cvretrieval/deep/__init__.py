"""CNN descriptors: poolings of feature maps, networks to pool, estimators from images to vectors. Only here is torch.

The names are loaded when first used; without torch, using one says what to install.
"""

from __future__ import annotations

import importlib
from typing import Any

from cvretrieval._optional import import_optional

_PUBLIC = {
    "cluster_map": "explanation",
    "explain_regions": "explanation",
    "explain_similarity": "explanation",
    "AML": "localization",
    "CGD": "training",
    "Backbone": "backbones",
    "MAC": "descriptors",
    "RMAC": "descriptors",
    "CroW": "descriptors",
    "DeepLocalFeatures": "local",
    "Ensemble": "descriptors",
    "FineTuned": "training",
    "GeM": "descriptors",
    "MultiScaleRMAC": "descriptors",
    "NetVLAD": "descriptors",
    "NeuralCodes": "descriptors",
    "SPoC": "descriptors",
    "WeightedGeM": "descriptors",
    "export_onnx": "export",
    "load_cirtorch": "published",
    "load_dir": "published",
    "load_netvlad": "published",
}

_ROOMS = ("backbones", "descriptors", "layers", "losses", "training")

__all__ = [*_PUBLIC, *_ROOMS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cvretrieval.deep' has no attribute {name!r}")
    import_optional("torch", f"cvretrieval.deep.{name}")
    if name in _ROOMS:
        return importlib.import_module(f"cvretrieval.deep.{name}")
    value = getattr(importlib.import_module(f"cvretrieval.deep.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
