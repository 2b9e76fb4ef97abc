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


@njit(fastmath=True)
def distances_to_words(rows, centers, words, distances):
    """Write ‖x_i − c_{w_i}‖² from differences, in float32; nothing where w_i is negative.

    Parameters
    ----------
    rows : uint8 or float32 (n_rows, n_dims)
    centers : float32 (n_words, n_dims)
    words : int32 (n_rows,)
    distances : float32 (n_rows,)
        # OUT
    """
    for i in range(len(words)):
        if words[i] >= 0:
            square = np.float32(0.0)
            for d in range(centers.shape[1]):
                difference = np.float32(rows[i, d]) - centers[words[i], d]
                square += difference * difference
            distances[i] = square


@njit(fastmath=True)
def means_of_rows(rows, order, bounds, centers):
    """Set c_k to the mean of its rows, summed in float64 in their order; one without rows keeps its place.

    Parameters
    ----------
    rows : uint8 or float32 (n_rows, n_dims)
    order : int32 (n_taken,)
    bounds : int64 (n_words + 1,)
        The rows of word k are ``order[bounds[k]:bounds[k + 1]]``.
    centers : float32 (n_words, n_dims)
        # OUT
    """
    total = np.empty(centers.shape[1], dtype=np.float64)
    for k in range(len(centers)):
        first, stop = bounds[k], bounds[k + 1]
        if first == stop:
            continue
        total[:] = 0.0
        for j in range(first, stop):
            for d in range(centers.shape[1]):
                total[d] += rows[order[j], d]
        for d in range(centers.shape[1]):
            centers[k, d] = total[d] / (stop - first)
