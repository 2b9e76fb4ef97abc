"""Rows of bits, 64 a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.hamming_search import sort_nearest, update_nearest
from cvretrieval._kernels.top_k import NO_KEY
from cvretrieval.index.checks import check_bytes, is_mapped
from cvretrieval.index.ranking import Ranked, row_blocks, split_work
from cvretrieval.index.row_index import Queries
from cvretrieval.index.segments import BinarySegment, RowSegment, Segments

_BYTES = 8
# Queries that share one pass over the rows, if there are so many; fewer where their lists take more than this.
_QUERIES_PER_PASS = 256
_LIST_ENTRIES = 2**22
# Places in a list beyond k: more make for fewer selections.
_SPARE = 1024
# Rows that are gathered at a time, where some are left out.
_ROWS_PER_BLOCK = 65_536


class BinaryRows:
    """Binary vectors, as `Rows` describes."""

    segment_type: type[RowSegment] = BinarySegment

    def n_columns(self, n_dims: int) -> int:
        """Return the number of words that so many bytes take."""
        return -(-n_dims // _BYTES)

    def read(self, name: str, vectors: Any, n_dims: int | None) -> NDArray[np.uint8]:
        """Return checked bytes."""
        return check_bytes(name, vectors, n_dims)

    def segment(self, rows: NDArray[np.uint8], keys: NDArray[np.int64], n_jobs: int | None) -> BinarySegment:
        """Return a segment of words; those in a file stay there if they fill words."""
        if is_mapped(rows) and rows.shape[1] % _BYTES == 0 and rows.ctypes.data % _BYTES == 0:
            return BinarySegment(rows.view(np.uint64), keys, True)
        return BinarySegment(_words(rows), keys)

    def queries(self, rows: NDArray[np.uint8]) -> Queries:
        """Return queries in words."""
        return Queries(_words(rows))

    def search(
        self, segments: Segments[BinarySegment], chosen: NDArray[np.int64] | None, metric: str, k: int, queries: Queries
    ) -> BinaryScan:
        """Return the search by Hamming distances."""
        return BinaryScan(segments, chosen, k, queries.rows)

    def vectors(self, segment: RowSegment, n_dims: int) -> NDArray[np.uint8]:
        """Return the bytes."""
        return np.ascontiguousarray(segment.vectors).view(np.uint8)[:, :n_dims]


def _words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    # Bytes keep their order in memory, so that words in a file can be read where they are, on any machine.
    padded = np.zeros((len(rows), _BYTES * -(-rows.shape[1] // _BYTES)), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view(np.uint64)


@dataclass(frozen=True)
class BinaryScan:
    """Some queries against some rows.

    Attributes
    ----------
    segments : Segments
    rows : ndarray of shape (n_rows,) or None
        The rows to search, ascending; None for all.
    k : int
    queries : ndarray of shape (n_queries, n_words)
    """

    segments: Segments[BinarySegment]
    rows: NDArray[np.int64] | None
    k: int
    queries: NDArray[np.uint64]

    def run(self, task: tuple[slice, slice]) -> Ranked:
        """Return the ranked keys and scores (n_queries, k) of a range of queries within a range of rows."""
        n_queries = task[0].stop - task[0].start
        scores = np.full((n_queries, self.k), -np.inf, dtype=np.float32)
        keys = np.full((n_queries, self.k), NO_KEY, dtype=np.int64)
        n_places = self.k + max(_SPARE, self.k // 2)
        size = max(1, min(_QUERIES_PER_PASS, _LIST_ENTRIES // n_places))
        for start in range(0, n_queries, size):
            part = slice(start, min(start + size, n_queries))
            self._run(self.queries[task[0]][part], task[1], n_places, scores[part], keys[part])
        return keys, scores

    def _run(
        self,
        queries: NDArray[np.uint64],
        rows: slice,
        n_places: int,
        scores: NDArray[np.float32],
        keys: NDArray[np.int64],
    ) -> None:
        n_queries, n_bits = len(queries), 64 * queries.shape[1]
        bounds = np.full(n_queries, n_bits, dtype=np.int64)
        totals, sizes = np.zeros(n_queries, dtype=np.int64), np.zeros(n_queries, dtype=np.int64)
        counts = np.zeros((n_queries, n_bits + 1), dtype=np.int64)
        distances = np.empty((n_queries, n_places), dtype=np.int32)
        found = np.empty((n_queries, n_places), dtype=np.int64)
        for block in row_blocks(self.segments, self.rows, rows, _ROWS_PER_BLOCK, _ROWS_PER_BLOCK):
            update_nearest(queries, block.vectors, block.keys, self.k, bounds, totals, counts, sizes, distances, found)
        sort_nearest(self.k, bounds, sizes, distances, found, scores, keys)

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the work for some threads."""
        n_rows = self.segments.n_rows if self.rows is None else len(self.rows)
        # Comparing 64 bits takes about as long as a few multiplications.
        return split_work(len(self.queries), n_rows, 4 * self.queries.shape[1], n_jobs)
