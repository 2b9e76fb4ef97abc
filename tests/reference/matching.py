"""One-to-one matching by the definition, in float64."""

from __future__ import annotations

import numpy as np


def match(a, b, ratio, mutual):
    """Pairs (i, j): j nearest to i, ratio test, mutual or nearest of those that chose the same j."""
    if not len(a) or not len(b):
        return []
    d = ((a[:, None, :].astype(np.float64) - b[None, :, :].astype(np.float64)) ** 2).sum(axis=2)
    chosen = {}
    for i in range(len(a)):
        j = int(np.argmin(d[i]))
        others = np.delete(d[i], j)
        if ratio < 1 and len(others) and not d[i, j] < ratio**2 * others.min():
            continue
        if mutual and d[i, j] > d[:, j].min():
            continue
        if j not in chosen or d[i, j] < d[chosen[j], j]:
            chosen[j] = i
    return sorted((i, j) for j, i in chosen.items())


def match_within_words(a, b, is_member, words):
    """Best, second, nearest of every a and best of every b by v = −½ d², where is_member[i, words[j]]."""
    best, second = np.full(len(a), -np.inf), np.full(len(a), -np.inf)
    nearest, best_of_b = np.zeros(len(a), dtype=int), np.full(len(b), -np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            if not is_member[i, words[j]]:
                continue
            v = -0.5 * ((a[i].astype(np.float64) - b[j].astype(np.float64)) ** 2).sum()
            best_of_b[j] = max(best_of_b[j], v)
            if v > best[i]:
                best[i], second[i], nearest[i] = v, best[i], j
            elif v > second[i]:
                second[i] = v
    return best, second, nearest, best_of_b


def quantize(row, radius):
    """Integers, scale and half squared norm of one descriptor."""
    row = row.astype(np.float64)
    norm = np.sqrt((row**2).sum())
    if not np.isfinite(norm):
        return np.zeros(len(row), dtype=int), 0.0, np.inf
    if norm == 0:
        return np.zeros(len(row), dtype=int), 0.0, 0.0
    integers = np.rint(row * radius / norm).astype(int)
    return integers, norm / radius, 0.5 * (norm / radius) ** 2 * (integers**2).sum()
