"""Expectation-maximisation of diagonal Gaussian mixtures over blocks of descriptors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import block_slices
from cvretrieval._spread import Spread
from cvretrieval.codebooks.posteriors import GaussianPosteriors, MixtureStatistics

# Descriptors of one task. Fixed: the order in which partial sums are added must not depend on the number of threads.
_TASK_ROWS = 16_384


class Mixture(NamedTuple):
    """A mixture of diagonal Gaussians, float64."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


class Moments(NamedTuple):
    """What an E-step says of the descriptors of each component.

    ``mixture`` holds the shares of the components in all posteriors, and the means and variances of the descriptors
    weighted by them; a component without any has those it had.
    """

    mixture: Mixture
    log_likelihood: float


class Floors(NamedTuple):
    """What a component cannot fall below."""

    covariance: float
    weight: float


def mean_log_likelihood(rows: NDArray[Any], mixture: Mixture, *, spread: Spread, owner: str) -> float:
    """Return (1/n) Σ_i log p(x_i)."""
    (total,) = spread.total(_log_likelihood, block_slices(len(rows), _TASK_ROWS), rows, *mixture, owner)
    return float(total) / len(rows)


def expect(rows: NDArray[Any], mixture: Mixture, *, min_posterior: float, spread: Spread, owner: str) -> Moments:
    """Return the moments of the components under the posteriors of a mixture (E-step).

    Parameters
    ----------
    rows : ndarray of shape (n_descriptors, n_dims)
        Finite; read block by block.
    min_posterior : float
        Posteriors below are taken for zero.
    spread : Spread
        Who computes the sums over blocks of descriptors.
    owner : str
        The estimator that errors name.
    """
    tasks = block_slices(len(rows), _TASK_ROWS)
    log_likelihood, *sums = spread.total(_sum_up, tasks, rows, *mixture, min_posterior, owner)
    return Moments(moments_of_sums(mixture, *sums), log_likelihood / len(rows))


def _log_likelihood(
    task: slice, rows: NDArray[Any], weights: Any, means: Any, covariances: Any, owner: str
) -> tuple[float]:
    posteriors = GaussianPosteriors(weights, means, covariances, owner)
    return (sum(float(block.log_likelihood.sum()) for block in posteriors.blocks(rows[task], 0)),)


def _sum_up(
    task: slice, rows: NDArray[Any], weights: Any, means: Any, covariances: Any, min_posterior: float, owner: str
) -> tuple[Any, ...]:
    """Return the log-likelihood of descriptors, and what `moments_of_sums` takes of them."""
    posteriors = GaussianPosteriors(weights, means, covariances, owner, cut=min_posterior)
    statistics = MixtureStatistics(posteriors)
    log_likelihood = 0.0
    for block in posteriors.blocks(rows[task], 0):
        statistics.add(block)
        log_likelihood += float(block.log_likelihood.sum())
    return log_likelihood, *statistics.whitened()


def moments_of_sums(
    mixture: Mixture, zeroth: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> Mixture:
    """Turn Σ γ, Σ γ t and Σ γ t² of t = (x − μ) / σ into shares, means and variances."""
    mass = np.where(zeroth > 0, zeroth, 1)[:, None]
    shift = first / mass
    spread = np.where(zeroth[:, None] > 0, second / mass - shift**2, 1)
    deviations = np.sqrt(mixture.covariances)
    return Mixture(zeroth / zeroth.sum(), mixture.means + deviations * shift, mixture.covariances * spread)


def maximize(moments: Mixture, previous: Mixture, floors: Floors) -> Mixture:
    """Return the mixture of given moments (M-step); a component lighter than the floor keeps means and variances."""
    alive = (moments.weights >= floors.weight)[:, None]
    means = np.where(alive, moments.means, previous.means)
    covariances = np.where(alive, moments.covariances, previous.covariances)
    weights = np.maximum(moments.weights, floors.weight)
    return Mixture(weights / weights.sum(), means, np.maximum(covariances, floors.covariance))


def blend(previous: Mixture, moments: Mixture, step: float) -> Mixture:
    """Return the moments of two sets of descriptors together, weighing 1 − step and step.

    With s = (w, w μ, w (σ² + μ²)) that is s ← (1 − step) s + step ŝ, in a form in which nothing cancels.
    """
    old, new = (1 - step) * previous.weights, step * moments.weights
    weights = old + new
    share = (new / np.maximum(weights, np.finfo(np.float64).tiny))[:, None]
    difference = moments.means - previous.means
    means = previous.means + share * difference
    covariances = (1 - share) * previous.covariances + share * moments.covariances + share * (1 - share) * difference**2
    return Mixture(weights, means, covariances)
