"""Exact search of dense vectors."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import BaseEstimator

from cvretrieval.index.dense_rows import METRICS, DenseRows
from cvretrieval.index.row_index import RowIndex

_DENSE_ROWS = DenseRows()


class DenseIndex(RowIndex, BaseEstimator):
    """Exact search of dense vectors: every query meets every vector.

    Parameters
    ----------
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        What is ranked by; higher is better. May be changed at any time.

        - ``"cosine"``: ⟨q, x⟩ / (‖q‖ ‖x‖), with norms of at least 1e-12: a zero vector scores 0 with everything;
        - ``"inner_product"``: ⟨q, x⟩;
        - ``"l2"``: −‖q − x‖², the negative squared distance.
    n_jobs : int, optional
        Threads over queries and, if these are few, over vectors; the number does not change a bit of the result.

    Attributes
    ----------
    n_dims : int or None
        Dimension of the vectors; None before the first ones.

    Notes
    -----
    Float32 matrix products find the candidates; whatever could be among the best k, given the largest rounding error
    that a product can have, is scored again in float64. So the score of a query and a vector depends on the two
    alone, and a result neither on the other queries, nor on `n_jobs`, BLAS, the order of the vectors, how they were
    added or what was removed before. Among equal scores the lower key comes first, at the k-th place too.

    `add` keeps a memory-mapped array (C-contiguous float32) where it is and reads it block by block; its file must
    stay unchanged. Everything else is copied. A search sees the index as it was when the search began; one thread at
    a time may change it. `save` writes all vectors to a folder, those of memory-mapped arrays as well.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import DenseIndex
    >>> index = DenseIndex(metric="l2").add([10, 20, 30], [[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    >>> keys, scores = index.search([[3.0, 4.0]], k=4)
    >>> keys
    array([[20, 30, 10, -1]])
    >>> scores
    array([[  0.,   0., -25., -inf]], dtype=float32)
    >>> index.search([[3.0, 4.0]], k=1, within=[10, 30])[0]
    array([[30]])
    """

    kind = "dense"
    exact = True

    _metrics = tuple(METRICS)
    _large_arrays: ClassVar[tuple[str, ...]] = ("vectors", "norms")

    def __init__(self, metric: str = "cosine", *, n_jobs: int | None = None) -> None:
        self.metric = metric
        self.n_jobs = n_jobs
        self._start()

    @property
    def _rows(self) -> DenseRows:
        return _DENSE_ROWS
