"""Whitening learned from matching pairs: definition, reference program, degenerate input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from cvretrieval import VLAD, LearnedWhitening, PCAWhitening
from tests.parity import agree
from tests.reference.whitening import learn_whitening_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "whitening.npz")


def assert_rows_equal_up_to_signs(P, expected, rtol):
    np.testing.assert_allclose(P * np.sign((P * expected).sum(axis=1))[:, None], expected, rtol=0,
                               atol=rtol * np.abs(expected).max())  # fmt: skip


def all_ordered_pairs(labels):
    n = len(labels)
    return [(i, j) for i in range(n) for j in range(n) if i != j and labels[i] == labels[j]]


@pytest.fixture
def groups(rng):
    labels = np.array([0, 1, 2, 0, 1, 2, 3, 3, 3, 3, 4, 5, 0, 1, 6, 7, 7, 8, 8, 9, 9])
    return rng.normal(size=(10, 4))[labels] * 3 + rng.normal(size=(len(labels), 4)) * [1, 2, 0.5, 1] + 20, labels


@pytest.mark.parametrize("n_components", [24, 8])
def test_it_is_that_of_cirtorch(n_components):
    X, pairs = REFERENCE["X"], np.stack([REFERENCE["qidxs"], REFERENCE["pidxs"]], axis=1)
    whitening = LearnedWhitening(n_components).fit(X, pairs=pairs)
    np.testing.assert_allclose(whitening.mean_, REFERENCE["lw_m"], atol=1e-15)
    assert_rows_equal_up_to_signs(whitening.components_, REFERENCE["lw_P"][:n_components], 1e-9)
    # That program divides by the norm + 1e-6, so its rows are a little shorter than one.
    applied = REFERENCE[f"lw_applied_d{n_components}"]
    Z = whitening.transform(X[: len(applied)])
    np.testing.assert_allclose(Z @ Z.T, applied @ applied.T, rtol=0, atol=1e-6)
    unit = applied / np.linalg.norm(applied, axis=1, keepdims=True)
    agree("learned-whitening", Z @ Z.T, unit @ unit.T, 1e-9)


@pytest.mark.parametrize("shrinkage", [0, 0.2, 1])
def test_it_is_its_definition(shrinkage, groups, rng):
    X = groups[0]
    pairs = rng.permutation(all_ordered_pairs(groups[1]))[:15]
    whitening = LearnedWhitening(3, shrinkage=shrinkage, norm=None).fit(X, pairs=pairs)
    mean, projection = learn_whitening_naive(X, pairs, 3, shrinkage)
    np.testing.assert_allclose(whitening.mean_, mean, rtol=1e-13)
    assert_rows_equal_up_to_signs(whitening.components_, projection, 1e-11)
    np.testing.assert_allclose(whitening.transform(X), (X - mean) @ whitening.components_.T, atol=1e-12)


def test_equal_labels_are_all_pairs_in_both_directions(groups):
    X, labels = groups
    by_labels = LearnedWhitening().fit(X, labels)
    pairs = all_ordered_pairs(labels)
    by_pairs = LearnedWhitening().fit(X, pairs=pairs)
    assert by_labels.n_pairs_ == by_pairs.n_pairs_ == len(pairs)
    np.testing.assert_allclose(by_labels.mean_, by_pairs.mean_, rtol=1e-13)
    np.testing.assert_allclose(by_labels.components_, by_pairs.components_, atol=1e-11)
    words = np.array([f"place {label}" for label in labels])
    for y in (words, words.astype(object), list(words)):
        np.testing.assert_array_equal(LearnedWhitening().fit(X, y).components_, by_labels.components_)


def test_differences_of_pairs_become_white_and_all_images_uncorrelated(groups):
    X, labels = groups
    whitening = LearnedWhitening(norm=None).fit(X, labels)
    Z = whitening.transform(X)
    first, second = np.transpose(all_ordered_pairs(labels))
    differences = Z[first] - Z[second]
    np.testing.assert_allclose(differences.T @ differences / len(first), np.eye(4), atol=1e-11)
    np.testing.assert_allclose(Z.T @ Z / len(Z), np.diag(whitening.explained_variance_), atol=1e-10)
    assert (np.diff(whitening.explained_variance_) < 0).all()
    largest = np.abs(whitening.components_).argmax(axis=1)
    assert (whitening.components_[np.arange(4), largest] > 0).all()


def test_shrunk_entirely_it_is_pca_about_its_mean(groups):
    X = groups[0]
    whitening = LearnedWhitening(2, shrinkage=1, norm=None).fit(X, pairs=[(i, (i + 1) % len(X)) for i in range(len(X))])
    pca = PCAWhitening(2, power=0, norm=None).fit(X)  # every image once a query: the same mean
    np.testing.assert_allclose(whitening.mean_, pca.mean_)
    directions = whitening.components_ / np.linalg.norm(whitening.components_, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, pca.components_, atol=1e-12)


def test_blocks_change_nothing_but_rounding(groups, monkeypatch):
    X, labels = groups
    whole = LearnedWhitening().fit(X, labels), LearnedWhitening().fit(X, pairs=all_ordered_pairs(labels))
    monkeypatch.setattr("cvretrieval.postprocessing.moments._BLOCK_SIZE", 12)
    parts = LearnedWhitening().fit(X, labels), LearnedWhitening().fit(X, pairs=all_ordered_pairs(labels))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.components_, other.components_, atol=1e-11)


def test_it_finds_what_tells_places_apart(rng):
    """Places differ in weak features that large nuisances hide: learned from other places, matches are found."""
    place = np.repeat(np.arange(120), 4)
    X = rng.normal(size=(120, 16))[place] * 0.3 + rng.normal(size=(480, 16)) * np.r_[np.full(8, 3.0), np.full(8, 0.1)]
    learn, test = place < 60, place >= 60

    def share_found(Z):
        similarity = Z @ Z.T - 9 * np.eye(len(Z))
        return np.mean(place[test][similarity.argmax(axis=1)] == place[test])

    found = share_found(LearnedWhitening(8).fit(X[learn], place[learn]).transform(X[test]))
    assert found > 0.9 and share_found(PCAWhitening(8).fit(X[learn]).transform(X[test])) < 0.6


def test_labels_through_a_pipeline_and_a_grid_search(rng):
    labels = np.arange(40) % 8
    images = [rng.normal(size=(20, 4)) + 3 * np.eye(8, 4)[label] + label / 8 for label in labels]
    line = make_pipeline(VLAD(2, random_state=0), LearnedWhitening(shrinkage=0.1), KNeighborsClassifier(1))
    search = GridSearchCV(line, {"learnedwhitening__n_components": [2, 4]}, cv=2, error_score="raise")
    assert search.fit(images, labels).best_score_ > 0.5
    pairs = all_ordered_pairs(labels)
    line[:-1].fit(images, learnedwhitening__pairs=pairs)
    np.testing.assert_array_equal(line[1].n_pairs_, len(pairs))


def test_singular_scatters_need_shrinkage_and_say_so(rng):
    X = rng.normal(size=(30, 12))
    pairs = np.arange(10).reshape(5, 2)
    with pytest.raises(ValueError, match="differences of 5 pairs span 5 of 12 dimensions.*shrinkage, such as 0.01"):
        LearnedWhitening().fit(X, pairs=pairs)
    Z = LearnedWhitening(shrinkage=0.01).fit(X, pairs=pairs).transform(X)
    assert np.isfinite(Z).all()
    X[:, 3] = 1
    with pytest.raises(ValueError, match="span 11 of 12 dimensions"):
        LearnedWhitening().fit(X, np.arange(30) % 2)
    X[1::2] = X[::2]
    with pytest.raises(ValueError, match="images of each of the 15 pairs are equal"):
        LearnedWhitening(shrinkage=0.5).fit(X, pairs=np.arange(30).reshape(15, 2))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 9)], "row numbers from 0 to 8. Got numbers from 0 to 9"),
        ([(-1, 2)], "row numbers from 0 to 8. Got numbers from -1 to 2"),
        ([(0, 1), (4, 4)], r"pairs\[1\] matches row 4 with itself"),
        ([(0, 1, 2)], r"integers of shape \(n_pairs, 2\), n_pairs > 0. Got an array of int64 with shape \(1, 3\)"),
        (np.empty((0, 2), int), r"n_pairs > 0. Got an array of int64 with shape \(0, 2\)"),
        ([(0.0, 1.0)], "must be integers"),
        ([0, 1], "Expected 2D array"),
    ],
)
def test_bad_pairs_are_named(pairs, message, rng):
    with pytest.raises(ValueError, match=message):
        LearnedWhitening(2).fit(rng.normal(size=(9, 3)), pairs=pairs)


def test_labels_that_match_none_and_no_labels(rng):
    X = rng.normal(size=(9, 3))
    with pytest.raises(ValueError, match="No two of the 9 images have the same label"):
        LearnedWhitening(2).fit(X, np.arange(9))
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None. Give y.*or pairs"):
        LearnedWhitening(2).fit(X)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        LearnedWhitening(2).fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"n_components=4 exceeds min\(n_samples, n_features\) = 3"):
        LearnedWhitening(4).fit(X, np.arange(9) % 2)


@pytest.mark.parametrize(
    ("estimator", "parameter"),
    [
        (LearnedWhitening(0), "n_components"),
        (LearnedWhitening(shrinkage=1.5), "shrinkage"),
        (LearnedWhitening(norm="max"), "norm"),
    ],
)
def test_bad_parameters_are_named(estimator, parameter, rng):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of LearnedWhitening must be .*Got .* instead"):
        estimator.fit(rng.normal(size=(6, 4)), [0, 0, 1, 1, 2, 2])
