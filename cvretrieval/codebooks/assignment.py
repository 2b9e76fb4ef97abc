"""Assignment of descriptors to their nearest word, shared by codebooks and encoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.assignment import best_words

#: Descriptors per matrix product: the descriptors (128 kB for 128 dimensions) and their products with 64 words
#: (64 kB) stay in the second-level cache until they are used.
BLOCK = 256


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
        self._products = np.empty((len(self.centers), BLOCK), dtype=np.float32)
        self._best = np.empty(BLOCK, dtype=np.float32)
        self._words = np.empty(BLOCK, dtype=np.int32)

    def blocks(self, descriptors: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """Yield the descriptors of one image block by block with their words; the words are overwritten by the next."""
        n_descriptors = len(descriptors)
        for start in range(0, n_descriptors, BLOCK):
            block = descriptors[start : start + BLOCK]
            words = self._words[: len(block)]
            products = np.matmul(self.centers, block.T, out=self._products if len(block) == BLOCK else None)
            best_words(products, self._half_norms, self._best, words)
            yield block, words

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the words of the descriptors of one image, int32 of shape (n_descriptors,)."""
        parts = [words.copy() for _, words in self.blocks(descriptors)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
