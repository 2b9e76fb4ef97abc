"""Exact search of dense vectors: the matrix product of queries and rows in blocks, and a running top-k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import (
    COSINE,
    L2,
    NO_KEY,
    SMALLEST_NORM,
    inner_products,
    sort_top_k,
    update_top_k,
)
from cvretrieval.index.ranking import row_blocks, split_work
from cvretrieval.index.segments import Segment, Segments

#: Shape of one matrix product: large enough for the rate of BLAS, small enough that vectors and products are in cache
#: when they are compared.
QUERIES_PER_BLOCK = 512
ROWS_PER_BLOCK = 512

# Up to this many queries, BLAS takes longer to copy the vectors into its own layout than to multiply.
_FEW_QUERIES = 8
# Rows per block for few queries: as many products as in a full block, within the bound of a task's memory.
_MOST_ROWS = 4096
_MOST_FIRST_ROWS = 8192
_BLOCK_BYTES = 2_000_000


@dataclass(frozen=True)
class Scan:
    """Everything a task needs, and its own part: some queries against some rows.

    Attributes
    ----------
    segments : Segments
    rows : ndarray of shape (n_rows,) or None
        The rows to search, ascending; None for all.
    metric, k : int
    queries : ndarray of shape (n_queries, n_dims)
    norms : ndarray of shape (n_queries,)
    """

    segments: Segments[Segment]
    rows: NDArray[np.int64] | None
    metric: int
    k: int
    queries: NDArray[np.float32]
    norms: NDArray[np.float64]

    @property
    def n_rows(self) -> int:
        """Number of rows to search."""
        return self.segments.n_rows if self.rows is None else len(self.rows)

    def run(self, task: tuple[slice, slice]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ranked keys and scores (n_queries, k) of a range of queries within a range of rows."""
        queries, norms = self.queries[task[0]], self.norms[task[0]]
        scores = np.full((len(queries), self.k), -np.inf, dtype=np.float32)
        keys = np.full((len(queries), self.k), NO_KEY, dtype=np.int64)
        n_queries = min(len(queries), QUERIES_PER_BLOCK)
        sizes = self._rows_per_block(n_queries)
        scratch = np.empty(n_queries * min(max(sizes), task[1].stop - task[1].start), dtype=np.float32)
        # Rows that must not be found may hold anything, infinity included.
        with np.errstate(all="ignore"):
            for number, block in enumerate(row_blocks(self.segments, self.rows, task[1], *sizes)):
                for start in range(0, len(queries), QUERIES_PER_BLOCK):
                    part = slice(start, min(start + QUERIES_PER_BLOCK, len(queries)))
                    shape = (part.stop - part.start, len(block))
                    products = scratch[: shape[0] * shape[1]].reshape(shape)
                    if len(products) <= _FEW_QUERIES:
                        inner_products(queries[part], block.vectors, products)
                    else:
                        np.matmul(queries[part], block.vectors.T, out=products)
                    floors = reached_values(self.metric, products, block, self.k if number == 0 else 0)
                    update_top_k(
                        self.metric, products, floors, queries[part], norms[part], block.vectors, block.norms,
                        block.keys, scores[part], keys[part],
                    )  # fmt: skip
        sort_top_k(scores, keys)
        return keys, scores

    def _rows_per_block(self, n_queries: int) -> tuple[int, int]:
        """Return the number of rows of the first block and of the others."""
        n_dims = self.queries.shape[1]
        most = max(ROWS_PER_BLOCK, min(_MOST_ROWS, QUERIES_PER_BLOCK * ROWS_PER_BLOCK // n_queries))
        usual = max(64, min(most, _BLOCK_BYTES // (4 * n_dims)))
        # The k-th best of a larger first block leaves fewer of the next vectors to be scored.
        return max(usual, min(16 * self.k, _MOST_FIRST_ROWS, 4 * _BLOCK_BYTES // (4 * n_dims))), usual

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the work for some threads: queries first, so that each reads the rows once; then rows."""
        return split_work(len(self.queries), self.n_rows, self.queries.shape[1], n_jobs)


def reached_values(metric: int, products: NDArray[np.float32], block: Segment, k: int) -> NDArray[np.float32]:
    """Return the floors of `update_top_k`: the k-th best value of each query in a block much larger than k."""
    is_live = block.keys >= 0
    n_live = int(np.count_nonzero(is_live))
    if k == 0 or n_live < 2 * k:
        return np.full(len(products), -np.inf, dtype=np.float32)
    if metric == COSINE:
        products = products * (1.0 / np.maximum(block.norms, SMALLEST_NORM)).astype(np.float32)
    elif metric == L2:
        products = products - (0.5 * block.norms**2).astype(np.float32)
    if n_live < len(block):
        products = products[:, is_live]
    return np.partition(products, n_live - k, axis=1)[:, n_live - k]
