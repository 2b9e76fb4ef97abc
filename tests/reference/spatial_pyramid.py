"""Spatial pyramids cell by cell: which descriptors lie in it, their vector, its weight."""

import numpy as np


def in_cell_naive(x, y, width, height, row, column, n_rows, n_columns):
    """Whether a keypoint belongs to a cell; the image covers [−½, width − ½), boundaries go right and down."""

    def is_between(position, length, cell, n_cells):
        low, high = cell * length / n_cells - 0.5, (cell + 1) * length / n_cells - 0.5
        above = position >= low or cell == 0
        below = position < high or cell == n_cells - 1
        return above and below

    return is_between(x, width, column, n_columns) and is_between(y, height, row, n_rows)


def lazebnik_weights_naive(n_levels):
    """Return 1/2^L for level 0 and 1/2^(L − l + 1) for level l ≥ 1."""
    last = n_levels - 1
    return [1 / 2**last if level == 0 else 1 / 2 ** (last - level + 1) for level in range(n_levels)]


def pyramid_naive(descriptors, keypoints, size, grids, weights, encode):
    """Concatenate weight · encode(descriptors of the cell) over grids and cells, row by row."""
    parts = []
    for (n_rows, n_columns), weight in zip(grids, weights, strict=True):
        for row in range(n_rows):
            for column in range(n_columns):
                chosen = [
                    descriptor
                    for descriptor, (x, y, *_) in zip(descriptors, keypoints, strict=True)
                    if in_cell_naive(x, y, *size, row, column, n_rows, n_columns)
                ]
                parts.append(weight * encode(np.array(chosen).reshape(-1, np.shape(descriptors)[1])))
    return np.concatenate(parts)
