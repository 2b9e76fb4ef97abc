"""The generative classifiers: one mixture per class, and naive Bayes on word counts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, BagOfWords, ClassConditionalGMM, LocalFeatures
from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval.datasets import make_scenes
from tests.reference.class_conditional import log_posteriors

LENGTHS = [30, 0, 12, 45, 1, 7, 20, 33, 0, 26, 14, 9]


def labelled(rng, lengths=LENGTHS, n_dims=6):
    y = np.array(["bend", "coast", "city"])[np.arange(len(lengths)) % 3]
    shift = {"bend": -1.5, "coast": 0.0, "city": 1.5}
    return LocalFeatures.from_images([rng.normal(shift[c], 1, (n, n_dims)) for c, n in zip(y, lengths)]), y  # noqa: B905


@pytest.fixture
def data(rng):
    return labelled(rng)


@pytest.fixture(params=["mean", "sum"])
def model(request):
    return ClassConditionalGMM(n_components=3, aggregation=request.param, random_state=0)


def test_posteriors_agree_with_the_slow_twin(model, data):
    X, y = data
    fitted = model.fit(X, y)
    assert fitted.classes_.tolist() == ["bend", "city", "coast"]
    priors = [4 / 12] * 3
    expected = log_posteriors(
        [image.descriptors for image in X], priors, fitted.weights_, fitted.means_, fitted.variances_,
        mean=model.aggregation == "mean",
    )  # fmt: skip
    np.testing.assert_allclose(fitted.predict_log_proba(X), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[expected.argmax(axis=1)])


def test_mixtures_are_those_of_scikit_learn(data):
    X, y = data
    model = ClassConditionalGMM(n_components=2, reg_covar=1e-9, tol=1e-9, max_iter=500, random_state=0).fit(X, y)
    descriptors = X[np.flatnonzero(y == "city")].descriptors.astype(np.float64)
    theirs = GaussianMixture(2, covariance_type="diag", tol=1e-9, max_iter=500, n_init=5, random_state=1)
    theirs.fit(descriptors)
    ours = model.log_likelihood([row[np.newaxis] for row in descriptors])[:, 1].mean()
    assert ours == pytest.approx(theirs.score(descriptors), abs=0.1)


def test_images_are_told_apart_and_an_empty_one_has_the_prior(model, data, rng):
    X, y = data
    keep = np.delete(np.arange(12), 0)  # unequal priors
    fitted = model.fit(X[keep], y[keep])
    others, expected = labelled(rng, [40] * 9)
    np.testing.assert_array_equal(fitted.predict(others), expected)
    shares = np.array([3, 4, 4]) / 11
    np.testing.assert_allclose(fitted.predict_proba(X[[1, 8]]), [shares, shares])
    np.testing.assert_allclose(np.exp(fitted.class_log_prior_), shares)


def test_sum_is_sharper_than_mean(data):
    X, y = data
    mean, total = (ClassConditionalGMM(2, aggregation=a, random_state=0).fit(X, y) for a in ("mean", "sum"))
    assert (total.predict_proba(X).max(axis=1) >= mean.predict_proba(X).max(axis=1) - 1e-12).all()
    np.testing.assert_array_equal(total.predict(X), mean.predict(X))
    np.testing.assert_allclose(total.log_likelihood(X), mean.log_likelihood(X) * X.lengths[:, np.newaxis])


def test_given_priors_decide_where_there_is_nothing_else(data):
    X, y = data
    model = ClassConditionalGMM(2, priors=[0.2, 0.7, 0.1], random_state=0).fit(X, y)
    assert model.predict(X[[1]]) == ["city"]
    for wrong in ([0.5, 0.5], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="'priors' parameter.*3 positive numbers that add up to 1"):
            ClassConditionalGMM(2, priors=wrong).fit(X, y)


def test_jobs_batches_order_and_input_kind_do_not_change_a_bit(model, data):
    X, y = data
    whole = model.fit(X, y).predict_log_proba(X)
    threads = clone(model).set_params(n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(threads.predict_log_proba(X), whole)
    np.testing.assert_array_equal(np.vstack([model.predict_log_proba(X[i : i + 1]) for i in range(12)]), whole)
    np.testing.assert_array_equal(model.predict_log_proba(X[::-1])[::-1], whole)
    arrays = [np.asfortranarray(image.descriptors, dtype=np.float64) for image in X]
    np.testing.assert_array_equal(clone(model).fit(arrays, y.tolist()).predict_log_proba(arrays), whole)


def test_scikit_learn_conventions(model, data):
    X, y = data
    assert is_classifier(model) and model.fit(X, y) is model
    assert vars(ClassConditionalGMM()) == ClassConditionalGMM().get_params()
    with pytest.raises(NotFittedError, match="ClassConditionalGMM"):
        clone(model).predict(X)
    assert cross_val_score(model, X, y, cv=2, error_score="raise").mean() > 0.5
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2, scoring="neg_log_loss", error_score="raise")
    assert np.isfinite(search.fit(X, y).best_score_)
    numbers = clone(model).fit(X, np.arange(12) % 3 * 10)
    assert numbers.predict(X).dtype.kind == "i" and set(numbers.classes_) == {0, 10, 20}


def test_state_round_trip(model, data):
    X, y = data
    model.fit(X, y)
    restored = set_state(from_config(to_config(model)), *get_state(model))
    np.testing.assert_array_equal(restored.predict_log_proba(X), model.predict_log_proba(X))
    np.testing.assert_array_equal(restored.predict(X), model.predict(X))


def test_bytes_are_descriptors_too(rng):
    images = [rng.integers(0, 100, (20, 8)).astype(np.uint8) + np.uint8(c * 80) for c in (0, 0, 1, 1)]
    model = ClassConditionalGMM(2, random_state=0).fit(images, [0, 0, 1, 1])
    assert model.predict(images).tolist() == [0, 0, 1, 1]


def test_few_and_equal_descriptors(rng):
    images = [np.ones((1, 4)), np.zeros((30, 4)), rng.normal(size=(3, 4))]
    model = ClassConditionalGMM(5, random_state=0).fit(images, ["one", "same", "few"])
    assert np.isfinite(model.predict_proba(images)).all()
    assert model.predict(images).tolist() == ["one", "same", "few"]


def test_bad_input_is_named(data, rng):
    X, y = data
    with pytest.raises(ValueError, match="no image of class 'void' has any descriptor"):
        ClassConditionalGMM().fit(X, np.where(X.lengths == 0, "void", y))
    with pytest.raises(ValueError, match="none of the images has any descriptor"):
        ClassConditionalGMM().fit(X[[1, 8]], ["a", "b"])
    with pytest.raises(ValueError, match="X has 12 images, but y has 11 labels"):
        ClassConditionalGMM().fit(X, y[1:])
    with pytest.raises(ValueError, match="requires y"):
        ClassConditionalGMM().fit(X, None)
    with pytest.raises(ValueError, match="Wrap it in a list"):
        ClassConditionalGMM().fit(X.descriptors, y)
    fitted = ClassConditionalGMM(2, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="X has 9-d descriptors, but ClassConditionalGMM was fitted with 6-d"):
        fitted.predict([rng.normal(size=(4, 9))])
    with pytest.raises(ValueError, match="descriptors of image 1 that are NaN"):
        fitted.predict([np.ones((2, 6)), np.full((2, 6), np.nan)])
    with pytest.raises(ValueError, match="descriptors of image 3 that are NaN"):
        broken = [image.descriptors.copy() for image in X]
        broken[3][2] = np.inf
        ClassConditionalGMM().fit(broken, y)


@pytest.mark.parametrize(
    "params", [{"n_components": 0}, {"aggregation": "max"}, {"max_samples": 0}, {"max_iter": 0}, {"tol": -1},
               {"reg_covar": 0}],
)  # fmt: skip
def test_parameters_are_checked(params, data):
    (name,) = params
    with pytest.raises(ValueError, match=f"The '{name}' parameter of ClassConditionalGMM must be"):
        ClassConditionalGMM(**params).fit(*data)


def test_samples_are_bounded_and_seeded(data):
    X, y = data
    models = [ClassConditionalGMM(2, max_samples=20, random_state=s).fit(X, y) for s in (0, 0, 1)]
    np.testing.assert_array_equal(models[0].means_, models[1].means_)
    assert (models[0].means_ != models[2].means_).any()


def test_naive_bayes_on_raw_counts_is_scikit_learns():
    """Counts, not frequencies: that is what Laplace smoothing is defined on."""
    made = make_scenes(n_scenes=3, n_views=6, random_state=3)
    X, y = SIFT(root=True, max_features=150).transform(made.images), np.array(made.labels)
    line = make_pipeline(BagOfWords(n_words=30, norm=None, random_state=0), MultinomialNB(alpha=1.0))
    line.fit(X[::2], y[::2])
    assert line.score(X[1::2], y[1::2]) >= 2 / 3
    counts = line[0].transform(X[:1])
    smoothed = np.array([line[0].transform(X[::2])[y[::2] == c].sum(axis=0) + 1.0 for c in line.classes_])
    joint = counts @ np.log(smoothed / smoothed.sum(axis=1, keepdims=True)).T + np.log(np.bincount(y[::2]) / 9)
    expected = joint - np.log(np.exp(joint - joint.max()).sum()) - joint.max()
    np.testing.assert_allclose(line.predict_log_proba(X[:1]), expected, rtol=1e-5, atol=1e-6)  # of float32 counts
