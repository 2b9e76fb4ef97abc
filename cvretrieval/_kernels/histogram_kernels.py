"""Kernel values between histograms: what is no matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def add_intersections(X, Y, zero, values):
    """Write values_ij = Σ_d min(x_id, y_jd), histogram intersection (Swain & Ballard 1991, equation 1, not divided).

    Components are added in the type of the input within runs of 256, and the runs in the type of `values`: with
    float32 input and float64 values the error does not grow with the number of components.

    Parameters
    ----------
    X : float32 or float64 (n, n_dims)
    Y : float32 or float64 (m, n_dims)
    zero : float32 or float64
        0 in the type of X.
    values : float64 (n, m)
        # OUT
    """
    n_dims = X.shape[1]
    for i in range(len(X)):
        x = X[i]
        for j in range(len(Y)):
            y = Y[j]
            total = 0.0
            for start in range(0, n_dims, 256):
                # Slices, so that indices count from 0: otherwise numba's check for negative ones stays in the loop.
                a, b = x[start : start + 256], y[start : start + 256]
                part = zero
                for d in range(len(a)):
                    part += a[d] if a[d] < b[d] else b[d]
                total += part
            values[i, j] = total


@njit(fastmath=True)
def add_chi2_distances(X, Y, zero, smallest, values):
    """Write values_ij = Σ_d (x_id − y_jd)² / (x_id + y_jd), the χ² distance; components that are both 0 add 0.

    Zhang, Marszałek, Lazebnik & Schmid 2007, equation 2, without their factor ½. Sums in runs as in
    `add_intersections`.

    Parameters
    ----------
    X : float32 or float64 (n, n_dims)
        Non-negative.
    Y : float32 or float64 (m, n_dims)
        Non-negative.
    zero : float32 or float64
        0 in the type of X.
    smallest : float32 or float64
        Smallest normal number of the type of X: it stands in for sums below it, so that no branch is needed.
    values : float64 (n, m)
        # OUT
    """
    n_dims = X.shape[1]
    for i in range(len(X)):
        x = X[i]
        for j in range(len(Y)):
            y = Y[j]
            total = 0.0
            for start in range(0, n_dims, 256):
                a, b = x[start : start + 256], y[start : start + 256]
                part = zero
                for d in range(len(a)):
                    difference = a[d] - b[d]
                    both = a[d] + b[d]
                    # np.divide, because `/` looks for zeros and raises, which keeps the loop from being vectorised.
                    part += difference * np.divide(difference, both if both > smallest else smallest)
                total += part
            values[i, j] = total
