"""Indexes that hold one row per vector: adding, removing and exhaustive search, whatever the rows are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_choice, check_number
from cvretrieval.index.checks import check_keys, check_new_keys, name_keys
from cvretrieval.index.index_folder import ArrayFile, IndexFolder
from cvretrieval.index.ranking import Ranked, Search, rank, searched_rows
from cvretrieval.index.segments import RowSegment, Segments
from cvretrieval.index.stored import StoredIndex, n_bytes

Self = TypeVar("Self", bound="RowIndex")


class Queries(NamedTuple):
    """Checked queries (n_queries, n_columns), and their norms where they have any."""

    rows: NDArray[Any]
    norms: NDArray[np.float64] | None = None


class Rows(Protocol):
    """What a kind of vectors means to an index."""

    segment_type: type[RowSegment]

    def n_columns(self, n_dims: int) -> int:
        """Return the number of columns that vectors of this dimension are held in."""

    def read(self, name: str, vectors: Any, n_dims: int | None) -> NDArray[Any]:
        """Return checked vectors (n_vectors, n_dims): a read-only view of the caller's where possible."""

    def segment(self, rows: NDArray[Any], keys: NDArray[np.int64], n_jobs: int | None) -> RowSegment:
        """Return a segment of what `read` returned: a copy, unless the vectors lie in a file."""

    def queries(self, rows: NDArray[Any]) -> Queries:
        """Return queries of what `read` returned."""

    def search(
        self, segments: Segments[Any], chosen: NDArray[np.int64] | None, metric: str, k: int, queries: Queries
    ) -> Search:
        """Return the exhaustive search of some rows, or all, for the best k, at most as many as can be found."""

    def vectors(self, segment: RowSegment, n_dims: int) -> NDArray[Any]:
        """Return the vectors of a segment as `read` returned them."""


class RowIndex(StoredIndex):
    """An index of rows in segments; its classes say what rows are, and by which metrics they are compared."""

    _metrics: ClassVar[tuple[str, ...]]

    metric: str
    n_jobs: int | None
    _segments: Segments[Any]

    def _start(self) -> None:
        self._segments = Segments()
        self._n_dims: int | None = None
        self._folder: IndexFolder | None = None

    @property
    def _rows(self) -> Rows:
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of vectors that can be found."""
        return self._segments.n_live

    @property
    def n_dims(self) -> int | None:
        """Dimension of the vectors; None before the first ones."""
        return self._n_dims

    def add(self: Self, keys: Any, vectors: Any) -> Self:
        """Add vectors.

        Parameters
        ----------
        keys : array-like of shape (n_vectors,)
            Integers, each 0 or more and in the index at most once. A row with key -1 is never found, whatever is in
            it; a file may hold such rows.
        vectors : array-like of shape (n_vectors, n_dims)
            Real numbers, finite in float32, with norms of at most 1e18; zero vectors are allowed. For an index of kind
            "binary" bytes, eight bits each: uint8, or whole numbers from 0 to 255.

        Returns
        -------
        self
            The index itself.

        Raises
        ------
        ValueError
            If a key is in the index (remove it first), or the vectors are not as above. Nothing is added then.
        """
        rows = self._rows.read("Vectors", vectors, self._n_dims)
        new = check_new_keys(keys, len(rows))
        self._refuse_known(new)
        segment = self._rows.segment(rows, new, self.n_jobs)
        self._take_in(self._segments.add(segment) if len(rows) else self._segments)
        self._n_dims = rows.shape[1]
        return self

    def remove(self: Self, keys: Any) -> Self:
        """Remove vectors.

        Their memory is kept until `compact`; memory-mapped files are never written to.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        self
            The index itself.

        Raises
        ------
        KeyError
            If a key is not in the index. Nothing is removed then.
        """
        rows = np.unique(self._find(keys))
        if len(rows):
            self._segments = self._segments.remove(rows)
        return self

    def compact(self: Self) -> Self:
        """Free the memory of removed vectors; of memory-mapped arrays, those without any vector left are let go."""
        self._segments = self._segments.compact()
        return self

    def reconstruct(self, keys: Any) -> NDArray[Any]:
        """Return stored vectors.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        ndarray of shape (n_keys, n_dims)
            A copy, float32 or, for an index of kind "binary", uint8, in the order of the keys.

        Raises
        ------
        KeyError
            If a key is not in the index.
        """
        rows, inverse = np.unique(self._find(keys), return_inverse=True)
        n_dims = self._n_dims or 0
        if not len(rows):
            return self._rows.vectors(self._rows.segment_type.empty(self._rows.n_columns(n_dims)), n_dims).copy()
        return self._rows.vectors(self._segments.take(rows), n_dims)[inverse]

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best vectors for each query.

        Parameters
        ----------
        queries : array-like of shape (n_queries, n_dims)
            As the vectors of `add`.
        k : int
            Length of the ranked lists; may be more than there are vectors.
        within : array-like of shape (n_keys,), optional
            Only these keys are searched; those that are not in the index make no difference.

        Returns
        -------
        keys : ndarray of shape (n_queries, k)
            int64, best first; -1 where there are no more vectors.
        scores : ndarray of shape (n_queries, k)
            float32, by `metric`; −inf where there are no more vectors.
        """
        asked = self._check_search(queries, k)
        return self._search_all(self._segments, asked, int(k), None if within is None else check_keys(within))

    def stats(self) -> dict[str, Any]:
        """Return facts.

        Returns
        -------
        dict
            ``n_vectors``; ``n_removed``, those whose memory is kept until `compact`; ``n_dims``; ``n_segments``;
            ``n_bytes`` of all arrays, in memory or on disk.
        """
        segments = self._segments
        return {
            "n_vectors": segments.n_live,
            "n_removed": segments.n_rows - segments.n_live,
            "n_dims": self._n_dims,
            "n_segments": len(segments.segments),
            "n_bytes": n_bytes(self._segment_list()),
        }

    def _take_in(self, segments: Segments[Any]) -> None:
        """Hold rows with new ones, in one step for those who search meanwhile."""
        self._segments = segments

    def _check_search(self, queries: Any, k: Any) -> Queries:
        check_choice(self, "metric", self.metric, self._metrics)
        check_number("search", "k", k, low=1, integer=True)
        # An index without vectors has no dimension that queries could miss.
        return self._rows.queries(self._rows.read("Queries", queries, self._n_dims))

    def _search_all(
        self, segments: Segments[Any], queries: Queries, k: int, within: NDArray[np.int64] | None
    ) -> Ranked:
        return self._search_rows(segments, queries, k, searched_rows(segments, within))

    def _search_rows(
        self, segments: Segments[Any], queries: Queries, k: int, chosen: NDArray[np.int64] | None
    ) -> Ranked:
        """Compare queries with some rows, ascending, or with all."""
        n_found = min(k, segments.n_live if chosen is None else len(chosen))
        search = self._rows.search(segments, chosen, self.metric, n_found, queries)
        return rank(search, len(queries.rows), k, n_found, self.n_jobs)

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {}, {"params": {"metric": self.metric}, "n_dims": self._n_dims}

    @classmethod
    def _from_facts(cls: type[Self], facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> Self:
        index = cls(**facts["params"])
        index._n_dims = facts["n_dims"]
        return index

    def _segment_list(self) -> list[Any]:
        return list(self._segments.segments)

    def _set_segments(
        self, stored: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, ArrayFile]]], facts: Mapping[str, Any]
    ) -> None:
        segments = [self._rows.segment_type.stored(arrays, files) for arrays, files in stored]
        for segment in segments:
            n_columns = segment.vectors.shape[1]
            if self._n_dims is None or n_columns != self._rows.n_columns(self._n_dims):
                raise ValueError(f"rows of {n_columns} numbers in an index of {self._n_dims}-d vectors")
        self._replace_segments(segments)

    def _replace_segments(self, segments: list[Any]) -> None:
        self._segments = Segments.of(segments)

    def _find(self, keys: Any) -> NDArray[np.int64]:
        """Return the rows of keys that must be in the index."""
        wanted = check_keys(keys)
        rows = self._segments.find(wanted)
        if (rows < 0).any():
            raise KeyError(f"Not in the index: {name_keys(np.unique(wanted[rows < 0]))}.")
        return rows

    def _refuse_known(self, keys: NDArray[np.int64]) -> None:
        live = keys[keys >= 0]
        # Keys that only grow, the usual case, need no look-up, which would be sorted anew after each addition.
        if not len(live) or live.min() > self._segments.largest_key:
            return
        known = live[self._segments.find(live) >= 0]
        if len(known):
            raise ValueError(
                f"Keys are in the index already: {name_keys(np.sort(known))}. "
                "Remove them first to replace their vectors."
            )
