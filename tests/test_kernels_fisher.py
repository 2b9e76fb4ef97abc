"""Kernels of mixtures and Fisher vectors against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.exponential import SMALLEST_EXPONENT, exp_nonpositive
from cvretrieval._kernels.fisher import mean_gradients, normalize_gradients, variance_gradients, weight_gradients
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
from tests.reference.fisher import fisher_naive, normalize_gradients_naive, posteriors_naive, statistics_naive

SIZES = [(1, 1), (3, 2), (7, 127), (5, 128), (64, 129), (33, 300)]


@njit(fastmath=True)
def exponentials(x, y):
    for i in range(len(x)):
        y[i] = exp_nonpositive(x[i])


def mixture(rng, n_components, n_dims):
    weights = rng.dirichlet(np.ones(n_components))
    return weights, rng.normal(size=(n_components, n_dims)), rng.uniform(0.3, 2, size=(n_components, n_dims))


def test_exponential_is_that_of_numpy():
    x = np.concatenate([-np.logspace(-9, np.log10(44.36), 20_001), [0, -np.log(2) / 2, -np.log(2)]]).astype(np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    np.testing.assert_allclose(y, np.exp(x.astype(np.float64)), rtol=2e-7)


def test_exponential_of_very_negative_numbers_is_zero():
    x = np.array([SMALLEST_EXPONENT, -45, -88, -1e4, -3e38, -np.inf, np.nan], dtype=np.float32)
    y = np.ones_like(x)
    exponentials(x, y)
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("n_dims", [1, 7, 64, 65])
def test_rows_are_centred_scaled_and_squared(n_dims, rng):
    X = rng.normal(size=(50, n_dims)).astype(np.float32)
    center, inverse_scale = rng.normal(size=(2, n_dims)).astype(np.float32)
    features = np.empty((50, 2 * n_dims), dtype=np.float32)
    total = standardize_rows(X, center, inverse_scale, features)
    z = (X.astype(np.float64) - center) * inverse_scale
    np.testing.assert_allclose(features, np.hstack([z, z**2]), rtol=1e-5, atol=1e-6)
    assert total == pytest.approx((z**2).sum(), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_rows_that_are_not_finite_are_noticed(value, rng):
    X = rng.normal(size=(50, 20)).astype(np.float32)
    X[31, 17] = value
    features = np.empty((50, 40), dtype=np.float32)
    assert not np.isfinite(standardize_rows(X, np.zeros(20, np.float32), np.ones(20, np.float32), features))


@pytest.mark.parametrize("cut", [0, 1e-3])
@pytest.mark.parametrize(("n_components", "n_descriptors"), SIZES)
def test_densities_become_posteriors(n_components, n_descriptors, cut, rng):
    densities = rng.normal(scale=8, size=(n_components, n_descriptors)).astype(np.float32)
    constants = rng.normal(scale=3, size=n_components).astype(np.float32)
    joint = densities.astype(np.float64) + constants[:, None]
    maxima, sums = np.empty((2, n_descriptors), dtype=np.float32)
    floor = np.float32(np.median(joint.max(axis=0)))
    n_far = normalize_log_densities(densities, constants, np.float32(cut), floor, maxima, sums)
    shares = np.exp(joint - joint.max(axis=0))
    expected = shares / shares.sum(axis=0)
    np.testing.assert_allclose(densities, np.where(expected < cut, 0, expected), atol=1e-6)
    np.testing.assert_allclose(maxima, joint.max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(sums, shares.sum(axis=0), rtol=1e-5)
    assert n_far == (maxima < floor).sum()


@pytest.mark.parametrize(("n_components", "n_descriptors"), SIZES)
@pytest.mark.parametrize("n_dims", [1, 9, 64])
def test_direct_densities_and_posteriors_are_those_of_the_definition(n_components, n_descriptors, n_dims, rng):
    weights, means, variances = mixture(rng, n_components, n_dims)
    X = rng.normal(size=(n_descriptors, n_dims)).astype(np.float32)
    inverse_deviations = 1 / np.sqrt(variances)
    chosen = np.flatnonzero(rng.random(n_components) < 0.5)
    densities = np.full((n_components, n_descriptors), 7, dtype=np.float32)
    direct_densities(X, chosen, means, inverse_deviations, densities)
    expected = np.full(densities.shape, 7.0)
    for k in chosen:
        expected[k] = -0.5 * ((X - means[k]) ** 2 / variances[k]).sum(axis=1)
    np.testing.assert_allclose(densities, expected, rtol=1e-6)

    constants = np.log(weights) - 0.5 * np.log(2 * np.pi * variances).sum(axis=1)
    posteriors = np.full((n_components, n_descriptors), 7, dtype=np.float32)
    maxima, sums = np.empty((2, n_descriptors), dtype=np.float32)
    maxima[:], sums[:] = rng.permutation(n_descriptors), 3
    before = maxima.copy()
    is_far = maxima < n_descriptors // 2
    maxima[is_far] = rng.choice([-np.inf, np.nan, -1], is_far.sum())
    far_posteriors, likelihoods = posteriors_naive(X, weights, means, variances, cut=1e-4)
    floor = np.float32(n_descriptors // 2)
    direct_posteriors(X, means, inverse_deviations, constants, floor, np.float32(1e-4), posteriors, maxima, sums)
    np.testing.assert_allclose(posteriors[:, is_far].T, far_posteriors[is_far], atol=1e-7)
    np.testing.assert_allclose((maxima + np.log(sums))[is_far], likelihoods[is_far], rtol=1e-5)
    np.testing.assert_array_equal(posteriors[:, ~is_far], 7)
    np.testing.assert_array_equal(maxima[~is_far], before[~is_far])
    np.testing.assert_array_equal(sums[~is_far], 3)


@pytest.mark.parametrize(("n_components", "n_descriptors"), SIZES)
def test_hardened_posteriors_have_a_single_one(n_components, n_descriptors, rng):
    posteriors = rng.integers(0, 5, size=(n_components, n_descriptors)).astype(np.float32)  # with ties
    expected = np.eye(n_components)[posteriors.argmax(axis=0)].T
    harden_posteriors(posteriors)
    np.testing.assert_array_equal(posteriors, expected)


@pytest.mark.parametrize(("n_components", "n_descriptors"), SIZES)
@pytest.mark.parametrize("n_dims", [1, 9, 64])
def test_statistics_by_products_and_directly_are_those_of_the_definition(n_components, n_descriptors, n_dims, rng):
    _, means, variances = mixture(rng, n_components, n_dims)
    X = rng.normal(size=(n_descriptors, n_dims)).astype(np.float32)
    posteriors = rng.dirichlet(np.ones(n_components), n_descriptors).astype(np.float32)
    posteriors[posteriors < 0.01] = 0
    expected = statistics_naive(X, posteriors, means, variances)
    is_direct = rng.random(n_components) < 0.5
    zeroth, first, second = np.zeros(n_components), np.zeros(means.shape), np.zeros(means.shape)
    by_component = np.ascontiguousarray(posteriors.T)
    add_posteriors(by_component, zeroth)
    inverse_deviations = 1 / np.sqrt(variances)
    add_direct_statistics(X, by_component, np.flatnonzero(is_direct), means, inverse_deviations, first, second)
    sums = np.zeros((n_components, 2 * n_dims))
    for half in np.array_split(np.arange(n_descriptors), 2):
        add_products(by_component[:, half] @ np.hstack([X, X**2])[half], sums)
    whiten_statistics(zeroth, sums, np.flatnonzero(~is_direct), means, inverse_deviations, first, second)
    for found, wanted in zip((zeroth, first, second), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_those_of_the_definition(sign, rng):
    weights, means, variances = mixture(rng, 6, 9)
    weights[2] = 1e-7
    X = rng.normal(size=(40, 9))
    posteriors, _ = posteriors_naive(X, np.where(weights < 1e-6, 0, weights), means, variances, cut=1e-6)
    zeroth, first, second = statistics_naive(X, posteriors, means, variances)
    vector = np.full(6 + 54 + 54, np.nan, dtype=np.float32)
    weight_gradients(zeroth, weights, 40, 1e-6, vector[:6])
    mean_gradients(first, weights, 40, 1e-6, vector[6:60])
    variance_gradients(zeroth, second, weights, 40, 1e-6, sign, vector[60:])
    expected = fisher_naive(
        X, weights, means, variances, gradients=("weights", "means", "variances"), sign=sign, power=1, l2_norm=False
    )
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("power", [0.5, 1, 0.3, 2])
@pytest.mark.parametrize("l2_norm", [False, True])
def test_normalisation_is_its_definition(power, l2_norm, rng):
    vector = rng.normal(size=101).astype(np.float32)
    vector[:3] = 0, -0.0, 1e-12
    expected = normalize_gradients_naive(vector, power, l2_norm)
    normalize_gradients(vector, float(power), l2_norm)
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-8)


def test_normalisation_leaves_zeros():
    vector = np.zeros(12, dtype=np.float32)
    normalize_gradients(vector, 0.5, True)
    np.testing.assert_array_equal(vector, 0)
