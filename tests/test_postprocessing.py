"""Power normalisation and PCA whitening: definitions, reference programs, degenerate input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from cvretrieval import VLAD, PCAWhitening, PowerNormalizer
from tests.parity import agree
from tests.reference.whitening import whiten_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "whitening.npz")


def unit_rows(Z):
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def assert_same_up_to_signs(Z, expected, atol):
    """The sign of a principal direction is arbitrary: compare columns up to it, and inner products."""
    signs = np.sign((Z * expected).sum(axis=0))
    np.testing.assert_allclose(Z * signs, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(Z @ Z.T, expected @ expected.T, rtol=0, atol=10 * atol)
    return Z * signs


@pytest.mark.parametrize("power", [0.5, 0.2, 1, 3])
@pytest.mark.parametrize("norm", ["l2", None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power_norm_is_its_definition(power, norm, dtype, rng):
    X = rng.normal(size=(9, 7)).astype(dtype)
    X[2] = 0
    before = X.copy()
    Z = PowerNormalizer(power, norm=norm).fit_transform(X)
    expected = np.array([[np.sign(z) * abs(z) ** power for z in row] for row in X.astype(np.float64)])
    if norm == "l2":
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert Z.dtype == dtype
    np.testing.assert_allclose(Z, expected, rtol=1e-6 if dtype == np.float32 else 1e-12)
    np.testing.assert_array_equal(X, before)


def test_power_norm_after_plain_vlad_is_the_power_of_vlad(rng):
    X = list(rng.normal(size=(5, 80, 6)))
    one = VLAD(4, power=0.5, random_state=0).fit_transform(X)
    two = make_pipeline(VLAD(4, power=None, norm=None, random_state=0), PowerNormalizer()).fit_transform(X)
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("n_components", [24, 8])
def test_whitening_is_that_of_cirtorch(n_components):
    X = REFERENCE["X"]
    whitening = PCAWhitening(n_components).fit(X)
    np.testing.assert_allclose(whitening.mean_, REFERENCE["pcaw_m"], atol=1e-15)
    # Variances are divided by the number of samples on both sides.
    variances = REFERENCE["pcaw_eigval"][:n_components]
    np.testing.assert_allclose(whitening.explained_variance_, variances, rtol=1e-9)
    projection = whitening.components_ / np.sqrt(whitening.explained_variance_)[:, None]
    reference = REFERENCE["pcaw_P"][:n_components]
    np.testing.assert_allclose(np.abs(projection), np.abs(reference), rtol=1e-8, atol=1e-9 * np.abs(reference).max())
    # cirtorch divides by the norm + 1e-6, so its rows are a little shorter than one.
    applied = REFERENCE[f"pcaw_applied_d{n_components}"]
    found = assert_same_up_to_signs(whitening.transform(X[: len(applied)]), unit_rows(applied), 1e-10)
    agree("pca-whitening", found, unit_rows(applied), 1e-10)
    assert_same_up_to_signs(whitening.transform(X[: len(applied)]), applied, 1e-6)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_whitening_is_that_of_deep_image_retrieval(power):
    X, n_train = REFERENCE["X"], int(REFERENCE["dir_train_rows"])
    whitening = PCAWhitening(16, power=power).fit(X[:n_train])
    np.testing.assert_allclose(whitening.mean_, REFERENCE["dir_pca_mean"], atol=1e-15)
    # That program divides by n − 1; the L2 norm removes the common factor.
    unbiased = REFERENCE["dir_pca_explained_variance"]
    np.testing.assert_allclose(whitening.explained_variance_ * n_train / (n_train - 1), unbiased, rtol=1e-10)
    expected = REFERENCE[f"dir_whitenp{power}_sklearnTrue"]
    found = assert_same_up_to_signs(whitening.transform(X[: len(expected)]), expected, 1e-11)
    agree("pca-whitening-dir", found, expected, 1e-11)
    if power == 0.25:
        for key in ("dir_whitenp0.25_whitenv8", "dir_whitenp0.25_whitenv8_whitenm0.5"):
            shorter = PCAWhitening(8, power=power).fit(X[:n_train]).transform(X[: len(expected)])
            assert_same_up_to_signs(shorter, REFERENCE[key], 1e-11)


@pytest.mark.parametrize("power", [0.5, 0.25, 0])
@pytest.mark.parametrize("shrinkage", [0, 0.3, 1])
@pytest.mark.parametrize("norm", ["l2", None])
def test_whitening_is_its_definition(power, shrinkage, norm, rng):
    X = rng.normal(size=(60, 9)) * np.arange(1, 10) + 5
    whitening = PCAWhitening(4, power=power, shrinkage=shrinkage, norm=norm).fit(X)
    expected = whiten_naive(X, X[:20], 4, power, shrinkage, norm == "l2")
    assert_same_up_to_signs(whitening.transform(X[:20]), expected, 1e-9)


def test_whitened_data_has_unit_covariance(rng):
    X = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    Z = PCAWhitening(norm=None).fit_transform(X)
    np.testing.assert_allclose(Z.T @ Z / len(Z), np.eye(6), atol=1e-10)
    rotated = PCAWhitening(power=0, norm=None).fit_transform(X)
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    np.testing.assert_allclose(np.linalg.norm(rotated[:, None] - rotated, axis=2), distances, atol=1e-9)


def test_full_shrinkage_is_pca_alone_up_to_scale(rng):
    X = rng.normal(size=(50, 5)) * [5, 4, 3, 2, 1]
    shrunk = PCAWhitening(3, shrinkage=1.0).fit_transform(X)
    np.testing.assert_allclose(shrunk, PCAWhitening(3, power=0).fit_transform(X), atol=1e-12)


def test_components_are_orthonormal_in_order_and_of_fixed_sign(rng):
    whitening = PCAWhitening(5).fit(rng.normal(size=(80, 7)))
    np.testing.assert_allclose(whitening.components_ @ whitening.components_.T, np.eye(5), atol=1e-12)
    assert (np.diff(whitening.explained_variance_) <= 0).all()
    largest = np.abs(whitening.components_).argmax(axis=1)
    assert (whitening.components_[np.arange(5), largest] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_without_variance_give_zeros(dtype, rng):
    """Fewer samples than features, and constant features: whitening must not blow rounding errors up."""
    X = np.zeros((12, 40), dtype=dtype)
    X[:, :20] = rng.normal(size=(12, 20)) + 7
    whitening = PCAWhitening(norm=None).fit(X)
    Z = whitening.transform(X)
    assert Z.dtype == dtype and Z.shape == (12, 12)
    np.testing.assert_array_equal(Z[:, 11], 0)
    np.testing.assert_allclose((Z**2).mean(axis=0)[:11], 1, rtol=1e-3)


def test_identical_vectors_whiten_to_zeros():
    Z = PCAWhitening(2).fit_transform(np.full((5, 3), 0.25))
    np.testing.assert_array_equal(Z, 0)


def test_batches_do_not_change_a_bit(rng):
    X = rng.normal(size=(70, 300)).astype(np.float32)
    whitening = PCAWhitening(20).fit(X)
    whole = whitening.transform(X)
    np.testing.assert_array_equal(np.concatenate([whitening.transform(X[i : i + 1]) for i in range(70)]), whole)
    np.testing.assert_array_equal(np.concatenate([whitening.transform(X[:33]), whitening.transform(X[33:])]), whole)


def test_the_randomised_decomposition_is_close_and_seeded(rng, monkeypatch):
    monkeypatch.setattr("cvretrieval.postprocessing.whitening._FULL_SVD", 100)
    X = rng.normal(size=(700, 600)) * np.geomspace(30, 0.1, 600)
    exact, quick, again = (PCAWhitening(5, random_state=s) for s in (0, 3, 3))
    quick.fit(X)
    again.fit(X)
    monkeypatch.setattr("cvretrieval.postprocessing.whitening._FULL_SVD", 1000)
    exact.fit(X)
    np.testing.assert_array_equal(quick.components_, again.components_)
    assert not np.array_equal(quick.components_, exact.components_)
    np.testing.assert_allclose(quick.explained_variance_, exact.explained_variance_, rtol=1e-2)


def test_more_components_than_there_can_be(rng):
    with pytest.raises(
        ValueError, match=r"n_components=9 exceeds min\(n_samples, n_features\) = 5: X has 5 samples of 8"
    ):
        PCAWhitening(9).fit(rng.normal(size=(5, 8)))


@pytest.mark.parametrize(
    ("estimator", "parameter"),
    [
        (PowerNormalizer(0), "power"),
        (PowerNormalizer("half"), "power"),
        (PowerNormalizer(norm="l1"), "norm"),
        (PCAWhitening(0), "n_components"),
        (PCAWhitening(2.5), "n_components"),
        (PCAWhitening(power=-0.5), "power"),
        (PCAWhitening(shrinkage=1.5), "shrinkage"),
        (PCAWhitening(norm="max"), "norm"),
    ],
)
def test_bad_parameters_are_named(estimator, parameter, rng):
    name = type(estimator).__name__
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of {name} must be .*Got .* instead"):
        estimator.fit(rng.normal(size=(6, 4)))


@pytest.mark.parametrize("estimator", [PowerNormalizer(), PCAWhitening(2)])
def test_vectors_that_are_not_finite_are_refused(estimator, rng):
    X = rng.normal(size=(6, 4))
    fitted = estimator.fit(X)
    X[3, 1] = np.nan
    for call in (fitted.transform, fitted.fit):
        with pytest.raises(ValueError, match="contains NaN"):
            call(X)
