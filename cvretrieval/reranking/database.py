"""What a reranker searches: arrays of image vectors, or an index that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import INNER_PRODUCT, NO_KEY, row_norms, sort_top_k, update_top_k
from cvretrieval._parallel import block_slices, map_blocks

# Shape of one matrix product: vectors and products are in cache when they are compared.
_QUERIES_PER_BLOCK = 256
_ROWS_PER_BLOCK = 512

#: Vectors that are in memory at once when all of them are gone through.
ROWS_PER_PASS = 1024

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class Database(Protocol):
    """Image vectors of norm 1 under the numbers 0, 1, …; vectors of zeros belong to images that are never found."""

    def __len__(self) -> int:
        """Return the number of vectors, those of zeros included."""

    @property
    def n_dims(self) -> int:
        """Dimension of the vectors."""

    def search(
        self, queries: NDArray[np.float32], k: int, within: NDArray[np.int64] | None = None, n_jobs: int | None = None
    ) -> Found:
        """Return indices and cosines (n_queries, k), best first, among equals the lower index; padded by -1, −inf."""

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors (n_indices, n_dims) of some images."""


class ArrayDatabase:
    """Vectors in memory.

    Parameters
    ----------
    vectors : ndarray of shape (n_images, n_dims)
        float32, C-contiguous, rows of norm 1 or 0; not copied.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = _read_only(vectors)
        self._norms = _norms(self.vectors)
        self._keys = np.where(self._norms > 0, np.arange(len(vectors)), -1)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def n_dims(self) -> int:
        return int(self.vectors.shape[1])

    def search(
        self, queries: NDArray[np.float32], k: int, within: NDArray[np.int64] | None = None, n_jobs: int | None = None
    ) -> Found:
        keys = self._keys
        if within is not None:
            allowed = np.zeros(len(keys), dtype=np.bool_)
            allowed[within] = True
            keys = np.where(allowed, keys, -1)
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        k_found = min(k, len(keys))
        blocks = block_slices(len(queries), _QUERIES_PER_BLOCK)
        parts = list(map_blocks(lambda block: self._search(queries[block], k_found, keys), blocks, n_jobs=n_jobs))
        indices = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for block, (found, values) in zip(blocks, parts, strict=True):
            indices[block, :k_found] = found
            scores[block, :k_found] = values
        return indices, scores

    def _search(self, queries: NDArray[np.float32], k: int, keys: NDArray[np.int64]) -> Found:
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        found = np.full((len(queries), k), NO_KEY, dtype=np.int64)
        norms = _norms(queries)
        queries = _read_only(queries)
        floors = np.full(len(queries), -np.inf, dtype=np.float32)
        for start in range(0, len(keys), _ROWS_PER_BLOCK):
            rows = slice(start, start + _ROWS_PER_BLOCK)
            vectors = self.vectors[rows]
            products = queries @ vectors.T
            update_top_k(
                INNER_PRODUCT, products, floors, queries, norms, vectors, self._norms[rows], keys[rows], scores, found
            )
        sort_top_k(scores, found)
        found[found == NO_KEY] = -1
        return found, scores

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.vectors[indices]


class IndexDatabase:
    """Vectors that an index holds under the keys 0, 1, …, n − 1; they stay in the index.

    Parameters
    ----------
    index : VectorIndex
        Of kind "dense", with metric "cosine"; vectors of zeros must not be in it.
    """

    def __init__(self, index: Any) -> None:
        kind = getattr(index, "kind", "dense")
        if kind != "dense":
            raise ValueError(
                f"Reranking needs an index of dense vectors such as DenseIndex. This one holds {kind} ones."
            )
        if index.metric != "cosine":
            raise ValueError(
                f"Reranking compares vectors by cosine, but the index ranks by {index.metric!r}. "
                "Use metric='cosine'; for vectors of norm 1 all metrics rank alike."
            )
        if not len(index):
            raise ValueError("The index is empty; add vectors before reranking.")
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_dims(self) -> int:
        return int(self.index.n_dims)

    def search(
        self, queries: NDArray[np.float32], k: int, within: NDArray[np.int64] | None = None, n_jobs: int | None = None
    ) -> Found:
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        found, values = self.index.search(queries, k, within=within)
        return found, values

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        try:
            return unit_rows(self.index.reconstruct(indices))
        except KeyError as error:
            raise ValueError(
                f"This reranker needs an index with the keys 0 to n − 1 for its n = {len(self.index)} vectors "
                f"({error.args[0]})"
            ) from error


def is_index(X: Any) -> bool:
    """Tell whether X is an index rather than an array of vectors."""
    return hasattr(X, "search") and hasattr(X, "reconstruct")


def passes(database: Database) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of all images, some at a time."""
    for start in range(0, len(database), ROWS_PER_PASS):
        yield np.arange(start, min(start + ROWS_PER_PASS, len(database)))


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows divided by their norms, as a copy; rows of zeros stay zero."""
    norms = _norms(vectors)
    units = np.empty_like(vectors, order="C")
    for block in block_slices(len(vectors), ROWS_PER_PASS):
        # In float64: a norm may exceed float32.
        units[block] = vectors[block] / np.where(norms[block] > 0, norms[block], 1.0)[:, None]
    return units


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.empty(len(vectors), dtype=np.float64)
    row_norms(_read_only(vectors), norms)
    return norms


def _read_only(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a read-only view: numba compiles anew for arrays that may be written to."""
    rows = np.ascontiguousarray(vectors).view()
    rows.setflags(write=False)
    return rows
