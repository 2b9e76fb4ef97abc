"""`LocalFeatures`: selection, views and copies, and what scikit-learn's own tools do with it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils import resample, shuffle

from cvretrieval import LocalFeatures, check_local_features

LENGTHS = [3, 0, 2, 5, 1, 0]


@pytest.fixture
def X(rng):
    """Six images, two of them without features; every value tells its row."""
    n = sum(LENGTHS)
    descriptors = np.arange(n * 8, dtype=np.float32).reshape(n, 8)
    keypoints = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    sizes = np.arange(12).reshape(6, 2)
    return LocalFeatures(descriptors, np.r_[0, np.cumsum(LENGTHS)], keypoints, sizes)


def as_lists(X):
    """The naive form: one tuple of arrays per image."""
    return [(X.descriptors[a:b], X.keypoints[a:b]) for a, b in zip(X.offsets[:-1], X.offsets[1:], strict=True)]


def assert_same_images(selected, expected):
    assert len(selected) == len(expected)
    for image, (descriptors, keypoints) in zip(selected, expected, strict=True):
        np.testing.assert_array_equal(image.descriptors, descriptors)
        np.testing.assert_array_equal(image.keypoints, keypoints)


@pytest.mark.parametrize(
    "key",
    [
        slice(1, 4), slice(None), slice(None, None, -1), slice(0, 6, 2), slice(4, 2),
        [3, 0, 0], np.array([5, 1]), [-1, -6], [], np.array([], dtype=int),
        np.array([True, False, True, True, False, False]), [True, False, False, False, False, True],
        np.array([2], dtype=np.uint8), (np.array([1, 3]), Ellipsis),
    ],
    ids=str,
)  # fmt: skip
def test_selection_equals_selection_of_lists(X, key):
    plain = key[0] if isinstance(key, tuple) else key
    index = np.arange(6)[plain] if isinstance(plain, slice) else np.asarray(plain)
    index = np.flatnonzero(index) if index.dtype == bool else index.astype(int)
    expected = [as_lists(X)[i] for i in index]
    selected = X[key]
    assert isinstance(selected, LocalFeatures)
    assert_same_images(selected, expected)
    np.testing.assert_array_equal(selected.image_sizes, X.image_sizes[index])


def test_integer_selects_one_image_as_views(X):
    image = X[-3]
    assert image.descriptors.shape == (5, 8) and np.shares_memory(image.descriptors, X.descriptors)
    assert image.image_size == (6.0, 7.0)
    assert X[np.int64(1)].descriptors.shape == (0, 8)


def test_slice_of_step_one_does_not_copy_and_index_arrays_do(X):
    assert np.shares_memory(X[1:4].descriptors, X.descriptors)
    assert not np.shares_memory(X[[1, 2, 3]].descriptors, X.descriptors)


@pytest.mark.parametrize("key", [6, -7, [6], [0, -7], np.zeros(5, dtype=bool), [0.5], "a", [[0]], None])
def test_wrong_keys_are_index_errors(X, key):
    with pytest.raises(IndexError):
        X[key]


def test_image_index_and_lengths(X):
    np.testing.assert_array_equal(X.lengths, LENGTHS)
    np.testing.assert_array_equal(X.image_index(), np.repeat(np.arange(6), LENGTHS))
    assert X.shape == (6,)


def test_array_conversion_names_the_remedy(X):
    with pytest.raises(TypeError, match="encoder"):
        np.asarray(X)


def test_with_descriptors_keeps_the_geometry(X):
    reduced = X.with_descriptors(X.descriptors[:, :3])
    assert reduced.n_dims == 3 and reduced.keypoints is X.keypoints
    with pytest.raises(ValueError, match="Expected 11 descriptor rows"):
        X.with_descriptors(X.descriptors[:5])


def test_concatenate_inverts_slicing(X):
    joined = LocalFeatures.concatenate([X[:2], X[2:3], X[3:]])
    assert_same_images(joined, as_lists(X))
    np.testing.assert_array_equal(joined.image_sizes, X.image_sizes)
    assert LocalFeatures.concatenate([]).shape == (0,)


def test_pickle_round_trip(X):
    assert_same_images(pickle.loads(pickle.dumps(X)), as_lists(X))


@pytest.mark.parametrize(
    "make",
    [
        lambda X: X,
        list,
        lambda X: [image.descriptors for image in X],
        lambda X: np.array([image.descriptors for image in X], dtype=object),
        lambda X: (image for image in X),
        lambda X: [(image.descriptors, image.keypoints) if len(image.descriptors) else None for image in X],
        lambda X: [image.descriptors.tolist() for image in X],
    ],
    ids=["container", "list of images", "list of arrays", "object array", "generator", "None for empty", "lists"],
)
def test_one_door_takes_every_form(X, make):
    checked = check_local_features(make(X))
    np.testing.assert_array_equal(checked.descriptors, X.descriptors)
    np.testing.assert_array_equal(checked.offsets, X.offsets)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_numbers_become_float32_and_uint8_stays(dtype):
    assert check_local_features([np.ones((2, 3), dtype=dtype)]).descriptors.dtype == np.float32
    assert check_local_features([np.ones((2, 3), dtype=np.uint8)]).descriptors.dtype == np.uint8


def test_read_only_and_memory_mapped_input_is_taken_without_a_copy(tmp_path):
    np.save(tmp_path / "d.npy", np.ones((4, 3), dtype=np.float32))
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    X = LocalFeatures(mapped, [0, 4])
    assert np.shares_memory(X.descriptors, mapped)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones((3, 8)), ValueError, r"Wrap it in a list"),
        (np.ones(3), ValueError, r"shape \(3,\)"),
        ([np.ones((3, 8)), np.ones((3, 7))], ValueError, r"different dimensions: \[7, 8\]"),
        ([np.ones((3, 8)), (np.ones((3, 8)), np.ones((3, 4)))], ValueError, "Either every image or none"),
        ([(np.ones((3, 8)), np.ones((2, 4)))], ValueError, "3 descriptors, but 2 keypoints"),
        ([np.ones(3)], ValueError, "descriptors of image 0 must be a 2-D array"),
        ([np.full((2, 2), "a")], TypeError, "must be numbers"),
        ("photos", TypeError, "Got str instead"),
        (7, TypeError, "Got int instead"),
    ],
)
def test_bad_input_is_named(X, error, message):
    with pytest.raises(error, match=message):
        check_local_features(X)


def test_dimension_mismatch_names_both_numbers(X):
    class VLAD:
        pass

    with pytest.raises(ValueError, match=r"^X has 8-d descriptors, but VLAD was fitted with 128-d descriptors\.$"):
        check_local_features(X, n_dims=128, estimator=VLAD())
    assert check_local_features([None, None], n_dims=128).n_dims == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offsets": [0, 4]}, "offsets end at 4, but there are 3"),
        ({"offsets": [1, 3]}, "starts with 0"),
        ({"offsets": [0, 2, 1, 3]}, "non-decreasing"),
        ({"keypoints": np.ones((3, 2))}, r"keypoints must have shape \(3, 4\)"),
        ({"image_sizes": np.ones((2, 2))}, r"image_sizes must have shape \(1, 2\)"),
    ],
)
def test_inconsistent_parts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalFeatures(**{"descriptors": np.ones((3, 8)), "offsets": [0, 3], **arguments})


class _Lengths(TransformerMixin, BaseEstimator):
    """Counts descriptors; remembers the types it saw."""

    seen: list[type] = []  # noqa: RUF012

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.seen.append(type(X))
        return self

    def transform(self, X):
        self.seen.append(type(X))
        return np.array([[self.factor * len(image.descriptors)] for image in X])


class _Constant(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=int)


def test_scikit_learn_keeps_the_container_everywhere(X, rng):
    many = X[np.arange(24) % 6]
    y = np.arange(24) % 2
    _Lengths.seen.clear()
    cross_val_score(make_pipeline(_Lengths(), _Constant()), many, y, cv=3)
    search = GridSearchCV(make_pipeline(_Lengths(), _Constant()), {"_lengths__factor": [1.0, 2.0]}, cv=2)
    search.fit(many, y).predict(many)
    make_union(_Lengths(), _Lengths()).fit_transform(many)
    assert set(_Lengths.seen) == {LocalFeatures}
    for part in (*train_test_split(many, random_state=0), shuffle(many, random_state=0), resample(many)):
        assert isinstance(part, LocalFeatures)


def test_train_test_split_keeps_images_whole(X):
    many = X[np.arange(24) % 6]
    labels = np.arange(24)
    train, test, train_labels, test_labels = train_test_split(many, labels, random_state=0)
    for part, names in ((train, train_labels), (test, test_labels)):
        assert_same_images(part, [as_lists(many)[i] for i in names])
