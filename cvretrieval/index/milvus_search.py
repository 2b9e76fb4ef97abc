"""Searching Milvus: it proposes candidates, which are ranked by their exact scores, until none can be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import NO_KEY
from cvretrieval.index.milvus_collection import LONGEST_LIST, Collection, Hits
from cvretrieval.index.ranking import Ranked, merge
from cvretrieval.index.row_index import Queries

# Queries of one call, and vectors that a call may return: messages have up to 64 MiB.
_QUERIES_PER_CALL = 64
_BYTES_PER_CALL = 2**25
# So many more candidates than wanted, so that ties at the end are seen; then so many times more.
_SPARE = 16
_GROWTH = 4
# Keys that a filter names.
_KEYS_PER_FILTER = 10_000


@dataclass(frozen=True)
class Held:
    """The keys of an index, as of one moment.

    Attributes
    ----------
    keys : ndarray of shape (n_vectors,)
        Of vectors that Milvus holds, ascending.
    zeros : ndarray of shape (n_zeros,)
        Of zero vectors, which it does not hold, ascending.
    longest : float
        No norm of a vector is larger.
    """

    keys: NDArray[np.int64]
    zeros: NDArray[np.int64]
    longest: float = 0.0

    def __len__(self) -> int:
        return len(self.keys) + len(self.zeros)

    def among(self, within: NDArray[np.int64]) -> Held:
        """Return those of some keys."""
        wanted = np.unique(within)
        keys, zeros = (np.intersect1d(own, wanted, assume_unique=True) for own in (self.keys, self.zeros))
        return Held(keys, zeros, self.longest)


@dataclass(frozen=True)
class MilvusSearch:
    """Some queries against what an index holds.

    Attributes
    ----------
    collection : Collection
    held : Held
        What may be found.
    is_filtered : bool
        Whether that is less than the index holds.
    exact : bool
        Whether the structure misses nothing.
    k : int
        At most as many as `held` has.
    queries : Queries
    """

    collection: Collection
    held: Held
    is_filtered: bool
    exact: bool
    k: int
    queries: Queries

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the queries and, where they are filtered, the keys."""
        n_queries = self.queries.rows.shape[0]
        row_bytes = self.collection.form.row_bytes(self.collection.n_dims) * (self.k + _SPARE)
        size = max(1, min(_QUERIES_PER_CALL, _BYTES_PER_CALL // row_bytes, -(-n_queries // n_jobs)))
        n_keys = len(self.held.keys)
        step = _KEYS_PER_FILTER if self.is_filtered else max(1, n_keys)
        ranges = [slice(i, min(i + step, n_keys)) for i in range(0, max(1, n_keys), step)]
        return [(slice(i, min(i + size, n_queries)), keys) for i in range(0, n_queries, size) for keys in ranges]

    def run(self, task: tuple[slice, slice]) -> Ranked:
        """Return the ranked keys and scores (n_queries, k) of a range of queries among a range of the keys."""
        queries, keys = self._queries(task[0]), self.held.keys[task[1]]
        found = self._search(queries, keys)
        if task[1].start == 0 and len(self.held.zeros) and self.collection.form.finds_zeros():
            found = merge([found, self._rank_zeros(queries, self.held.zeros)], self.k)
        return found

    def _search(self, queries: Queries, keys: NDArray[np.int64]) -> Ranked:
        n_queries = queries.rows.shape[0]
        found = np.full((n_queries, self.k), NO_KEY, dtype=np.int64)
        scores = np.full((n_queries, self.k), -np.inf, dtype=np.float32)
        pending, n = np.arange(n_queries), self.k + max(_SPARE, self.k // 4)
        if self.collection.form.metric != "l2" and queries.norms is not None:
            # Zero vectors score 0 with everything, so that there would be no end of ties.
            blank = queries.norms == 0
            found[blank], scores[blank] = self._rank_zeros(_take(queries, np.flatnonzero(blank)), keys)
            pending = np.flatnonzero(~blank)
        while len(pending):
            asked = _take(queries, pending)
            if n >= min(len(keys), LONGEST_LIST):
                found[pending], scores[pending] = self._scan(asked, keys)
                break
            hits = self._propose(asked, n, keys)
            found[pending], scores[pending] = self._rank(asked, hits, keys)
            pending = pending[~self._is_complete(asked, hits, n, scores[pending])]
            n *= _GROWTH
        return found, scores

    def _propose(self, queries: Queries, n: int, keys: NDArray[np.int64]) -> Hits:
        form = self.collection.form
        asked = form.to_milvus(queries.rows, slice(0, queries.rows.shape[0]))
        # An empty sparse vector is no query to Milvus; it finds nothing.
        empty = np.array([isinstance(query, dict) and not query for query in asked])
        if not empty.any():
            return self.collection.search(asked, n, keys if self.is_filtered else None)
        places = np.flatnonzero(~empty)
        hits = Hits([], np.empty(0), [])
        if len(places):
            hits = self.collection.search([asked[i] for i in places], n, keys if self.is_filtered else None)
        own = iter(hits.keys)
        last = np.full(len(asked), -np.inf)
        last[places] = hits.last
        return Hits([np.empty(0, dtype=np.int64) if none else next(own) for none in empty], last, hits.rows)

    def _rank(self, queries: Queries, hits: Hits, keys: NDArray[np.int64]) -> Ranked:
        """Rank the hits that are held: Milvus may hold more, such as what was just removed, or is being added."""
        proposed = np.concatenate([np.empty(0, dtype=np.int64), *hits.keys])
        own, first = np.unique(proposed, return_index=True)
        is_held = np.isin(own, keys, assume_unique=True)
        own, first = own[is_held], first[is_held]
        places = np.full((len(hits.keys), max(map(len, hits.keys), default=0)), -1, dtype=np.int64)
        for row, candidates in zip(places, hits.keys, strict=True):
            at = np.searchsorted(own, candidates)
            known = at < len(own)
            known[known] = own[at[known]] == candidates[known]
            row[: len(candidates)] = np.where(known, at, -1)
        rows = self.collection.form.from_milvus([hits.rows[i] for i in first], self.collection.n_dims)
        return self.collection.form.rank(queries, rows, own, places, self.k)

    def _is_complete(self, queries: Queries, hits: Hits, n: int, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether no other vector can be among the best of each query."""
        worst = scores[:, -1].astype(np.float64)
        if not self.exact:
            return np.asarray(worst > -np.inf)
        is_last = np.array([len(keys) < n for keys in hits.keys])
        return is_last | self.collection.form.is_certain(queries, hits.last, worst, self.held.longest)

    def _scan(self, queries: Queries, keys: NDArray[np.int64]) -> Ranked:
        """Rank all vectors under some keys, which Milvus hands out."""
        n_queries = queries.rows.shape[0]
        found = np.full((n_queries, self.k), NO_KEY, dtype=np.int64)
        parts = [(found, np.full((n_queries, self.k), -np.inf, dtype=np.float32))]
        # What another thread has removed meanwhile is gone for good.
        for own, rows in self.collection.fetch(keys, skip_missing=True):
            places = np.broadcast_to(np.arange(len(own)), (n_queries, len(own)))
            ranked = self.collection.form.rank(queries, rows, own, np.ascontiguousarray(places), self.k)
            parts = [merge([*parts, ranked], self.k)]
        return parts[0]

    def _rank_zeros(self, queries: Queries, keys: NDArray[np.int64]) -> Ranked:
        """Rank zero vectors under some keys, ascending."""
        keys = keys[: self.k]  # all score the same
        places = np.tile(np.arange(len(keys)), (queries.rows.shape[0], 1))
        rows = self.collection.form.zeros(len(keys), self.collection.n_dims)
        return self.collection.form.rank(queries, rows, keys, places, self.k)

    def _queries(self, part: slice) -> Queries:
        return _take(self.queries, np.arange(part.start, part.stop))


def _take(queries: Queries, places: NDArray[np.int64]) -> Queries:
    rows: Any = queries.rows[places]
    if isinstance(rows, np.ndarray):
        rows = np.ascontiguousarray(rows)
        rows.setflags(write=False)
    return Queries(rows, None if queries.norms is None else queries.norms[places])
