"""PCA whitening from batches: what `fit` learns from all vectors at once, up to rounding."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from cvretrieval import PCAWhitening
from cvretrieval.postprocessing import whitening as module

LEARNED = ("mean_", "components_", "explained_variance_", "noise_variance_", "n_components_", "n_samples_seen_")


def from_batches(estimator, X, cuts):
    for batch in np.split(X, cuts):
        assert estimator.partial_fit(batch) is estimator
    return estimator


def assert_same_model(one, other, atol):
    for name in LEARNED:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-7, atol=atol, err_msg=name)


@pytest.fixture
def X(rng):
    return rng.normal(size=(90, 7)) @ rng.normal(size=(7, 7)) + 3


@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [45], [80], list(range(1, 90))], ids=str)
@pytest.mark.parametrize(
    "parameters", [{}, {"n_components": 3, "power": 0.25, "shrinkage": 0.2, "norm": None}], ids=str
)
def test_batches_learn_what_fit_learns(cuts, parameters, X):
    whole = PCAWhitening(**parameters).fit(X)
    parts = from_batches(PCAWhitening(**parameters), X, cuts)
    assert_same_model(parts, whole, 1e-12)
    np.testing.assert_allclose(parts.transform(X), whole.transform(X), atol=1e-11)


def test_blocks_inside_a_batch(X, monkeypatch):
    monkeypatch.setattr("cvretrieval.postprocessing.moments._BLOCK_SIZE", 7 * 13)
    assert_same_model(PCAWhitening().partial_fit(X), PCAWhitening().fit(X), 1e-12)


def test_float32_far_from_zero_is_as_exact_as_float64(rng):
    """Sums of squares would cancel: the mean is 1e4 standard deviations away."""
    X = (rng.normal(size=(500, 6)) * [1, 0.5, 0.4, 0.3, 0.2, 0.1] + 1e4).astype(np.float32)
    parts = from_batches(PCAWhitening(norm=None), X, [100, 250])
    exact = PCAWhitening(norm=None).fit(X.astype(np.float64))
    assert_same_model(parts, exact, 1e-9)
    assert parts.transform(X).dtype == np.float32 and parts.transform(X.astype(np.float64)).dtype == np.float64


def test_fewer_vectors_than_features(rng):
    X = rng.normal(size=(9, 30))
    whole, parts = PCAWhitening(norm=None).fit(X), from_batches(PCAWhitening(norm=None), X, [2, 5])
    assert parts.n_components_ == 9
    Z = parts.transform(X)
    np.testing.assert_array_equal(Z[:, 8], 0)
    np.testing.assert_allclose(Z, whole.transform(X), atol=1e-10)
    assert from_batches(parts, rng.normal(size=(40, 30)), [20]).n_components_ == 30


def test_identical_vectors_whiten_to_zeros():
    parts = from_batches(PCAWhitening(2), np.full((6, 3), 0.25), [1, 4])
    np.testing.assert_array_equal(parts.transform(np.full((2, 3), 0.25)), 0)


def test_the_eigenproblem_is_solved_when_it_is_needed(X, monkeypatch):
    calls = []
    solve = module.principal_directions
    monkeypatch.setattr(module, "principal_directions", lambda *a: calls.append(1) or solve(*a))
    parts = from_batches(PCAWhitening(3), X, [10, 20, 30])
    assert not calls
    parts.transform(X)
    assert parts.transform(X).shape == (90, 3) and len(parts.get_feature_names_out()) == parts.n_components_
    assert len(calls) == 1
    parts.partial_fit(X[:5]).components_
    assert len(calls) == 2


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "deepcopy", "pickle"]
)
def test_copies_before_and_after_solving(copied, X):
    parts = from_batches(PCAWhitening(3), X[:50], [10])
    expected = PCAWhitening(3).fit(X[:50]).transform(X)
    np.testing.assert_allclose(copied(parts).transform(X), expected, atol=1e-11)
    np.testing.assert_array_equal(copied(parts).transform(X), parts.transform(X))


def test_a_loaded_model_goes_on_where_it_was(X, tmp_path):
    parts = from_batches(PCAWhitening(3), X[:50], [10])
    loaded = PCAWhitening.load(parts.save(tmp_path / "model.cvm"))
    np.testing.assert_array_equal(loaded.transform(X), parts.transform(X))
    assert_same_model(loaded.partial_fit(X[50:]), PCAWhitening(3).fit(X), 1e-12)


def test_going_on_from_fit(X, rng):
    """All directions kept: exact. Some left out: they count with their mean variance."""
    assert_same_model(PCAWhitening().fit(X[:60]).partial_fit(X[60:]), PCAWhitening().fit(X), 1e-12)
    isotropic = rng.normal(size=(4000, 6)) * [5, 3, 1, 1, 1, 1] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    parts = PCAWhitening(2).fit(isotropic[:3000]).partial_fit(isotropic[3000:])
    whole = PCAWhitening(2).fit(isotropic)
    np.testing.assert_allclose(parts.explained_variance_, whole.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(parts.noise_variance_, whole.noise_variance_, rtol=1e-6)
    np.testing.assert_allclose(np.abs((parts.components_ * whole.components_).sum(axis=1)), 1, atol=1e-5)


def test_fit_forgets_what_batches_taught(X):
    parts = from_batches(PCAWhitening(3), X * 7, [10]).fit(X)
    assert not hasattr(parts, "scatter_")
    np.testing.assert_array_equal(parts.transform(X), clone(parts).fit(X).transform(X))


def test_too_few_vectors_so_far(X, tmp_path):
    with pytest.raises(NotFittedError):
        PCAWhitening(3).transform(X)
    parts = PCAWhitening(3).partial_fit(X[:1])
    for call in (lambda: parts.transform(X), lambda: parts.components_, lambda: parts.save(tmp_path / "model.cvm")):
        with pytest.raises(ValueError, match="needs at least 2 vectors. Got 1 by partial_fit"):
            call()
    parts.partial_fit(X[1:2])
    with pytest.raises(
        ValueError, match=r"n_components=3 exceeds min\(n_samples, n_features\) = 2: X has 2 samples of 7"
    ):
        parts.transform(X)
    assert parts.partial_fit(X[2:9]).transform(X).shape == (90, 3)


def test_a_batch_that_is_refused_changes_nothing(X):
    parts = from_batches(PCAWhitening(3), X, [10])
    before = parts.transform(X)
    with pytest.raises(ValueError, match="X has 6 features, but PCAWhitening is expecting 7"):
        parts.partial_fit(X[:, :6])
    with pytest.raises(ValueError, match="contains NaN"):
        parts.partial_fit(np.full((2, 7), np.nan))
    with pytest.raises(AttributeError, match="no attribute 'component_'"):
        parts.component_
    np.testing.assert_array_equal(parts.transform(X), before)
