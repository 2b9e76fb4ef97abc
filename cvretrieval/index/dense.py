"""Exact search by scanning every vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._validation import check_choice, check_number

_BLOCK_ROWS = 4096


class DenseIndex(BaseEstimator):
    """Exact search of dense vectors under integer keys.

    Parameters
    ----------
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        Higher scores are better; the score of ``"l2"`` is the negative squared distance.
    n_jobs : int, optional
        Threads; the number does not change the result.
    """

    def __init__(self, metric: str = "cosine", *, n_jobs: int | None = None) -> None:
        self.metric = metric
        self.n_jobs = n_jobs

    def __len__(self) -> int:
        return sum(int((keys >= 0).sum()) for keys, _ in self._parts())

    def _parts(self) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        return self.__dict__.setdefault("_segments", [])  # type: ignore[no-any-return]

    def add(self, keys: Any, vectors: Any) -> DenseIndex:
        """Add vectors of shape (n, n_dims) under int64 keys of shape (n,); a row with key -1 is never found."""
        keys = np.array(keys, dtype=np.int64)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or keys.shape != vectors.shape[:1]:
            raise ValueError(f"Got keys of shape {keys.shape} for vectors of shape {vectors.shape}.")
        live = keys[keys >= 0]
        known = np.concatenate([k for k, _ in self._parts()]) if self._parts() else live[:0]
        if len(np.unique(live)) != len(live) or np.isin(live, known).any():
            raise ValueError("Duplicate keys.")
        self._parts().append((keys, vectors))
        return self

    def remove(self, keys: Any) -> DenseIndex:
        """Remove vectors by key."""
        for own, _ in self._parts():
            own[np.isin(own, np.asarray(keys))] = -1
        return self

    def reconstruct(self, keys: Any) -> NDArray[np.float32]:
        """Return the vectors stored under keys."""
        found = []
        for key in np.asarray(keys, dtype=np.int64):
            for own, vectors in self._parts():
                rows = np.flatnonzero(own == key)
                if key >= 0 and len(rows):
                    found.append(vectors[rows[0]])
                    break
            else:
                raise KeyError(f"Not in the index: {key}.")
        return np.array(found, dtype=np.float32)

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the keys and scores of the `k` best vectors per query, best first, padded with -1 and -inf."""
        check_choice(self, "metric", self.metric, ("cosine", "inner_product", "l2"))
        check_number("search", "k", k, low=1, integer=True)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        top_keys = np.full((len(queries), k), -1, dtype=np.int64)
        top_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for keys, vectors in self._parts():
            if queries.shape[1] != vectors.shape[1]:
                raise ValueError(
                    f"Queries have {queries.shape[1]} dimensions, but the index holds {vectors.shape[1]}-d vectors."
                )
            live = keys >= 0 if within is None else (keys >= 0) & np.isin(keys, np.asarray(within))
            for start in range(0, len(keys), _BLOCK_ROWS):
                rows = start + np.flatnonzero(live[start : start + _BLOCK_ROWS])
                scores = np.hstack([top_scores, self._scores(queries, vectors[rows])])
                found = np.hstack([top_keys, np.broadcast_to(keys[rows], (len(queries), len(rows)))])
                order = np.lexsort((found, -scores), axis=1)[:, :k]
                top_scores = np.take_along_axis(scores, order, axis=1)
                top_keys = np.take_along_axis(found, order, axis=1)
        return top_keys, top_scores

    def _scores(self, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.metric == "l2":
            return -((queries[:, None] - vectors[None]) ** 2).sum(axis=2)
        products = queries @ vectors.T
        if self.metric == "cosine":
            norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None]
            products /= np.maximum(norms, 1e-12)
        return products
