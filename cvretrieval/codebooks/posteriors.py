"""Posteriors of the components of a Gaussian mixture and their statistics, shared by codebooks and encoders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.gaussian_posteriors import (
    direct_densities,
    direct_posteriors,
    harden_posteriors,
    normalize_log_densities,
    standardize_rows,
)
from cvretrieval._kernels.mixture_statistics import (
    add_direct_statistics,
    add_posteriors,
    add_products,
    whiten_statistics,
)
from cvretrieval._validation import non_finite_descriptors
from cvretrieval.codebooks.assignment import block_bounds

#: Descriptors per matrix product, at most. Fewer cost calls, more leave the second-level cache, and the float32 sums of
#: the statistics get longer.
BLOCK = 768

# Descriptors whose squared Mahalanobis distance from the nearest component is so many times their dimension are far.
_FAR = 8.0


@dataclass(slots=True)
class PosteriorBlock:
    """Some descriptors of one image with their posteriors; the next block overwrites all but `rows`.

    Attributes
    ----------
    rows : ndarray of shape (n, n_dims)
        The descriptors, float32.
    features : ndarray of shape (n, 2 * n_dims)
        [z, z²] with z = (x − center) / scale, float32.
    posteriors : ndarray of shape (n_components, n)
        Components are rows; float32.
    log_likelihood : ndarray of shape (n,)
        log p(x), float64.
    """

    rows: NDArray[np.float32]
    features: NDArray[np.float32]
    posteriors: NDArray[np.float32]
    maxima: NDArray[np.float32]
    sums: NDArray[np.float32]
    offset: float

    @property
    def log_likelihood(self) -> NDArray[np.float64]:
        return (self.maxima + np.log(self.sums)).astype(np.float64) + self.offset


class GaussianPosteriors:
    """Computes the posteriors of descriptors and their statistics; keeps scratch memory: each thread needs its own.

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
        Prior probabilities; components of weight 0 get no posterior.
    means, variances : ndarray of shape (n_components, n_dims)
    owner : object
        The estimator that errors name.
    cut : float, default=0.0
        Posteriors below become zero; the others are not normalised again. Those below 2^-64 are always zero.
    one_hot : bool, default=False
        Replace the largest posterior of each descriptor by 1, the others by 0; ties go to the lowest component.

    Attributes
    ----------
    center, scale : ndarray of shape (n_dims,)
        About the mean and the standard deviation of the mixture, float32; scales are powers of two.

    Notes
    -----
    The log density is log π_k − ½ Σ log(2πσ²) − ½ μ²/σ² + z·(μ/σ²) − ½ z²·(1/σ²) in centred and scaled coordinates z:
    one matrix product of [z, z²] per block, in float32. Where that would lose digits, differences are taken in float64
    instead: for *tight* components, whose means are many of their standard deviations away from the centre, and for
    descriptors far from all components. Both are judged by ``Σ |terms|``, from parameters and log density.

    Like the words of `NearestWord`, the posteriors of an image are computed from its rows alone, so batches and threads
    cannot change a bit.
    """

    def __init__(
        self,
        weights: NDArray[Any],
        means: NDArray[Any],
        variances: NDArray[Any],
        owner: Any,
        *,
        cut: float = 0.0,
        one_hot: bool = False,
    ) -> None:
        weights, means, variances = (np.asarray(array, dtype=np.float64) for array in (weights, means, variances))
        self._owner = owner
        self._cut = np.float32(cut)
        self._one_hot = one_hot
        self.means = np.ascontiguousarray(means)
        self.inverse_deviations = np.ascontiguousarray(1.0 / np.sqrt(variances))
        shares = weights / weights.sum()
        # Sums by numpy, whose order does not depend on the number of threads as that of BLAS may.
        self.center = (shares[:, None] * means).sum(axis=0).astype(np.float32)
        spread = np.sqrt((shares[:, None] * (variances + (means - self.center) ** 2)).sum(axis=0))
        # Powers of two, so that scaling rounds nothing.
        self.scale = np.exp2(np.rint(np.log2(spread))).astype(np.float32)
        self._inverse_scale = 1 / self.scale
        self._z_means = (self.means - self.center) / self.scale
        self._z_inverse_deviations = self.inverse_deviations * self.scale
        with np.errstate(divide="ignore"):
            constants = np.log(weights) + np.log(self.inverse_deviations).sum(axis=1)
        self._offset = float(constants.max())
        self._direct_constants = constants - self._offset
        self._offset -= 0.5 * means.shape[1] * float(np.log(2 * np.pi))
        self._split_components()
        self._take_scratch()

    def another(self) -> GaussianPosteriors:
        """Return one for the same mixture with scratch memory of its own, for another thread."""
        other = copy(self)
        other._take_scratch()
        return other

    def _take_scratch(self) -> None:
        n_components, n_dims = self.means.shape
        self._features = np.empty((BLOCK, 2 * n_dims), dtype=np.float32)
        self._posteriors = np.empty(n_components * BLOCK, dtype=np.float32)
        self._maxima, self._sums = np.empty((2, BLOCK), dtype=np.float32)
        self._products = np.empty((n_components, 2 * n_dims), dtype=np.float32)

    def _split_components(self) -> None:
        """Find which components the matrix product serves, and its factors."""
        n_dims = self.means.shape[1]
        away = (self._z_means * self._z_inverse_deviations) ** 2
        squares = away.sum(axis=1)
        # Σ |z μ|/σ² + ½ z²/σ² + ½ μ²/σ² ≤ 2 a + 2 √(a m) + ½ m, with a = Σ μ²/σ² and m = Σ (z − μ)²/σ², which is about
        # n_dims for the descriptors of a component and seldom twice as much. Measured, log densities are off by up to
        # 2e-7 of this sum; with the limit, Fisher vectors by less than 1e-5 after power and norm.
        usual = 2.0 * n_dims
        is_loose = 2 * squares + 2 * np.sqrt(squares * usual) + 0.5 * usual <= 512 + 2 * n_dims
        self._loose, self._tight = np.flatnonzero(is_loose), np.flatnonzero(~is_loose)
        # Relative to the least likely of the components: the constants of tight ones, with their small variances, are
        # above the log densities of most descriptors.
        served = self._direct_constants[self._loose]
        least = served[np.isfinite(served)].min(initial=0.0)
        self._floor = np.float32(least - 0.5 * _FAR * n_dims if len(self._loose) else -np.inf)
        self._factors = np.zeros((len(self.means), 2 * n_dims), dtype=np.float32)
        precisions = self._z_inverse_deviations[self._loose] ** 2
        self._factors[self._loose, :n_dims] = self._z_means[self._loose] * precisions
        self._factors[self._loose, n_dims:] = -0.5 * precisions
        constants = self._direct_constants.copy()
        constants[self._loose] -= 0.5 * squares[self._loose]
        self._constants = constants.astype(np.float32)

    def blocks(self, descriptors: NDArray[Any], image: int) -> Iterator[PosteriorBlock]:
        """Yield the descriptors of one image block by block with their posteriors.

        Raises
        ------
        ValueError
            If a descriptor is NaN or infinite; `image` is the number that the message names.
        """
        n_components = len(self.means)
        n = 0
        for start, stop in pairwise(block_bounds(len(descriptors), BLOCK)):
            rows = descriptors[start:stop].astype(np.float32, copy=False)
            if stop - start != n:
                n = stop - start
                features, maxima, sums = self._features[:n], self._maxima[:n], self._sums[:n]
                posteriors = self._posteriors[: n_components * n].reshape(n_components, n)
            if not math.isfinite(standardize_rows(rows, self.center, self._inverse_scale, features)):
                raise non_finite_descriptors(self._owner, image)
            if len(self._loose):
                np.matmul(self._factors, features.T, out=posteriors)
            if len(self._tight):
                direct_densities(rows, self._tight, self.means, self.inverse_deviations, posteriors)
            n_far = normalize_log_densities(posteriors, self._constants, self._cut, self._floor, maxima, sums)
            if n_far:
                direct_posteriors(
                    rows, self.means, self.inverse_deviations, self._direct_constants, self._floor, self._cut,
                    posteriors, maxima, sums,
                )  # fmt: skip
            if self._one_hot:
                harden_posteriors(posteriors)
            yield PosteriorBlock(rows, features, posteriors, maxima, sums, self._offset)


class MixtureStatistics:
    """Sums over descriptors of posteriors γ_k, and of t = (x − μ_k) / σ_k and t² weighted by them, in float64.

    Parameters
    ----------
    posteriors : GaussianPosteriors
        Where the blocks come from, that of the same thread: its scratch memory is used.

    Attributes
    ----------
    zeroth : ndarray of shape (n_components,)
        Σ γ_k.
    n_descriptors : int

    Notes
    -----
    Sums within a block are float32 matrix products of γ and [z, z²]; across blocks and in the change to t, where
    near-equal terms are subtracted, float64. Tight components are summed in float64 throughout, as are all one-hot
    posteriors, which leave little to a matrix product.
    """

    def __init__(self, posteriors: GaussianPosteriors) -> None:
        self._source = posteriors
        shape = posteriors.means.shape
        self.zeroth = np.zeros(shape[0])
        self.n_descriptors = 0
        everything = np.arange(shape[0])
        self._loose = everything[:0] if posteriors._one_hot else posteriors._loose
        self._tight = everything if posteriors._one_hot else posteriors._tight
        self._sums = np.zeros((shape[0], 2 * shape[1]))
        self._first, self._second = np.zeros(shape), np.zeros(shape)

    def clear(self) -> None:
        """Begin anew."""
        self.n_descriptors = 0
        self.zeroth[:] = 0
        if len(self._loose):
            self._sums[:] = 0
        if len(self._tight):
            self._first[self._tight] = 0
            self._second[self._tight] = 0

    def add(self, block: PosteriorBlock) -> None:
        """Add the descriptors of a block."""
        source = self._source
        self.n_descriptors += len(block.rows)
        add_posteriors(block.posteriors, self.zeroth)
        if len(self._loose):
            np.matmul(block.posteriors, block.features, out=source._products)
            add_products(source._products, self._sums)
        if len(self._tight):
            add_direct_statistics(
                block.rows, block.posteriors, self._tight, source.means, source.inverse_deviations, self._first,
                self._second,
            )  # fmt: skip

    def whitened(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return Σ γ of shape (n_components,), Σ γ t and Σ γ t² of shape (n_components, n_dims).

        The next call of any method overwrites them.
        """
        whiten_statistics(
            self.zeroth, self._sums, self._loose, self._source._z_means, self._source._z_inverse_deviations,
            self._first, self._second,
        )  # fmt: skip
        return self.zeroth, self._first, self._second
