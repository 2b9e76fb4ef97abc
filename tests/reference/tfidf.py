"""Term frequency times inverse document frequency, one element at a time."""

import math

import numpy as np


def tfidf_naive(train, counts, norm=None, relative=True, stopped=()):
    """Weight counts (n_images, n_words) by what the counts `train` say of the words."""
    n_images, n_words = np.shape(train)
    weighted = np.zeros(np.shape(counts))
    for d, row in enumerate(counts):
        total = float(sum(row))
        for i in range(n_words):
            n_containing = sum(1 for image in train if image[i] > 0)
            if n_containing and total and i not in stopped:
                frequency = row[i] / total if relative else row[i]
                weighted[d, i] = frequency * math.log(n_images / n_containing)
        length = {"l1": sum(abs(weighted[d])), "l2": math.sqrt(sum(weighted[d] ** 2)), None: 1.0}[norm]
        if length:
            weighted[d] /= length
    return weighted
