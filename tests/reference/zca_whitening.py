"""ZCA whitening by the inverse symmetric root of the covariance, found by Newton's iteration (no eigenvectors)."""

from __future__ import annotations

import numpy as np


def zca_naive(X, rows, epsilon):
    """Learn from X, apply to rows."""
    X = np.asarray(X, dtype=np.float64)
    mean = sum(X) / len(X)
    covariance = sum(np.outer(x - mean, x - mean) for x in X) / len(X)
    target = covariance + epsilon * np.eye(len(mean))
    # Denman and Beavers: root → target^½, inverse → target^−½.
    root, inverse = target, np.eye(len(mean))
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return np.array([inverse @ (row - mean) for row in np.asarray(rows, dtype=np.float64)])
