"""Several vocabularies side by side."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, VLAD, BagOfWords, KMeansCodebook, LocalFeatures, MultipleVocabularies, PCAWhitening
from cvretrieval.datasets import make_scenes


@pytest.fixture
def X(rng):
    return LocalFeatures.from_images([rng.normal(size=(n, 6)) for n in (40, 0, 25, 60, 33)])


def test_vectors_are_those_of_the_encoders_side_by_side(X):
    fitted = MultipleVocabularies(VLAD(n_words=4, intra_norm=True), n_vocabularies=3, random_state=0).fit(X)
    assert len(fitted.encoders_) == 3 and fitted.n_dims_ == 6
    vectors = fitted.transform(X)
    assert vectors.shape == (5, 3 * 24) and vectors.flags.c_contiguous
    for part, encoder in zip(np.split(vectors, 3, axis=1), fitted.encoders_, strict=True):
        alone = VLAD(n_words=4, intra_norm=True, random_state=encoder.random_state).fit_transform(X)
        np.testing.assert_array_equal(part, alone)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.sqrt([3, 0, 3, 3, 3]), rtol=1e-5)


def test_vocabularies_differ_and_follow_the_seed(X):
    def words(seed):
        fitted = MultipleVocabularies(VLAD(n_words=4, random_state=5), n_vocabularies=2, random_state=seed).fit(X)
        return [encoder.codebook_.cluster_centers_ for encoder in fitted.encoders_]

    one, two = words(0)
    assert np.abs(np.sort(one, axis=0) - np.sort(two, axis=0)).max() > 1e-3
    np.testing.assert_array_equal(words(0), [one, two])
    assert np.abs(words(1)[0] - one).max() > 1e-3


def test_the_encoder_given_stays_as_it_is(X):
    encoder = VLAD(n_words=4)
    MultipleVocabularies(encoder, n_vocabularies=2, random_state=0).fit(X)
    assert encoder.random_state is None and not hasattr(encoder, "codebook_")


def test_sparse_histograms_stay_sparse(X):
    fitted = MultipleVocabularies(BagOfWords(n_words=4, sparse=True), n_vocabularies=2, random_state=0).fit(X)
    dense = MultipleVocabularies(BagOfWords(n_words=4), n_vocabularies=2, random_state=0).fit_transform(X)
    sparse = fitted.transform(X)
    assert issparse(sparse) and sparse.format == "csr"
    np.testing.assert_allclose(sparse.toarray(), dense, rtol=1e-6)


def test_chunks_give_the_same_vocabularies(X):
    model = MultipleVocabularies(VLAD(n_words=4), n_vocabularies=2, random_state=0)
    whole = model.fit(X).transform(X)
    np.testing.assert_array_equal(model.fit([X[:2], X[2:]]).transform(X), whole)
    with pytest.raises(ValueError, match="MultipleVocabularies passes over the features more than once"):
        model.fit(iter([X[:2], X[2:]]))


def test_joint_whitening_of_all_vocabularies():
    """The composition that the papers mean: several vocabularies, reduced and whitened together."""
    scenes = make_scenes(n_scenes=12, n_views=4, image_size=(160, 120), difficulty=0.5, random_state=0)
    features, labels = SIFT(root=True, max_features=150).fit_transform(scenes.images), np.asarray(scenes.labels)
    several = MultipleVocabularies(VLAD(n_words=8, power=None, intra_norm=True), random_state=0)
    model = make_pipeline(several, PCAWhitening(16))
    vectors = model.fit_transform(features)
    assert vectors.shape == (48, 16)
    unscaled = model[-1].set_params(norm=None).transform(model[0].transform(features))
    np.testing.assert_allclose(np.cov(unscaled.T, bias=True), np.eye(16), atol=1e-3)
    # Every component draws on every vocabulary.
    parts = np.linalg.norm(model[-1].components_.reshape(16, 4, -1), axis=2)
    assert parts.min() > 0.05
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, :3]
    assert (labels[nearest] == labels[:, None]).mean() > 0.4  # 3 of 47 by chance


@pytest.mark.parametrize(
    "encoder", [VLAD(codebook=KMeansCodebook(3)), SIFT()], ids=["given codebook", "without random_state"]
)
def test_encoders_whose_vocabularies_would_be_the_same_are_refused(X, encoder):
    with pytest.raises(ValueError, match=f"{type(encoder).__name__} as given, all vocabularies would be the same"):
        MultipleVocabularies(encoder).fit(X)


@pytest.mark.parametrize("value", [0, 1.5, True, "two"])
def test_bad_numbers_of_vocabularies_are_named(X, value):
    with pytest.raises(ValueError, match=f"'n_vocabularies' parameter of MultipleVocabularies.*Got {value!r}"):
        MultipleVocabularies(VLAD(4), n_vocabularies=value).fit(X)
