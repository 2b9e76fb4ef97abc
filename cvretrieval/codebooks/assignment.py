"""Assignment of descriptors to their nearest word, shared by codebooks and encoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.assignment import best_words

#: Descriptors per matrix product: with 128 dimensions (256 kB) and their products with 64 words (128 kB) they stay in
#: the second-level cache until their residuals are added.
BLOCK = 512

#: Words per matrix product; larger codebooks are multiplied chunk by chunk, so that the products stay in cache.
WORD_CHUNK = 128


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
        self._products = np.empty((min(len(self.centers), WORD_CHUNK), BLOCK), dtype=np.float32)
        self._best = np.empty(BLOCK, dtype=np.float32)
        self._words = np.empty(BLOCK, dtype=np.int32)

    def blocks(self, descriptors: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """Yield the descriptors of one image block by block with their words; the words are overwritten by the next."""
        for start in range(0, len(descriptors), BLOCK):
            block = descriptors[start : start + BLOCK]
            words = self._words[: len(block)]
            for first in range(0, len(self.centers), WORD_CHUNK):
                chunk = self.centers[first : first + WORD_CHUNK]
                products = self._products[: len(chunk)]
                np.matmul(chunk, block.T, out=products[:, : len(block)])
                best_words(products, self._half_norms[first : first + WORD_CHUNK], first, self._best, words)
            yield block, words

    def assign(self, descriptors: NDArray[np.float32], assigned: NDArray[np.int32]) -> bool:
        """Write the words of the descriptors of one image; return whether all of them are finite and so have one."""
        start = 0
        finite = True
        for block, words in self.blocks(descriptors):
            stop = start + len(block)
            assigned[start:stop] = words
            finite &= bool(np.isfinite(self._best[: len(block)]).all())
            start = stop
        return finite
