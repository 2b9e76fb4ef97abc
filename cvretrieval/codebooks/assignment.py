"""Assignment of descriptors to their nearest words, shared by codebooks and encoders."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.assignment import best_words, nearest_few_words, nearest_words, read_ahead
from cvretrieval._validation import non_finite_descriptors

#: Descriptors per matrix product, at most. Measured with 128 dimensions and 64 words: fewer cost calls, more leave the
#: second-level cache between the product, the comparison and the residuals.
BLOCK = 1024

#: Words per matrix product; larger codebooks are multiplied chunk by chunk, so that the products stay in cache.
WORD_CHUNK = 128

# Up to so many nearest words, selects over all of them beat branches that are seldom taken.
_FEW = 8


def block_bounds(n_descriptors: int, block: int = BLOCK) -> list[int]:
    """Cut the descriptors of one image into the fewest blocks, of equal size but for rounding: 0, …, n_descriptors."""
    n_blocks = -(-n_descriptors // block)
    return [n_descriptors * i // n_blocks for i in range(n_blocks + 1)] if n_blocks else [0]


class WordProducts:
    """Multiplies the descriptors of an image with all words, block by block and chunk by chunk, in cache.

    The products are a ⟨c_k − o, x⟩, and what stands for half the squared norms is a (½‖c_k‖² − ½‖o‖²): with any origin
    o, differences between words are a times those of ⟨c_k, x⟩ − ½‖c_k‖², of half the squared distances that is.
    """

    def __init__(
        self, centers: NDArray[Any], owner: Any, origin: NDArray[Any] | None = None, scale: float = 1.0
    ) -> None:
        self._owner = owner
        self.centers = np.ascontiguousarray(centers, dtype=np.float32)
        # In float64: the difference of two near-equal distances decides.
        squares = np.einsum("ij,ij->i", self.centers, self.centers, dtype=np.float64)
        if origin is not None:
            squares -= np.dot(origin, origin)
            self.centers = (scale * np.subtract(self.centers, origin, dtype=np.float64)).astype(np.float32)
        half_norms = (0.5 * scale * squares).astype(np.float32)
        scratch = np.empty((min(len(self.centers), WORD_CHUNK), BLOCK), dtype=np.float32)
        self._chunks = [
            (first, self.centers[first : first + WORD_CHUNK], half_norms[first : first + WORD_CHUNK],
             scratch[: len(self.centers) - first])
            for first in range(0, len(self.centers), WORD_CHUNK)
        ]  # fmt: skip

    def _blocks(self, descriptors: NDArray[Any], image: int) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of the descriptors of one image in float32; refuse those that are not finite."""
        for start, stop in pairwise(block_bounds(len(descriptors))):
            block = descriptors[start:stop].astype(np.float32, copy=False)
            if not np.isfinite(read_ahead(block)):
                raise non_finite_descriptors(self._owner, image)
            yield block

    def _products(self, block: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """Yield first word, products and half squared norms of each chunk of words; the next overwrites the products.

        Only the first ``len(block)`` columns of the products are filled.
        """
        for first, centers, half_norms, products in self._chunks:
            np.matmul(centers, block.T, out=products[:, : len(block)])
            yield first, products, half_norms


def origin_of(centers: NDArray[Any]) -> NDArray[np.float64]:
    """Return about the mean of the words: far from the origin of the descriptors, gaps would lose digits without it.

    Rounded to an eighth of the words' spread, a power of two, so that whole numbers stay exact.
    """
    mean: NDArray[np.float64] = np.asarray(np.mean(centers, axis=0, dtype=np.float64))
    spread = np.sqrt(np.mean((centers - mean) ** 2))
    if not spread > 0:
        return mean
    grid = np.exp2(np.floor(np.log2(spread)) - 3)
    return np.asarray(np.rint(mean / grid) * grid)


class NearestWord(WordProducts):
    """Finds the nearest word of each descriptor; keeps scratch memory, so each thread needs its own.

    Parameters
    ----------
    centers : ndarray of shape (n_words, n_dims)
        The words; ties go to the lowest.
    owner : object
        The estimator that errors name.

    Notes
    -----
    The words of an image are computed from its rows alone: the matrix product is never shared between images, so
    batches and threads cannot change a bit.
    """

    def __init__(self, centers: NDArray[Any], owner: Any) -> None:
        super().__init__(centers, owner)
        self._best = np.empty(BLOCK, dtype=np.float32)
        self._words = np.empty(BLOCK, dtype=np.int32)

    def blocks(self, descriptors: NDArray[Any], image: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """Yield the descriptors of one image block by block with their words; the words are overwritten by the next.

        Descriptors in bytes are converted block by block.

        Raises
        ------
        ValueError
            If a descriptor is NaN or infinite; `image` is the number that the message names.
        """
        for block in self._blocks(descriptors, image):
            words = self._words[: len(block)]
            for first, products, half_norms in self._products(block):
                best_words(products, half_norms, first, self._best, words)
            yield block, words

    def assign(self, descriptors: NDArray[Any], image: int) -> NDArray[np.int32]:
        """Return the words of the descriptors of one image, int32 of shape (n_descriptors,); errors as `blocks`."""
        parts = [words.copy() for _, words in self.blocks(descriptors, image)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


class NearestWords(WordProducts):
    """Finds the several nearest words of each descriptor; keeps scratch memory, so each thread needs its own.

    Parameters
    ----------
    centers : ndarray of shape (n_words, n_dims)
        The words; ties go to the lowest.
    n_nearest : int
        Words per descriptor, at most n_words.
    owner : object
        The estimator that errors name.

    Notes
    -----
    As with `NearestWord`, the words of an image are computed from its rows alone.
    """

    def __init__(self, centers: NDArray[Any], n_nearest: int, owner: Any) -> None:
        super().__init__(centers, owner, origin_of(centers))
        self._n_nearest = n_nearest

    def assign(self, descriptors: NDArray[Any], image: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return words and squared distances beyond the nearest, both of shape (n_descriptors, n_nearest).

        Words are int32, nearest first. The second array holds ‖x − c_j‖² − ‖x − c_1‖², float32: zero in the first
        column, ascending. Distances themselves would lose digits where descriptors are far from all words.

        Raises
        ------
        ValueError
            If a descriptor is NaN or infinite; `image` is the number that the message names.
        """
        shape = (len(descriptors), self._n_nearest)
        all_words, gaps = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
        start = 0
        for block in self._blocks(descriptors, image):
            words, scores = self._nearest(block)
            all_words[start : start + len(block)] = words.T
            gaps[start : start + len(block)] = 2 * (scores[0] - scores).T
            start += len(block)
        return all_words, gaps

    def _nearest(self, block: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return words and scores of a block, both (n_nearest, n_descriptors), the best first."""
        keep = nearest_few_words if self._n_nearest <= _FEW else nearest_words
        scores = np.empty((self._n_nearest, len(block)), dtype=np.float32)
        words = np.empty(scores.shape, dtype=np.int32)
        for first, products, half_norms in self._products(block):
            keep(products, half_norms, first, scores, words)
        return words, scores
