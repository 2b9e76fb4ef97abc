"""Exhaustive Hamming search: distances of 64 bits at a time, and the nearest rows by counting."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.hamming import count_ones

#: Rows compared with one query before the next: they stay in the first-level cache.
_CHUNK = 1024


@njit
def row_distances(query, rows, distances):
    """distances[j] = number of bits in which the query and row j differ.

    Parameters
    ----------
    query : uint64 (n_words,)
    rows : uint64 (n_rows, n_words)
    distances : int32 (n_rows,)
        # OUT
    """
    n_rows, n_words = rows.shape
    # Without a loop over the words the compiler interleaves rows; 64, 128, 256 and 512 bits are what descriptors have.
    if n_words == 1:
        a = query[0]
        for j in range(n_rows):
            distances[j] = count_ones(a ^ rows[j, 0])
    elif n_words == 2:
        a, b = query[0], query[1]
        for j in range(n_rows):
            distances[j] = count_ones(a ^ rows[j, 0]) + count_ones(b ^ rows[j, 1])
    elif n_words == 4:
        a, b, c, d = query[0], query[1], query[2], query[3]
        for j in range(n_rows):
            distances[j] = (count_ones(a ^ rows[j, 0]) + count_ones(b ^ rows[j, 1])) + (
                count_ones(c ^ rows[j, 2]) + count_ones(d ^ rows[j, 3])
            )
    else:
        for j in range(n_rows):
            total = np.uint64(0)
            for w in range(n_words):
                total += count_ones(query[w] ^ rows[j, w])
            distances[j] = total


@njit
def update_nearest(queries, rows, keys, k, bounds, totals, counts, sizes, distances, found):
    """Offer rows to the k nearest of some queries: those that are nearer than at least k others are kept.

    With c(d) the number of kept rows at distance d, the bound of a query is the least D with Σ_{d ≤ D} c(d) ≥ k; no row
    beyond it can be among the k nearest. Kept rows are collected in a list that holds more than k; when it is full,
    those beyond the bound leave it, and of those at the bound the ones with the highest keys.

    Parameters
    ----------
    queries : uint64 (n_queries, n_words)
    rows : uint64 (n_rows, n_words)
    keys : int64 (n_rows,)
        Negative for rows that must not be found.
    k : int
    bounds : int64 (n_queries,)
        At first 64 n_words.  # OUT
    totals : int64 (n_queries,)
        Kept rows within the bound, at first 0.  # OUT
    counts : int64 (n_queries, 64 n_words + 1)
        c, at first 0; only up to the bound.  # OUT
    sizes : int64 (n_queries,)
        Lengths of the lists, at first 0.  # OUT
    distances : int32 (n_queries, n_places)
    found : int64 (n_queries, n_places)
        The lists: distances and keys; n_places > k.  # OUT
    """
    n_rows = len(rows)
    n_places = distances.shape[1]
    scratch = np.empty(_CHUNK, dtype=np.int32)
    for first in range(0, n_rows, _CHUNK):
        last = min(first + _CHUNK, n_rows)
        n_here = last - first
        for i in range(len(queries)):
            row_distances(queries[i], rows[first:last], scratch[:n_here])
            if not _any_at_most(scratch[:n_here], bounds[i]):
                continue
            bound, total, size = bounds[i], totals[i], sizes[i]
            for j in range(n_here):
                d = np.int64(scratch[j])
                if d > bound or keys[first + j] < 0:
                    continue
                if size == n_places:
                    size = keep_nearest(k, bound, distances[i], found[i], size)
                    counts[i, bound] -= total - min(total, k)
                    total = min(total, k)
                distances[i, size], found[i, size] = d, keys[first + j]
                size += 1
                counts[i, d] += 1
                total += 1
                while total - counts[i, bound] >= k:
                    total -= counts[i, bound]
                    bound -= 1
            bounds[i], totals[i], sizes[i] = bound, total, size


@njit
def _any_at_most(distances, bound):
    """Tell whether any distance is the bound or less; counting vectorises, stopping at the first would not."""
    n_found = np.int32(0)
    limit = np.int32(bound)
    for j in range(distances.size):
        n_found = np.int32(n_found + np.int32(1)) if distances[j] <= limit else n_found
    return n_found > 0


@njit
def keep_nearest(k, bound, distances, found, size):
    """Drop entries beyond the bound, and at it those with the highest keys, so that at most k stay; return how many.

    Parameters
    ----------
    k, bound : int
        Fewer than k entries are nearer than the bound.
    distances : int32 (n_places,)
    found : int64 (n_places,)
        The first `size` entries of a list.  # OUT
    size : int
    """
    n_nearer, n_at = 0, 0
    for p in range(size):
        n_nearer += 1 if distances[p] < bound else 0
        n_at += 1 if distances[p] == bound else 0
    largest = np.iinfo(np.int64).max
    if n_nearer + n_at > k:
        ties = np.empty(n_at, dtype=np.int64)
        n_at = 0
        for p in range(size):
            if distances[p] == bound:
                ties[n_at] = found[p]
                n_at += 1
        ties.sort()
        largest = ties[k - n_nearer - 1]
    n_kept = 0
    for p in range(size):
        if distances[p] < bound or (distances[p] == bound and found[p] <= largest):
            distances[n_kept], found[n_kept] = distances[p], found[p]
            n_kept += 1
    return n_kept


@njit
def sort_nearest(k, bounds, sizes, distances, found, top_scores, top_keys):
    """Write the ranked lists: scores −d, the nearest first, among equal ones the lower key.

    Parameters
    ----------
    k : int
    bounds, sizes, distances, found
        As `update_nearest` left them.
    top_scores : float32 (n_queries, k)
    top_keys : int64 (n_queries, k)
        Left as they are behind the end of a list.  # OUT
    """
    for i in range(len(sizes)):
        n_kept = keep_nearest(k, bounds[i], distances[i], found[i], sizes[i])
        keys = found[i, :n_kept]
        by_key = np.argsort(keys)
        order = by_key[np.argsort(distances[i, :n_kept][by_key], kind="mergesort")]
        for place in range(n_kept):
            top_scores[i, place] = np.float32(-distances[i, order[place]])
            top_keys[i, place] = keys[order[place]]
