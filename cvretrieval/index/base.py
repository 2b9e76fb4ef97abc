"""What every index engine offers, whatever is behind it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors under integer keys, searched by similarity.

    Keys are int64, zero or more, each in the index at most once; -1 stands for "no vector", on the way in and out.
    Vectors are float32 rows of one dimension, fixed by the first ones added. Higher scores are better; among equal
    scores the lower key comes first. What was added can be found, and what was removed cannot, as soon as the call
    has returned. A call that raises changes nothing.
    """

    metric: str

    @property
    def n_dims(self) -> int | None:
        """Dimension of the vectors; None before the first ones."""

    def __len__(self) -> int:
        """Return the number of vectors that can be found."""

    def add(self, keys: Any, vectors: Any) -> VectorIndex:
        """Add vectors (n_vectors, n_dims) under keys (n_vectors,); ValueError if a key is in the index."""

    def remove(self, keys: Any) -> VectorIndex:
        """Remove the vectors under keys (n_keys,); KeyError if one is not in the index."""

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return keys and scores (n_queries, k), best first, padded with -1 and −inf; `within`: only these keys."""

    def reconstruct(self, keys: Any) -> NDArray[np.float32]:
        """Return the vectors (n_keys, n_dims) under keys, in their order; KeyError if one is not in the index."""
