"""Fundamental matrices from correspondences: least squares over many, and the exact ones through seven."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.point_normalization import normalize_pairs


@njit
def fit_fundamental(pairs, weights, fundamental):
    """Fit F of rank 2 to the correspondences, minimising Σ w_j s_j (p′_jᵀ F p_j)²; return whether there is one.

    The normalised eight-point algorithm (Hartley): both images centred and scaled to unit spread, F of unit norm by the
    smallest eigenvector, the smallest singular value set to 0. It is repeated three times with s_j = 1 at first, then
    1 / ((Fp_j)₁² + (Fp_j)₂² + (Fᵀp′_j)₁² + (Fᵀp′_j)₂²) of the F before: the Sampson error in place of the algebraic.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    weights : float64 (n_pairs,)
        0 leaves a correspondence out.
    fundamental : float64 (3, 3)
        Of unit norm; unchanged if there is none.  # OUT

    Returns
    -------
    bool
        False for fewer than eight points, or points that do not determine F: a plane, or all on a line.
    """
    is_normalized, points, mean, spread_a, spread_b = normalize_pairs(pairs, weights, 8)
    if not is_normalized:
        return False
    f = np.zeros((3, 3))
    for step in range(3):
        if not _solve_eight_point(points, step > 0, f):
            return False
    _undo_normalisation(f, mean, spread_a, spread_b, fundamental)
    return True


@njit
def _solve_eight_point(points, by_sampson, f):
    """Write the F of unit norm and rank 2 that minimises Σ w_j s_j (p′ᵀ F p)²; False if it is not determined.

    Parameters
    ----------
    points : float64 (5, n)
        Rows x, y, x′, y′, normalised, and the weights w.
    by_sampson : bool
        Take s_j from the F given; else 1.
    f : float64 (3, 3)
        # OUT
    """
    moments, row = np.zeros((9, 9)), np.empty(9)
    for j in range(points.shape[1]):
        x, y, u, v, w = points[0, j], points[1, j], points[2, j], points[3, j], points[4, j]
        if by_sampson:
            w /= max(_gradient_square(f, x, y, u, v), 1e-12)
        row[0], row[1], row[2], row[3], row[4], row[5] = u * x, u * y, u, v * x, v * y, v
        row[6], row[7], row[8] = x, y, 1.0
        for r in range(9):
            scaled = w * row[r]
            for c in range(r + 1):
                moments[r, c] += scaled * row[c]
    total = 0.0
    for r in range(9):
        for c in range(r):
            moments[c, r] = moments[r, c]
            total += abs(moments[r, c])
    if not np.isfinite(total):
        return False
    values, vectors = np.linalg.eigh(moments)
    # A second solution fits as well: a plane has a whole family of them.
    if values[1] <= 1e-10 * values[8]:
        return False
    for r in range(3):
        for c in range(3):
            f[r, c] = vectors[3 * r + c, 0]
    gram = np.zeros((3, 3))
    for r in range(3):
        for c in range(3):
            gram[r, c] = f[0, r] * f[0, c] + f[1, r] * f[1, c] + f[2, r] * f[2, c]
    _, basis = np.linalg.eigh(gram)
    e0, e1, e2 = basis[0, 0], basis[1, 0], basis[2, 0]
    for r in range(3):
        along = f[r, 0] * e0 + f[r, 1] * e1 + f[r, 2] * e2
        f[r, 0] -= along * e0
        f[r, 1] -= along * e1
        f[r, 2] -= along * e2
    _normalise(f)
    return True


@njit
def _normalise(f):
    """Scale F to unit Frobenius norm, in place.

    Parameters
    ----------
    f : float64 (3, 3)
        # OUT
    """
    square = 0.0
    for r in range(3):
        for c in range(3):
            square += f[r, c] * f[r, c]
    norm = np.sqrt(square)
    for r in range(3):
        for c in range(3):
            f[r, c] /= norm


@njit
def _gradient_square(f, x, y, u, v):
    """Return (Fp)₁² + (Fp)₂² + (Fᵀp′)₁² + (Fᵀp′)₂², the squared gradient of p′ᵀFp by the four coordinates.

    Parameters
    ----------
    f : float64 (3, 3)
    x, y, u, v : float
    """
    return (
        (f[0, 0] * x + f[0, 1] * y + f[0, 2]) ** 2
        + (f[1, 0] * x + f[1, 1] * y + f[1, 2]) ** 2
        + (f[0, 0] * u + f[1, 0] * v + f[2, 0]) ** 2
        + (f[0, 1] * u + f[1, 1] * v + f[2, 1]) ** 2
    )


@njit
def _undo_normalisation(f, mean, spread_a, spread_b, fundamental):
    """Write F = Bᵀ f A of unit norm, with A, B: p ↦ (p − mean) / spread of the two images.

    Parameters
    ----------
    f : float64 (3, 3)
    mean : float64 (4,)
        x, y, x′, y′.
    spread_a, spread_b : float
    fundamental : float64 (3, 3)
        # OUT
    """
    for r in range(3):
        x, y = f[r, 0] / spread_a, f[r, 1] / spread_a
        fundamental[r, 0], fundamental[r, 1], fundamental[r, 2] = x, y, f[r, 2] - x * mean[0] - y * mean[1]
    for c in range(3):
        u, v = fundamental[0, c] / spread_b, fundamental[1, c] / spread_b
        fundamental[0, c], fundamental[1, c] = u, v
        fundamental[2, c] -= u * mean[2] + v * mean[3]
    _normalise(fundamental)


@njit
def solve_seven_point(pairs, rows, fundamentals):
    """Write the one to three F of rank 2 through seven correspondences, and return their number.

    F = λ F₁ + (1 − λ) F₂ of the two-dimensional null space of the seven equations, with det F = 0: a cubic in λ.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    rows : int64 (7,)
        Which of them.
    fundamentals : float64 (3, 3, 3)
        Each of unit norm.  # OUT

    Returns
    -------
    int
        0 where the null space is larger: points on a line, one point twice.

    References
    ----------
    Hartley and Zisserman, "Multiple view geometry in computer vision", 2nd edition, section 11.1.2.
    """
    mean, spread = np.zeros(4), np.zeros(2)
    for i in rows:
        for c in range(4):
            mean[c] += pairs[c, i] / 7.0
    for i in rows:
        for c in range(4):
            spread[c // 2] += (pairs[c, i] - mean[c]) ** 2
    spread_a, spread_b = np.sqrt(spread[0] / 7.0), np.sqrt(spread[1] / 7.0)
    if not (spread_a > 1e-9 and spread_b > 1e-9):
        return 0
    equations = np.empty((7, 9))
    for r in range(7):
        i = rows[r]
        x, y = (pairs[0, i] - mean[0]) / spread_a, (pairs[1, i] - mean[1]) / spread_a
        u, v = (pairs[2, i] - mean[2]) / spread_b, (pairs[3, i] - mean[3]) / spread_b
        equations[r, 0], equations[r, 1], equations[r, 2] = u * x, u * y, u
        equations[r, 3], equations[r, 4], equations[r, 5] = v * x, v * y, v
        equations[r, 6], equations[r, 7], equations[r, 8] = x, y, 1.0
    first, second = np.zeros(9), np.zeros(9)
    if not _null_space(equations, first, second):
        return 0
    one, other = first.reshape(3, 3), second.reshape(3, 3)
    # det(other + λ (one − other)) by its values at four λ.
    mixed, values = np.empty((3, 3)), np.empty(4)
    for k in range(4):
        for r in range(3):
            for c in range(3):
                mixed[r, c] = other[r, c] + (k - 1.0) * (one[r, c] - other[r, c])
        values[k] = _determinant(mixed)
    at_minus, at_0, at_1, at_2 = values[0], values[1], values[2], values[3]
    c0 = at_0
    c2 = 0.5 * (at_1 + at_minus) - c0
    c3 = (at_2 - 2.0 * at_1 + c0 - 2.0 * c2) / 6.0
    c1 = at_1 - c0 - c2 - c3
    roots = np.empty(3)
    n_roots = _real_roots(c0, c1, c2, c3, roots)
    for k in range(n_roots):
        for r in range(3):
            for c in range(3):
                mixed[r, c] = other[r, c] + roots[k] * (one[r, c] - other[r, c])
        _undo_normalisation(mixed, mean, spread_a, spread_b, fundamentals[k])
    return n_roots


@njit
def _determinant(m):
    """Return the determinant of a float64 (3, 3)."""
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit
def _null_space(equations, first, second):
    """Write two vectors of unit norm that span the null space of seven equations; False where they are dependent.

    Parameters
    ----------
    equations : float64 (7, 9)
        Reduced in place, with complete pivoting.  # OUT
    first, second : float64 (9,)
        # OUT
    """
    order = np.arange(9)
    for k in range(7):
        row, column, largest = k, k, 0.0
        for r in range(k, 7):
            for c in range(k, 9):
                if abs(equations[r, c]) > largest:
                    row, column, largest = r, c, abs(equations[r, c])
        if largest < 1e-9:
            return False
        for c in range(9):
            equations[k, c], equations[row, c] = equations[row, c], equations[k, c]
        for r in range(7):
            equations[r, k], equations[r, column] = equations[r, column], equations[r, k]
        order[k], order[column] = order[column], order[k]
        pivot = equations[k, k]
        for c in range(9):
            equations[k, c] /= pivot
        for r in range(7):
            factor = equations[r, k]
            if r != k:
                for c in range(k, 9):
                    equations[r, c] -= factor * equations[k, c]
    for r in range(7):
        first[order[r]], second[order[r]] = -equations[r, 7], -equations[r, 8]
    first[order[7]], first[order[8]] = 1.0, 0.0
    second[order[7]], second[order[8]] = 0.0, 1.0
    square_1, square_2 = 0.0, 0.0
    for c in range(9):
        square_1 += first[c] * first[c]
        square_2 += second[c] * second[c]
    for c in range(9):
        first[c] /= np.sqrt(square_1)
        second[c] /= np.sqrt(square_2)
    return True


@njit
def _real_roots(c0, c1, c2, c3, roots):
    """Write the real roots of c₀ + c₁λ + c₂λ² + c₃λ³ and return their number; two Newton steps polish each.

    Parameters
    ----------
    c0, c1, c2, c3 : float
    roots : float64 (3,)
        # OUT
    """
    size = abs(c0) + abs(c1) + abs(c2) + abs(c3)
    n = 0
    if abs(c3) <= 1e-12 * size:
        if abs(c2) <= 1e-12 * size:
            if c1 == 0.0:
                return 0
            roots[0] = -c0 / c1
            return 1
        square = c1 * c1 - 4.0 * c2 * c0
        if square < 0.0:
            return 0
        half = -0.5 * (c1 + (np.sqrt(square) if c1 >= 0.0 else -np.sqrt(square)))
        roots[0] = half / c2
        roots[1] = c0 / half if half != 0.0 else 0.0
        n = 2
    else:
        # λ = t − a/3 of the monic cubic leaves t³ + pt + q.
        a, b, c = c2 / c3, c1 / c3, c0 / c3
        p, q = b - a * a / 3.0, 2.0 * a * a * a / 27.0 - a * b / 3.0 + c
        inside = 0.25 * q * q + p * p * p / 27.0
        if inside > 0.0:
            root = np.sqrt(inside)
            roots[0] = np.cbrt(-0.5 * q + root) + np.cbrt(-0.5 * q - root) - a / 3.0
            n = 1
        else:
            radius = 2.0 * np.sqrt(max(-p / 3.0, 0.0))
            angle = np.arccos(min(max(-4.0 * q / radius**3, -1.0), 1.0)) if radius > 0.0 else 0.0
            for k in range(3):
                roots[k] = radius * np.cos((angle - 2.0 * np.pi * k) / 3.0) - a / 3.0
            n = 3
    for k in range(n):
        for _ in range(2):
            slope = c1 + roots[k] * (2.0 * c2 + 3.0 * c3 * roots[k])
            if slope != 0.0:
                roots[k] -= (c0 + roots[k] * (c1 + roots[k] * (c2 + roots[k] * c3))) / slope
    return n
