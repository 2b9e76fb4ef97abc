"""Assignment of descriptors to their nearest word, shared by codebooks and encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.assignment import best_words

# Descriptors per matrix product: 64 words x 512 products are 128 kB, which stay in the second-level cache.
_BLOCK = 512


class NearestWord:
    """Finds the nearest word of each descriptor; keeps scratch memory, so each thread needs its own.

    Parameters
    ----------
    centers : ndarray of shape (n_words, n_dims)
        The words; ties go to the lowest.

    Notes
    -----
    The words of an image are computed from its rows alone: the matrix product is never shared between images, so
    batches and threads cannot change a bit.
    """

    def __init__(self, centers: NDArray[Any]) -> None:
        self.centers = np.ascontiguousarray(centers, dtype=np.float32)
        # In float64: the difference of two near-equal distances decides.
        self._half_norms = (0.5 * np.einsum("ij,ij->i", self.centers, self.centers, dtype=np.float64)).astype(
            np.float32
        )
        self._products = np.empty((len(self.centers), _BLOCK), dtype=np.float32)
        self._best = np.empty(_BLOCK, dtype=np.float32)

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the words of the descriptors of one image, int32 of shape (n_descriptors,)."""
        words = np.empty(len(descriptors), dtype=np.int32)
        for start in range(0, len(descriptors), _BLOCK):
            block = descriptors[start : start + _BLOCK]
            if len(block) == _BLOCK:
                products = np.matmul(self.centers, block.T, out=self._products)
            else:
                products = self.centers @ block.T
            best_words(products, self._half_norms, self._best[: len(block)], words[start : start + _BLOCK])
        return words
