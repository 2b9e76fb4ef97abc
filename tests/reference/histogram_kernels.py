"""Kernels between histograms, pair by pair and component by component."""

from __future__ import annotations

import numpy as np


def histogram_intersection(X, Y):
    """Σ_d min(x_d, y_d)."""
    return np.array([[sum(min(a, b) for a, b in zip(x, y, strict=True)) for y in Y] for x in X], dtype=np.float64)


def chi2_distance(X, Y):
    """Σ_d (x_d − y_d)² / (x_d + y_d), where the sum is positive."""
    values = np.zeros((len(X), len(Y)))
    for i, x in enumerate(np.asarray(X, dtype=np.float64)):
        for j, y in enumerate(np.asarray(Y, dtype=np.float64)):
            for a, b in zip(x, y, strict=True):
                if a + b > 0:
                    values[i, j] += (a - b) ** 2 / (a + b)
    return values


def hellinger(X, Y):
    """Σ_d √(x_d y_d)."""
    return np.array([[sum(np.sqrt(a * b) for a, b in zip(x, y, strict=True)) for y in Y] for x in X])
