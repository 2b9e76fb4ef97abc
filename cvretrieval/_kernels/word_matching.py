"""Matching restricted to descriptors of the same visual words: products of small groups of rows."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

#: Rows of the second image that are compared with the members of a word at a time: the values stay in cache.
ROWS = 48


@njit
def group_by_word(words, order, bounds):
    """Sort rows by word, those of one word in their order: word w has rows ``order[bounds[w]:bounds[w + 1]]``.

    Parameters
    ----------
    words : int32 (n_rows,)
    order : int32 (n_rows,)
        # OUT
    bounds : int64 (n_words + 1,)
        # OUT
    """
    bounds[:] = 0
    for word in words:
        bounds[word + 1] += 1
    for w in range(1, len(bounds)):
        bounds[w] += bounds[w - 1]
    for i in range(len(words)):
        word = words[i]
        order[bounds[word]] = i
        bounds[word] += 1
    for w in range(len(bounds) - 1, 0, -1):
        bounds[w] = bounds[w - 1]
    bounds[0] = 0


@njit(fastmath=True)
def unpack_rows(descriptors, step, rows, keys, half_norms):
    """Convert every row x to float32, copy every so-manieth of its components, and compute ½‖x‖².

    Parameters
    ----------
    descriptors : float32 or uint8 (n_rows, n_dims)
    step : int
    rows : float32 (n_rows, n_dims)
        # OUT
    keys : float32 (n_rows, ceil(n_dims / step))
        Components 0, step, 2 · step, …  # OUT
    half_norms : float32 (n_rows,)
        # OUT
    """
    n_dims = descriptors.shape[1]
    for i in range(len(descriptors)):
        source, row, key = descriptors[i], rows[i], keys[i]
        square = np.float32(0.0)
        for d in range(n_dims):
            x = np.float32(source[d])
            row[d] = x
            square += x * x
        half_norms[i] = np.float32(0.5) * square
        for k in range(len(key)):
            key[k] = row[k * step]


@njit
def match_within_words(
    a, half_a, members, starts, b, half_b, order, bounds, values, best, second, nearest, best_of_b
):  # fmt: skip
    """Find the nearest and second nearest b of every a, and the nearest a of every b, among those that share a word.

    Values are v_ij = ⟨b_j, a_i⟩ − ½‖a_i‖² − ½‖b_j‖² = −½‖a_i − b_j‖²: the largest is the nearest, ties go to the
    lowest j. Every b has one word and every a any number of them, so no pair is compared twice.

    Parameters
    ----------
    a, b : float32 (n_a, n_dims), (n_b, n_dims)
    half_a, half_b : float32 (n_a,), (n_b,)
        ½‖a_i‖², ½‖b_j‖².
    members : int32 (n_members,)
        The a of word w are ``members[starts[w]:starts[w + 1]]``.
    starts : int64 (n_words + 1,)
    order : int32 (n_b,)
        The b of word w are ``order[bounds[w]:bounds[w + 1]]``, ascending.
    bounds : int64 (n_words + 1,)
    values : float32 (48, at least the members of any word)
        Scratch.  # OUT
    best, second : float32 (n_a,)
        Largest and second largest v_ij over the j that share a word with i; −inf where there is none.  # OUT
    nearest : int32 (n_a,)
        The j of the largest; 0 where there is none.  # OUT
    best_of_b : float32 (n_b,)
        Largest v_ij over i; −inf where there is none.  # OUT
    """
    best[:] = -np.inf
    second[:] = -np.inf
    nearest[:] = 0
    best_of_b[:] = -np.inf
    n_members = 0
    for w in range(len(bounds) - 1):
        n_members = max(n_members, starts[w + 1] - starts[w])
    # Of the members of one word: values, and numbers of the b.
    top = np.empty(n_members, dtype=np.float32)
    runner_up = np.empty(n_members, dtype=np.float32)
    at = np.empty(n_members, dtype=np.int32)
    for w in range(len(bounds) - 1):
        own = members[starts[w] : starts[w + 1]]
        if len(own) == 0 or bounds[w] == bounds[w + 1]:
            continue
        top[:] = -np.inf
        runner_up[:] = -np.inf
        for first in range(bounds[w], bounds[w + 1], ROWS):
            rows = order[first : min(first + ROWS, bounds[w + 1])]
            _products(a, half_a, own, b, half_b, rows, values, best_of_b)
            _keep_nearest(values, rows, top[: len(own)], runner_up[: len(own)], at[: len(own)])
        for m in range(len(own)):
            i = own[m]
            if top[m] > best[i] or (top[m] == best[i] and at[m] < nearest[i] and best[i] > -np.inf):
                second[i] = max(best[i], runner_up[m])
                best[i] = top[m]
                nearest[i] = at[m]
            elif top[m] > second[i]:
                second[i] = top[m]


@njit(fastmath=True)
def _products(a, half_a, own, b, half_b, rows, values, best_of_b):
    """Write v of some rows and members; keep the largest of every row.

    Three rows meet three members at a time: each vector that is loaded is used three times. What is left over is
    filled up by repetition, so every product is the same sum in the same order, whatever stands beside it.
    """
    n_dims = a.shape[1]
    last_row, last = len(rows) - 1, len(own) - 1
    for r0 in range(0, len(rows), 3):
        r1, r2 = min(r0 + 1, last_row), min(r0 + 2, last_row)
        j0, j1, j2 = rows[r0], rows[r1], rows[r2]
        y0, y1, y2 = b[j0], b[j1], b[j2]
        g0, g1, g2 = half_b[j0], half_b[j1], half_b[j2]
        most0 = most1 = most2 = np.float32(-np.inf)
        for m0 in range(0, len(own), 3):
            m1, m2 = min(m0 + 1, last), min(m0 + 2, last)
            i0, i1, i2 = own[m0], own[m1], own[m2]
            x0, x1, x2 = a[i0], a[i1], a[i2]
            h0, h1, h2 = half_a[i0], half_a[i1], half_a[i2]
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = np.float32(0.0)
            for d in range(n_dims):
                u, v, w = x0[d], x1[d], x2[d]
                y = y0[d]
                s00 += u * y
                s01 += v * y
                s02 += w * y
                y = y1[d]
                s10 += u * y
                s11 += v * y
                s12 += w * y
                y = y2[d]
                s20 += u * y
                s21 += v * y
                s22 += w * y
            most0 = _write_row(values[r0], m0, m1, m2, s00 - h0 - g0, s01 - h1 - g0, s02 - h2 - g0, most0)
            most1 = _write_row(values[r1], m0, m1, m2, s10 - h0 - g1, s11 - h1 - g1, s12 - h2 - g1, most1)
            most2 = _write_row(values[r2], m0, m1, m2, s20 - h0 - g2, s21 - h1 - g2, s22 - h2 - g2, most2)
        best_of_b[j0], best_of_b[j1], best_of_b[j2] = most0, most1, most2


@njit(inline=True)
def _write_row(row, m0, m1, m2, v0, v1, v2, most):
    """Write three values of a row; return the largest so far."""
    row[m0], row[m1], row[m2] = v0, v1, v2
    most = v0 if v0 > most else most
    most = v1 if v1 > most else most
    return v2 if v2 > most else most


@njit
def _keep_nearest(values, rows, top, runner_up, at):
    """Take the values of some rows into the largest and second largest of every member."""
    for r in range(len(rows)):
        j = rows[r]
        line = values[r]
        for m in range(len(top)):
            # Selects, which LLVM makes vectors of.
            value, high = line[m], top[m]
            low = value if value < high else high
            runner_up[m] = low if low > runner_up[m] else runner_up[m]
            at[m] = j if value > high else at[m]
            top[m] = value if value > high else high
