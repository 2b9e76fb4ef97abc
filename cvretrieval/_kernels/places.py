"""Independent evidence among the inliers: places that lie apart, cells that hold one."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def count_places(pairs, weights, apart_a, apart_b):
    """Return the number of explained correspondences that lie apart, in both images, from all counted before.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    weights : float64 (n_pairs,)
        0 for what is not explained.
    apart_a, apart_b : float
        Two correspondences are at one place if |Δx| and |Δy| are both below this, in the first or in the second image.

    Returns
    -------
    int
    """
    kept = np.empty(pairs.shape[1], dtype=np.int64)
    count = 0
    for j in range(pairs.shape[1]):
        if not weights[j] > 0.0:
            continue
        is_new = True
        for n in range(count):
            i = kept[n]
            same_a = abs(pairs[0, i] - pairs[0, j]) < apart_a and abs(pairs[1, i] - pairs[1, j]) < apart_a
            same_b = abs(pairs[2, i] - pairs[2, j]) < apart_b and abs(pairs[3, i] - pairs[3, j]) < apart_b
            if same_a or same_b:
                is_new = False
                break
        if is_new:
            kept[count] = j
            count += 1
    return count


@njit
def count_cells(pairs, weights, n_cells):
    """Return how many cells of a grid over the explained correspondences of the first image hold one.

    The grid has n_cells × n_cells equal cells over the bounding box of the explained points; a side without extent is
    one cell wide.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    weights : float64 (n_pairs,)
        0 for what is not explained.
    n_cells : int

    Returns
    -------
    int

    References
    ----------
    Schönberger, Price, Sattler, Frahm and Pollefeys, "A vote-and-verify strategy for fast spatial verification in image
    retrieval", ACCV 2016, section 3.3 (effective inlier count).
    """
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    for j in range(pairs.shape[1]):
        if weights[j] > 0.0:
            low_x, high_x = min(low_x, pairs[0, j]), max(high_x, pairs[0, j])
            low_y, high_y = min(low_y, pairs[1, j]), max(high_y, pairs[1, j])
    per_x = n_cells / (high_x - low_x) if high_x > low_x else 0.0
    per_y = n_cells / (high_y - low_y) if high_y > low_y else 0.0
    occupied = np.zeros((n_cells, n_cells), dtype=np.bool_)
    count = 0
    for j in range(pairs.shape[1]):
        if weights[j] > 0.0:
            column = min(int((pairs[0, j] - low_x) * per_x), n_cells - 1)
            row = min(int((pairs[1, j] - low_y) * per_y), n_cells - 1)
            if not occupied[row, column]:
                occupied[row, column] = True
                count += 1
    return count
