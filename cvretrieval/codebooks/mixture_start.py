"""Mixtures that expectation-maximisation starts with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.mixture_statistics import add_direct_statistics
from cvretrieval._parallel import single_threaded
from cvretrieval._validation import describe_array
from cvretrieval.codebooks.assignment import NearestWord
from cvretrieval.codebooks.expectation_maximization import Mixture, moments_of_sums
from cvretrieval.codebooks.kmeans import KMeansCodebook
from cvretrieval.feature_chunks import sample_descriptors
from cvretrieval.local_features import LocalFeatures

# So many descriptors for each component, and at least and at most so many in all.
_ROWS_EACH = 256
_LEAST_ROWS = 10_000
_MOST_ROWS = 100_000

# Iterations of Lloyd's algorithm: EM itself moves the means afterwards.
_MAX_ITER = 20


def first_mixture(
    rows: NDArray[Any],
    n_components: int,
    init_params: str,
    given: Mapping[str, Any],
    random_state: np.random.RandomState,
    *,
    owner: Any,
) -> Mixture:
    """Return what is given, and the rest from the descriptors nearest to each mean.

    Parameters
    ----------
    rows : ndarray of shape (n_descriptors, n_dims)
        Finite.
    n_components : int
    init_params : {"kmeans", "random_from_data"}
        Where means come from that are not given.
    given : mapping
        ``weights_init``, ``means_init`` and ``covariances_init``, each an array or None.
    random_state : RandomState
    owner : object
        The estimator that errors name.

    Raises
    ------
    ValueError
        If something given is of another shape, not finite, or not positive where it must be.
    """
    shape = (n_components, rows.shape[1])
    weights = _check_given(given, "weights_init", shape[:1], owner)
    means = _check_given(given, "means_init", shape, owner)
    covariances = _check_given(given, "covariances_init", shape, owner)
    if weights is not None and means is not None and covariances is not None:
        return Mixture(weights / weights.sum(), means, covariances)
    size = min(max(_ROWS_EACH * n_components, _LEAST_ROWS), _MOST_ROWS)
    sample = sample_descriptors(_as_one_image(rows), size, random_state, estimator=owner)
    if means is None:
        means = _first_means(sample, n_components, init_params, random_state)
    with single_threaded():
        found = mixture_of_words(sample, means, owner)
    return Mixture(
        found.weights if weights is None else weights / weights.sum(),
        means,
        found.covariances if covariances is None else covariances,
    )


def mixture_of_words(rows: NDArray[Any], centers: NDArray[Any], owner: Any) -> Mixture:
    """Return the mixture that some centres make of the descriptors nearest to each; its means are those centres.

    A centre without descriptors has a weight of zero and the variances of all descriptors.
    """
    centers = np.asarray(centers, dtype=np.float64)
    everything = np.arange(len(centers))
    counts, first, second = np.zeros(len(centers)), np.zeros(centers.shape), np.zeros(centers.shape)
    for block, words in NearestWord(centers, owner).blocks(rows, 0):
        hard = np.zeros((len(centers), len(block)), dtype=np.float32)
        hard[words, np.arange(len(block))] = 1
        counts += hard.sum(axis=1)
        add_direct_statistics(block, hard, everything, centers, np.ones_like(centers), first, second)
    plain = Mixture(counts, centers, np.ones_like(centers))
    moments = moments_of_sums(plain, counts, first, second)
    overall_mean = moments.weights @ moments.means
    overall = moments.weights @ (moments.covariances + (moments.means - overall_mean) ** 2)
    covariances = np.where(counts[:, None] > 0, moments.covariances, overall)
    return Mixture(moments.weights, centers, covariances)


def _first_means(
    sample: NDArray[Any], n_components: int, init_params: str, random_state: np.random.RandomState
) -> NDArray[np.float64]:
    if init_params == "random_from_data":
        drawn = random_state.choice(len(sample), n_components, replace=len(sample) < n_components)
        return sample[drawn].astype(np.float64)
    codebook = KMeansCodebook(
        n_components, algorithm="lloyd", max_samples=None, max_iter=_MAX_ITER, random_state=random_state
    )
    with warnings.catch_warnings():
        # The mixture counts its empty components itself, after the fit.
        warnings.simplefilter("ignore", UserWarning)
        codebook.fit(_as_one_image(sample))
    return codebook.cluster_centers_.astype(np.float64)


def _as_one_image(rows: NDArray[Any]) -> LocalFeatures:
    return LocalFeatures(rows, np.array([0, len(rows)]))


def _check_given(given: Mapping[str, Any], name: str, shape: tuple[int, ...], owner: Any) -> NDArray[np.float64] | None:
    if given[name] is None:
        return None
    array = np.asarray(given[name], dtype=np.float64)
    kind = type(owner).__name__
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(
            f"The {name!r} parameter of {kind} must be finite numbers of shape {shape}. "
            f"Got {describe_array(array)} instead."
        )
    if name != "means_init" and (array <= 0).any():
        raise ValueError(f"The {name!r} parameter of {kind} must be positive. Its smallest number is {array.min():g}.")
    return array
