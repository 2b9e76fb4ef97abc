"""Hamming embedding and aggregated match kernels by their definitions, one descriptor after the other."""

from __future__ import annotations

import numpy as np


def medians(values, words, n_words, fewest, otherwise):
    """(n_words, n_bits) medians of the rows of each word; `otherwise` where it has too few."""
    result = np.array(otherwise, dtype=np.float64)
    for k in range(n_words):
        own = values[words == k].astype(np.float64)
        if len(own) >= fewest:
            ranked = np.sort(own, axis=0)
            result[k] = (ranked[(len(own) - 1) // 2] + ranked[len(own) // 2]) / 2
    return result


def bits_above(row, thresholds):
    """One uint64 for every 64 components, the first in the lowest bit."""
    columns = [0] * (-(-len(row) // 64))
    for d, (value, threshold) in enumerate(zip(row, thresholds)):  # noqa: B905
        columns[d // 64] |= int(value > threshold) << (d % 64)
    return np.array(columns, dtype=np.uint64)


def hamming_embedding(values, words, thresholds):
    """(words, signatures) of one image, by word; `words` (n_descriptors, n_nearest)."""
    entries = [(k, bits_above(row, thresholds[k])) for row, own in zip(values, words) for k in own]  # noqa: B905
    entries.sort(key=lambda entry: entry[0])
    return [k for k, _ in entries], [bits for _, bits in entries]


def residual_sums(rows, words, centers):
    """{word: Σ (x − c_k)} of one image, in float64."""
    sums = {}
    for row, own in zip(rows.astype(np.float64), words):  # noqa: B905
        for k in own:
            sums[int(k)] = sums.get(int(k), 0.0) + (row - centers[k].astype(np.float64))
    return dict(sorted(sums.items()))


def nearest(rows, centers, n_nearest):
    """(n_descriptors, n_nearest) nearest centres, the nearest first."""
    distances = ((rows[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(axis=2)
    return np.argsort(distances, axis=1, kind="stable")[:, :n_nearest]
