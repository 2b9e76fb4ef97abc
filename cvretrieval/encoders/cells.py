"""Cells of a grid laid over images, and the descriptors in each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def group_by_cell(
    positions: NDArray[np.float64], images: NDArray[np.int64], n_images: int, grid: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows ordered by image and cell, and the offsets of the n_images · rows · columns cells in them.

    Cell (r, c) holds r / n_rows ≤ v < (r + 1) / n_rows and likewise u for c: a boundary belongs to the cell right of or
    below it. Positions outside the image count for the nearest cell. Cells are row-major; rows keep their order within
    a cell.
    """
    n_rows, n_columns = grid
    columns = np.clip(np.floor(positions[:, 0] * n_columns), 0, n_columns - 1).astype(np.int64)
    rows = np.clip(np.floor(positions[:, 1] * n_rows), 0, n_rows - 1).astype(np.int64)
    cells = (images * n_rows + rows) * n_columns + columns
    offsets = np.zeros(n_images * n_rows * n_columns + 1, dtype=np.int64)
    np.cumsum(np.bincount(cells, minlength=len(offsets) - 1), out=offsets[1:])
    return np.argsort(cells, kind="stable"), offsets
