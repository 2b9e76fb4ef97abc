"""Matching two sets of descriptors: what is left to do after the matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

# Lanes in which the largest value of a row is looked for; independent, so that they fill vector registers.
_LANES = 64


@njit
def update_nearest(products, half_a, half_b, first, best, second, nearest, best_of_b):
    """Take the next rows of ⟨b_j, a_i⟩ into the nearest and second nearest b of every a, and the nearest a of these b.

    Values are v_ij = ⟨b_j, a_i⟩ − ½‖a_i‖² − ½‖b_j‖² = −½‖a_i − b_j‖²: the largest is the nearest, ties go to the
    lowest j.

    Parameters
    ----------
    products : float32 (n_rows, n_a)
        ⟨b_j, a_i⟩ for j = first, …, first + n_rows − 1; overwritten with v.  # OUT
    half_a, half_b : float32 (n_a,), (n_b,)
        ½‖a_i‖², ½‖b_j‖².
    first : int
        Index j of the first row.
    best, second : float32 (n_a,)
        Largest and second largest v_ij over j so far; −inf at the start.  # OUT
    nearest : int32 (n_a,)
        The j of the largest.  # OUT
    best_of_b : float32 (n_b,)
        Largest v_ij over i, for the j of these rows.  # OUT
    """
    n_rows, n_a = products.shape
    row = 0
    # Two rows at a time: the running values are loaded and stored once for both.
    while row + 2 <= n_rows:
        h0, h1 = half_b[first + row], half_b[first + row + 1]
        j0, j1 = np.int32(first + row), np.int32(first + row + 1)
        for i in range(n_a):
            top, runner_up, at = best[i], second[i], nearest[i]
            value = products[row, i] - half_a[i] - h0
            products[row, i] = value
            low = value if value < top else top
            runner_up = low if low > runner_up else runner_up
            at = j0 if value > top else at
            top = value if value > top else top
            value = products[row + 1, i] - half_a[i] - h1
            products[row + 1, i] = value
            low = value if value < top else top
            runner_up = low if low > runner_up else runner_up
            at = j1 if value > top else at
            top = value if value > top else top
            best[i] = top
            second[i] = runner_up
            nearest[i] = at
        row += 2
    while row < n_rows:
        for i in range(n_a):
            value = products[row, i] - half_a[i] - half_b[first + row]
            products[row, i] = value
            low = value if value < best[i] else best[i]
            second[i] = low if low > second[i] else second[i]
            nearest[i] = np.int32(first + row) if value > best[i] else nearest[i]
            best[i] = value if value > best[i] else best[i]
        row += 1
    lanes = np.empty(_LANES, dtype=np.float32)
    for row in range(n_rows):
        lanes[:] = -np.inf
        whole = n_a - n_a % _LANES
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                value = products[row, start + lane]
                lanes[lane] = value if value > lanes[lane] else lanes[lane]
        for i in range(whole, n_a):
            value = products[row, i]
            lanes[i - whole] = value if value > lanes[i - whole] else lanes[i - whole]
        largest = lanes[0]
        for lane in range(1, _LANES):
            largest = lanes[lane] if lanes[lane] > largest else largest
        best_of_b[first + row] = largest


@njit
def select_matches(best, second, nearest, best_of_b, squared_ratio, mutual, matches):
    """Write the pairs (i, nearest b of i) that pass the ratio test and, if asked for, are mutual; return their number.

    Ratio test (Lowe 2004, section 7.1): d₁² < ratio² d₂², with d² = −2v. Mutual: a_i is the nearest of its b, too;
    where several are equally near, the lowest i has it. Without ``mutual`` the nearest of all a that chose the same b
    has it: matches are one-to-one in any case.

    Parameters
    ----------
    best, second : float32 (n_a,)
    nearest : int32 (n_a,)
    best_of_b : float32 (n_b,)
        As `update_nearest` leaves them; the best of an a that was compared with no b is −inf, and it has no match.
    squared_ratio : float
        1 or more switches the test off.
    mutual : bool
    matches : int64 (n_a, 2)
        # OUT

    Returns
    -------
    int
    """
    n_a, n_b = len(best), len(best_of_b)
    owner = np.full(n_b, -1, dtype=np.int64)
    for i in range(n_a):
        if best[i] == -np.inf:
            continue
        if squared_ratio < 1.0 and not best[i] > squared_ratio * second[i]:
            continue
        j = nearest[i]
        if mutual and best[i] < best_of_b[j]:
            continue
        if owner[j] < 0 or best[i] > best[owner[j]]:
            owner[j] = i
    n_matches = 0
    for i in range(n_a):
        if owner[nearest[i]] == i:
            matches[n_matches, 0] = i
            matches[n_matches, 1] = nearest[i]
            n_matches += 1
    return n_matches
