"""Contrast-normalised patches by the definition, one by one."""

from __future__ import annotations

import numpy as np


def patch_at(image, left, top, size, epsilon):
    """(p − mean) / sqrt(variance + epsilon), row by row."""
    values = [float(image[top + i, left + j]) for i in range(size) for j in range(size)]
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return np.array([(v - mean) / np.sqrt(variance + epsilon) for v in values])
