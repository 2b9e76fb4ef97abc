"""Signatures of visual words: medians and bits of Hamming embedding, residual sums of aggregated match kernels."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def medians_of_groups(values, order, bounds, medians):
    """Take the median of each component over each group of rows; of an even number the mean of the middle two.

    Parameters
    ----------
    values : float32 (n_rows, n_bits)
    order : int64 (n_ordered,)
        Rows, group by group.
    bounds : int64 (n_groups + 1,)
        Group g owns order[bounds_g], …, order[bounds_(g+1) − 1]; none is empty.
    medians : float32 (n_groups, n_bits)
        # OUT
    """
    most = 0
    for g in range(len(bounds) - 1):
        most = max(most, bounds[g + 1] - bounds[g])
    scratch = np.empty(most, dtype=np.float32)
    for g in range(len(bounds) - 1):
        n_rows = bounds[g + 1] - bounds[g]
        for d in range(values.shape[1]):
            for i in range(n_rows):
                scratch[i] = values[order[bounds[g] + i], d]
            column = np.sort(scratch[:n_rows])
            middle = np.float64(column[n_rows // 2])
            medians[g, d] = 0.5 * (np.float64(column[(n_rows - 1) // 2]) + middle)


@njit
def pack_bits_above(values, words, thresholds, bits):
    """Bit d mod 64 of column d div 64 says whether v_nd > t_kd, for each word k of row n.

    Parameters
    ----------
    values : float32 (n_rows, n_bits)
        v.
    words : int32 (n_rows, n_nearest)
        The words of each row.
    thresholds : float32 (n_words, n_bits)
        t.
    bits : uint64 (n_rows, n_nearest, ceil(n_bits / 64))
        Zero before.  # OUT

    References
    ----------
    Jégou, Douze and Schmid, "Hamming embedding and weak geometric consistency for large scale image search", ECCV 2008,
    section 3.2.
    """
    n_rows, n_nearest = words.shape
    for n in range(n_rows):
        for j in range(n_nearest):
            k = words[n, j]
            for d in range(values.shape[1]):
                if values[n, d] > thresholds[k, d]:
                    bits[n, j, d // 64] |= np.uint64(1) << np.uint64(d % 64)


@njit
def pack_positive_bits(values, bits):
    """Bit d mod 64 of column d div 64 says whether v_nd > 0.

    Parameters
    ----------
    values : float32 (n_rows, n_bits)
        v.
    bits : uint64 (n_rows, ceil(n_bits / 64))
        Zero before.  # OUT
    """
    for n in range(len(values)):
        for d in range(values.shape[1]):
            if values[n, d] > 0:
                bits[n, d // 64] |= np.uint64(1) << np.uint64(d % 64)


# No fast-math, as for VLAD: a residual of zero must stay zero, for it is normalised.
@njit
def sum_residuals_of_groups(descriptors, order, bounds, words, centers, sums):
    """Add up the residuals of each group of rows: s_g = Σ_{n in g} (x_n − c_k), k the word of the group.

    Parameters
    ----------
    descriptors : float32 (n_rows, n_dims)
        x.
    order : int64 (n_ordered,)
        Rows, group by group.
    bounds : int64 (n_groups + 1,)
        Group g owns order[bounds_g], …, order[bounds_(g+1) − 1].
    words : int32 (n_groups,)
    centers : float32 (n_words, n_dims)
        c.
    sums : float32 (n_groups, n_dims)
        Zero before.  # OUT

    References
    ----------
    Tolias, Avrithis and Jégou, "To aggregate or not to aggregate: selective match kernels for image search", ICCV 2013,
    equation 13.
    """
    for g in range(len(words)):
        k = words[g]
        for i in range(bounds[g], bounds[g + 1]):
            n = order[i]
            for d in range(descriptors.shape[1]):
                sums[g, d] += descriptors[n, d] - centers[k, d]


@njit(fastmath=True)
def normalize_rows(rows):
    """Divide each row by its norm, max(‖r‖, 1e-12), in place.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
        # OUT
    """
    for n in range(len(rows)):
        square = np.float32(0.0)
        for d in range(rows.shape[1]):
            square += rows[n, d] * rows[n, d]
        scale = np.float32(1.0 / max(np.sqrt(square), 1e-12))
        for d in range(rows.shape[1]):
            rows[n, d] *= scale
