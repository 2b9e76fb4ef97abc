"""Independent evidence among the inliers: places that lie apart."""

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
