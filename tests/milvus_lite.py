"""A database of Milvus Lite for tests: one for each process, made when it is first needed."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

HAS_MILVUS = all(importlib.util.find_spec(name) is not None for name in ("pymilvus", "milvus_lite"))


@lru_cache(maxsize=1)
def database() -> str:
    """Return the address of the database."""
    folder = Path(tempfile.mkdtemp(prefix="cvretrieval-milvus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder / "contract.db")


def make_index(**parameters):
    """Return an index in a collection of its own."""
    from cvretrieval import MilvusIndex

    return MilvusIndex(database(), **parameters)
