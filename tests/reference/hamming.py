"""Hamming distances, matches and k-majority by the definition, on unpacked bits."""

from __future__ import annotations

import numpy as np


def hamming(a, b):
    """(len(a), len(b)) numbers of differing bits."""
    return (np.unpackbits(a, axis=1)[:, None, :] != np.unpackbits(b, axis=1)[None, :, :]).sum(axis=2)


def match_binary(a, b, ratio, mutual):
    """Pairs (i, j): j nearest to i, ratio test, mutual or nearest of those that chose the same j."""
    if not len(a) or not len(b):
        return []
    d = hamming(a, b)
    chosen = {}
    for i in range(len(a)):
        j = int(np.argmin(d[i]))
        others = np.delete(d[i], j)
        if ratio < 1 and len(others) and not d[i, j] < ratio * others.min():
            continue
        if mutual and d[i, j] > d[:, j].min():
            continue
        if j not in chosen or d[i, j] < d[chosen[j], j]:
            chosen[j] = i
    return sorted((i, j) for j, i in chosen.items())


def k_majority(descriptors, centers, max_iter):
    """Centres, words and their distances after so many rounds of majority votes; ties keep the bit."""
    bits = np.unpackbits(centers, axis=1)
    for _ in range(max_iter):
        words = hamming(descriptors, np.packbits(bits, axis=1)).argmin(axis=1)
        updated = bits.copy()
        for k in range(len(bits)):
            members = np.unpackbits(descriptors[words == k], axis=1)
            for b in range(bits.shape[1]):
                ones = members[:, b].sum()
                if 2 * ones != len(members):
                    updated[k, b] = 2 * ones > len(members)
        if np.array_equal(updated, bits):
            break
        bits = updated
    centers = np.packbits(bits, axis=1)
    d = hamming(descriptors, centers)
    return centers, d.argmin(axis=1), d.min(axis=1)


def search(metric, queries, vectors, keys, k):
    """Return keys and scores (n_queries, k): smaller distances first, then lower keys; padded with -1 and −inf."""
    found_keys = np.full((len(queries), k), -1, dtype=np.int64)
    found_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    distances = hamming(queries.astype(np.uint8), vectors.astype(np.uint8))
    for i, row in enumerate(distances):
        ranked = sorted((int(d), int(key)) for d, key in zip(row, keys) if key >= 0)  # noqa: B905
        for rank, (d, key) in enumerate(ranked[:k]):
            found_keys[i, rank], found_scores[i, rank] = key, -d
    return found_keys, found_scores
