"""Approximate search: candidates of a structure, ranked by their exact scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.rescoring import rank_binary_candidates, rank_candidates
from cvretrieval._kernels.top_k import COSINE, INNER_PRODUCT, NO_KEY, sort_top_k
from cvretrieval.index.dense_rows import METRICS
from cvretrieval.index.faiss_structure import Effort, Structure, prepared
from cvretrieval.index.ranking import Ranked
from cvretrieval.index.row_index import Queries
from cvretrieval.index.segments import Segments

# Queries whose candidates are gathered together.
_QUERIES_PER_BLOCK = 64
# Exact structures propose so many more than wanted, so that ties at the end are seen.
_SPARE = 16


@dataclass(frozen=True)
class CandidateSearch:
    """Some queries against a structure.

    Attributes
    ----------
    segments : Segments
    structure : Structure
    effort : Effort
    mask : ndarray of shape (n_held,) or None
        Which vectors of the structure may be found.
    k : int
    queries : Queries
    longest : float
        No norm of a vector is larger.
    """

    segments: Segments[Any]
    structure: Structure
    effort: Effort
    mask: NDArray[np.bool_] | None
    k: int
    queries: Queries
    longest: float = np.inf

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the queries."""
        n_queries = len(self.queries.rows)
        size = max(1, min(_QUERIES_PER_BLOCK, -(-n_queries // n_jobs)))
        return [(slice(i, min(i + size, n_queries)), slice(0, 0)) for i in range(0, n_queries, size)]

    def run(self, task: tuple[slice, slice]) -> Ranked:
        """Return the ranked keys and scores (n_queries, k) of a range of queries.

        The first key is `NO_KEY` where an exact structure may have missed one: its candidates say nothing of vectors
        that are as good as the last of them.
        """
        norms = self.queries.norms
        queries = Queries(self.queries.rows[task[0]], None if norms is None else norms[task[0]])
        n = self.k * self.effort.factor
        if self.structure.name == "flat":
            n += max(_SPARE, n // 4)
        rows, values = self.structure.propose(prepared(self.structure.metric, queries), n, self.effort, self.mask)
        scores = np.full((len(rows), self.k), -np.inf, dtype=np.float32)
        keys = np.full((len(rows), self.k), NO_KEY, dtype=np.int64)
        wanted = np.unique(rows[rows >= 0])
        if len(wanted):
            self._rank(queries, wanted, np.where(rows >= 0, np.searchsorted(wanted, rows), -1), scores, keys)
            if self.structure.name == "flat" and n < len(self.structure.rows):
                keys[~self._is_complete(queries, values, scores)] = NO_KEY
        return keys, scores

    def _rank(
        self,
        queries: Queries,
        wanted: NDArray[np.int64],
        places: NDArray[np.int64],
        scores: NDArray[np.float32],
        keys: NDArray[np.int64],
    ) -> None:
        segment = self.segments.take(wanted)
        if self.structure.metric == "hamming":
            rank_binary_candidates(queries.rows, segment.vectors, segment.keys, places, scores, keys)
        else:
            metric = METRICS[self.structure.metric]
            rank_candidates(
                metric, queries.rows, queries.norms, segment.vectors, segment.norms, segment.keys, places, scores, keys
            )
        sort_top_k(scores, keys)

    def _is_complete(self, queries: Queries, values: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell for which queries the worst candidate is surely worse than the last vector wanted."""
        last, worst = scores[:, -1].astype(np.float64), values[:, -1].astype(np.float64)
        if self.structure.metric == "hamming":
            return np.asarray(-worst < last)
        # The bound of `update_top_k` on float32 sums, which those of faiss are as well.
        lengths = np.asarray(queries.norms)
        bound = (1.1 * queries.rows.shape[1] + 16) * 2.0**-24
        metric = METRICS[self.structure.metric]
        if metric == INNER_PRODUCT:
            return np.asarray(worst + 4 * bound * lengths * self.longest < last)
        if metric == COSINE:
            return np.asarray(worst + 16 * bound < last)
        return np.asarray(worst - 4 * bound * (lengths + self.longest) ** 2 > -last)
