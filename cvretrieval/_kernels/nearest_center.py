"""Nearest centres of descriptors that lie anywhere in memory: descents of trees and small k-means.

BLAS would want the rows of every node copied together, and rounds a row differently in different company. Here a
product of a descriptor and a centre is always the same sum in the same order, whatever the batch.
"""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

_ROWS = 48


@njit(fastmath=True)
def nearest_center(rows, order, centers, half_norms, words, scores):
    """Find argmax_k ⟨c_k, x⟩ − ½‖c_k‖² = argmin_k ‖x − c_k‖² of some rows; ties to the lowest k.

    Three rows meet four centres at a time: each vector that is loaded is used several times, and twelve sums keep the
    arithmetic units busy. What is left over is filled up by repetition, so every product takes the same instructions.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    order : int (n_taken,)
        The rows that are looked at.
    centers : float32 (n_centers, n_dims)
    half_norms : float32 (n_centers,)
        ½‖c_k‖².
    words : int32 (n_rows,)
        k of each row that is looked at.  # OUT
    scores : float32 (n_rows,)
        Its ⟨c_k, x⟩ − ½‖c_k‖².  # OUT
    """
    for first in range(0, len(order), _ROWS):
        _nearest_of_block(rows, order[first : first + _ROWS], centers, half_norms, words, scores)


@njit(fastmath=True)
def _nearest_of_block(rows, order, centers, half_norms, words, scores):
    """Do `nearest_center` for rows that together fit in the first-level cache."""
    n_dims = rows.shape[1]
    last_row, last = len(order) - 1, len(centers) - 1
    for i in range(len(order)):
        words[order[i]] = 0
        scores[order[i]] = -np.inf
    for k in range(0, len(centers), 4):
        k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
        c0, c1, c2, c3 = centers[k], centers[k1], centers[k2], centers[k3]
        for i in range(0, len(order), 3):
            i0, i1, i2 = order[i], order[min(i + 1, last_row)], order[min(i + 2, last_row)]
            x0, x1, x2 = rows[i0], rows[i1], rows[i2]
            a0 = a1 = a2 = a3 = np.float32(0.0)
            b0 = b1 = b2 = b3 = np.float32(0.0)
            d0 = d1 = d2 = d3 = np.float32(0.0)
            for d in range(n_dims):
                x, y, z = x0[d], x1[d], x2[d]
                w = c0[d]
                a0 += x * w
                b0 += y * w
                d0 += z * w
                w = c1[d]
                a1 += x * w
                b1 += y * w
                d1 += z * w
                w = c2[d]
                a2 += x * w
                b2 += y * w
                d2 += z * w
                w = c3[d]
                a3 += x * w
                b3 += y * w
                d3 += z * w
            h0, h1, h2, h3 = half_norms[k], half_norms[k1], half_norms[k2], half_norms[k3]
            _keep_best(i0, k, a0 - h0, a1 - h1, a2 - h2, a3 - h3, words, scores)
            _keep_best(i1, k, b0 - h0, b1 - h1, b2 - h2, b3 - h3, words, scores)
            _keep_best(i2, k, d0 - h0, d1 - h1, d2 - h2, d3 - h3, words, scores)


@njit(inline=True)
def _keep_best(i, k, s0, s1, s2, s3, words, scores):
    """Let row i have the best of centres k, k + 1, k + 2 and k + 3, if it beats the best so far; ties to the first."""
    best, word = scores[i], words[i]
    word = np.int32(k) if s0 > best else word
    best = s0 if s0 > best else best
    word = np.int32(k + 1) if s1 > best else word
    best = s1 if s1 > best else best
    word = np.int32(k + 2) if s2 > best else word
    best = s2 if s2 > best else best
    word = np.int32(k + 3) if s3 > best else word
    best = s3 if s3 > best else best
    scores[i], words[i] = best, word


@njit(fastmath=True)
def nearest_children(rows, order, bounds, groups, children, centers, half_norms, nodes, scores):
    """Go down one level of a tree: replace the node of each row by its nearest child.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    order : int (n_taken,)
        Rows that go down, those of one node together.
    bounds : int (n_groups + 1,)
        Group g is ``order[bounds[g]:bounds[g + 1]]``.
    groups : int (n_groups,)
        Its node.
    children : int (n_nodes, 2)
        The children of a node are ``children[node, 0]`` up to, but not including, ``children[node, 1]``.
    centers, half_norms : float32 (n_nodes, n_dims), float32 (n_nodes,)
        c and ½‖c‖² of every node.
    nodes : int32 (n_rows,)
        # OUT
    scores : float32 (n_rows,)
        ⟨c, x⟩ − ½‖c‖² of that child.  # OUT
    """
    for g in range(len(groups)):
        first, stop = children[groups[g], 0], children[groups[g], 1]
        members = order[bounds[g] : bounds[g + 1]]
        nearest_center(rows, members, centers[first:stop], half_norms[first:stop], nodes, scores)
        for i in range(len(members)):
            nodes[members[i]] += np.int32(first)


@njit(fastmath=True)
def distinct_rows(rows, n_wanted, chosen):
    """Choose the first rows of which none equals another; return how many there are, at most `n_wanted`.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    n_wanted : int
    chosen : int64 (at least n_wanted,)
        # OUT
    """
    n_chosen = 0
    for i in range(len(rows)):
        is_new = True
        for j in range(n_chosen):
            d = 0
            while d < rows.shape[1] and rows[i, d] == rows[chosen[j], d]:
                d += 1
            if d == rows.shape[1]:
                is_new = False
                break
        if is_new:
            chosen[n_chosen] = i
            n_chosen += 1
            if n_chosen == n_wanted:
                break
    return n_chosen


@njit(fastmath=True)
def center_means(rows, words, sums, counts, centers):
    """Set c_k to the mean of its rows; one without rows keeps its place.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    words : int32 (n_rows,)
    sums : float64 (n_centers, n_dims)
        Scratch.  # OUT
    counts : int64 (n_centers,)
        Rows of each centre.  # OUT
    centers : float32 (n_centers, n_dims)
        # OUT
    """
    sums[:] = 0.0
    counts[:] = 0
    for i in range(len(rows)):
        counts[words[i]] += 1
        total, row = sums[words[i]], rows[i]
        for d in range(len(row)):
            total[d] += row[d]
    for k in range(len(centers)):
        if counts[k]:
            for d in range(centers.shape[1]):
                centers[k, d] = sums[k, d] / counts[k]


@njit(fastmath=True)
def sum_of_squares(rows, centers, words):
    """Return Σ_i ‖x_i − c_k(i)‖², each distance in float32, the sum in float64.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    centers : float32 (n_centers, n_dims)
    words : int32 (n_rows,)
    """
    total = 0.0
    for i in range(len(rows)):
        row, center = rows[i], centers[words[i]]
        square = np.float32(0.0)
        for d in range(len(row)):
            difference = row[d] - center[d]
            square += difference * difference
        total += square
    return total


@njit(fastmath=True)
def move_empty_centers(rows, scores, counts, centers):
    """Put each centre without rows on the row that is farthest from its own: argmax ‖x‖² − 2 (⟨c, x⟩ − ½‖c‖²).

    A row takes in one centre at most, and none whose distance is zero.

    Parameters
    ----------
    rows, scores, counts
        As `nearest_center` and `center_means` leave them.
    centers : float32 (n_centers, n_dims)
        # OUT

    Returns
    -------
    int
        How many were moved.
    """
    n_moved = 0
    distances = np.empty(0, dtype=np.float32)
    for k in range(len(centers)):
        if counts[k]:
            continue
        if not len(distances):
            distances = np.empty(len(rows), dtype=np.float32)
            for i in range(len(rows)):
                square = np.float32(0.0)
                for d in range(rows.shape[1]):
                    square += rows[i, d] * rows[i, d]
                distances[i] = square - np.float32(2.0) * scores[i]
        far = np.argmax(distances)
        if distances[far] <= 0:
            break
        centers[k] = rows[far]
        distances[far] = 0
        n_moved += 1
    return n_moved
