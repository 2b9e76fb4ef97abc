"""VLAD in the local coordinate systems of its words (LCS)."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import VLAD
from cvretrieval.encoders.local_coordinates import learn_rotations
from tests.reference.assignment import nearest_words_naive
from tests.reference.vlad import learn_rotations_naive, normalize_naive, rotate_naive, sum_residuals_naive


class Words:
    """A fitted clusterer with given words."""

    def __init__(self, centers):
        self.cluster_centers_ = np.asarray(centers)

    def fit(self, X):
        raise AssertionError("a given codebook is never fitted again")


def correlated(rng, n=400, n_words=4, n_dims=9):
    """Descriptors whose residuals have other principal directions at each word, with distinct variances."""
    centers = 40 * rng.normal(size=(n_words, n_dims))
    words = rng.integers(0, n_words, n)
    bases = np.linalg.qr(rng.normal(size=(n_words, n_dims, n_dims)))[0]
    residuals = rng.normal(size=(n, n_dims)) * 1.6 ** -np.arange(n_dims)
    descriptors = centers[words] + np.einsum("nij,nj->ni", bases[words], residuals)
    return descriptors.astype(np.float32), centers.astype(np.float32), words.astype(np.int32)


@pytest.mark.parametrize("unit", [False, True])
def test_rotations_are_those_of_the_definition(rng, unit):
    descriptors, centers, words = correlated(rng)
    rotations = learn_rotations(descriptors, words, centers, unit)
    expected = learn_rotations_naive(descriptors, words, centers, unit)
    signs = np.sign((rotations * expected).sum(axis=2, keepdims=True))
    np.testing.assert_allclose(rotations, signs * expected, atol=2e-5)
    assert (np.take_along_axis(rotations, np.abs(rotations).argmax(axis=2)[..., None], axis=2) > 0).all()


def test_residuals_are_uncorrelated_in_their_coordinates(rng):
    descriptors, centers, words = correlated(rng)
    rotations = learn_rotations(descriptors, words, centers, False)
    for k in range(4):
        rotated = (descriptors[words == k] - centers[k]) @ rotations[k].T.astype(np.float64)
        covariance = np.cov(rotated.T)
        np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
        assert (np.diff(np.diag(covariance)) < 0).all()


def test_a_word_with_few_descriptors_takes_the_directions_of_all(rng):
    descriptors, centers, words = correlated(rng)
    rows = np.concatenate([np.flatnonzero(words != 2), np.flatnonzero(words == 2)[:8]])  # of 9 needed
    with_empty = np.concatenate([centers, [[1e3] * 9]]).astype(np.float32)
    rotations = learn_rotations(descriptors[rows], words[rows], with_empty, True)
    expected = learn_rotations_naive(descriptors[rows], words[rows], with_empty, True)
    np.testing.assert_array_equal(rotations[2], rotations[4])
    signs = np.sign((rotations * expected).sum(axis=2, keepdims=True))
    np.testing.assert_allclose(rotations, signs * expected, atol=1e-4)


@pytest.mark.parametrize("data", ["constant", "one", "equal to words"])
def test_degenerate_data_gives_rotations_all_the_same(rng, data):
    descriptors = {
        "constant": np.hstack([rng.normal(size=(50, 3)), np.ones((50, 2))]),
        "one": rng.normal(size=(1, 5)),
        "equal to words": np.repeat(np.eye(2, 5), 20, axis=0),
    }[data].astype(np.float32)
    centers = np.eye(2, 5, dtype=np.float32)
    words = nearest_words_naive(descriptors, centers).astype(np.int32)
    for unit in (False, True):
        rotations = learn_rotations(descriptors, words, centers, unit)
        np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), [np.eye(5)] * 2, atol=1e-6)
    encoded = VLAD(codebook=Words(centers), residual_norm=True, local_coordinates=True, power=0.2).fit([descriptors])
    assert np.isfinite(encoded.transform([descriptors])).all()


@pytest.mark.parametrize("residual_norm", [False, True])
@pytest.mark.parametrize("options", [{"power": 0.2}, {"intra_norm": True, "mass_norm": True}], ids=str)
def test_encoding_is_its_definition(rng, residual_norm, options):
    descriptors, centers, words = correlated(rng)
    fitted = VLAD(codebook=Words(centers), local_coordinates=True, residual_norm=residual_norm, **options)
    fitted.fit([descriptors])
    sums, counts = sum_residuals_naive(descriptors[:100], words[:100], centers, residual_norm)
    options = {"power": 0.5, "intra_norm": False, "mass_norm": False, **options}
    expected = normalize_naive(rotate_naive(sums, fitted.rotations_), counts, l2_norm=True, **options)
    np.testing.assert_allclose(fitted.transform([descriptors[:100]])[0], expected.ravel(), atol=1e-5)


def test_without_power_coordinates_change_no_inner_product(rng):
    descriptors, centers, _ = correlated(rng)
    X = np.split(descriptors, 4)
    options = {"codebook": Words(centers), "residual_norm": True, "power": None}
    plain, rotated = (VLAD(**options, local_coordinates=local).fit(X).transform(X) for local in (False, True))
    assert np.abs(plain - rotated).max() > 0.1
    np.testing.assert_allclose(rotated @ rotated.T, plain @ plain.T, atol=1e-5)


def test_rotations_are_about_adapted_centres_and_weighted_words(rng):
    descriptors, centers, words = correlated(rng)
    fitted = VLAD(codebook=Words(centers + 1), adapt_centers=True, residual_norm=True, local_coordinates=True)
    fitted.fit([descriptors])
    np.testing.assert_array_equal(fitted.rotations_, learn_rotations(descriptors, words, fitted.centers_, True))
    for n_nearest in (2, 4):
        soft = VLAD(codebook=Words(centers), assignment="soft", n_nearest=n_nearest, local_coordinates=True)
        np.testing.assert_array_equal(
            soft.fit([descriptors]).rotations_, learn_rotations(descriptors, words, centers, False)
        )


def test_rotations_are_learned_on_a_seeded_sample(rng):
    descriptors, centers, _ = correlated(rng)
    options = {"codebook": Words(centers), "local_coordinates": True, "max_samples": 150}
    one, same, other = (VLAD(**options, random_state=seed).fit([descriptors]).rotations_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
