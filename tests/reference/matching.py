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
