"""Maxima of SURF's determinant over place and scale."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def is_maximum(below, here, above, i, j):
    """Tell whether here[i, j] is larger than its 26 neighbours in three layers, which are aligned.

    Parameters
    ----------
    below, here, above : float32 (n_rows, n_columns)
    i, j : int
        Inside the border of one place.
    """
    value = here[i, j]
    for k in range(i - 1, i + 2):
        for m in range(j - 1, j + 2):
            if below[k, m] >= value or above[k, m] >= value or (here[k, m] >= value and (k != i or m != j)):
                return False
    return True


@njit
def refine_maximum(below, here, above, i, j, offset):
    """Fit a quadratic to the 27 values around a maximum: offset = −H⁻¹ g, with central differences.

    Parameters
    ----------
    below, here, above : float32 (n_rows, n_columns)
    i, j : int
    offset : float64 (3,)
        # OUT, in x, y and scale, in steps of the lattice and layers.

    Returns
    -------
    bool
        False where H is singular or the offset reaches beyond a neighbour: no stable maximum.

    References
    ----------
    Brown and Lowe, "Invariant features from interest point groups", BMVC 2002, section 2.1.
    """
    centre = 2.0 * here[i, j]
    gx = 0.5 * (np.float64(here[i, j + 1]) - here[i, j - 1])
    gy = 0.5 * (np.float64(here[i + 1, j]) - here[i - 1, j])
    gs = 0.5 * (np.float64(above[i, j]) - below[i, j])
    xx = np.float64(here[i, j - 1]) + here[i, j + 1] - centre
    yy = np.float64(here[i - 1, j]) + here[i + 1, j] - centre
    ss = np.float64(below[i, j]) + above[i, j] - centre
    xy = 0.25 * (
        np.float64(here[i + 1, j + 1]) - here[i + 1, j - 1] - here[i - 1, j + 1] + here[i - 1, j - 1]
    )  # fmt: skip
    xs = 0.25 * (np.float64(above[i, j + 1]) - above[i, j - 1] - below[i, j + 1] + below[i, j - 1])
    ys = 0.25 * (np.float64(above[i + 1, j]) - above[i - 1, j] - below[i + 1, j] + below[i - 1, j])
    # Cofactors of the symmetric matrix.
    c00, c01, c02 = yy * ss - ys * ys, xs * ys - xy * ss, xy * ys - xs * yy
    c11, c12, c22 = xx * ss - xs * xs, xy * xs - xx * ys, xx * yy - xy * xy
    determinant = xx * c00 + xy * c01 + xs * c02
    if determinant == 0.0:
        return False
    offset[0] = -(c00 * gx + c01 * gy + c02 * gs) / determinant
    offset[1] = -(c01 * gx + c11 * gy + c12 * gs) / determinant
    offset[2] = -(c02 * gx + c12 * gy + c22 * gs) / determinant
    return abs(offset[0]) <= 1.0 and abs(offset[1]) <= 1.0 and abs(offset[2]) <= 1.0


@njit
def find_maxima(below, here, above, threshold, border, maxima):
    """Find the maxima above a threshold in the middle one of three layers, and refine them; return their number.

    Parameters
    ----------
    below, here, above : float32 (n_rows, n_columns)
        Determinants at smaller, the same and larger scale, aligned: a place is the centre of its filter.
    threshold : float
    border : int
        Places left out on each side, at least 1.
    maxima : float32 (capacity, 6)
        # OUT: row, column, offsets in x, y and scale (in steps and layers), value. Strict maxima are no neighbours, so
        ceil(n_rows / 2) · ceil(n_columns / 2) rows are enough.
    """
    n_rows, n_columns = here.shape
    offset = np.empty(3)
    n_found = 0
    for i in range(border, n_rows - border):
        for j in range(border, n_columns - border):
            value = here[i, j]
            # Most places fail on a neighbour in their row.
            if not value > threshold or here[i, j - 1] >= value or here[i, j + 1] >= value:
                continue
            if is_maximum(below, here, above, i, j) and refine_maximum(below, here, above, i, j, offset):
                maxima[n_found, 0], maxima[n_found, 1] = i, j
                maxima[n_found, 2:5] = offset
                maxima[n_found, 5] = value
                n_found += 1
    return n_found
