"""Lloyd's algorithm, descriptor by descriptor, in float64."""

from __future__ import annotations

import numpy as np


def assign_naive(rows, centers):
    """Nearest centre of each row, and the squared distance; ties go to the lowest."""
    words, distances = [], []
    for x in np.asarray(rows, dtype=np.float64):
        squares = ((x - np.asarray(centers, dtype=np.float64)) ** 2).sum(axis=1)
        words.append(int(squares.argmin()))
        distances.append(squares.min())
    return np.array(words), np.array(distances)


def lloyd_naive(rows, centers, n_iter):
    """Centres after some iterations: means of their rows; where there are none, the rows farthest off, in turn."""
    rows, centers = np.asarray(rows, dtype=np.float64), np.array(centers, dtype=np.float64)
    for _ in range(n_iter):
        words, distances = assign_naive(rows, centers)
        farthest = iter(np.argsort(-distances, kind="stable"))
        for k in range(len(centers)):
            own = rows[words == k]
            centers[k] = own.mean(axis=0) if len(own) else rows[next(farthest)]
    return centers
