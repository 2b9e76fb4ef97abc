"""The contract of classifiers on local features."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from cvretrieval import LocalFeatures
from tests.contract.instances import CLASSIFIERS

LENGTHS = [30, 0, 12, 45, 1, 7, 20, 33, 0, 26]

each_classifier = pytest.mark.parametrize("classifier", list(CLASSIFIERS.values()), ids=list(CLASSIFIERS))


@pytest.fixture
def X(rng):
    images = [(rng.normal(size=(n, 16)), rng.uniform(1, 9, size=(n, 4)), (64, 48)) for n in LENGTHS]
    return LocalFeatures.from_images(images, n_dims=16)


@pytest.fixture
def y():
    return np.array(["even", "odd"])[np.arange(10) % 2]


@each_classifier
def test_init_stores_its_parameters_and_nothing_else(classifier):
    signature = inspect.signature(type(classifier).__init__).parameters
    sentinels = {name: object() for name in signature if name != "self"}
    assert vars(type(classifier)(**sentinels)) == sentinels
    assert is_classifier(classifier)


@each_classifier
def test_fit_returns_self_and_keeps_the_parameters(classifier, X, y):
    fresh = clone(classifier)
    before = set(vars(fresh))
    with pytest.raises(NotFittedError, match=type(classifier).__name__):
        fresh.predict(X)
    assert fresh.fit(X, y) is fresh
    assert all(name.endswith("_") for name in set(vars(fresh)) - before)
    assert repr(fresh.get_params()) == repr(classifier.get_params())


@each_classifier
def test_input_is_not_changed_and_may_be_read_only_memory_mapped_or_a_list(classifier, X, y, tmp_path):
    expected = clone(classifier).fit(X, y).predict_log_proba(X)
    np.save(tmp_path / "descriptors.npy", X.descriptors)
    mapped = LocalFeatures(np.load(tmp_path / "descriptors.npy", mmap_mode="r"), X.offsets)
    wide = [np.asfortranarray(image.descriptors.astype(np.float64)) for image in X]
    for other in (mapped, wide, [image.descriptors for image in X]):
        np.testing.assert_array_equal(clone(classifier).fit(other, y).predict_log_proba(other), expected)


@each_classifier
def test_batches_jobs_and_order_do_not_change_a_bit(classifier, X, y, rng):
    fitted = clone(classifier).fit(X, y)
    whole = fitted.predict_log_proba(X)
    np.testing.assert_array_equal(np.vstack([fitted.predict_log_proba(X[i : i + 1]) for i in range(10)]), whole)
    order = rng.permutation(10)
    np.testing.assert_array_equal(fitted.predict_log_proba(X[order]), whole[order])
    threads = clone(classifier).set_params(n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(threads.predict_log_proba(X), whole)


@each_classifier
def test_probabilities_are_finite_and_add_up_for_empty_images_too(classifier, X, y):
    fitted = clone(classifier).fit(X, y)
    assert np.isfinite(fitted.predict_log_proba(X)).all()
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(fitted.predict_proba(X[[1, 8]]), 0.5)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(axis=1)])


@each_classifier
def test_wrong_dimension_and_a_bare_matrix_are_refused(classifier, X, y, rng):
    fitted = clone(classifier).fit(X, y)
    with pytest.raises(ValueError, match="X has 9-d descriptors, but .* was fitted with 16-d descriptors"):
        fitted.predict([rng.normal(size=(4, 9))])
    with pytest.raises(ValueError, match="Wrap it in a list"):
        fitted.predict(X.descriptors)


@each_classifier
def test_cross_validation_and_files(classifier, X, y, tmp_path):
    assert np.isfinite(cross_val_score(classifier, X, y, cv=2, error_score="raise")).all()
    fitted = clone(classifier).fit(X, y)
    restored = type(classifier).load(fitted.save(tmp_path / "model.cvm"))
    np.testing.assert_array_equal(restored.predict_log_proba(X), fitted.predict_log_proba(X))
    assert restored.predict(X).tolist() == fitted.predict(X).tolist()
