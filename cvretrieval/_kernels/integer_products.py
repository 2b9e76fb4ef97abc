"""Inner products in 16-bit integers: twice as many in a vector register as in float32."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def quantize_rows(rows, radius, quantized, scales, half_norms):
    """Round every row to integers, q = round(x / s) with s = ‖x‖ / radius, and compute ½ s² ‖q‖².

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    radius : float32
    quantized : int16 (n_rows, at least n_dims)
        q, filled up with zeros.  # OUT
    scales : float32 (n_rows,)
        s; 0 for a row of zeros, and for one that is not finite.  # OUT
    half_norms : float32 (n_rows,)
        ½ s² ‖q‖²; infinite for a row that is not finite.  # OUT
    """
    n_dims = rows.shape[1]
    for i in range(len(rows)):
        row, out = rows[i], quantized[i]
        out[:] = 0
        square = np.float32(0.0)
        for d in range(n_dims):
            square += row[d] * row[d]
        scales[i], half_norms[i] = 0.0, 0.0
        if not np.isfinite(square):
            half_norms[i] = np.inf
            continue
        if square == 0.0:
            continue
        factor = radius / np.sqrt(square)
        for d in range(n_dims):
            out[d] = np.int16(np.rint(row[d] * factor))
        total = np.int32(0)
        for d in range(n_dims):
            total = np.int32(total + np.int32(np.int32(out[d]) * np.int32(out[d])))
        scales[i] = np.float32(1.0) / factor
        half_norms[i] = np.float32(0.5) * scales[i] * scales[i] * np.float32(total)


@njit
def integer_products(columns, scales_a, rows, scales_b, scratch, products):
    """Compute s_j s_i ⟨q_j, q_i⟩ of rows j and columns i, the inner product in 16-bit integers that wrap around.

    Exact where ‖q_i‖ ‖q_j‖ < 2¹⁵, whatever partial sums are.

    Parameters
    ----------
    columns : int16 (n_dims, n_a)
        q_i, one a column; n_dims is a multiple of 4.
    scales_a : float32 (n_a,)
    rows : int16 (n_b, n_dims)
        q_j.
    scales_b : float32 (n_b,)
    scratch : int16 (3, n_a)
        # OUT
    products : float32 (n_b, n_a)
        # OUT
    """
    last = len(rows) - 1
    for j in range(0, len(rows), 3):
        _three_rows(columns, rows[j], rows[min(j + 1, last)], rows[min(j + 2, last)], scratch)
        for k in range(min(3, len(rows) - j)):
            _write_scaled(scratch[k], scales_a, scales_b[j + k], products[j + k])


@njit
def _three_rows(columns, y0, y1, y2, sums):
    """Write the inner products of three rows; four dimensions of all columns at a time."""
    sums[:] = 0
    s0, s1, s2 = sums[0], sums[1], sums[2]
    for d in range(0, len(columns), 4):
        x0, x1, x2, x3 = columns[d], columns[d + 1], columns[d + 2], columns[d + 3]
        p0, p1, p2, p3 = y0[d], y0[d + 1], y0[d + 2], y0[d + 3]
        q0, q1, q2, q3 = y1[d], y1[d + 1], y1[d + 2], y1[d + 3]
        r0, r1, r2, r3 = y2[d], y2[d + 1], y2[d + 2], y2[d + 3]
        for i in range(len(x0)):
            u, v, w, t = x0[i], x1[i], x2[i], x3[i]
            # Numba computes in 64 bits; the casts take it back, and LLVM drops the detour.
            s0[i] = np.int16(s0[i] + u * p0 + v * p1 + w * p2 + t * p3)
            s1[i] = np.int16(s1[i] + u * q0 + v * q1 + w * q2 + t * q3)
            s2[i] = np.int16(s2[i] + u * r0 + v * r1 + w * r2 + t * r3)


@njit
def _write_scaled(sums, scales, scale, line):
    """Write the sums times both scales in float32."""
    for i in range(len(sums)):
        line[i] = np.float32(sums[i]) * (scales[i] * scale)
