"""Image retrieval and recognition, from SIFT and VLAD to CNN descriptors, behind one scikit-learn interface.

The public names are loaded when first used: ``import cvretrieval`` imports neither numba nor OpenCV nor torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from cvretrieval._version import __version__

_PUBLIC = {
    "LocalFeatures": "local_features",
    "check_local_features": "local_features",
    "VisualWords": "visual_words",
    "ImageReader": "images",
    "ImageReadError": "_validation",
    "StoreError": "_validation",
    "load_model": "_saving",
    "save_model": "_saving",
    "SIFT": "extraction",
    "SURF": "extraction",
    "DenseSIFT": "extraction",
    "OpenCVFeatures": "extraction",
    "Patches": "extraction",
    "PerDescriptor": "extraction",
    "SpatialCoordinates": "extraction",
    "KMeansCodebook": "codebooks",
    "KMajorityCodebook": "codebooks",
    "VocabularyTree": "codebooks",
    "ApproximateWords": "codebooks",
    "GMMCodebook": "codebooks",
    "ProductQuantizer": "codebooks",
    "VLAD": "encoders",
    "BagOfWords": "encoders",
    "FisherVector": "encoders",
    "HammingEmbedding": "encoders",
    "ASMK": "encoders",
    "MultipleVocabularies": "encoders",
    "SpatialPyramid": "encoders",
    "ITQ": "postprocessing",
    "PCAWhitening": "postprocessing",
    "LearnedWhitening": "postprocessing",
    "PowerNormalizer": "postprocessing",
    "ZCAWhitening": "postprocessing",
    "TfIdf": "postprocessing",
    "HomogeneousKernelMap": "postprocessing",
    "SpatialVerifier": "verification",
    "Verification": "verification",
    "BinaryIndex": "index",
    "DenseIndex": "index",
    "FaissIndex": "index",
    "InvertedIndex": "index",
    "MilvusIndex": "index",
    "PQIndex": "index",
    "AlphaQueryExpansion": "reranking",
    "AverageQueryExpansion": "reranking",
    "DatabaseAugmentation": "reranking",
    "Diffusion": "reranking",
    "DiscriminativeQueryExpansion": "reranking",
    "KReciprocal": "reranking",
    "RerankingPipeline": "reranking",
    "SpatialQueryExpansion": "reranking",
    "ImageRetriever": "retrieval",
    "SearchResult": "retrieval",
    "ClassConditionalGMM": "recognition",
}

_ROOMS = ("codebooks", "datasets", "deep", "encoders", "extraction", "index", "metrics", "plotting", "postprocessing",
          "recognition", "reranking", "retrieval", "verification")  # fmt: skip

__all__ = ["__version__", *_PUBLIC, *_ROOMS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"cvretrieval.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"cvretrieval.{name}")
    raise AttributeError(f"module 'cvretrieval' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
