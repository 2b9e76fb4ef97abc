"""Local coordinate systems of visual words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import single_threaded


def learn_rotations(
    rows: NDArray[Any], words: NDArray[np.int32], centers: NDArray[Any], unit: bool
) -> NDArray[np.float32]:
    """Return the principal directions of the residuals of each word, float32 of shape (n_words, n_dims, n_dims).

    Parameters
    ----------
    rows : ndarray of shape (n_descriptors, n_dims)
    words : ndarray of shape (n_descriptors,)
        The word of each.
    centers : ndarray of shape (n_words, n_dims)
        What is subtracted.
    unit : bool
        Whether each residual is divided by its norm, at least 1e-12, first.

    Notes
    -----
    Rows of a rotation are directions by decreasing variance about the mean residual of the word; the sign makes the
    largest component positive. Words with fewer than n_dims descriptors, which would leave directions without variance,
    take the directions of the deviations from all words' means together.
    """
    n_words, n_dims = centers.shape
    counts = np.bincount(words, minlength=n_words)
    scatters = np.zeros((n_words, n_dims, n_dims))
    with single_threaded():
        for k, members in enumerate(np.split(np.argsort(words, kind="stable"), np.cumsum(counts)[:-1])):
            if not len(members):
                continue
            residuals = rows[members].astype(np.float64) - centers[k]
            if unit:
                residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-12)
            residuals -= residuals.mean(axis=0)
            scatters[k] = residuals.T @ residuals
        scatters[counts < n_dims] = scatters.sum(axis=0)
        # eigh returns the directions as columns, by increasing variance.
        rotations = np.linalg.eigh(scatters)[1].transpose(0, 2, 1)[:, ::-1]
    largest = np.take_along_axis(rotations, np.abs(rotations).argmax(axis=2)[:, :, None], axis=2)
    return np.ascontiguousarray(rotations * np.where(largest < 0, -1, 1), dtype=np.float32)
