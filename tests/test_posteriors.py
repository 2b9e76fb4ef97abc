"""Posteriors and statistics of mixtures: their definitions, in float32 on data that is made to lose digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks import GaussianPosteriors, MixtureStatistics, gmm_parameters, resolve_gmm
from cvretrieval.codebooks.posteriors import BLOCK
from tests.reference.fisher import posteriors_naive, statistics_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "fisher.npz")


def evaluate(descriptors, weights, means, variances, **options):
    """Posteriors (n, n_components), log likelihoods, whitened statistics."""
    posteriors = GaussianPosteriors(weights, means, variances, "Owner", **options)
    statistics = MixtureStatistics(posteriors)
    shares, likelihoods = [], []
    with single_threaded():
        for block in posteriors.blocks(descriptors, 0):
            statistics.add(block)
            shares.append(block.posteriors.T.copy())
            likelihoods.append(block.log_likelihood)
    return np.concatenate(shares), np.concatenate(likelihoods), statistics.whitened()


def drawn(rng, weights, means, variances, n):
    component = rng.choice(len(weights), n, p=weights)
    return (means[component] + rng.normal(size=(n, means.shape[1])) * np.sqrt(variances[component])).astype(np.float32)


def sift_like(rng):
    """SIFT in 0 … 512: most values small, some dimensions next to constant, one component for 9 in 10 descriptors."""
    means = np.minimum(rng.gamma(0.6, 40, size=(12, 32)), 400)
    variances = rng.uniform(0.2, 1, size=means.shape) * (means + 1) ** 2
    variances[:, 3] = 1e-6
    variances[4:, 9] = 1e-6
    means[:, 3] = 511.5
    weights = np.full(12, 0.1 / 11)
    weights[0] = 0.9
    return weights, means, variances


def far_away(rng):
    """Two clouds that a float32 product of raw numbers cannot tell from one."""
    means = 1000 + rng.normal(size=(8, 16))
    return np.full(8, 1 / 8), means, np.full(means.shape, 1e-2)


def tight_and_loose(rng):
    means = rng.normal(size=(16, 24))
    variances = np.where(np.arange(16)[:, None] % 2, 1e-6, 0.8) * rng.uniform(0.5, 1, size=means.shape)
    return rng.dirichlet(np.ones(16)), means, variances


def contested(rng, spread=1.0):
    """Components in groups of four that share their descriptors, the groups apart."""
    means = np.repeat(spread * rng.normal(size=(8, 64)), 4, axis=0) + 0.2 * rng.normal(size=(32, 64))
    return np.full(32, 1 / 32), means, rng.uniform(0.9, 1.1, size=means.shape)


MIXTURES = {f.__name__: f for f in (sift_like, far_away, tight_and_loose)}


@pytest.mark.parametrize("make", MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize("n", [1, BLOCK, 2 * BLOCK + 3])
def test_posteriors_and_statistics_agree_with_float64_on_ill_scaled_data(make, n, rng):
    parameters = make(rng)
    X = drawn(rng, *parameters, n)
    shares, likelihoods, (zeroth, first, second) = evaluate(X, *parameters)
    expected, expected_likelihoods = posteriors_naive(X, *parameters)
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    np.testing.assert_allclose(likelihoods, expected_likelihoods, rtol=1e-6, atol=5e-5)
    wanted = statistics_naive(X, expected, *parameters[1:])
    for found, sums in zip((zeroth, first, second), wanted, strict=True):
        # Relative to Σ γ of the component, or to one descriptor.
        mass = np.maximum(wanted[0], 1).reshape(-1, *[1] * (sums.ndim - 1))
        np.testing.assert_allclose(found / mass, sums / mass, rtol=1e-5, atol=1e-5)


def test_tight_components_are_found(rng):
    posteriors = GaussianPosteriors(*tight_and_loose(rng), "Owner")
    assert posteriors._tight.tolist() == list(range(1, 16, 2))
    assert not len(GaussianPosteriors(*contested(rng), "Owner")._tight)


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.6])
def test_loose_components_whose_products_are_large_cost_some_digits(spread, rng):
    parameters = contested(rng, spread)
    X = drawn(rng, *parameters, 2000)
    shares, likelihoods, (zeroth, first, second) = evaluate(X, *parameters)
    expected, expected_likelihoods = posteriors_naive(X, *parameters)
    np.testing.assert_allclose(shares, expected, atol=3e-5)
    np.testing.assert_allclose(likelihoods, expected_likelihoods, atol=2e-4)
    # The errors of many descriptors average out.
    wanted = statistics_naive(X, expected, *parameters[1:])
    np.testing.assert_allclose(zeroth / wanted[0], 1, atol=1e-5)
    np.testing.assert_allclose(first / wanted[0][:, None], wanted[1] / wanted[0][:, None], atol=1e-5)
    np.testing.assert_allclose(second / wanted[0][:, None], wanted[2] / wanted[0][:, None], atol=2e-5)


def test_descriptors_far_from_all_components_have_posteriors(rng):
    weights, means, variances = contested(rng)
    X = drawn(rng, weights, means, variances, 40)
    X[::4] = 1000 * rng.normal(size=(10, 64))
    X[1::4] = 1e12 * rng.normal(size=(10, 64))
    X[2::4] = 30 * rng.normal(size=(10, 64))
    shares, likelihoods, _ = evaluate(X, weights, means, variances)
    expected, expected_likelihoods = posteriors_naive(X, weights, means, variances)
    np.testing.assert_allclose(shares, expected, atol=3e-5)
    np.testing.assert_allclose(likelihoods, expected_likelihoods, rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_posteriors_and_likelihood_are_those_of_vlfeat():
    parameters = [REFERENCE[key] for key in ("priors", "means", "covariances")]
    shares, likelihoods, _ = evaluate(REFERENCE["X"], *parameters)
    np.testing.assert_allclose(shares, REFERENCE["posteriors_f8"], atol=5e-6)
    assert likelihoods.sum() == pytest.approx(float(REFERENCE["loglik_f8"]), rel=1e-7)


def test_components_of_weight_zero_have_no_posterior(rng):
    weights, means, variances = contested(rng)
    X = drawn(rng, weights, means, variances, 100)
    weights = np.where(np.arange(32) < 4, 0, 1 / 28)
    shares, _, (zeroth, first, second) = evaluate(X, weights, means, variances)
    np.testing.assert_allclose(shares, posteriors_naive(X, weights, means, variances)[0], atol=3e-5)
    for sums in (zeroth, first, second):
        assert np.isfinite(sums).all() and (sums[:4] == 0).all()


@pytest.mark.parametrize("make", MIXTURES.values(), ids=MIXTURES)
def test_cut_and_one_hot_posteriors(make, rng):
    parameters = make(rng)
    X = drawn(rng, *parameters, 300)
    whole, _, _ = evaluate(X, *parameters)
    shares, _, _ = evaluate(X, *parameters, cut=1e-3)
    np.testing.assert_array_equal(shares, np.where(whole < np.float32(1e-3), 0, whole))
    shares, _, sums = evaluate(X, *parameters, one_hot=True)
    np.testing.assert_array_equal(shares, np.eye(len(parameters[0]))[whole.argmax(axis=1)])
    for found, wanted in zip(sums, statistics_naive(X, shares, *parameters[1:]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_statistics_begin_anew(rng):
    parameters = tight_and_loose(rng)
    posteriors = GaussianPosteriors(*parameters, "Owner")
    statistics = MixtureStatistics(posteriors)
    X = drawn(rng, *parameters, 100)
    runs = []
    for _ in range(2):
        for block in posteriors.blocks(X, 0):
            statistics.add(block)
        assert statistics.n_descriptors == 100
        first, again = ([sums.copy() for sums in statistics.whitened()] for _ in range(2))
        runs += [first, again]
        statistics.clear()
    for run in runs[1:]:
        for found, wanted in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_bytes_are_numbers(rng):
    X = rng.integers(0, 256, size=(50, 32), dtype=np.uint8)
    parameters = sift_like(rng)
    for found, wanted in zip(evaluate(X, *parameters), evaluate(X.astype(np.float32), *parameters), strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_dimension_without_variance_between_components():
    shares, _, _ = evaluate(np.array([[0.0], [1.0]], np.float32), [0.25, 0.75], [[0.0], [0.0]], [[1.0], [1.0]])
    np.testing.assert_allclose(shares, [[0.25, 0.75]] * 2, rtol=1e-6)


class Given:
    """A fitted mixture with given parameters."""

    def __init__(self, weights, means, covariances):
        self.weights_, self.means_, self.covariances_ = np.asarray(weights), np.asarray(means), np.asarray(covariances)


def test_mixtures_of_scikit_learn_are_taken_as_they_are(rng):
    gmm = GaussianMixture(3, covariance_type="diag", random_state=0).fit(rng.normal(size=(60, 4)))
    assert resolve_gmm(gmm, "Owner") is gmm
    for found, wanted in zip(gmm_parameters(gmm), (gmm.weights_, gmm.means_, gmm.covariances_), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("gmm", "error", "message"),
    [
        (3, TypeError, "must be a fitted mixture with weights_, means_ and covariances_.*Got int instead"),
        (KMeans(3), TypeError, "Got KMeans instead"),
        (GaussianMixture(3, covariance_type="diag"), ValueError, "not fitted: call GaussianMixture.fit first, or give"),
        (GaussianMixture(2).fit(np.eye(4)), ValueError, "diagonal covariances.*has covariance_type='full'"),
        (Given([1], [[0, 0]], [[1]]), ValueError, r"covariances_ is an array of float64 with shape \(1, 1\)"),
        (Given([1], [[0, 0]], [[1, 0]]), ValueError, "positive variances. The smallest variance is 0"),
        (Given([1], [[0, np.nan]], [[1, 1]]), ValueError, "finite parameters"),
        (Given([0.5], [[0, 1]], [[1, 1]]), ValueError, "must be probabilities. Their sum is 0.5"),
        (Given([1.5, -0.5], [[0], [1]], [[1], [1]]), ValueError, "the smallest is -0.5"),
    ],
    ids=["int", "KMeans", "unfitted", "full", "shape", "variance", "NaN", "sum", "negative"],
)
def test_bad_mixtures_are_named(gmm, error, message):
    with pytest.raises(error, match=message):
        resolve_gmm(gmm, KMeans())


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_descriptors_that_are_not_finite_are_refused(value, rng):
    parameters = tight_and_loose(rng)
    X = drawn(rng, *parameters, 10)
    X[4, 2] = value
    with pytest.raises(ValueError, match="Owner got descriptors of image 0 that are NaN, infinite or too large"):
        evaluate(X, *parameters)
