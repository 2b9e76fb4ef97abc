"""What every index engine offers, whatever is behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors under integer keys, searched by similarity.

    Keys are int64, zero or more, each in the index at most once; -1 stands for "no vector", on the way in and out.
    All vectors have one dimension, fixed by the first ones added. Higher scores are better; among equal scores the
    lower key comes first. What was added can be found, and what was removed cannot, as soon as the call has returned.
    A call that raises changes nothing. A search sees the index as it was when the search began, so any number of
    threads may search while one changes it.

    Attributes
    ----------
    kind : {"dense", "sparse", "binary", "words"}
        What vectors are: float32 rows; CSR rows of numbers that are not negative, of which only those with a score
        above zero are found; rows of bytes, compared bit by bit; or `VisualWords`, found like sparse ones.
    exact : bool
        Whether a search always finds the best vectors; otherwise it may miss some.
    metric : str
        What is ranked by.
    """

    kind: str
    exact: bool
    metric: str

    @property
    def n_dims(self) -> int | None:
        """Dimension of the vectors; None before the first ones."""

    def __len__(self) -> int:
        """Return the number of vectors held."""

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys of the vectors held, ascending."""

    def add(self, keys: Any, vectors: Any) -> VectorIndex:
        """Add vectors (n_vectors, n_dims) under keys (n_vectors,); ValueError if a key is in the index."""

    def remove(self, keys: Any) -> VectorIndex:
        """Remove the vectors under keys (n_keys,); KeyError if one is not in the index."""

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return keys and scores (n_queries, k), best first, padded with -1 and −inf; `within`: only these keys."""

    def reconstruct(self, keys: Any) -> Any:
        """Return the vectors (n_keys, n_dims) under keys, in their order; KeyError if one is not in the index."""

    def stats(self) -> dict[str, Any]:
        """Return facts: ``n_vectors``, ``n_removed`` (still held), ``n_dims``, ``n_segments``, ``n_bytes``."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the index to a new folder, where `flush` will write what changes later; return the folder."""

    def flush(self) -> VectorIndex:
        """Make what was added and removed since `save`, `open` or the last `flush` durable, in one step."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, n_jobs: int | None = None, verify: bool = True) -> VectorIndex:
        """Open a folder written by `save`; StoreError if it is damaged."""
