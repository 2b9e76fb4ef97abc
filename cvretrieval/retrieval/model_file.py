"""``model.safetensors``: what the encoder learned, as arrays and plain values; never code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cvretrieval._array_file import array_file, read_array_file
from cvretrieval._durable import file_digest, replace_file
from cvretrieval._validation import StoreError

MODEL_FILE = "model.safetensors"


def write_model_file(folder: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bytes:
    """Write arrays, and plain values as JSON in the header; return the digest of the file."""
    data = array_file(arrays, {"meta": json.dumps(meta)})
    return replace_file(folder / MODEL_FILE, lambda file: file.write(data))[1]


def read_model_file(folder: Path, digest: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return what `write_model_file` wrote.

    Raises
    ------
    StoreError
        If the file is missing, damaged, or not the one of this digest.
    """
    path = folder / MODEL_FILE
    try:
        if file_digest(path) != digest:
            raise ValueError("its checksum differs from the one in the manifest")
        arrays, metadata = read_array_file(path)
        meta = json.loads(metadata["meta"])
        if not isinstance(meta, dict):
            raise ValueError("'meta' is no object")
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing. Restore it from a copy or index the photos again.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}). Restore it from a copy or index the photos again.") from error
    return arrays, meta
