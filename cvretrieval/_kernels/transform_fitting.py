"""Least-squares transforms of the plane from correspondences, and which correspondences they explain."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.homography_refinement import refine_homography
from cvretrieval._kernels.point_normalization import normalize_pairs

#: Unknowns of each model: one scale and translation; similarity (a, b, tx, ty); affine that keeps vertical lines
#: vertical; affine; homography (the last element is 1).
TRANSLATION_SCALE, SIMILARITY, UPRIGHT_AFFINE, AFFINE, HOMOGRAPHY = 3, 4, 5, 6, 8


@njit
def weigh_inliers(pairs, log_scale, cos_turn, sin_turn, transform, tolerance_a, tolerance_b, max_log_scale, min_cos,
                  weights):  # fmt: skip
    """Weigh the correspondences that a transform explains, and return their number; the others get the weight 0.

    With H = transform, p_j ↦ p′_j is explained if ‖H(p_j) − p′_j‖ ≤ tolerance_b, ‖H⁻¹(p′_j) − p_j‖ ≤ tolerance_a, and
    the change of scale and direction of the keypoint agrees with the Jacobian J of H at p_j:
    |ln(σ′/σ) − ½ ln det J| ≤ max_log_scale and the angle between the turned direction and the one J gives has a cosine
    of at least min_cos. Points with det J ≤ 0 (mirrored, or beyond the horizon) are never explained. The direction of
    the keypoint itself is not needed: the turn φ is compared with the rotation nearest to J.

    The weight is Tukey's biweight (1 − r²)² of the larger of the two errors relative to its tolerance r, at least 1e-3:
    a least-squares fit with it is one step of an M-estimator, in which matches that just fit in do not pull.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
    log_scale, cos_turn, sin_turn : float32 (n_pairs,)
    transform : float64 (3, 3)
    tolerance_a, tolerance_b, max_log_scale, min_cos : float
    weights : float64 (n_pairs,)
        # OUT

    Returns
    -------
    int
        0, with no correspondence explained, where H cannot be inverted.
    """
    h00, h01, h02 = transform[0, 0], transform[0, 1], transform[0, 2]
    h10, h11, h12 = transform[1, 0], transform[1, 1], transform[1, 2]
    h20, h21, h22 = transform[2, 0], transform[2, 1], transform[2, 2]
    # Adjugate: the inverse up to a factor, which homogeneous coordinates ignore.
    g00, g01, g02 = h11 * h22 - h12 * h21, h02 * h21 - h01 * h22, h01 * h12 - h02 * h11
    g10, g11, g12 = h12 * h20 - h10 * h22, h00 * h22 - h02 * h20, h02 * h10 - h00 * h12
    g20, g21, g22 = h10 * h21 - h11 * h20, h01 * h20 - h00 * h21, h00 * h11 - h01 * h10
    determinant = h00 * g00 + h01 * g10 + h02 * g20
    weights[:] = 0.0
    if not np.isfinite(determinant) or determinant == 0.0:
        return 0
    square_a, square_b = tolerance_a * tolerance_a, tolerance_b * tolerance_b
    count = 0
    for j in range(pairs.shape[1]):
        x, y, u, v = np.float64(pairs[0, j]), np.float64(pairs[1, j]), np.float64(pairs[2, j]), np.float64(pairs[3, j])
        w = h20 * x + h21 * y + h22
        if w <= 0.0:
            continue
        px, py = (h00 * x + h01 * y + h02) / w, (h10 * x + h11 * y + h12) / w
        error_b = (px - u) ** 2 + (py - v) ** 2
        if error_b > square_b:
            continue
        back = g20 * u + g21 * v + g22
        if back == 0.0:
            continue
        qx, qy = (g00 * u + g01 * v + g02) / back, (g10 * u + g11 * v + g12) / back
        error_a = (qx - x) ** 2 + (qy - y) ** 2
        if error_a > square_a:
            continue
        j00, j01 = (h00 - px * h20) / w, (h01 - px * h21) / w
        j10, j11 = (h10 - py * h20) / w, (h11 - py * h21) / w
        area = j00 * j11 - j01 * j10
        if area <= 0.0 or abs(log_scale[j] - 0.5 * np.log(area)) > max_log_scale:
            continue
        # The rotation nearest to J is (j00 + j11, j10 − j01), normalised.
        along, across = j00 + j11, j10 - j01
        length = np.sqrt(along * along + across * across)
        if along * cos_turn[j] + across * sin_turn[j] < min_cos * length:
            continue
        weights[j] = max((1.0 - max(error_a / square_a, error_b / square_b)) ** 2, 1e-3)
        count += 1
    return count


@njit
def fit_transform(pairs, weights, model, transform):
    """Fit a transform to the correspondences, minimising Σ w_j ‖H(p_j) − p′_j‖²; return whether there is one.

    All but the homography are linear least squares. The homography starts from the affine solution and takes
    Gauss–Newton steps on its eight unknowns, damped (Levenberg–Marquardt) so that the error never grows. Coordinates
    are centred and scaled to unit spread in both images first (Hartley's normalisation).

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
    weights : float64 (n_pairs,)
        0 leaves a correspondence out.
    model : int
        The number of unknowns: 3 translation and scale, 4 similarity, 5 affine with vertical lines kept, 6 affine, 8
        homography.
    transform : float64 (3, 3)
        Scaled to a last element of 1; unchanged if there is none.  # OUT

    Returns
    -------
    bool
        False for too few points (2, 2, 3, 3, 4), or points that do not determine the transform.
    """
    is_normalized, points, mean, spread_a, spread_b = normalize_pairs(pairs, weights, (model + 1) // 2)
    if not is_normalized:
        return False
    fitted = np.zeros(8)
    if model <= SIMILARITY:
        found = _fit_similarity(points, fitted, model == SIMILARITY)
    else:
        found = _fit_affine(points, fitted, model == UPRIGHT_AFFINE)
    if not found:
        return False
    if model == HOMOGRAPHY:
        refine_homography(points, fitted)
    return _undo_normalisation(fitted, mean, spread_a, spread_b, transform)


@njit
def _undo_normalisation(fitted, mean, spread_a, spread_b, transform):
    """Write H = B⁻¹ N A, with A, B: p ↦ (p − mean) / spread of the two images; False if H sends the origin to infinity.

    Parameters
    ----------
    fitted : float64 (8,)
        Row-major elements of N but for the last, which is 1.
    mean : float64 (4,)
        x, y, x′, y′.
    spread_a, spread_b : float
    transform : float64 (3, 3)
        # OUT
    """
    full = np.empty((3, 3))
    for c in range(3):
        last = fitted[6 + c] if c < 2 else 1.0
        full[0, c] = fitted[c] * spread_b + mean[2] * last
        full[1, c] = fitted[3 + c] * spread_b + mean[3] * last
        full[2, c] = last
    for r in range(3):
        x, y = full[r, 0] / spread_a, full[r, 1] / spread_a
        full[r, 0], full[r, 1] = x, y
        full[r, 2] -= x * mean[0] + y * mean[1]
    if not abs(full[2, 2]) > 1e-12:
        return False
    for r in range(3):
        for c in range(3):
            transform[r, c] = full[r, c] / full[2, 2]
    return True


@njit
def _fit_similarity(points, fitted, turns):
    """Least-squares similarity of centred points: a + ib = Σ w z̄ z′ / Σ w |z|², without translation.

    Without a turn b is 0, and a the same: False if it is not positive.

    Parameters
    ----------
    points : float64 (5, n)
        Rows x, y, x′, y′, each pair centred, and the weights w.
    fitted : float64 (8,)
        Row-major elements of the transform but for the last.  # OUT
    turns : bool
    """
    along, across, total = 0.0, 0.0, 0.0
    for j in range(points.shape[1]):
        x, y, u, v, w = points[0, j], points[1, j], points[2, j], points[3, j], points[4, j]
        along += w * (x * u + y * v)
        across += w * (x * v - y * u)
        total += w * (x * x + y * y)
    if not turns:
        across = 0.0
    if along * along + across * across <= 0.0 or (along <= 0.0 and not turns):
        return False
    a, b = along / total, across / total
    fitted[0], fitted[1], fitted[3], fitted[4] = a, -b, b, a
    return True


@njit
def _fit_affine(points, fitted, upright):
    """Least-squares affinity of centred points: A = (Σ w p′ pᵀ)(Σ w p pᵀ)⁻¹, without translation; False for a line.

    An upright one sends vertical lines to vertical lines: x′ depends on x alone.

    Arguments as for `_fit_similarity`.
    """
    xx, xy, yy, ux, uy, vx, vy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(points.shape[1]):
        x, y, u, v, w = points[0, j], points[1, j], points[2, j], points[3, j], points[4, j]
        xx += w * x * x
        xy += w * x * y
        yy += w * y * y
        ux += w * u * x
        uy += w * u * y
        vx += w * v * x
        vy += w * v * y
    determinant = xx * yy - xy * xy
    # Its ratio to the squared trace is the squared thickness of the point cloud over its length.
    if determinant <= 1e-6 * (xx + yy) ** 2:
        return False
    if upright:
        fitted[0], fitted[1] = ux / xx, 0.0
    else:
        fitted[0], fitted[1] = (ux * yy - uy * xy) / determinant, (uy * xx - ux * xy) / determinant
    fitted[3], fitted[4] = (vx * yy - vy * xy) / determinant, (vy * xx - vx * xy) / determinant
    return True
