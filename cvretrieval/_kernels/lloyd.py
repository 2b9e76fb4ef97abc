"""Lloyd's algorithm: what an iteration sums up once the nearest words are known."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def center_rows(descriptors, mean, centered):
    """Write x − mean; return Σ (x − mean)².

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    mean : float32 (n_dims,)
    centered : float32 (n_descriptors, n_dims)
        # OUT

    Returns
    -------
    total : float32
        Of one call: not finite if a descriptor is not.
    """
    n_descriptors, n_dims = descriptors.shape
    total = np.float32(0.0)
    for i in range(n_descriptors):
        for d in range(n_dims):
            difference = descriptors[i, d] - mean[d]
            centered[i, d] = difference
            total += difference * difference
    return total


@njit(fastmath=True)
def add_to_words(descriptors, words, centers, sums, counts, distances):
    """Add up residuals Σ_{i: w_i = k} (x_i − c_k) and counts of each word, and measure ‖x_i − c_{w_i}‖².

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    words : int32 (n_descriptors,)
    centers : float32 (n_words, n_dims)
    sums : float64 (n_words, n_dims)
        # OUT, added to
    counts : int64 (n_words,)
        # OUT, added to
    distances : float32 (n_descriptors,)
        Squared.  # OUT
    """
    n_descriptors, n_dims = descriptors.shape
    for i in range(n_descriptors):
        k = words[i]
        counts[k] += 1
        square = np.float32(0.0)
        for d in range(n_dims):
            difference = descriptors[i, d] - centers[k, d]
            square += difference * difference
            sums[k, d] += difference
        distances[i] = square
