"""Homographies by damped Gauss–Newton steps from a good start."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def _homography_error(points, h):
    """Return Σ w_j ‖H(p_j) − p′_j‖², infinite if a point lies on or beyond the horizon."""
    total = 0.0
    for j in range(points.shape[1]):
        x, y = points[0, j], points[1, j]
        w = h[6] * x + h[7] * y + 1.0
        if w <= 1e-6:
            return np.inf
        error = ((h[0] * x + h[1] * y + h[2]) / w - points[2, j]) ** 2
        error += ((h[3] * x + h[4] * y + h[5]) / w - points[3, j]) ** 2
        total += points[4, j] * error
    return total


@njit
def refine_homography(points, h):
    """Levenberg–Marquardt on Σ w_j ‖H(p_j) − p′_j‖² over the eight free elements of H, in place.

    Parameters
    ----------
    points : float64 (5, n)
        Rows x, y, x′, y′ and the weights.
    h : float64 (8,)
        Row-major elements, the ninth is 1.  # OUT
    """
    normal, gradient = np.empty((8, 8)), np.empty(8)
    step, trial = np.empty(8), np.empty(8)
    damping = 1e-4
    error = _homography_error(points, h)
    for _ in range(15):
        _homography_equations(points, h, normal, gradient)
        improved = False
        for _ in range(5):
            if _solve_damped(normal, gradient, damping, step):
                for r in range(8):
                    trial[r] = h[r] - step[r]
                trial_error = _homography_error(points, trial)
                if trial_error < error:
                    improved = True
                    break
            damping *= 10.0
        if not improved:
            return
        gain = error - trial_error
        h[:] = trial
        error = trial_error
        damping = max(damping * 0.1, 1e-12)
        if gain <= 1e-9 * error:
            return


@njit(fastmath=True)
def _homography_equations(points, h, normal, gradient):
    """Accumulate N = Σ w_j Jᵀ J and g = Σ w_j Jᵀ r of the residuals r = H(p_j) − p′_j, J their derivative by h.

    With q = (x, y, 1)/(h₆x + h₇y + 1) and the image (u, v), the rows of J are (q, 0, −u q_x, −u q_y) and
    (0, q, −v q_x, −v q_y): both blocks of three share Σ w q qᵀ.

    Parameters
    ----------
    points : float64 (5, n)
        Rows x, y, x′, y′ and the weights.
    h : float64 (8,)
    normal : float64 (8, 8)
        Lower triangle.  # OUT
    gradient : float64 (8,)
        # OUT
    """
    xx, xy, yy, x1, y1, one = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    uxx, uxy, uyy, ux1, uy1 = 0.0, 0.0, 0.0, 0.0, 0.0
    vxx, vxy, vyy, vx1, vy1 = 0.0, 0.0, 0.0, 0.0, 0.0
    sxx, sxy, syy = 0.0, 0.0, 0.0
    g0, g1, g2, g3, g4, g5, g6, g7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(points.shape[1]):
        x, y, weight = points[0, j], points[1, j], points[4, j]
        q = 1.0 / (h[6] * x + h[7] * y + 1.0)
        u, v = (h[0] * x + h[1] * y + h[2]) * q, (h[3] * x + h[4] * y + h[5]) * q
        x, y = x * q, y * q
        wx, wy, wq = weight * x, weight * y, weight * q
        error_u, error_v, square = u - points[2, j], v - points[3, j], u * u + v * v
        xx += wx * x
        xy += wx * y
        yy += wy * y
        x1 += wx * q
        y1 += wy * q
        one += wq * q
        uxx += u * wx * x
        uxy += u * wx * y
        uyy += u * wy * y
        ux1 += u * wx * q
        uy1 += u * wy * q
        vxx += v * wx * x
        vxy += v * wx * y
        vyy += v * wy * y
        vx1 += v * wx * q
        vy1 += v * wy * q
        sxx += square * wx * x
        sxy += square * wx * y
        syy += square * wy * y
        both = u * error_u + v * error_v
        g0 += wx * error_u
        g1 += wy * error_u
        g2 += wq * error_u
        g3 += wx * error_v
        g4 += wy * error_v
        g5 += wq * error_v
        g6 -= wx * both
        g7 -= wy * both
    normal[:] = 0.0
    for at in (0, 3):
        normal[at, at], normal[at + 1, at], normal[at + 1, at + 1] = xx, xy, yy
        normal[at + 2, at], normal[at + 2, at + 1], normal[at + 2, at + 2] = x1, y1, one
    normal[6, 0], normal[6, 1], normal[6, 2] = -uxx, -uxy, -ux1
    normal[7, 0], normal[7, 1], normal[7, 2] = -uxy, -uyy, -uy1
    normal[6, 3], normal[6, 4], normal[6, 5] = -vxx, -vxy, -vx1
    normal[7, 3], normal[7, 4], normal[7, 5] = -vxy, -vyy, -vy1
    normal[6, 6], normal[7, 6], normal[7, 7] = sxx, sxy, syy
    gradient[0], gradient[1], gradient[2], gradient[3] = g0, g1, g2, g3
    gradient[4], gradient[5], gradient[6], gradient[7] = g4, g5, g6, g7


@njit
def _solve_damped(normal, gradient, damping, step):
    """Solve (N + damping · diag N) step = gradient by Cholesky; False if it is not positive definite.

    Parameters
    ----------
    normal : float64 (8, 8)
        Lower triangle.
    gradient : float64 (8,)
    damping : float
    step : float64 (8,)
        # OUT
    """
    n = len(gradient)
    lower = np.zeros((n, n))
    for r in range(n):
        for c in range(r + 1):
            value = normal[r, c] * (1.0 + damping) if r == c else normal[r, c]
            for k in range(c):
                value -= lower[r, k] * lower[c, k]
            if r > c:
                lower[r, c] = value / lower[c, c]
            elif value <= 0.0:
                return False
            else:
                lower[r, r] = np.sqrt(value)
    for r in range(n):
        value = gradient[r]
        for k in range(r):
            value -= lower[r, k] * step[k]
        step[r] = value / lower[r, r]
    for r in range(n - 1, -1, -1):
        value = step[r]
        for k in range(r + 1, n):
            value -= lower[k, r] * step[k]
        step[r] = value / lower[r, r]
    return True
