"""Match lines: which of them are drawn, and how the script of a report receives them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def finite_rows(matches: Any) -> NDArray[np.float64]:
    """Return the correspondences x, y, x', y' that can be drawn, of shape (n_matches, 4); None has none."""
    if matches is None:
        return np.empty((0, 4))
    rows = np.asarray(matches, dtype=np.float64).reshape(-1, 4)
    return rows[np.isfinite(rows).all(axis=1)]


def spread_rows(rows: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """Return at most `limit` rows, in their order, taken evenly along x and y of the first image."""
    if len(rows) <= limit:
        return rows
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return rows[np.sort(order[np.linspace(0, len(rows) - 1, limit).round().astype(np.intp)])]


def pack_matches(matches: Any, limit: int) -> list[float]:
    """Return x, y, x', y', x, y, … of at most `limit` correspondences, rounded to a tenth of a pixel, flat."""
    rows = spread_rows(finite_rows(matches), limit)
    # Whole numbers as integers: a third fewer bytes.
    return [int(value) if value == int(value) else value for value in np.round(rows, 1).ravel().tolist()]


def pack_points(points: Any) -> list[float] | None:
    """Return a polygon as a flat list of rounded numbers."""
    return None if points is None else np.round(np.asarray(points, dtype=np.float64), 1).ravel().tolist()
