"""How good vectors are at finding others of their class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024


def recall_at_1(vectors: NDArray[np.float32], labels: Any, radius: float | None = None) -> float:
    """Return the share of vectors whose nearest other, by inner product, is of their class.

    Labels of shape (n, 2) are positions: the nearest other must lie within the radius.
    """
    labels = np.asarray(labels)
    n_hits = 0
    for start in range(0, len(vectors), _ROWS):
        products = vectors[start : start + _ROWS] @ vectors.T
        rows = np.arange(len(products))
        products[rows, start + rows] = -np.inf
        found, own = labels[products.argmax(1)], labels[start + rows]
        is_hit = found == own if radius is None or labels.ndim == 1 else np.linalg.norm(found - own, axis=1) <= radius
        n_hits += int(is_hit.sum())
    return n_hits / len(vectors) if len(vectors) > 1 else 0.0
