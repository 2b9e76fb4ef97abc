"""Hartley's normalisation of the correspondences that a fit is made of."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def normalize_pairs(pairs, weights, least):
    """Centre the weighted correspondences and scale them to unit spread, each image by itself.

    With the weighted mean m and the spread s = √(Σ w_j ‖p_j − m‖² / Σ w_j) of an image: p ↦ (p − m) / s.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    weights : float64 (n_pairs,)
        0 leaves a correspondence out.
    least : int
        So many must be left, and their spread be above 1e-9.

    Returns
    -------
    is_normalized : bool
        False if they are too few or at one point; the rest means nothing then.
    points : float64 (5, n)
        Rows x, y, x′, y′, normalised, and the weights.
    mean : float64 (4,)
    spread_a, spread_b : float
    """
    mean, total, count = np.zeros(4), 0.0, 0
    for j in range(pairs.shape[1]):
        if weights[j] > 0.0:
            count += 1
            total += weights[j]
            for c in range(4):
                mean[c] += weights[j] * pairs[c, j]
    points = np.empty((5, count))
    if count < least or count == 0:
        return False, points, mean, 0.0, 0.0
    mean /= total
    at, spread_a, spread_b = 0, 0.0, 0.0
    for j in range(pairs.shape[1]):
        if weights[j] > 0.0:
            for c in range(4):
                points[c, at] = pairs[c, j] - mean[c]
            points[4, at] = weights[j]
            spread_a += weights[j] * (points[0, at] ** 2 + points[1, at] ** 2)
            spread_b += weights[j] * (points[2, at] ** 2 + points[3, at] ** 2)
            at += 1
    spread_a, spread_b = np.sqrt(spread_a / total), np.sqrt(spread_b / total)
    if not (spread_a > 1e-9 and spread_b > 1e-9):
        return False, points, mean, spread_a, spread_b
    points[:2] /= spread_a
    points[2:4] /= spread_b
    return True, points, mean, spread_a, spread_b
