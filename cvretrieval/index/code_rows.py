"""Rows of product codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.product_codes import fill_tables, update_by_tables
from cvretrieval._kernels.top_k import NO_KEY, sort_top_k
from cvretrieval.codebooks.product_quantizer import ProductQuantizer
from cvretrieval.index.checks import check_norms, check_vectors, measure_norms, refuse_norms
from cvretrieval.index.dense_rows import METRICS
from cvretrieval.index.ranking import Ranked, row_blocks, split_work
from cvretrieval.index.row_index import Queries
from cvretrieval.index.segments import CodeSegment, RowSegment, Segments

# Codes that are compared with all queries of a pass before the next: they stay in cache.
_ROWS_PER_BLOCK = 4096
# Queries of a pass: as many as have tables of so many numbers.
_TABLE_NUMBERS = 2**20


class CodeRows:
    """Dense vectors held as codes, as `Rows` describes; without a quantizer yet, vectors can only be read."""

    segment_type: type[RowSegment] = CodeSegment

    def __init__(self, quantizer: ProductQuantizer | None) -> None:
        self._quantizer = quantizer

    @property
    def quantizer(self) -> ProductQuantizer:
        """The fitted quantizer."""
        if self._quantizer is None:
            raise ValueError("There is no quantizer before the first vectors.")
        return self._quantizer

    def n_columns(self, n_dims: int) -> int:
        """Return the number of bytes of a code."""
        return 0 if self._quantizer is None else len(self._quantizer.bounds_) - 1

    def read(self, name: str, vectors: Any, n_dims: int | None) -> NDArray[np.float32]:
        """Return checked vectors."""
        return check_vectors(name, vectors, n_dims)

    def segment(self, rows: NDArray[np.float32], keys: NDArray[np.int64], n_jobs: int | None) -> CodeSegment:
        """Return a segment of codes; ValueError if the vectors' norms are not as they should."""
        rows = without_hidden_rows(rows, keys)
        if not len(rows):
            return CodeSegment.empty(self.n_columns(rows.shape[1]))
        return CodeSegment(self.quantizer.transform(rows), keys)

    def queries(self, rows: NDArray[np.float32]) -> Queries:
        """Return queries; ValueError if their norms are not as they should."""
        return Queries(rows, check_norms("Queries", rows))

    def search(
        self, segments: Segments[CodeSegment], chosen: NDArray[np.int64] | None, metric: str, k: int, queries: Queries
    ) -> CodeScan:
        """Return the search by look-up tables."""
        quantizer, rows = self._quantizer, queries.rows
        if quantizer is None:
            nothing = np.empty((0, rows.shape[1]), dtype=np.float32)
            return CodeScan(segments, chosen, METRICS[metric], k, queries, np.zeros(1, dtype=np.int64), nothing)
        rotated = rows
        if hasattr(quantizer, "rotation_"):
            # One by one: what a query's product is must not depend on the other queries.
            rotated = np.stack([query @ quantizer.rotation_ for query in rows]) if len(rows) else rows
        return CodeScan(
            segments, chosen, METRICS[metric], k, Queries(rotated, queries.norms), quantizer.bounds_,
            quantizer.codewords_,
        )  # fmt: skip

    def vectors(self, segment: RowSegment, n_dims: int) -> NDArray[np.float32]:
        """Return the vectors that the codes stand for."""
        if not len(segment) or self._quantizer is None:
            return np.empty((0, n_dims), dtype=np.float32)
        return self._quantizer.inverse_transform(segment.vectors)


def without_hidden_rows(rows: NDArray[np.float32], keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return rows with zeros where the key is -1, for these may hold anything; refuse others that are not finite."""
    norms = measure_norms(rows)
    refuse_norms("Vectors", norms[keys >= 0], keys[keys >= 0], "key")
    if (keys >= 0).all():
        return rows
    return np.where((keys >= 0)[:, None], rows, np.float32(0))


@dataclass(frozen=True)
class CodeScan:
    """Some queries against some rows of codes.

    Attributes
    ----------
    segments : Segments
    rows : ndarray of shape (n_rows,) or None
        The rows to search, ascending; None for all.
    metric, k : int
    queries : Queries
        Rotated as the vectors were.
    bounds : ndarray of shape (n_subvectors + 1,)
    codewords : ndarray of shape (n_codewords, n_dims)
    """

    segments: Segments[CodeSegment]
    rows: NDArray[np.int64] | None
    metric: int
    k: int
    queries: Queries
    bounds: NDArray[np.int64]
    codewords: NDArray[np.float32]

    def run(self, task: tuple[slice, slice]) -> Ranked:
        """Return the ranked keys and scores (n_queries, k) of a range of queries within a range of rows."""
        queries = self.queries.rows[task[0]]
        norms = np.asarray(self.queries.norms)[task[0]]
        scores = np.full((len(queries), self.k), -np.inf, dtype=np.float32)
        keys = np.full((len(queries), self.k), NO_KEY, dtype=np.int64)
        n_subvectors, n_codewords = len(self.bounds) - 1, len(self.codewords)
        squares = self._squares()
        size = max(1, _TABLE_NUMBERS // max(1, n_subvectors * n_codewords))
        for start in range(0, len(queries), size):
            part = slice(start, min(start + size, len(queries)))
            tables = np.empty((part.stop - start, n_subvectors, n_codewords), dtype=np.float32)
            fill_tables(self.metric, queries[part], self.bounds, self.codewords, tables)
            for block in row_blocks(self.segments, self.rows, task[1], _ROWS_PER_BLOCK, _ROWS_PER_BLOCK):
                update_by_tables(
                    self.metric, tables, norms[part], squares, block.vectors, block.keys, scores[part], keys[part]
                )
        sort_top_k(scores, keys)
        return keys, scores

    def _squares(self) -> NDArray[np.float32]:
        """Return the squared norms of the codewords, (n_subvectors, n_codewords)."""
        totals = np.add.reduceat(self.codewords.astype(np.float64) ** 2, self.bounds[:-1], axis=1)
        return np.ascontiguousarray(totals.T, dtype=np.float32)

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the work for some threads."""
        n_rows = self.segments.n_rows if self.rows is None else len(self.rows)
        # A look-up takes about as long as a few multiplications.
        return split_work(len(self.queries.rows), n_rows, 8 * (len(self.bounds) - 1), n_jobs)
