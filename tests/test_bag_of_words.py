"""Bags of words: definitions, assignments, sparse output, codebooks of every kind, and what is said to bad input."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import (
    SIFT,
    BagOfWords,
    ImageRetriever,
    KMajorityCodebook,
    KMeansCodebook,
    LocalFeatures,
    PowerNormalizer,
    TfIdf,
)
from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.word_counts import add_votes, count_words
from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval.datasets import make_scenes
from tests.reference.assignment import nearest_words_naive
from tests.reference.bag_of_words import add_votes_naive, bag_of_words_naive, count_words_naive

ASSIGNMENTS = ["hard", "soft", "multiple"]


class Words:
    """A fitted clusterer with given words."""

    def __init__(self, centers):
        self.cluster_centers_ = np.asarray(centers)

    def fit(self, X):
        raise AssertionError("a given codebook is never fitted again")


class Quadrants(LocalFeaturesInputMixin, BaseEstimator):
    """A codebook without centres, as a tree or a codebook of binary words is: the word is read off two signs."""

    n_words = 4

    def fit(self, X, y=None):
        self.n_dims_ = 2
        return self

    def predict(self, X):
        return (X.descriptors[:, 0] > 0) + 2 * (X.descriptors[:, 1] > 0)


@pytest.fixture
def X(rng):
    return LocalFeatures.from_images(list(map(rng.normal, [0] * 5, [1] * 5, [(n, 6) for n in (40, 0, 1, 90, 7)])))


@pytest.fixture
def centers(rng):
    return rng.normal(size=(8, 6)).astype(np.float32)


@pytest.mark.parametrize("n_nearest", [1, 3])
def test_kernels_are_their_twins(n_nearest, rng):
    offsets = np.array([0, 5, 5, 6, 30])
    words = rng.integers(0, 7, (30, n_nearest)).astype(np.int32)
    weights = rng.uniform(size=words.shape).astype(np.float32)
    counts, votes = np.zeros((2, 4, 7), dtype=np.float32)
    count_words(words, offsets, counts)
    add_votes(words, weights, offsets, votes)
    np.testing.assert_array_equal(counts, count_words_naive(words, offsets, 7))
    np.testing.assert_allclose(votes, add_votes_naive(words, weights, offsets, 7), rtol=1e-6)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("n_nearest", [1, 3, 8, 20])
@pytest.mark.parametrize("norm", [None, "l1", "l2"])
@pytest.mark.parametrize("sparse", [False, True])
def test_histograms_are_their_definition(assignment, n_nearest, norm, sparse, X, centers):
    options = {"assignment": assignment, "n_nearest": n_nearest, "sigma": 1.3, "norm": norm}
    histograms = BagOfWords(codebook=Words(centers), sparse=sparse, **options).fit_transform(X)
    assert histograms.dtype == np.float32 and histograms.shape == (5, 8)
    expected = [bag_of_words_naive(image.descriptors, centers, **options) for image in X]
    if sparse:
        assert isinstance(histograms, csr_matrix) and histograms.has_sorted_indices and (histograms.data != 0).all()
        assert histograms.indices.dtype == histograms.indptr.dtype == np.int32
        histograms = histograms.toarray()
    np.testing.assert_allclose(histograms, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_counts_are_exact(sparse, X, centers):
    counts = BagOfWords(codebook=Words(centers), norm=None, sparse=sparse).fit_transform(X)
    expected = [np.bincount(nearest_words_naive(image.descriptors, centers), minlength=8) for image in X]
    np.testing.assert_array_equal(counts.toarray() if sparse else counts, expected)


def test_mass_of_each_assignment(X, centers):
    for assignment, votes in (("hard", 1), ("soft", 1), ("multiple", 3)):
        counts = BagOfWords(codebook=Words(centers), assignment=assignment, norm=None).fit_transform(X)
        np.testing.assert_allclose(counts.sum(axis=1), votes * X.lengths, rtol=1e-5)


def test_soft_assignment_lies_between_hard_and_multiple(X, centers):
    def encode(**options):
        return BagOfWords(codebook=Words(centers), norm="l1", **options).fit_transform(X)

    np.testing.assert_allclose(encode(assignment="soft", sigma=1e-3), encode(), atol=1e-6)
    np.testing.assert_allclose(encode(assignment="soft", sigma=1e4), encode(assignment="multiple"), atol=1e-6)
    np.testing.assert_array_equal(encode(assignment="multiple", n_nearest=1), encode())


def test_soft_weights_survive_distances_that_underflow(centers):
    """exp(−d²/2σ²) is zero for every word; the shares of the words are not."""
    far = [np.full((4, 6), 100.0)]
    soft = BagOfWords(codebook=Words(centers), assignment="soft", sigma=3.0, norm=None).fit_transform(far)
    assert np.isfinite(soft).all()
    np.testing.assert_allclose(soft.sum(), 4, rtol=1e-6)


def test_learned_sigma_is_half_the_median_gap(X, centers):
    fitted = BagOfWords(codebook=Words(centers), assignment="soft").fit(X)
    squares = np.sort(((X.descriptors[:, None].astype(float) - centers) ** 2).sum(axis=2), axis=1)
    np.testing.assert_allclose(fitted.sigma_**2, np.median(squares[:, 1] - squares[:, 0]) / 2, rtol=1e-5)
    assert BagOfWords(codebook=Words(centers), assignment="soft", sigma=2).fit(X).sigma_ == 2.0
    assert not hasattr(BagOfWords(codebook=Words(centers)).fit(X), "sigma_")


def test_learned_sigma_makes_histograms_independent_of_the_unit(X, centers):
    """Bytes or unit vectors: descriptors and words in another unit give the same histograms."""
    small = BagOfWords(codebook=Words(centers), assignment="soft").fit_transform(X)
    scaled = X.with_descriptors(512 * X.descriptors)
    np.testing.assert_allclose(
        BagOfWords(codebook=Words(512 * centers), assignment="soft").fit_transform(scaled), small, atol=1e-6
    )


def test_learned_sigma_of_degenerate_codebooks(X):
    for words in (np.zeros((1, 6)), np.zeros((3, 6))):
        encoded = BagOfWords(codebook=Words(words), assignment="soft", norm="l1").fit_transform(X)
        np.testing.assert_allclose(encoded[X.lengths > 0], 1 / len(words), rtol=1e-6)


@pytest.mark.real_data
def test_learned_sigma_of_sift_is_near_that_of_the_paper(data_dir):
    """Philbin et al. took σ² = 6250 for SIFT in [0, 255]."""
    paths = sorted((data_dir / "ukbench_56").rglob("*.jpg"))[:20]
    X = SIFT(max_features=300).transform(paths)
    codebook = KMeansCodebook(100, max_iter=5, random_state=0).fit(X)
    sigma = BagOfWords(codebook=codebook, assignment="soft").fit(X).sigma_
    assert 4500 < sigma**2 < 9000
    unit = X.with_descriptors(X.descriptors / 512)
    codebook.cluster_centers_ = codebook.cluster_centers_ / 512
    np.testing.assert_allclose(
        BagOfWords(codebook=codebook, assignment="soft").fit(unit).sigma_, sigma / 512, rtol=1e-4
    )


def test_transform_is_pool_of_assign(X, centers):
    for assignment in ASSIGNMENTS:
        encoder = BagOfWords(codebook=Words(centers), assignment=assignment).fit(X)
        votes = encoder.assign(X)
        assert votes.words.shape == (len(X.descriptors), 1 if assignment == "hard" else 3)
        assert (votes.weights is None) == (assignment != "soft")
        np.testing.assert_array_equal(encoder.pool(votes, X.offsets), encoder.transform(X))
        np.testing.assert_array_equal(encoder.pool(votes.take(slice(0, 40)), [0, 40])[0], encoder.transform(X)[0])
        np.testing.assert_array_equal(votes.words[:, 0], nearest_words_naive(X.descriptors, centers))


def test_sparse_output_follows_the_configuration_of_scikit_learn(X, centers):
    encoder = BagOfWords(codebook=Words(centers), sparse=True).fit(X)
    assert isinstance(encoder.transform(X), csr_matrix)
    if "sparse_interface" in sklearn.get_config():
        with sklearn.config_context(sparse_interface="sparray"):
            assert isinstance(encoder.transform(X), csr_array)


def test_no_images_and_only_empty_ones(X, centers):
    for sparse in (False, True):
        encoder = BagOfWords(codebook=Words(centers), sparse=sparse).fit(X)
        assert encoder.transform(X[:0]).shape == (0, 8)
        assert encoder.transform([]).shape == (0, 8)
        assert abs(encoder.transform([None, None])).sum() == 0


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("sparse", [False, True])
def test_many_blocks_and_threads_give_the_same_bits(assignment, sparse, rng, centers):
    X = LocalFeatures.from_images([rng.normal(size=(n % 23, 6)) for n in range(150)])
    encoder = BagOfWords(codebook=Words(centers), assignment=assignment, sparse=sparse).fit(X)
    whole = encoder.transform(X)
    threaded = encoder.set_params(n_jobs=3).transform(X)
    single = [encoder.transform(X[i : i + 1]) for i in range(len(X))]
    if sparse:
        whole, threaded, single = whole.toarray(), threaded.toarray(), [row.toarray() for row in single]
    np.testing.assert_array_equal(threaded, whole)
    np.testing.assert_array_equal(np.concatenate(single), whole)


def test_scikit_learn_codebooks_are_taken_as_they_are(X):
    kmeans = KMeans(5, n_init=1, random_state=0).fit(X.descriptors)
    encoder = BagOfWords(codebook=kmeans, norm=None).fit(X)
    assert encoder.codebook_ is kmeans and clone(encoder).codebook is kmeans and encoder.n_words_ == 5
    expected = [np.bincount(kmeans.predict(image.descriptors), minlength=5) if len(image.descriptors) else np.zeros(5)
                for image in X]  # fmt: skip
    np.testing.assert_array_equal(encoder.transform(X), expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_codebooks_without_centres_predict_the_words(sparse, rng):
    X = LocalFeatures.from_images([rng.normal(size=(n, 2)) for n in (9, 0, 50)])
    encoder = BagOfWords(codebook=Quadrants().fit(X), norm=None, sparse=sparse).fit(X)
    counts = encoder.transform(X).toarray() if sparse else encoder.transform(X)
    expected = [np.bincount(Quadrants().predict(X[i : i + 1]), minlength=4) for i in range(3)]
    np.testing.assert_array_equal(counts, expected)


def test_codebooks_of_another_metric_predict_the_words(rng):
    """Nearest by Hamming distance is not nearest by the Euclidean distance of the bytes."""

    class BinaryWords(Quadrants):
        metric = "hamming"
        cluster_centers_ = np.array([[0, 0], [255, 0]], dtype=np.uint8)

        def predict(self, X):
            bits = np.unpackbits(X.descriptors[:, None] ^ self.cluster_centers_, axis=2)
            return bits.sum(axis=2).argmin(axis=1)

    X = LocalFeatures.from_images([np.array([[128, 0], [254, 0], [127, 0]], dtype=np.uint8)])
    encoder = BagOfWords(codebook=BinaryWords().fit(X), norm=None).fit(X)
    assert encoder.n_words_ == 2
    np.testing.assert_array_equal(encoder.transform(X), [[1, 2]])
    with pytest.raises(ValueError, match="assignment='soft' needs Euclidean distances to cluster_centers_"):
        BagOfWords(codebook=BinaryWords().fit(X), assignment="soft").fit(X)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_binary_words_are_those_of_the_codebook(n_jobs, rng):
    X = LocalFeatures.from_images([rng.integers(0, 256, (n, 32), dtype=np.uint8) for n in (60, 0, 5, *[3] * 40)])
    codebook = KMajorityCodebook(7, random_state=0).fit(X)
    encoder = BagOfWords(codebook=codebook, norm=None, n_jobs=n_jobs).fit(X)
    expected = [np.bincount(codebook.predict(X[i : i + 1]), minlength=7) for i in range(len(X))]
    np.testing.assert_array_equal(encoder.transform(X), expected)
    restored = set_state(from_config(to_config(encoder)), *get_state(encoder))
    np.testing.assert_array_equal(restored.transform(X), expected)


def test_wrong_predictions_are_refused(rng):
    class Wrong(Quadrants):
        def predict(self, X):
            return super().predict(X) + 1

    X = [rng.normal(size=(50, 2))]
    with pytest.raises(ValueError, match=r"Wrong given to BagOfWords must predict one word from 0 to 3.*from 1 to 4"):
        BagOfWords(codebook=Wrong().fit(X)).fit_transform(X)


@pytest.mark.parametrize(
    ("codebook", "error", "message"),
    [
        (KMeansCodebook(4), ValueError, "is not fitted"),
        (Quadrants(), ValueError, "Quadrants, is not fitted"),
        (type("Nameless", (), {"predict": None})(), ValueError, "says neither n_words nor n_clusters"),
        (object(), TypeError, "must be a fitted clusterer with cluster_centers_"),
        (Words(np.zeros(3)), ValueError, "must be finite numbers of shape"),
    ],
)
def test_codebooks_that_are_none_are_refused(codebook, error, message, X):
    with pytest.raises(error, match=message):
        BagOfWords(codebook=codebook).fit(X)


def test_codebook_of_another_dimension_is_refused(X):
    message = "X has 6-d descriptors, but the codebook of BagOfWords was fitted with 4-d descriptors"
    with pytest.raises(ValueError, match=message):
        BagOfWords(codebook=Words(np.zeros((3, 4)))).fit(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_words": 0}, "'n_words' parameter of BagOfWords must be an integer"),
        ({"assignment": "fuzzy"}, "'assignment' parameter of BagOfWords must be one of 'hard', 'soft', 'multiple'"),
        ({"n_nearest": 0}, "'n_nearest' parameter of BagOfWords must be an integer"),
        ({"sigma": 0.0}, "'sigma' parameter of BagOfWords must be a number"),
        ({"norm": "max"}, "'norm' parameter of BagOfWords must be one of"),
        ({"sparse": 1}, "'sparse' parameter of BagOfWords must be True or False"),
        ({"max_samples": -1}, "'max_samples' parameter of BagOfWords must be an integer"),
    ],
)
def test_wrong_parameters_are_named(parameters, message, X):
    with pytest.raises(ValueError, match=message):
        BagOfWords(**parameters).fit(X)


def test_soft_assignment_without_sigma_or_descriptors(X, centers):
    with pytest.raises(ValueError, match="cannot learn sigma: none of the images.*Give the 'sigma'"):
        BagOfWords(codebook=Words(centers), assignment="soft").fit([None])
    with pytest.raises(NotFittedError):
        BagOfWords(codebook=Words(centers)).fit(X).set_params(assignment="soft").transform(X)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_descriptors_that_are_not_finite_are_named(assignment, X, centers):
    encoder = BagOfWords(codebook=Words(centers), assignment=assignment).fit(X)
    bad = X.with_descriptors(X.descriptors.copy())
    bad.descriptors[-1, 2] = np.nan
    with pytest.raises(ValueError, match="BagOfWords got descriptors of image 4 that are NaN"):
        encoder.transform(bad)


def test_lines_of_stages_tell_scenes_apart():
    scenes = make_scenes(n_scenes=4, n_views=4, image_size=(240, 180), difficulty=0.2, random_state=0)
    X = SIFT(root=True, max_features=150).transform(scenes.images)
    train = np.arange(len(X)) % 4 < 3
    y = np.asarray(scenes.labels)
    for line in (
        [BagOfWords(40, random_state=0), LinearSVC()],
        [BagOfWords(40, assignment="soft", random_state=0), LinearSVC()],
        [BagOfWords(40, norm=None, sparse=True, random_state=0), TfIdf(), LinearSVC()],
        [BagOfWords(40, norm=None, sparse=True, random_state=0), PowerNormalizer(), LinearSVC()],
        [BagOfWords(40, norm=None, random_state=0), MultinomialNB()],
    ):
        model = make_pipeline(*line).fit(X[train], y[train])
        assert model.score(X[~train], y[~train]) >= 0.75  # by chance: 0.25


def test_retrieval_with_sparse_bags_is_that_with_dense_ones():
    scenes = make_scenes(n_scenes=2, n_views=2, image_size=(240, 180), difficulty=0.2, random_state=0)
    rankings = []
    for sparse in (False, True):
        encoder = make_pipeline(BagOfWords(50, norm=None, sparse=sparse, random_state=0), TfIdf())
        retriever = ImageRetriever(extractor=SIFT(root=True, max_features=100), encoder=encoder).fit(scenes.images)
        hits = retriever.search(scenes.images[:1], k=4)[0].hits
        rankings.append([(hit.id, round(hit.score, 4)) for hit in hits])
    assert rankings[0] == rankings[1] and rankings[0][0][1] == 1
