"""Optional dependencies: one import helper, one wording."""

from __future__ import annotations

import importlib
from types import ModuleType

_EXTRAS = {
    "matplotlib": "plot",
    "faiss": "faiss",
    "torch": "torch",
    "torchvision": "torch",
    "timm": "timm",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "pymilvus": "milvus",
    "milvus_lite": "milvus",
    "fsspec": "remote",
    "dask": "dask",
    "fastapi": "serve",
    "python_multipart": "serve",
    "uvicorn": "serve",
}


def import_optional(name: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    name : str
        Module to import, e.g. ``"matplotlib.pyplot"``.
    purpose : str
        What needs it, the subject of the message, e.g. ``"SearchResult.show"``.

    Raises
    ------
    ImportError
        With the ``pip install`` line that mends it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        extra = _EXTRAS.get(package, package)
        raise ImportError(
            f"{purpose} needs {package}, which cannot be imported ({error}). "
            f"Install it with: pip install 'cvretrieval[{extra}]'"
        ) from error
