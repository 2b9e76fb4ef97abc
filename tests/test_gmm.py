"""Gaussian mixtures as codebooks: against VLFeat, scikit-learn and a slow twin; floors, streams, bad input."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from cvretrieval import BagOfWords, GMMCodebook, LocalFeatures
from tests.parity import agree
from tests.reference.gaussian_mixture import maximize_naive, posteriors_naive, stepwise_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "gmm.npz")
START = {
    "weights_init": REFERENCE["init_priors"],
    "means_init": REFERENCE["init_means"],
    "covariances_init": REFERENCE["init_covariances"],
}


@pytest.fixture
def blobs(rng):
    """Six images with descriptors of three Gaussians, of which the first holds half."""
    points, deviations = 6 * np.eye(3, 8), np.array([0.5, 1.0, 2.0])
    images = []
    for _ in range(6):
        components = rng.choice(3, 200, p=[0.5, 0.3, 0.2])
        images.append(points[components] + deviations[components, None] * rng.normal(size=(200, 8)))
    return images


def start_of(rows, n_components, rng):
    """A start for comparisons: random descriptors, the variances of all."""
    return {
        "weights_init": np.full(n_components, 1 / n_components),
        "means_init": rows[rng.choice(len(rows), n_components, replace=False)].astype(np.float64),
        "covariances_init": np.tile(rows.var(axis=0, dtype=np.float64), (n_components, 1)),
    }


def steps_naive(rows, start, n_iter, **floors):
    mixture = tuple(np.asarray(array, dtype=np.float64) for array in start.values())
    for _ in range(n_iter):
        posteriors, _ = posteriors_naive(rows, *mixture)
        mixture = maximize_naive(rows, posteriors, *mixture[1:], **floors)
    return mixture


def learned(gmm):
    return gmm.weights_, gmm.means_, gmm.covariances_


@pytest.mark.parametrize("iterations", [1, 5, 20])
@pytest.mark.parametrize(
    ("prefix", "min_posterior"), [("it{}_f8", 0.01), ("it{}_f4", 0.01), ("plain_it{}", 0.0)], ids=["f8", "f4", "plain"]
)
def test_iterations_are_those_of_vlfeat(prefix, min_posterior, iterations):
    key, X = prefix.format(iterations), REFERENCE["X"]
    gmm = GMMCodebook(5, **START, max_iter=iterations, tol=0, min_posterior=min_posterior).fit([X[:90], X[90:]])
    for name, ours in zip(("priors", "means", "covariances"), learned(gmm), strict=True):
        np.testing.assert_allclose(ours, REFERENCE[f"{key}/{name}"], atol=3e-5, rtol=1e-5)
        if not prefix.endswith("f4"):
            agree("gmm" if min_posterior else "gmm-plain", ours, REFERENCE[f"{key}/{name}"], 3e-5)
    assert gmm.lower_bound_ * len(X) == pytest.approx(float(REFERENCE[f"{key}/loglik"]), abs=2e-3)
    assert gmm.score([X]) == pytest.approx(gmm.lower_bound_, abs=1e-9)
    assert gmm.n_iter_ == iterations and not gmm.converged_
    if f"{key}/posteriors" in REFERENCE:
        np.testing.assert_allclose(gmm.predict_proba([X]), REFERENCE[f"{key}/posteriors"], atol=2e-5)


def test_plain_em_and_vlfeats_differ():
    """Otherwise `min_posterior` could be ignored, and the test above would pass."""
    assert np.abs(REFERENCE["it20_f8/means"] - REFERENCE["plain_it20/means"]).max() > 1e-3


def test_iterations_are_those_of_the_slow_twin(blobs, rng):
    rows = np.concatenate(blobs).astype(np.float32)
    start = start_of(rows, 7, rng)
    for n_iter in (1, 3, 10):
        gmm = GMMCodebook(7, **start, max_iter=n_iter, tol=0).fit(blobs)
        for ours, naive in zip(learned(gmm), steps_naive(rows, start, n_iter), strict=True):
            np.testing.assert_allclose(ours, naive, rtol=2e-4, atol=2e-5)
    posteriors, log_likelihood = posteriors_naive(rows, *learned(gmm))
    np.testing.assert_allclose(gmm.predict_proba(blobs), posteriors, atol=1e-5)
    np.testing.assert_allclose(gmm.score_samples(blobs), log_likelihood, atol=1e-4)
    np.testing.assert_array_equal(gmm.predict(blobs), gmm.predict_proba(blobs).argmax(axis=1))
    assert gmm.predict(blobs).dtype == np.int32


def test_interchangeable_with_scikit_learn(blobs, rng):
    rows = np.concatenate(blobs)
    start = start_of(rows, 4, rng)
    theirs = GaussianMixture(
        4, covariance_type="diag", reg_covar=0, tol=0, max_iter=12, weights_init=start["weights_init"],
        means_init=start["means_init"], precisions_init=1 / start["covariances_init"],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(rows)
    ours = GMMCodebook(4, **start, tol=0, max_iter=12).fit(blobs)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, atol=1e-5)
    agree("gmm-sklearn", ours.means_, theirs.means_, 1e-4)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(blobs), theirs.predict_proba(rows), atol=1e-4)
    np.testing.assert_allclose(ours.score_samples(blobs), theirs.score_samples(rows), atol=1e-3)
    np.testing.assert_array_equal(ours.predict(blobs), theirs.predict(rows))
    assert ours.n_iter_ == theirs.n_iter_ == 12
    assert ours.score(blobs) == pytest.approx(theirs.score(rows), abs=1e-3)
    assert ours.bic(blobs) == pytest.approx(theirs.bic(rows), abs=0.1)
    assert ours.aic(blobs) == pytest.approx(theirs.aic(rows), abs=0.1)


@pytest.mark.parametrize("init_params", ["kmeans", "random_from_data"])
def test_gaussians_are_found(blobs, init_params):
    gmm = GMMCodebook(3, init_params=init_params, n_init=5, random_state=0).fit(blobs)
    order = np.argsort(-gmm.weights_)
    np.testing.assert_allclose(gmm.weights_[order], [0.5, 0.3, 0.2], atol=0.05)
    np.testing.assert_allclose(gmm.means_[order], 6 * np.eye(3, 8), atol=0.5)
    np.testing.assert_allclose(np.sqrt(gmm.covariances_[order].mean(axis=1)), [0.5, 1, 2], rtol=0.1)
    assert gmm.converged_ and 1 <= gmm.n_iter_ < 100 and gmm.n_empty_components_ == 0
    assert gmm.n_samples_ == 1200 and gmm.n_dims_ == 8


def test_the_start_is_that_of_the_nearest_descriptors(blobs):
    """After an M-step that changes next to nothing: well separated points."""
    rows = np.concatenate(blobs).astype(np.float32)
    means = 6 * np.eye(3, 8)
    nearest = ((rows[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    start = (
        np.bincount(nearest) / len(rows),
        means,
        np.array([rows[nearest == k].var(axis=0, dtype=np.float64) for k in range(3)]),
    )
    given = dict(zip(START, start, strict=True))
    one, other = GMMCodebook(3, **given, max_iter=1).fit(blobs), GMMCodebook(3, means_init=means, max_iter=1).fit(blobs)
    for ours, expected in zip(learned(other), learned(one), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)
    some = GMMCodebook(3, weights_init=[0.2, 0.2, 0.6], means_init=means, max_iter=1).fit(blobs)
    assert np.abs(some.means_ - one.means_).max() > 1e-4


def test_the_log_likelihood_rises_until_it_changes_by_less_than_tol(blobs):
    scores = []
    for n_iter in range(1, 12):
        gmm = GMMCodebook(6, max_iter=n_iter, tol=0, random_state=0).fit(blobs)
        scores.append(gmm.lower_bound_)
    assert (np.diff(scores) > -1e-6).all() and scores[-1] > scores[0]
    changes = np.abs(np.diff(scores) / scores[1:])
    tol = float(changes[5]) * 1.01
    stopped = GMMCodebook(6, tol=tol, random_state=0).fit(blobs)
    assert stopped.converged_ and stopped.n_iter_ == 2 + int(np.flatnonzero(changes < tol)[0])


def test_the_best_start_is_kept(blobs):
    single = [
        GMMCodebook(5, init_params="random_from_data", max_iter=5, random_state=seed).fit(blobs).lower_bound_
        for seed in range(6)
    ]
    state = np.random.RandomState(0)
    runs = GMMCodebook(5, init_params="random_from_data", max_iter=5, random_state=state)
    one_by_one = [clone(runs).set_params(random_state=state).fit(blobs).lower_bound_ for _ in range(6)]
    best = runs.set_params(n_init=6, random_state=np.random.RandomState(0)).fit(blobs)
    assert best.lower_bound_ == max(one_by_one) > min(one_by_one)
    assert len(set(single)) > 1


def test_threads_and_order_of_calls_do_not_change_a_bit(rng):
    X = [rng.normal(size=(n, 6)).astype(np.float32) for n in (20_000, 0, 15_000, 9_000)]
    gmms = [GMMCodebook(5, max_iter=4, n_jobs=n_jobs, random_state=0).fit(X) for n_jobs in (None, 2, 3)]
    for gmm in gmms[1:]:
        for one, other in zip(learned(gmm), learned(gmms[0]), strict=True):
            np.testing.assert_array_equal(one, other)
        assert gmm.lower_bound_ == gmms[0].lower_bound_
        np.testing.assert_array_equal(gmm.score_samples(X), gmms[0].score_samples(X))


def test_learning_leaves_threads_and_input_alone(blobs):
    X = LocalFeatures.from_images(blobs)
    before = X.descriptors.copy()
    with threadpoolctl.threadpool_limits(2):
        GMMCodebook(4, random_state=0).fit(X)
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == {2}
    np.testing.assert_array_equal(X.descriptors, before)


def test_bytes_and_chunks_are_the_same_as_one_container(rng):
    images = [rng.integers(0, 256, size=(80, 6), dtype=np.uint8) for _ in range(5)]
    gmm = GMMCodebook(3, max_samples=300, max_iter=5, random_state=0).fit(images)
    assert gmm.n_samples_ == 300
    floats = GMMCodebook(3, max_samples=300, max_iter=5, random_state=0).fit([x.astype(np.float32) for x in images])
    chunks = (LocalFeatures.from_images(images[i : i + 2]) for i in (0, 2, 4))
    streamed = GMMCodebook(3, max_samples=300, max_iter=5, random_state=0).fit(chunks)
    for other in (floats, streamed):
        np.testing.assert_array_equal(other.means_, gmm.means_)
        np.testing.assert_array_equal(other.covariances_, gmm.covariances_)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 512.0])
def test_far_from_the_origin_nothing_cancels(rng, scale):
    """Means 300 deviations from zero, one component much tighter than the others."""
    means = 300 + 20 * rng.normal(size=(3, 10))
    deviations = np.array([1.0, 0.01, 3.0])
    components = rng.choice(3, 3000, p=[0.9, 0.05, 0.05])
    rows = (scale * (means[components] + deviations[components, None] * rng.normal(size=(3000, 10)))).astype(np.float32)
    start = {
        "weights_init": np.full(3, 1 / 3),
        "means_init": scale * (means + 0.1 * deviations[:, None]),
        "covariances_init": np.tile((scale * deviations[:, None]) ** 2, (1, 10)),
    }
    gmm = GMMCodebook(3, **start, max_iter=5, tol=0, min_covariance=1e-12).fit([rows])
    weights, means, covariances = steps_naive(rows, start, 5, min_covariance=1e-12)
    np.testing.assert_allclose(gmm.weights_, weights, rtol=1e-5)
    np.testing.assert_allclose((gmm.means_ - means) / np.sqrt(covariances), 0, atol=1e-4)
    np.testing.assert_allclose(gmm.covariances_, covariances, rtol=1e-4)
    np.testing.assert_allclose(gmm.score_samples([rows]), posteriors_naive(rows, *learned(gmm))[1], atol=1e-3)


def test_constant_dimensions_have_the_least_variance(blobs):
    rows = np.concatenate(blobs).astype(np.float32)
    rows[:, 2] = 0.1
    gmm = GMMCodebook(3, random_state=0).fit([rows])
    np.testing.assert_allclose(gmm.covariances_[:, 2], 1e-6, rtol=1e-9)
    np.testing.assert_allclose(gmm.means_[:, 2], np.float32(0.1), rtol=1e-6)
    assert (gmm.covariances_[:, [0, 1, 3]] > 0.01).all()
    np.testing.assert_allclose(gmm.score_samples([rows]), posteriors_naive(rows, *learned(gmm))[1], atol=1e-3)


def test_a_component_that_dies_keeps_mean_and_variance(blobs):
    means = np.concatenate([6 * np.eye(3, 8), np.full((1, 8), 1e4)])
    gmm = GMMCodebook(
        4, weights_init=np.full(4, 0.25), means_init=means, covariances_init=np.full((4, 8), 1.5), max_iter=20
    )
    with pytest.warns(UserWarning, match="1 of n_components=4 components are empty"):
        gmm.fit(blobs)
    np.testing.assert_array_equal(gmm.means_[3], means[3])
    np.testing.assert_array_equal(gmm.covariances_[3], 1.5)
    assert gmm.weights_[3] == pytest.approx(1e-6) and gmm.weights_.sum() == pytest.approx(1)
    assert gmm.n_empty_components_ == 1
    assert (gmm.predict_proba(blobs)[:, 3] == 0).all()
    assert np.isfinite(gmm.score(blobs))


@pytest.mark.parametrize("rows", [np.full((50, 4), 3.7), np.zeros((1, 4)), np.repeat(np.eye(3, 4), 20, axis=0)])
def test_few_distinct_descriptors_give_a_finite_mixture(rows):
    gmm = GMMCodebook(5, random_state=0)
    with pytest.warns(UserWarning, match=rf"n_components=5 components are empty.*{len(rows)} descriptors"):
        gmm.fit([rows])
    for array in learned(gmm):
        assert np.isfinite(array).all()
    assert (gmm.covariances_ > 0).all() and gmm.weights_.sum() == pytest.approx(1)
    assert np.isfinite(gmm.score_samples([rows])).all() and np.isfinite(gmm.predict_proba([rows])).all()
    np.testing.assert_allclose(gmm.means_[gmm.predict([rows])], rows, atol=1e-5)


def test_partial_fit_takes_the_steps_of_stepwise_em(blobs, rng):
    batches = [x.astype(np.float32) for x in blobs]
    start = start_of(np.concatenate(batches), 4, rng)
    gmm = GMMCodebook(4, **start, step_decay=0.6)
    for batch in batches:
        assert gmm.partial_fit([batch[:50], batch[50:]]) is gmm
    assert gmm.n_steps_ == 6
    for ours, naive in zip(learned(gmm), stepwise_naive(batches, *start.values(), decay=0.6), strict=True):
        np.testing.assert_allclose(ours, naive, rtol=1e-4, atol=1e-5)


def test_a_stream_comes_as_far_as_all_descriptors_at_once(rng):
    points = 5 * rng.normal(size=(4, 8))
    rows = (points[rng.integers(0, 4, 20_000)] + rng.normal(size=(20_000, 8))).astype(np.float32)
    stream = GMMCodebook(4, random_state=0)
    for first in range(0, len(rows), 500):
        stream.partial_fit([rows[first : first + 500]])
    at_once = GMMCodebook(4, random_state=0).fit([rows])
    assert stream.score([rows]) > at_once.score([rows]) - 0.01
    assert stream.n_steps_ == stream.n_iter_ == 40


def test_partial_fit_goes_on_from_fit_and_passes_over_empty_batches(blobs):
    gmm = GMMCodebook(3, max_iter=4, tol=0, random_state=0).fit(blobs)
    fitted = learned(gmm)
    assert gmm.partial_fit([np.empty((0, 8)), None]).n_steps_ == 4
    assert all(one is other for one, other in zip(learned(gmm), fitted, strict=True))
    gmm.partial_fit(blobs[:1])
    rows = blobs[0].astype(np.float32)
    for ours, naive in zip(learned(gmm), stepwise_naive([rows], *fitted, decay=0.7, first_step=4), strict=True):
        np.testing.assert_allclose(ours, naive, rtol=1e-4, atol=1e-5)
    fresh = GMMCodebook(3, random_state=0).partial_fit([None])
    assert not hasattr(fresh, "means_")
    with pytest.raises(ValueError, match="X has 3-d descriptors, but GMMCodebook was fitted with 8-d"):
        gmm.partial_fit([np.ones((4, 3))])


def test_descriptors_that_are_not_finite_name_the_image(blobs):
    bad = [blobs[0], blobs[1].copy(), blobs[2]]
    bad[1][7, 3] = np.nan
    message = "GMMCodebook got descriptors of image 1 that are NaN"
    fitted = GMMCodebook(3, random_state=0).fit(blobs)
    learning = [GMMCodebook(3).fit, GMMCodebook(3).partial_fit, fitted.partial_fit]
    scoring = [fitted.predict, fitted.predict_proba, fitted.score_samples, fitted.score, fitted.bic, fitted.aic]
    for call in learning + scoring:
        with pytest.raises(ValueError, match=message):
            call(bad)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "'n_components' parameter of GMMCodebook must be an integer in"),
        ({"init_params": "k-means"}, "'init_params' parameter of GMMCodebook must be one of 'kmeans'"),
        ({"tol": -1}, "'tol' parameter of GMMCodebook must be a number in"),
        ({"min_covariance": 0}, "'min_covariance' parameter"),
        ({"min_weight": 0.5}, "'min_weight' parameter"),
        ({"min_posterior": 2}, "'min_posterior' parameter"),
        ({"step_decay": 0.5}, "'step_decay' parameter"),
        ({"n_init": 0}, "'n_init' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"means_init": np.zeros((3, 7))}, r"'means_init' .* finite numbers of shape \(3, 8\). Got .*\(3, 7\)"),
        ({"weights_init": [0.5, 0.5, np.nan]}, "'weights_init' .* finite"),
        ({"weights_init": [0.5, 0.5, 0]}, "'weights_init' parameter of GMMCodebook must be positive"),
        ({"covariances_init": -np.ones((3, 8))}, "'covariances_init' .* positive. Its smallest number is -1"),
    ],
)
def test_wrong_parameters_are_named(blobs, parameters, message):
    with pytest.raises(ValueError, match=message):
        GMMCodebook(**{"n_components": 3, **parameters}).fit(blobs)


def test_nothing_to_score(blobs):
    gmm = GMMCodebook(3, random_state=0).fit(blobs)
    assert gmm.predict([]).shape == (0,) and gmm.predict_proba([None]).shape == (0, 3)
    with pytest.raises(ValueError, match="cannot score X: none of the images has any descriptor"):
        gmm.bic([None])


def test_bag_of_words_counts_the_most_probable_components(blobs):
    gmm = GMMCodebook(3, random_state=0).fit(blobs)
    counts = BagOfWords(codebook=gmm, norm=None).fit(blobs).transform(blobs[:2])
    np.testing.assert_array_equal(counts, [np.bincount(gmm.predict([x]), minlength=3) for x in blobs[:2]])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of resident memory as Linux gives it")
def test_memory_does_not_grow_with_the_descriptors():
    """300,000 x 32 descriptors are 38 MB; their posteriors would be another 77 MB, a float64 copy as much."""
    program = """
import numpy as np
from cvretrieval import GMMCodebook, LocalFeatures
def peak():
    with open("/proc/self/status") as file:  # getrusage would give the peak of the parent
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
rows = np.random.default_rng(0).standard_normal((300_000, 32), dtype=np.float32)
start = dict(weights_init=np.full(64, 1 / 64), means_init=rows[:64], covariances_init=np.ones((64, 32)))
def fit(n):
    GMMCodebook(64, **start, max_iter=2, n_jobs=2, max_samples=None).fit(LocalFeatures(rows[:n], np.array([0, n])))
fit(3000)
before = peak()
fit(len(rows))
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 30
