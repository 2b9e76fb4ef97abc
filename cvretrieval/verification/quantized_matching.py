"""Exhaustive matches of one image with many others by inner products in 16-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.integer_products import integer_products, quantize_rows
from cvretrieval._kernels.matching import select_matches, update_nearest

# Rows of the second image per block: 1,000 products of each stay in the second-level cache.
_BLOCK = 48

# Norm of two rows whose product still fits in 16 bits with sign: 181² < 2¹⁵.
_LARGEST_NORM = 181.0


class QuantizedMatcher:
    """Compares all descriptors of two images after rounding each to integers of norm 181 at most.

    Parameters
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
    ratio, mutual
        See `match_descriptors`.

    Notes
    -----
    Every descriptor is divided by its own norm before, and multiplied after, so norms may differ. With 128 dimensions
    the rounding moves a descriptor by 2 % of its norm.
    """

    def __init__(self, descriptors: NDArray[Any], ratio: float, mutual: bool) -> None:
        quantized, self._scales, self._half_norms = _quantize(descriptors)
        self._columns = np.ascontiguousarray(quantized.T)
        self._squared_ratio = float(ratio) ** 2
        self._mutual = bool(mutual)

    def match(self, descriptors: NDArray[Any]) -> NDArray[np.int64]:
        """Return the matches with the descriptors of another image; see `match_descriptors`."""
        n_a, n_b = len(self._scales), len(descriptors)
        if not n_a or not n_b:
            return np.empty((0, 2), dtype=np.int64)
        quantized, scales, half_norms = _quantize(descriptors)
        best = np.full(n_a, -np.inf, dtype=np.float32)
        second = np.full(n_a, -np.inf, dtype=np.float32)
        nearest = np.zeros(n_a, dtype=np.int32)
        best_of_b = np.empty(n_b, dtype=np.float32)
        products = np.empty((min(_BLOCK, n_b), n_a), dtype=np.float32)
        scratch = np.empty((8, n_a), dtype=np.int16)
        for first in range(0, n_b, _BLOCK):
            rows = quantized[first : first + _BLOCK]
            block = products[: len(rows)]
            integer_products(self._columns, self._scales, rows, scales[first : first + _BLOCK], scratch, block)
            update_nearest(block, self._half_norms, half_norms, first, best, second, nearest, best_of_b)
        matches = np.empty((n_a, 2), dtype=np.int64)
        n_matches = select_matches(best, second, nearest, best_of_b, self._squared_ratio, self._mutual, matches)
        return matches[:n_matches].copy()


def _quantize(descriptors: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
    """Return integers, scales and half squared norms; dimensions are filled up to an even number."""
    rows = np.require(descriptors, dtype=np.float32, requirements=["C", "W", "E"])
    n_rows, n_dims = rows.shape
    quantized = np.empty((n_rows, n_dims + n_dims % 2), dtype=np.int16)
    scales, half_norms = np.empty(n_rows, dtype=np.float32), np.empty(n_rows, dtype=np.float32)
    # Rounding adds at most ½ to each component, so ½ √n_dims to the norm.
    radius = np.float32(max(_LARGEST_NORM - 0.5 * np.sqrt(n_dims), 1.0))
    quantize_rows(rows, radius, quantized, scales, half_norms)
    return quantized, scales, half_norms
