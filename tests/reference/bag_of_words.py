"""Histograms of visual words, one vote at a time, in float64."""

import math

import numpy as np


def add_votes_naive(words, weights, offsets, n_words):
    """Add up the weights of the votes (n_descriptors, n_nearest) of each image."""
    histograms = np.zeros((len(offsets) - 1, n_words))
    for i in range(len(offsets) - 1):
        for n in range(offsets[i], offsets[i + 1]):
            for word, weight in zip(words[n], weights[n], strict=True):
                histograms[i, word] += weight
    return histograms


def count_words_naive(words, offsets, n_words):
    """Count the words (n_descriptors, n_nearest) of each image."""
    return add_votes_naive(words, np.ones(np.shape(words)), offsets, n_words)


def bag_of_words_naive(descriptors, centers, assignment, n_nearest, sigma, norm):
    """Encode one image from the definitions: distances, weights exp(−d²/2σ²) that share 1, sums, norm."""
    histogram = np.zeros(len(centers))
    for x in np.asarray(descriptors, dtype=np.float64):
        squares = [float(((x - center) ** 2).sum()) for center in np.asarray(centers, dtype=np.float64)]
        ranked = sorted(range(len(squares)), key=lambda k: (squares[k], k))
        nearest = ranked[: 1 if assignment == "hard" else n_nearest]
        weights = [math.exp(-squares[k] / (2 * sigma**2)) if assignment == "soft" else 1.0 for k in nearest]
        total = sum(weights) if assignment == "soft" else 1.0
        for k, weight in zip(nearest, weights, strict=True):
            histogram[k] += weight / total
    length = {"l1": np.abs(histogram).sum(), "l2": math.sqrt((histogram**2).sum()), None: 1.0}[norm]
    return histogram / length if length else histogram
