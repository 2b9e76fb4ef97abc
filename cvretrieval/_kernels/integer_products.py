"""Inner products in 16-bit integers: twice as many in a vector register as in float32."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
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
        # Not isfinite, which fast arithmetic may take for granted.
        if not square < np.inf:
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
        q_i, one a column; n_dims is even.
    scales_a : float32 (n_a,)
    rows : int16 (n_b, n_dims)
        q_j.
    scales_b : float32 (n_b,)
    scratch : int16 (8, n_a)
        # OUT
    products : float32 (n_b, n_a)
        # OUT
    """
    last = len(rows) - 1
    for j in range(0, len(rows), 8):
        _eight_rows(
            columns, rows[j], rows[min(j + 1, last)], rows[min(j + 2, last)], rows[min(j + 3, last)],
            rows[min(j + 4, last)], rows[min(j + 5, last)], rows[min(j + 6, last)], rows[min(j + 7, last)], scratch,
        )  # fmt: skip
        for k in range(min(8, len(rows) - j)):
            _write_scaled(scratch[k], scales_a, scales_b[j + k], products[j + k])


@njit
def _eight_rows(columns, y0, y1, y2, y3, y4, y5, y6, y7, sums):
    """Write the inner products of eight rows; two dimensions of all columns at a time, which are loaded once for all.

    Numba computes in 64 bits; the casts take it back, and LLVM drops the detour.
    """
    sums[:] = 0
    s0, s1, s2, s3, s4, s5, s6, s7 = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7]
    for d in range(0, len(columns), 2):
        x0, x1 = columns[d], columns[d + 1]
        p0, p1, p2, p3, p4, p5, p6, p7 = y0[d], y1[d], y2[d], y3[d], y4[d], y5[d], y6[d], y7[d]
        e = d + 1
        q0, q1, q2, q3, q4, q5, q6, q7 = y0[e], y1[e], y2[e], y3[e], y4[e], y5[e], y6[e], y7[e]
        for i in range(len(x0)):
            u, v = x0[i], x1[i]
            s0[i] = np.int16(s0[i] + u * p0 + v * q0)
            s1[i] = np.int16(s1[i] + u * p1 + v * q1)
            s2[i] = np.int16(s2[i] + u * p2 + v * q2)
            s3[i] = np.int16(s3[i] + u * p3 + v * q3)
            s4[i] = np.int16(s4[i] + u * p4 + v * q4)
            s5[i] = np.int16(s5[i] + u * p5 + v * q5)
            s6[i] = np.int16(s6[i] + u * p6 + v * q6)
            s7[i] = np.int16(s7[i] + u * p7 + v * q7)


@njit
def _write_scaled(sums, scales, scale, line):
    """Write the sums times both scales in float32."""
    for i in range(len(sums)):
        line[i] = np.float32(sums[i]) * (scales[i] * scale)
