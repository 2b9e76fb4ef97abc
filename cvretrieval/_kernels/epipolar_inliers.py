"""Which correspondences a fundamental matrix explains, and the search for the one that explains most."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.fundamental_fitting import solve_seven_point


@njit
def weigh_epipolar(pairs, fundamental, tolerance_a, tolerance_b, weights):
    """Weigh the correspondences that F explains, and return their number; the others get the weight 0.

    p_j, p′_j is explained if p′_j is at most tolerance_b from the epipolar line F p_j and p_j at most tolerance_a from
    Fᵀ p′_j, and if it lies on the same side of the epipoles as most: (e′ × p′_j) · (F p_j) has one sign for all points
    in front of both cameras (the oriented epipolar constraint).

    The weight is Tukey's biweight (1 − r²)² of the larger of the two distances relative to its tolerance r, at least
    1e-3.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    fundamental : float64 (3, 3)
    tolerance_a, tolerance_b : float
        Pixels.
    weights : float64 (n_pairs,)
        # OUT

    References
    ----------
    Chum, Werner and Matas, "Epipolar geometry estimation via RANSAC benefits from the oriented epipolar constraint",
    ICPR 2004.
    """
    f = fundamental
    # The left epipole is orthogonal to all columns of F: the largest cross product of two of them.
    e0, e1, e2, largest = 0.0, 0.0, 0.0, 0.0
    for c in range(3):
        d = (c + 1) % 3
        x = f[1, c] * f[2, d] - f[2, c] * f[1, d]
        y = f[2, c] * f[0, d] - f[0, c] * f[2, d]
        z = f[0, c] * f[1, d] - f[1, c] * f[0, d]
        length = x * x + y * y + z * z
        if length > largest:
            e0, e1, e2, largest = x, y, z, length
    n_front, n_behind = 0, 0
    for j in range(pairs.shape[1]):
        x, y, u, v = np.float64(pairs[0, j]), np.float64(pairs[1, j]), np.float64(pairs[2, j]), np.float64(pairs[3, j])
        line_b0, line_b1 = f[0, 0] * x + f[0, 1] * y + f[0, 2], f[1, 0] * x + f[1, 1] * y + f[1, 2]
        line_b2 = f[2, 0] * x + f[2, 1] * y + f[2, 2]
        line_a0, line_a1 = f[0, 0] * u + f[1, 0] * v + f[2, 0], f[0, 1] * u + f[1, 1] * v + f[2, 1]
        square = (line_b0 * u + line_b1 * v + line_b2) ** 2
        relative_b = square / max(tolerance_b**2 * (line_b0**2 + line_b1**2), 1e-300)
        relative_a = square / max(tolerance_a**2 * (line_a0**2 + line_a1**2), 1e-300)
        relative = max(relative_a, relative_b)
        weights[j] = 0.0
        if not relative <= 1.0:
            continue
        side = (e1 - e2 * v) * line_b0 + (e2 * u - e0) * line_b1 + (e0 * v - e1 * u) * line_b2
        weight = max((1.0 - relative) ** 2, 1e-3)
        if side > 0.0:
            weights[j] = weight
            n_front += 1
        elif side < 0.0:
            weights[j] = -weight
            n_behind += 1
    sign = 1.0 if n_front >= n_behind else -1.0
    for j in range(pairs.shape[1]):
        weights[j] = max(sign * weights[j], 0.0)
    return max(n_front, n_behind)


@njit
def search_seven_point(pairs, draws, tolerance_a, tolerance_b, fundamental):
    """Find the F through seven of the correspondences that explains most, the first ones being the best.

    Sample t is taken among the first correspondences, more and more of them: as in PROSAC, all after half of the
    samples. It ends when a better F would have been found with a probability of 0.999.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′, in the order in which they are trusted.
    draws : int64 (n_samples, 7)
        Random numbers, not negative: the samples.
    tolerance_a, tolerance_b : float
    fundamental : float64 (3, 3)
        The one with the largest sum of weights of `weigh_epipolar`; unchanged if there is none.  # OUT

    Returns
    -------
    float
        That sum, 0 if there is none.

    References
    ----------
    Chum and Matas, "Matching with PROSAC: progressive sample consensus", CVPR 2005.
    """
    n_pairs, n_samples = pairs.shape[1], len(draws)
    best = 0.0
    if n_pairs < 8:
        return best
    weights, rows = np.empty(n_pairs), np.empty(7, dtype=np.int64)
    found = np.empty((3, 3, 3))
    enough = n_samples
    for t in range(n_samples):
        if t >= enough:
            break
        among = min(n_pairs, 10 + 2 * t * n_pairs // n_samples)
        for k in range(7):
            # The draw-th of those not taken yet; rows[:k] is kept in order.
            row, at = draws[t, k] % (among - k), 0
            while at < k and row >= rows[at]:
                row += 1
                at += 1
            for later in range(k, at, -1):
                rows[later] = rows[later - 1]
            rows[at] = row
        for k in range(solve_seven_point(pairs, rows, found)):
            count = weigh_epipolar(pairs, found[k], tolerance_a, tolerance_b, weights)
            total = weights.sum()
            if total > best:
                best = total
                fundamental[:] = found[k]
                share = (count / n_pairs) ** 7
                needed = np.log(1e-3) / np.log(1.0 - share) if share < 1.0 else 1.0
                # At least until all may be drawn: the first ones may lie on one plane.
                enough = int(max(min(needed, n_samples), n_samples // 2))
    return best


@njit
def search_plane_and_parallax(pairs, homography, off_plane, draws, tolerance_a, tolerance_b, fundamental):
    """Find the F = [e′]ₓ H that explains most, given the homography H of a plane in the scene.

    A point off the plane moves along the line through its image and the epipole e′: p′ × Hp; two of them give
    e′ = (p′₁ × Hp₁) × (p′₂ × Hp₂). All pairs are tried where they are no more than there are draws.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    homography : float64 (3, 3)
    off_plane : int64 (n_off,)
        The correspondences that H does not explain.
    draws : int64 (n_samples, 7)
        Random numbers, not negative, of which two are used.
    tolerance_a, tolerance_b : float
    fundamental : float64 (3, 3)
        The one with the largest sum of weights of `weigh_epipolar`, of unit norm; unchanged if there is none.  # OUT

    Returns
    -------
    float
        That sum, 0 if there is none.

    References
    ----------
    Chum, Werner and Matas, "Two-view geometry estimation unaffected by a dominant plane", CVPR 2005.
    """
    n_off = len(off_plane)
    lines = np.empty((n_off, 3))
    for k in range(n_off):
        j = off_plane[k]
        x, y, u, v = np.float64(pairs[0, j]), np.float64(pairs[1, j]), np.float64(pairs[2, j]), np.float64(pairs[3, j])
        p0 = homography[0, 0] * x + homography[0, 1] * y + homography[0, 2]
        p1 = homography[1, 0] * x + homography[1, 1] * y + homography[1, 2]
        p2 = homography[2, 0] * x + homography[2, 1] * y + homography[2, 2]
        lines[k, 0], lines[k, 1], lines[k, 2] = v * p2 - p1, p0 - u * p2, u * p1 - v * p0
    best = 0.0
    weights, f = np.empty(pairs.shape[1]), np.empty((3, 3))
    n_pairs_off = n_off * (n_off - 1) // 2
    exhaustive = n_pairs_off <= len(draws)
    one, other = 0, 0
    for t in range(min(n_pairs_off, len(draws))):
        if exhaustive:
            other += 1
            if other == n_off:
                one += 1
                other = one + 1
        else:
            one = draws[t, 0] % n_off
            other = (one + 1 + draws[t, 1] % (n_off - 1)) % n_off
        e0 = lines[one, 1] * lines[other, 2] - lines[one, 2] * lines[other, 1]
        e1 = lines[one, 2] * lines[other, 0] - lines[one, 0] * lines[other, 2]
        e2 = lines[one, 0] * lines[other, 1] - lines[one, 1] * lines[other, 0]
        norm = 0.0
        for c in range(3):
            f[0, c] = e1 * homography[2, c] - e2 * homography[1, c]
            f[1, c] = e2 * homography[0, c] - e0 * homography[2, c]
            f[2, c] = e0 * homography[1, c] - e1 * homography[0, c]
            norm += f[0, c] ** 2 + f[1, c] ** 2 + f[2, c] ** 2
        if not (norm > 0.0 and np.isfinite(norm)):
            continue
        f /= np.sqrt(norm)
        weigh_epipolar(pairs, f, tolerance_a, tolerance_b, weights)
        total = weights.sum()
        if total > best:
            best = total
            fundamental[:] = f
    return best
