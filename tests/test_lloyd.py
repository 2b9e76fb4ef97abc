"""Lloyd's algorithm over blocks and threads: against a slow twin, VLFeat and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans

from cvretrieval import KMeansCodebook
from cvretrieval._kernels.lloyd import add_to_words, center_rows
from cvretrieval._spread import Threads
from cvretrieval.codebooks import kmeans
from cvretrieval.codebooks import lloyd as module
from cvretrieval.codebooks.lloyd import lloyd, start_of_lloyd
from tests.parity import agree
from tests.reference.lloyd import assign_naive, lloyd_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "kmeans.npz")


@pytest.fixture
def rows(rng):
    points = 4 * rng.normal(size=(20, 8))
    return (points[rng.integers(0, 20, 3000)] + rng.normal(size=(3000, 8))).astype(np.float32)


@pytest.fixture
def large(monkeypatch):
    """Small data take the way of large ones, cut into several tasks."""
    monkeypatch.setattr(kmeans, "_LARGE", 1)
    monkeypatch.setattr(module, "_TASK_ROWS", 1100)


def run(rows, centers, n_iter, tol=0.0, n_jobs=None):
    return lloyd(rows, centers, max_iter=n_iter, tol=tol, spread=Threads(n_jobs), owner="this test")


def test_kernels_are_their_slow_twins(rows, rng):
    mean, centered = rng.normal(size=8).astype(np.float32), np.empty_like(rows)
    assert center_rows(rows, mean, centered) == pytest.approx(((rows - mean) ** 2).sum(), rel=1e-5)
    np.testing.assert_array_equal(centered, rows - mean)
    assert np.isnan(center_rows(np.full((1, 8), np.nan, dtype=np.float32), mean, centered[:1]))
    centers, words = rows[:5].copy(), rng.integers(0, 4, len(rows)).astype(np.int32)
    sums, counts = np.ones((5, 8)), np.ones(5, dtype=np.int64)
    distances = np.empty(len(rows), dtype=np.float32)
    add_to_words(rows, words, centers, sums, counts, distances)
    residuals = rows.astype(np.float64) - centers[words]
    np.testing.assert_allclose(sums, 1 + np.array([residuals[words == k].sum(axis=0) for k in range(5)]), rtol=1e-5)
    np.testing.assert_array_equal(counts, 1 + np.bincount(words, minlength=5))
    np.testing.assert_allclose(distances, (residuals**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("n_iter", [1, 10])
def test_iterations_are_those_of_vlfeat_and_of_the_slow_twin(rows, n_iter):
    X = REFERENCE["X"]
    found = run(X.astype(np.float32), REFERENCE["it0/centers"].astype(np.float32), n_iter)
    agree("lloyd", found.centers, REFERENCE[f"it{n_iter}/centers"], 1e-4)
    assert found.inertia == pytest.approx(REFERENCE[f"it{n_iter}/sqdist"].sum(), rel=1e-5)
    assert found.n_iter == n_iter
    found = run(rows, rows[:20], n_iter)
    np.testing.assert_allclose(found.centers, lloyd_naive(rows, rows[:20], n_iter), atol=1e-4)
    np.testing.assert_array_equal(found.counts, np.bincount(assign_naive(rows, found.centers)[0], minlength=20))


def test_it_stops_where_scikit_learn_does(rows):
    for tol in (1e-2, 1e-4):
        theirs = KMeans(20, init=rows[:20], n_init=1, max_iter=300, tol=tol).fit(rows)
        ours = run(rows, rows[:20], 300, tol)
        assert ours.n_iter == theirs.n_iter_
        assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-5)
        agree("lloyd-sklearn", ours.centers, theirs.cluster_centers_, 1e-4)
    settled = run(rows, run(rows, rows[:20], 300).centers, 300)
    assert settled.n_iter < 3


def test_far_from_the_origin_nothing_cancels(rows):
    shift = np.float32(4096)
    far = (rows + shift).astype(np.float32)
    found = run(far, far[:20], 10)
    np.testing.assert_allclose(found.centers, lloyd_naive(far, far[:20], 10), atol=2e-3)


def test_empty_words_move_to_the_descriptors_farthest_off(rows):
    centers = np.concatenate([rows[:5], np.full((2, 8), 1e4, dtype=np.float32)])
    found = run(rows, centers, 1)
    np.testing.assert_allclose(found.centers, lloyd_naive(rows, centers, 1), atol=1e-4)
    assert (np.abs(found.centers) < 100).all()


@pytest.mark.usefixtures("large")
def test_threads_do_not_change_a_bit(rows):
    X = [rows[:100], None, rows[100:]]
    one, two, three = (
        KMeansCodebook(20, algorithm="lloyd", n_jobs=n_jobs, random_state=0).fit(X) for n_jobs in (None, 2, 3)
    )
    for other in (two, three):
        np.testing.assert_array_equal(other.cluster_centers_, one.cluster_centers_)
        assert other.inertia_ == one.inertia_ and other.n_iter_ == one.n_iter_


@pytest.mark.usefixtures("large")
def test_large_fits_are_as_good_as_those_of_scikit_learn(rows):
    theirs = min(KMeans(20, n_init=1, random_state=seed).fit(rows).inertia_ for seed in range(5))
    ours = KMeansCodebook(20, max_samples=None, n_init=5, random_state=0).fit([rows])
    assert ours.inertia_ < 1.02 * theirs
    words = ours.predict([rows])
    squares = ((rows - ours.cluster_centers_[words]) ** 2).sum()
    assert ours.inertia_ == pytest.approx(float(squares), rel=1e-5)
    assert ours.n_empty_words_ == ours.n_duplicate_words_ == 0
    again = KMeansCodebook(20, max_samples=None, n_init=5, random_state=0).fit([rows])
    np.testing.assert_array_equal(again.cluster_centers_, ours.cluster_centers_)


@pytest.mark.usefixtures("large")
def test_fewer_distinct_descriptors_than_words(rng):
    rows = np.repeat(rng.normal(size=(6, 4)), 50, axis=0)
    with pytest.warns(UserWarning, match="words stay empty"):
        codebook = KMeansCodebook(8, algorithm="lloyd", random_state=0).fit([rows])
    assert codebook.inertia_ == pytest.approx(0, abs=1e-6) and codebook.n_empty_words_ == 2


def test_the_start_iterates_on_growing_samples(rows, monkeypatch):
    sizes = []
    iterate = module.lloyd
    monkeypatch.setattr(
        module, "lloyd", lambda rows, *args, **named: sizes.append(len(rows)) or iterate(rows, *args, **named)
    )
    monkeypatch.setattr(module, "_ROWS_EACH", 10)
    centers = start_of_lloyd(rows, 20, np.random.RandomState(0), spread=Threads(), owner="this test")
    assert sizes == [200, 800]
    better = assign_naive(rows, centers)[1].sum()
    assert better < 0.9 * assign_naive(rows, rows[:20])[1].sum()
    sizes.clear()
    start_of_lloyd(rows[:300], 20, np.random.RandomState(0), spread=Threads(), owner="this test")
    assert sizes == []
