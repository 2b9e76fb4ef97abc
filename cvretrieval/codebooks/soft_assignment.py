"""Soft assignment of descriptors to words by a Gaussian kernel (kernel codebook)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.gaussian_posteriors import normalize_log_densities
from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks.assignment import NearestWords, WordProducts, origin_of
from cvretrieval.feature_chunks import FeatureChunks, sample_descriptors

# Enough for the median of the gaps: its standard error is about 1 % of it.
_SIGMA_SAMPLES = 10_000

# 1 / σ² is at most so many powers of two over the squared spread of the words: soft assignment is hard then.
_SHARPEST = 60


class SoftWords(NearestWords):
    """Weighs the several nearest words of each descriptor; keeps scratch memory, so each thread needs its own.

    Parameters
    ----------
    centers : ndarray of shape (n_words, n_dims)
        The words; ties go to the lowest.
    n_nearest : int
        Words per descriptor, at most n_words.
    sigma : float
        σ, in the unit of the descriptors.
    owner : object
        The estimator that errors name.

    Notes
    -----
    As with `NearestWord`, weights are computed from the rows of one image alone. Those below 2^-64 are zero.
    """

    def __init__(self, centers: NDArray[Any], n_nearest: int, sigma: float, owner: Any) -> None:
        super().__init__(centers, n_nearest, owner)
        self._scale = np.float32(_inverse_square(sigma, centers))

    def blocks(
        self, descriptors: NDArray[Any], image: int
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]]:
        """Yield the descriptors of one image block by block with their words and weights exp(−d²/2σ²) / Σ exp(−d²/2σ²).

        Words are int32, nearest first, weights float32, both of shape (n_nearest, n_descriptors); sums over the
        n_nearest words.

        Raises
        ------
        ValueError
            If a descriptor is NaN or infinite; `image` is the number that the message names.
        """
        constants = np.zeros(self._n_nearest, dtype=np.float32)
        for block in self._blocks(descriptors, image):
            words, scores = self._nearest(block)
            # Subtracted first: the product would be infinite for the smallest σ.
            scores -= scores[0].copy()
            scores *= self._scale
            yield block, words, _soften(scores, constants)

    def assign(self, descriptors: NDArray[Any], image: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return words and weights of the descriptors of one image, both of shape (n_descriptors, n_nearest)."""
        shape = (len(descriptors), self._n_nearest)
        all_words, all_weights = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
        start = 0
        for block, words, weights in self.blocks(descriptors, image):
            all_words[start : start + len(block)] = words.T
            all_weights[start : start + len(block)] = weights.T
            start += len(block)
        return all_words, all_weights


class AllWords(WordProducts):
    """Weighs all words for each descriptor; keeps scratch memory, so each thread needs its own.

    Parameters and notes as for `SoftWords`, without `n_nearest`.
    """

    def __init__(self, centers: NDArray[Any], sigma: float, owner: Any) -> None:
        super().__init__(centers, owner, origin_of(centers), _inverse_square(sigma, centers))

    def blocks(
        self, descriptors: NDArray[Any], image: int
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield the descriptors of one image block by block with weights exp(−d²/2σ²) / Σ exp(−d²/2σ²).

        Weights are float32 of shape (n_words, n_descriptors); errors as in `SoftWords.blocks`.
        """
        constants = -np.concatenate([half_norms for _, _, half_norms, _ in self._chunks])
        for block in self._blocks(descriptors, image):
            scores = np.empty((len(self.centers), len(block)), dtype=np.float32)
            for first, centers, *_ in self._chunks:
                np.matmul(centers, block.T, out=scores[first : first + len(centers)])
            yield block, _soften(scores, constants)


def learn_sigma(X: FeatureChunks, centers: NDArray[Any], owner: Any) -> float:
    """Return σ with 2σ² = median of d₂² − d₁², the gap between the squared distances to the two nearest words.

    Over a sample of 10,000 descriptors of `X`; gaps of zero (equal words) are left out. 1 if no gap is left.

    Raises
    ------
    ValueError
        If `X` has no descriptors, or one of the sample is NaN or infinite; the message names `owner`.
    """
    if X.is_empty:
        raise ValueError(
            f"{type(owner).__name__} cannot learn sigma: none of the images has any descriptor. Give the 'sigma' "
            "parameter."
        )
    if len(centers) == 1:
        return 1.0
    rows = sample_descriptors(X, _SIGMA_SAMPLES, np.random.RandomState(0), estimator=owner)
    with single_threaded():
        gaps = NearestWords(centers, 2, owner).assign(rows, image=0)[1][:, 1]
    gaps = gaps[gaps > 0]
    return float(np.sqrt(np.median(gaps) / 2)) if len(gaps) else 1.0


def _inverse_square(sigma: float, centers: NDArray[Any]) -> float:
    """Return 1 / σ², or as much as float32 bears: differences of scores are half those of squared distances."""
    spread = float(np.mean((centers - np.mean(centers, axis=0, dtype=np.float64)) ** 2))
    highest = float(np.exp2(_SHARPEST - np.ceil(np.log2(spread)))) if spread > 0 else 1.0
    return highest if sigma * sigma * highest < 1 else 1 / (sigma * sigma)


def _soften(scores: NDArray[np.float32], constants: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn scores plus the constants of their rows into weights, in place; the largest score cancels."""
    maxima, sums = np.empty((2, scores.shape[1]), dtype=np.float32)
    normalize_log_densities(scores, constants, np.float32(0), np.float32(-np.inf), maxima, sums)
    return scores
