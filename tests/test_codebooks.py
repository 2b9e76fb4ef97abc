"""Codebooks: k-means on a sample, assignment, useless words, and what they say to bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from sklearn.cluster import KMeans, MiniBatchKMeans

from cvretrieval import KMeansCodebook, LocalFeatures
from cvretrieval.codebooks import NearestWord
from tests.reference.assignment import nearest_words_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "kmeans.npz")


@pytest.fixture
def blobs(rng):
    """Six images with descriptors about four well separated points."""
    points = 20 * np.eye(4, 8)
    return [points[rng.integers(0, 4, 50)] + rng.normal(size=(50, 8)) for _ in range(6)]


@pytest.mark.parametrize("iterations", ["it0", "it1", "it10", "it100"])
def test_words_are_those_of_vlfeat(iterations):
    centers, X = REFERENCE[f"{iterations}/centers"], REFERENCE["X"]
    words = NearestWord(centers, "this test").assign(X, 0)
    np.testing.assert_array_equal(words, REFERENCE[f"{iterations}/assignments"])
    squares = ((X - centers[words]) ** 2).sum(axis=1)
    np.testing.assert_allclose(squares, REFERENCE[f"{iterations}/sqdist"], rtol=1e-12)


@pytest.mark.parametrize("algorithm", ["lloyd", "minibatch"])
def test_separated_points_are_found(blobs, algorithm):
    codebook = KMeansCodebook(4, algorithm=algorithm, n_init=3, random_state=0).fit(blobs)
    distances = np.linalg.norm(codebook.cluster_centers_[:, None] - 20 * np.eye(4, 8), axis=2)
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3]
    assert distances.min(axis=1).max() < 1
    assert codebook.cluster_centers_.dtype == np.float32 and codebook.cluster_centers_.flags.c_contiguous


def test_words_are_the_means_of_their_descriptors(rng):
    X = [rng.normal(size=(200, 5)) for _ in range(3)]
    codebook = KMeansCodebook(6, tol=0, max_iter=300, random_state=0).fit(X)
    rows, words = np.concatenate(X), codebook.predict(X)
    means = np.array([rows[words == k].mean(axis=0) for k in range(6)])
    np.testing.assert_allclose(codebook.cluster_centers_, means, atol=1e-5)
    assert codebook.inertia_ == pytest.approx(((rows - means[words]) ** 2).sum(), rel=1e-5)
    assert 1 < codebook.n_iter_ < 300 and codebook.n_samples_ == 600 and codebook.n_dims_ == 5


def test_lloyd_is_that_of_scikit_learn(rng):
    rows = rng.normal(size=(400, 6)).astype(np.float32)
    with threadpoolctl.threadpool_limits(1):
        theirs = KMeans(7, n_init=1, max_iter=50, random_state=np.random.RandomState(3)).fit(rows)
    ours = KMeansCodebook(7, random_state=3).fit([rows[:100], rows[100:]])
    np.testing.assert_array_equal(ours.cluster_centers_, theirs.cluster_centers_)
    np.testing.assert_array_equal(ours.predict([rows]), theirs.labels_)


def test_auto_takes_minibatches_for_many_words(rng):
    rows = rng.normal(size=(2500, 3)).astype(np.float32)

    def centers(n_words, algorithm):
        return KMeansCodebook(n_words, algorithm=algorithm, max_iter=2, random_state=0).fit([rows]).cluster_centers_

    np.testing.assert_array_equal(centers(512, "auto"), centers(512, "lloyd"))
    np.testing.assert_array_equal(centers(513, "auto"), centers(513, "minibatch"))


def test_predict_gives_the_nearest_word_of_every_descriptor(blobs):
    codebook = KMeansCodebook(4, random_state=0).fit(blobs)
    X = [blobs[0], None, blobs[1][:1], blobs[2]]
    words = codebook.predict(X)
    assert words.dtype == np.int32 and words.shape == (101,)
    rows = np.concatenate([x for x in X if x is not None])
    np.testing.assert_array_equal(words, nearest_words_naive(rows, codebook.cluster_centers_))
    assert codebook.predict([None, None]).shape == codebook.predict([]).shape == (0,)


def test_the_sample_is_bounded_seeded_and_without_replacement(rng, monkeypatch):
    X = [np.arange(600, dtype=np.float32).reshape(300, 2), 600 + np.arange(400, dtype=np.float32).reshape(200, 2)]
    seen = []
    learn = KMeansCodebook._learn
    monkeypatch.setattr(
        KMeansCodebook, "_learn", lambda self, rows, *more: seen.append(rows) or learn(self, rows, *more)
    )
    for seed in (0, 0, 1):
        codebook = KMeansCodebook(3, max_samples=50, random_state=seed).fit(X)
        assert codebook.n_samples_ == 50
    first, again, other = seen
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn = first[:, 0] / 2
    assert len(set(drawn)) == 50 and set(drawn) <= set(range(500)) and (np.diff(drawn) > 0).all()
    assert drawn.max() > 300  # later images take part
    KMeansCodebook(3, max_samples=500, random_state=0).fit(X)
    KMeansCodebook(3, max_samples=None, random_state=0).fit(X)
    np.testing.assert_array_equal(seen[3], np.concatenate(X))
    np.testing.assert_array_equal(seen[4], np.concatenate(X))


def test_a_random_state_object_is_drawn_from(blobs):
    state = np.random.RandomState(0)
    one, two = (KMeansCodebook(4, max_samples=100, random_state=state).fit(blobs) for _ in range(2))
    assert not np.array_equal(one.cluster_centers_, two.cluster_centers_)


def test_learning_leaves_threads_and_input_alone(blobs):
    X = LocalFeatures.from_images(blobs)
    before = X.descriptors.copy()
    with threadpoolctl.threadpool_limits(2):
        KMeansCodebook(4, random_state=0).fit(X)
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == {2}
    np.testing.assert_array_equal(X.descriptors, before)


def test_too_few_distinct_descriptors_become_the_words(rng):
    X = [np.array([[0, 0], [1, 0]]), np.array([[1, 0], [0, 5]])]
    with pytest.warns(UserWarning, match="2 of n_words=5 words stay empty, 2 of them as repetitions.*4 descriptors"):
        codebook = KMeansCodebook(5, random_state=0).fit(X)
    assert codebook.cluster_centers_.tolist() == [[0, 0], [0, 5], [1, 0], [0, 0], [0, 0]]
    assert (codebook.n_empty_words_, codebook.n_duplicate_words_, codebook.inertia_) == (2, 2, 0)
    assert codebook.predict(X).tolist() == [0, 2, 2, 1]


def test_exactly_as_many_distinct_descriptors_as_words():
    codebook = KMeansCodebook(3, random_state=0).fit([np.array([[0, 0], [1, 0], [0, 5], [1, 0]])])
    assert codebook.n_empty_words_ == codebook.n_duplicate_words_ == 0
    assert codebook.cluster_centers_.tolist() == [[0, 0], [0, 5], [1, 0]]


@pytest.mark.parametrize("algorithm", ["lloyd", "minibatch"])
def test_repeated_words_of_large_samples_are_reported(rng, algorithm):
    X = [rng.integers(0, 2, (500, 2))]  # four distinct descriptors
    with pytest.warns(UserWarning, match="of n_words=9 words stay empty"):
        codebook = KMeansCodebook(9, algorithm=algorithm, random_state=0).fit(X)
    assert codebook.n_empty_words_ >= 5
    assert codebook.n_duplicate_words_ == 9 - len(np.unique(codebook.cluster_centers_, axis=0))
    assert set(codebook.predict(X)) <= set(range(9))


def test_one_word_and_one_descriptor():
    codebook = KMeansCodebook(1).fit([np.array([[3.0, 4.0]])])
    assert codebook.cluster_centers_.tolist() == [[3, 4]] and codebook.predict([np.ones((2, 2))]).tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20])
def test_descriptors_that_are_not_finite_are_refused_by_image(blobs, value):
    codebook = KMeansCodebook(4, random_state=0).fit(blobs)
    blobs[3][20, 1] = value
    message = "KMeansCodebook got descriptors of image 3 that are NaN, infinite or too large for float32"
    with pytest.raises(ValueError, match=message):
        codebook.predict(blobs)
    with pytest.raises(ValueError, match=message):
        KMeansCodebook(4).fit(blobs)


@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        ("n_words", 0, r"an integer in \[1, inf\)"),
        ("n_words", 3.0, "an integer"),
        ("algorithm", "elkan", "one of 'auto', 'lloyd', 'minibatch'"),
        ("max_samples", 0, "an integer .* or None"),
        ("max_iter", 0, "an integer"),
        ("tol", -1, r"a number in \[0, inf\)"),
        ("n_init", None, "an integer"),
    ],
)
def test_bad_parameters_are_named(blobs, parameter, value, allowed):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of KMeansCodebook must be {allowed}.*Got {value!r}"):
        KMeansCodebook(**{parameter: value}).fit(blobs)


def test_a_text_is_not_local_features():
    with pytest.raises(TypeError, match="KMeansCodebook expects LocalFeatures or a list of 2-D arrays. Got str"):
        KMeansCodebook(2).fit("photos")


def test_partial_fit_is_that_of_scikit_learn(rng):
    batches = [rng.normal(size=(n, 5)).astype(np.float32) for n in (80, 30, 1, 60)]
    ours = KMeansCodebook(7, random_state=0)
    ours._start(batches[0])
    before = ours.cluster_centers_.copy()
    theirs = MiniBatchKMeans(7, init=before, reassignment_ratio=0, n_init=1)
    for n, batch in enumerate(batches, start=1):
        ours.partial_fit([batch[:10], batch[10:]])
        theirs.partial_fit(batch)
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-5)
        assert ours.n_iter_ == n and ours.n_samples_ == ours.counts_.sum() == sum(map(len, batches[:n]))
        words = nearest_words_naive(batch, before)
        assert ours.inertia_ == pytest.approx(((batch - before[words]) ** 2).sum(), rel=1e-4)
        before = ours.cluster_centers_.copy()
    started = KMeansCodebook(7, random_state=0).partial_fit([batches[0]])
    assert started.counts_.sum() == 80 and (started.counts_ > 0).all()


def test_partial_fit_goes_on_after_fit_and_after_loading(blobs, tmp_path):
    fitted = KMeansCodebook(4, n_init=3, random_state=0).fit(blobs[:3])
    assert fitted.counts_.sum() == 150 and fitted.counts_.tolist() == np.bincount(fitted.predict(blobs[:3])).tolist()
    before = fitted.cluster_centers_.copy()
    fitted.save(tmp_path / "words.safetensors")
    loaded = KMeansCodebook.load(tmp_path / "words.safetensors")
    for codebook in (fitted, loaded):
        codebook.partial_fit(blobs[3:])
    np.testing.assert_array_equal(fitted.cluster_centers_, loaded.cluster_centers_)
    # The mean of 75 descriptors on average moves by what as many new ones make of it.
    assert 0 < np.abs(fitted.cluster_centers_ - before).max() < 1
    rows, words = np.concatenate(blobs), loaded.predict(blobs)
    means = np.array([rows[words == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(loaded.cluster_centers_, means, atol=1e-4)


def test_partial_fit_of_bad_batches(blobs):
    with pytest.raises(ValueError, match="first batch of KMeansCodebook.partial_fit has 3 descriptors.*n_words=4"):
        KMeansCodebook(4).partial_fit([blobs[0][:3]])
    codebook = KMeansCodebook(4, random_state=0).partial_fit(blobs[:1])
    codebook.partial_fit([blobs[1][:1]])
    with pytest.raises(ValueError, match="X has 3-d descriptors, but KMeansCodebook was fitted with 8-d"):
        codebook.partial_fit([np.ones((2, 3))])
    with pytest.raises(ValueError, match="none of the images has any descriptor"):
        codebook.partial_fit([None])
    blobs[2][1, 1] = np.nan
    with pytest.raises(ValueError, match="descriptors of image 1 that are NaN"):
        codebook.partial_fit(blobs[1:])
