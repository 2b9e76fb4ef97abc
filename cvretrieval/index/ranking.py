"""What exhaustive searches share: tasks for threads, blocks of rows, and ranked lists that are merged."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import NO_KEY
from cvretrieval._parallel import effective_n_jobs, map_blocks
from cvretrieval.index.segments import S, Segments

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]

# Below this many queries a search is limited by reading the rows, so a task gets more queries or fewer rows.
_QUERIES_PER_TASK = 32
_ROWS_PER_TASK = 512
# Multiplications that take about as long as starting threads.
_PRODUCTS_PER_TASK = 2**24


class Search(Protocol):
    """Some queries against some rows, in parts."""

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Return ranges of queries and of rows, ordered by queries."""

    def run(self, task: tuple[slice, slice]) -> Ranked:
        """Return keys and scores (n_queries, k) of one task, best first; padded with `NO_KEY` and −inf."""


def rank(search: Search, n_queries: int, k: int, n_found: int, n_jobs: int | None) -> Ranked:
    """Run all tasks of a search; return keys and scores (n_queries, k), padded with -1 and −inf.

    `n_found` is the length of the lists that the tasks return, at most `k`.
    """
    keys, scores = no_results(n_queries, k)
    if n_found == 0 or n_queries == 0:
        return keys, scores
    tasks = search.tasks(effective_n_jobs(n_jobs))
    parts: dict[int, list[Ranked]] = {}
    for task, part in zip(tasks, map_blocks(search.run, tasks, n_jobs=n_jobs if len(tasks) > 1 else 1), strict=True):
        parts.setdefault(task[0].start, []).append(part)
    for start, ranked in parts.items():
        found, values = merge(ranked, n_found)
        keys[start : start + len(found), :n_found] = found
        scores[start : start + len(found), :n_found] = values
    keys[keys == NO_KEY] = -1
    return keys, scores


def no_results(n_queries: int, k: int) -> Ranked:
    """Return lists in which nothing was found."""
    shape = (n_queries, k)
    return np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)


def merge(parts: list[Ranked], k: int) -> Ranked:
    """Merge the ranked lists of the same queries within different rows."""
    if len(parts) == 1:
        return parts[0]
    keys = np.concatenate([part[0] for part in parts], axis=1)
    scores = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(scores, order, axis=1)


def split_work(n_queries: int, n_rows: int, n_products: int, n_jobs: int) -> list[tuple[slice, slice]]:
    """Cut queries and rows, with `n_products` multiplications for each pair, into tasks for some threads."""
    n_tasks = min(n_jobs, n_queries * n_rows * n_products // _PRODUCTS_PER_TASK)
    n_parts = max(1, min(n_tasks, n_queries // _QUERIES_PER_TASK))
    n_ranges = max(1, min(-(-n_tasks // n_parts), n_rows // _ROWS_PER_TASK))
    return [(q, r) for q in _even_slices(n_queries, n_parts) for r in _even_slices(n_rows, n_ranges)]


def row_blocks(
    segments: Segments[S], chosen: NDArray[np.int64] | None, rows: slice, first_size: int, size: int
) -> Iterator[S]:
    """Yield a range of all rows, or of the chosen ones, block by block: views where rows lie together."""
    start = rows.start
    while start < rows.stop:
        stop = min(start + (first_size if start == rows.start else size), rows.stop)
        yield segments.between(start, stop) if chosen is None else segments.take(chosen[start:stop])
        start = stop


def distinct(rows: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Return the distinct rows that are not negative, ascending."""
    mask = np.zeros(n_rows, dtype=np.bool_)
    mask[rows[rows >= 0]] = True
    return np.flatnonzero(mask)


def searched_rows(segments: Segments[Any], within: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return the rows that a search has to look at, ascending; None for all of them."""
    if within is not None:
        return distinct(segments.find(within), segments.n_rows)
    if segments.n_live < segments.n_rows // 2:
        # Most rows were removed: gathering the others is cheaper than products that nobody needs.
        return distinct(segments.lookup[1], segments.n_rows)
    return None


def _even_slices(n_items: int, n_parts: int) -> list[slice]:
    bounds = [n_items * part // n_parts for part in range(n_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
