"""Dense SIFT by the definition: every bin of every descriptor is a sum over pixels, in float64."""

from __future__ import annotations

import numpy as np


def angle_of(gx, gy):
    """Angle of a gradient by the cubic approximation, in [0, 2π)."""
    r = (abs(gx) - abs(gy) - 1e-30) / (abs(gx) + abs(gy) + 1e-30)
    angle = max(np.pi / 4 + (0.1821 * r * r - 0.9675) * r, 0.0)
    angle = angle if gx >= 0 else np.pi - angle
    return angle if gy >= 0 else (2 * np.pi - angle) % (2 * np.pi)


def orientation_maps(image, n_orientations, angle=angle_of):
    """(n_orientations, height, width): the gradient magnitude shared between the two nearest orientations."""
    gy, gx = np.gradient(image.astype(np.float64))
    maps = np.zeros((n_orientations, *image.shape))
    for y, x in np.ndindex(image.shape):
        q = angle(gx[y, x], gy[y, x]) * n_orientations / (2 * np.pi)
        for t in range(n_orientations):
            away = abs(q - t) % n_orientations
            away = min(away, n_orientations - away)
            maps[t, y, x] = np.hypot(gx[y, x], gy[y, x]) * max(0.0, 1 - away)
    return maps


def bins_at(maps, x0, y0, size, n_bins, window_size, window):
    """(n_bins, n_bins, n_orientations) with the first bin centred at x0, y0."""
    n_orientations, height, width = maps.shape
    bins = np.zeros((n_bins, n_bins, n_orientations))

    def weight(d, b):
        def gauss(e):
            return np.exp(-0.5 * ((size * (b - 0.5 * (n_bins - 1)) + e) / (window_size * size)) ** 2)

        values = {
            "gaussian": gauss(d),
            "flat": np.mean([gauss(e) for e in range(1 - size, size)]),
            None: 1.0,
        }
        return (1 - abs(d) / size) * values[window]

    for by, bx in np.ndindex(n_bins, n_bins):
        for dy in range(1 - size, size):
            for dx in range(1 - size, size):
                y = min(max(y0 + by * size + dy, 0), height - 1)
                x = min(max(x0 + bx * size + dx, 0), width - 1)
                bins[by, bx] += weight(dy, by) * weight(dx, bx) * maps[:, y, x]
    return bins


def normalized(bins, size, threshold):
    """Descriptor and contrast: L2, clip at 0.2, L2; zero below the threshold."""
    row = bins.ravel()
    contrast = row.sum() / ((len(bins) - 1) * size + 1) ** 2
    if contrast < threshold or not row.any():
        return np.zeros_like(row), contrast
    row = np.minimum(row / np.linalg.norm(row), 0.2)
    return row / np.linalg.norm(row), contrast


def dense_sift(image, size, step, *, n_bins=4, n_orientations=8, window="gaussian", window_size=2.0, threshold=0.0,
               first=(0, 0), angle=angle_of):  # fmt: skip
    """Descriptors and contrasts of the grid that starts with the first bin centred at `first`, row by row."""
    maps = orientation_maps(image, n_orientations, angle)
    extent = (n_bins - 1) * size
    rows, contrasts = [], []
    for y0 in range(first[1], image.shape[0] - extent, step):
        for x0 in range(first[0], image.shape[1] - extent, step):
            row, contrast = normalized(bins_at(maps, x0, y0, size, n_bins, window_size, window), size, threshold)
            rows.append(row)
            contrasts.append(contrast)
    return np.array(rows), np.array(contrasts)
