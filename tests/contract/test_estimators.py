"""The contract every estimator keeps; scikit-learn's own suite runs one check on input that is not 2-D."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvretrieval import LocalFeatures, VisualWords
from cvretrieval._state import from_config, to_config
from tests.contract.instances import (
    CODEBOOKS,
    ENCODERS,
    EXTRACTORS,
    NEED_GEOMETRY,
    PER_DESCRIPTOR,
    VECTOR_TRANSFORMERS,
    WORD_ENCODERS,
)

RAGGED = {**PER_DESCRIPTOR, **CODEBOOKS, **ENCODERS, **WORD_ENCODERS}
EVERYTHING = {**EXTRACTORS, **RAGGED, **VECTOR_TRANSFORMERS}
LENGTHS = [30, 0, 12, 45, 1, 7, 20, 33, 0, 26]


def each(table):
    return pytest.mark.parametrize("estimator", list(table.values()), ids=list(table))


def features(rng, n_dims=16, lengths=LENGTHS):
    spread = np.array([7, 5, 1, 1])  # over the whole image
    images = [(rng.normal(size=(n, n_dims)), rng.uniform(1, 9, size=(n, 4)) * spread, (64, 48)) for n in lengths]
    return LocalFeatures.from_images(images, n_dims=n_dims)


def parameter(estimator, name):
    """The parameter of that name, of the estimator itself or of the one it wraps; None if neither has it."""
    return next((key for key in (name, f"encoder__{name}") if key in estimator.get_params()), None)


@pytest.fixture
def X(rng):
    return features(rng)


def dense(Z):
    return Z.toarray() if issparse(Z) else Z


def without_container(estimator, X, dtype=np.float32, order="C"):
    """A list of bare arrays, or of tuples for stages that need the geometry."""
    arrays = [np.asarray(image.descriptors, dtype=dtype, order=order) for image in X]
    if isinstance(estimator, NEED_GEOMETRY):
        return [(array, image.keypoints, image.image_size) for array, image in zip(arrays, X, strict=True)]
    return arrays


def output(estimator, X):
    """What the estimator says of X, as a list of one array per image."""
    if hasattr(estimator, "transform"):
        result = dense(estimator.transform(X))
        if isinstance(result, VisualWords):
            return [np.column_stack([words, values.view(np.uint32)]) for words, values in result]
        return [image.descriptors for image in result] if isinstance(result, LocalFeatures) else list(result)
    lengths = X.lengths if isinstance(X, LocalFeatures) else [len(image) for image in X]
    return np.split(estimator.predict(X), np.cumsum(lengths)[:-1])


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@each(EVERYTHING)
def test_init_stores_its_parameters_and_nothing_else(estimator):
    signature = inspect.signature(type(estimator).__init__).parameters
    sentinels = {name: object() for name in signature if name != "self"}
    fresh = type(estimator)(**sentinels)
    assert vars(fresh) == sentinels


@each(EVERYTHING)
def test_clone_and_params(estimator):
    copy = clone(estimator)
    assert {name: repr(value) for name, value in copy.get_params().items()} == {
        name: repr(value) for name, value in estimator.get_params().items()
    }
    for name, value in estimator.get_params(deep=False).items():
        assert copy.set_params(**{name: value}) is copy
    with pytest.raises(ValueError, match="Invalid parameter 'n_wrods'"):
        copy.set_params(n_wrods=3)


@each(RAGGED)
def test_fit_returns_self_and_fitted_names_end_in_an_underscore(estimator, X):
    fresh = clone(estimator)
    before = set(vars(fresh))
    assert fresh.fit(X) is fresh
    new = set(vars(fresh)) - before
    assert new and all(name.endswith("_") or name.startswith("_") for name in new)
    assert {name: repr(value) for name, value in fresh.get_params().items()} == {
        name: repr(value) for name, value in estimator.get_params().items()
    }


@each(RAGGED)
def test_unfitted_is_said(estimator, X):
    with pytest.raises(NotFittedError, match=type(estimator).__name__):
        output(clone(estimator), X)


@each(EXTRACTORS)
def test_extractors_need_no_fit(estimator, rng):
    images = rng.integers(0, 256, (2, 60, 70), dtype=np.uint8)
    assert_same(output(clone(estimator), images), output(clone(estimator).fit(images), images))


@each(RAGGED)
def test_list_and_container_are_the_same(estimator, X):
    arrays = without_container(estimator, X)
    assert_same(output(clone(estimator).fit(X), X), output(clone(estimator).fit(arrays), arrays))


@each(RAGGED)
def test_input_is_not_changed_and_may_be_read_only(estimator, X):
    before = X.descriptors.copy()
    for array in (X.descriptors, X.keypoints, X.offsets, X.image_sizes):
        array.setflags(write=False)
    output(clone(estimator).fit(X), X)
    np.testing.assert_array_equal(X.descriptors, before)


@each(RAGGED)
def test_memory_mapped_float64_and_fortran_input(estimator, X, tmp_path):
    expected = output(clone(estimator).fit(X), X)
    np.save(tmp_path / "descriptors.npy", X.descriptors)
    mapped = X.with_descriptors(np.load(tmp_path / "descriptors.npy", mmap_mode="r"))
    assert_same(output(clone(estimator).fit(mapped), mapped), expected)
    wide = without_container(estimator, X, dtype=np.float64, order="F")
    assert_same(output(clone(estimator).fit(wide), wide), expected)


@each(RAGGED)
def test_permuting_images_permutes_the_output_and_nothing_else(estimator, X, rng):
    fitted = clone(estimator).fit(X)
    order = rng.permutation(len(X))
    assert_same(output(fitted, X[order]), [output(fitted, X)[i] for i in order])


@each(RAGGED)
def test_batches_do_not_change_a_bit(estimator, X):
    fitted = clone(estimator).fit(X)
    whole = output(fitted, X)
    assert_same([row for i in range(len(X)) for row in output(fitted, X[i : i + 1])], whole)
    assert_same(output(fitted, X[:3]) + output(fitted, X[3:]), whole)


@each({name: e for name, e in {**EXTRACTORS, **RAGGED}.items() if parameter(e, "n_jobs")})
def test_jobs_do_not_change_a_bit(estimator, X, rng):
    data = rng.integers(0, 256, (9, 50, 60), dtype=np.uint8) if estimator in EXTRACTORS.values() else X
    name = parameter(estimator, "n_jobs")
    outputs = [output(clone(estimator).set_params(**{name: n_jobs}).fit(data), data) for n_jobs in (None, 2, 3)]
    assert_same(outputs[0], outputs[1])
    assert_same(outputs[0], outputs[2])


@each(ENCODERS)
def test_an_image_without_features_is_a_zero_row(estimator, X):
    encoded = dense(clone(estimator).fit(X).transform(X))
    assert np.isfinite(encoded).all() and encoded.dtype == np.float32 and encoded.flags.c_contiguous
    empty = np.asarray(LENGTHS) == 0
    assert (encoded[empty] == 0).all() and (encoded[~empty] != 0).any(axis=1).all()


@each(WORD_ENCODERS)
def test_an_image_without_features_has_no_words(estimator, X):
    found = clone(estimator).fit(X).transform(X)
    np.testing.assert_array_equal(found.lengths == 0, np.asarray(LENGTHS) == 0)


@each(RAGGED)
def test_one_image_and_only_empty_images(estimator, X):
    fitted = clone(estimator).fit(X)
    assert len(output(fitted, X[:1])) == 1
    assert len(output(fitted, X[[1, 8]])) == 2
    with pytest.raises(ValueError, match="none of the images|no descriptors"):
        clone(estimator).fit(X[[1, 8]])


@each(RAGGED)
def test_fitting_on_one_image(estimator, X):
    rows = output(clone(estimator).fit(X[3:4]), X)
    assert len(rows) == len(X)
    assert all(np.isfinite(row).all() for row in rows)


@each(RAGGED)
def test_same_seed_same_result(estimator, X):
    assert_same(output(clone(estimator).fit(X), X), output(clone(estimator).fit(X), X))


@each(RAGGED)
def test_wrong_dimension_names_both_numbers(estimator, X, rng):
    fitted = clone(estimator).fit(X)
    message = rf"X has 9-d descriptors, but {type(estimator).__name__} was fitted with 16-d descriptors"
    with pytest.raises(ValueError, match=message):
        output(fitted, features(rng, n_dims=9))


@each(RAGGED)
def test_a_bare_matrix_is_refused_by_name(estimator, X):
    with pytest.raises(ValueError, match=rf"{type(estimator).__name__}.*Wrap it in a list"):
        clone(estimator).fit(X.descriptors)


@each({**CODEBOOKS, **ENCODERS, **WORD_ENCODERS})
def test_more_words_than_descriptors(estimator, rng):
    few = features(rng, lengths=[2, 1])
    with pytest.warns(UserWarning, match="3 .*5|5 .*3"):
        fitted = clone(estimator).fit(few)
    assert all(np.isfinite(row).all() for row in output(fitted, few))


@each(ENCODERS)
def test_feature_names_and_pandas_free_set_output(estimator, X):
    fitted = clone(estimator).fit(X)
    names = fitted.get_feature_names_out()
    assert len(names) == fitted.transform(X).shape[1] and names[0] == f"{type(estimator).__name__.lower()}0"


@each(ENCODERS)
def test_cross_validation_and_grid_search_keep_the_container(estimator, rng):
    X = features(rng, lengths=[10] * 24)
    y = np.arange(24) % 2
    seen = set()

    def look(Z):
        seen.add(type(Z))
        return Z

    spy = FunctionTransformer(look)
    model = make_pipeline(spy, clone(estimator), LinearSVC())
    assert np.isfinite(cross_val_score(model, X, y, cv=3, error_score="raise")).all()
    name = type(estimator).__name__.lower()
    n_words = f"{name}__{parameter(estimator, 'n_words') or parameter(estimator, 'n_components')}"
    search = GridSearchCV(model, {n_words: [2, 3]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_[n_words] in (2, 3)
    assert seen == {LocalFeatures}


@each(RAGGED)
def test_saved_and_loaded_it_returns_the_same_bits(estimator, X, tmp_path):
    fitted = clone(estimator).fit(X)
    path = fitted.save(tmp_path / "model.cvm")
    loaded = type(estimator).load(path)
    assert type(loaded) is type(estimator) and repr(loaded) == repr(fitted)
    assert_same(output(loaded, X), output(fitted, X))
    assert_same(output(loaded.fit(X), X), output(fitted, X))
    with pytest.raises(NotFittedError, match=type(estimator).__name__):
        clone(estimator).save(path)


@each(EXTRACTORS)
def test_a_loaded_extractor_returns_the_same_bits(estimator, rng, tmp_path):
    images = rng.integers(0, 256, (2, 60, 70), dtype=np.uint8)
    loaded = type(estimator).load(estimator.save(tmp_path / "model.cvm"))
    assert repr(loaded) == repr(estimator)
    assert_same(output(loaded, images), output(estimator, images))


@each(VECTOR_TRANSFORMERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_vector_transformer_returns_the_same_bits(estimator, dtype, rng, tmp_path):
    Z, labels = np.abs(rng.normal(size=(40, 6))).astype(dtype), np.arange(40) // 2
    fitted = clone(estimator).fit(Z, labels)
    loaded = type(estimator).load(fitted.save(tmp_path / "model.cvm"))
    assert repr(loaded) == repr(fitted)
    np.testing.assert_array_equal(loaded.transform(Z), fitted.transform(Z))
    np.testing.assert_array_equal(loaded.get_feature_names_out(), fitted.get_feature_names_out())
    with pytest.raises(NotFittedError, match=type(estimator).__name__):
        clone(estimator).save(tmp_path / "other.cvm")


@each({**EXTRACTORS, **RAGGED, **VECTOR_TRANSFORMERS})
def test_its_configuration_is_plain_json(estimator):
    assert repr(from_config(json.loads(json.dumps(to_config(estimator))))) == repr(estimator)


@parametrize_with_checks(list(VECTOR_TRANSFORMERS.values()))
def test_scikit_learn_suite(estimator, check):
    check(estimator)
