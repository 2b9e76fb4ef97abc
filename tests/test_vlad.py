"""VLAD: its definition, VLFeat's numbers, its options, and what it says to bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import SIFT, VLAD, KMeansCodebook, LocalFeatures
from cvretrieval.datasets import make_scenes
from tests.parity import agree
from tests.reference.assignment import nearest_words_naive
from tests.reference.vlad import vlad_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "vlad.npz")


class Words:
    """A fitted clusterer with given words."""

    def __init__(self, centers):
        self.cluster_centers_ = np.asarray(centers)

    def fit(self, X):
        raise AssertionError("a given codebook is never fitted again")


def encode(descriptors, centers, **options):
    return VLAD(codebook=Words(centers), **options).fit([descriptors]).transform([descriptors])[0]


@pytest.fixture
def image(rng):
    return rng.normal(size=(300, 12)).astype(np.float32), rng.normal(size=(6, 12)).astype(np.float32)


# VLFeat's flags are bits: 1 per-word L2, 2 square root, 4 no global L2, 8 mass.
@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize(
    ("means", "vectors"), [("means", "hard_f4"), ("means", "hard_f8"), ("means_far", "hard_far_f8")]
)
def test_vectors_are_those_of_vlfeat(flags, means, vectors):
    expected = REFERENCE[vectors][flags]
    encoded = encode(
        REFERENCE["X"],
        REFERENCE[means],
        intra_norm=bool(flags & 1),
        power=0.5 if flags & 2 else None,
        norm=None if flags & 4 else "l2",
        mass_norm=bool(flags & 8),
    )
    # Without the global norm the sums are as large as 270: relative to the largest component.
    tolerance = 1e-5 if vectors == "hard_f4" else 1e-6
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if vectors != "hard_f4":
        agree("vlad", encoded, expected, tolerance)
    assert flags & 4 or np.abs(encoded - expected).max() < 1e-5
    if means == "means_far":
        np.testing.assert_array_equal(encoded.reshape(5, 16)[-1], 0)


@pytest.mark.parametrize("residual_norm", [False, True])
@pytest.mark.parametrize("mass_norm", [False, True])
@pytest.mark.parametrize("intra_norm", [False, True])
@pytest.mark.parametrize("power", [None, 1, 0.5, 0.2])
@pytest.mark.parametrize("norm", ["l2", None])
def test_every_option_is_its_definition(image, residual_norm, mass_norm, intra_norm, power, norm):
    descriptors, centers = image
    encoded = encode(
        descriptors, centers, residual_norm=residual_norm, mass_norm=mass_norm, intra_norm=intra_norm, power=power,
        norm=norm,
    )  # fmt: skip
    expected = vlad_naive(
        descriptors, nearest_words_naive(descriptors, centers), centers, unit=residual_norm, mass_norm=mass_norm,
        intra_norm=intra_norm, power=1 if power is None else power, l2_norm=norm == "l2",
    )  # fmt: skip
    np.testing.assert_allclose(encoded, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_permuting_words_permutes_blocks(image, rng):
    descriptors, centers = image
    order = rng.permutation(6)
    for options in ({}, {"intra_norm": True}, {"residual_norm": True, "mass_norm": True}):
        blocks = encode(descriptors, centers, **options).reshape(6, 12)
        permuted = encode(descriptors, centers[order], **options).reshape(6, 12)
        np.testing.assert_allclose(permuted, blocks[order], atol=1e-6)


def test_order_of_descriptors_matters_only_to_rounding(image, rng):
    descriptors, centers = image
    shuffled = encode(descriptors[rng.permutation(300)], centers)
    np.testing.assert_allclose(shuffled, encode(descriptors, centers), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"intra_norm": True}, {"residual_norm": True, "power": None}])
def test_duplicating_all_descriptors_leaves_the_normalised_vector(image, options):
    descriptors, centers = image
    twice = encode(np.repeat(descriptors, 2, axis=0), centers, **options)
    np.testing.assert_allclose(twice, encode(descriptors, centers, **options), atol=1e-5)


def test_sums_double_and_means_stay_when_descriptors_are_duplicated(image):
    descriptors, centers = image
    twice = np.concatenate([descriptors, descriptors])
    for mass_norm, factor in ((False, 2), (True, 1)):
        options = {"norm": None, "power": None, "mass_norm": mass_norm}
        np.testing.assert_allclose(
            encode(twice, centers, **options), factor * encode(descriptors, centers, **options), rtol=1e-4, atol=1e-4
        )


def test_shifting_descriptors_and_words_together_changes_nothing(image):
    descriptors, centers = image
    np.testing.assert_allclose(encode(descriptors + 3, centers + 3), encode(descriptors, centers), atol=1e-4)


def test_norms_are_one(image):
    descriptors, centers = image
    assert np.linalg.norm(encode(descriptors, centers)) == pytest.approx(1, abs=1e-6)
    blocks = encode(descriptors, centers, intra_norm=True, norm=None).reshape(6, 12)
    np.testing.assert_allclose(np.linalg.norm(blocks, axis=1), 1, atol=1e-6)


def test_one_descriptor_fills_one_block(image):
    descriptors, centers = image
    blocks = encode(descriptors[:1], centers, power=None).reshape(6, 12)
    (word,) = nearest_words_naive(descriptors[:1], centers)
    residual = descriptors[0] - centers[word]
    np.testing.assert_allclose(blocks[word], residual / np.linalg.norm(residual), atol=1e-6)
    assert (np.delete(blocks, word, axis=0) == 0).all()


def test_descriptors_equal_to_words_give_zeros(image):
    _, centers = image
    for options in ({}, {"intra_norm": True}, {"residual_norm": True}, {"mass_norm": True, "power": 0.2}):
        np.testing.assert_array_equal(encode(np.repeat(centers, 7, axis=0), centers, **options), 0)


@pytest.mark.parametrize("clusterer", [KMeans, MiniBatchKMeans, BisectingKMeans, KMeansCodebook])
def test_a_fitted_clusterer_is_kept_as_it_is(clusterer, rng):
    X = [rng.normal(size=(60, 8)).astype(np.float32) for _ in range(4)]
    codebook = clusterer(5, random_state=0)
    codebook.fit(X if clusterer is KMeansCodebook else np.concatenate(X))
    centers = codebook.cluster_centers_.copy()
    vlad = VLAD(n_words=99, codebook=codebook).fit(X[:1])
    assert vlad.codebook_ is codebook
    np.testing.assert_array_equal(codebook.cluster_centers_, centers)
    encoded = vlad.transform(X)
    assert encoded.shape == (4, 40) == (4, len(vlad.get_feature_names_out()))
    words = nearest_words_naive(X[2], centers.astype(np.float32))
    np.testing.assert_allclose(encoded[2], vlad_naive(X[2], words, centers, power=0.5), atol=1e-5)


def test_cloning_keeps_the_given_codebook_fitted(rng):
    X = LocalFeatures.from_images(list(rng.normal(size=(12, 20, 4))))
    y = np.arange(12) % 2
    codebook = KMeans(3, random_state=0).fit(X.descriptors)
    original = VLAD(codebook=codebook, power=0.3).set_output(transform="default")
    copy = clone(original)
    assert copy is not original and copy.codebook is codebook and copy.power == 0.3
    assert copy._sklearn_output_config == original._sklearn_output_config
    assert np.isfinite(cross_val_score(make_pipeline(original, LinearSVC()), X, y, cv=3, error_score="raise")).all()


def test_given_codebook_needs_no_descriptors_to_fit(image):
    descriptors, centers = image
    fitted = VLAD(codebook=Words(centers)).fit([None, None])
    np.testing.assert_array_equal(fitted.transform([descriptors])[0], encode(descriptors, centers))


@pytest.mark.parametrize(
    ("codebook", "error", "message"),
    [
        (KMeans(3), ValueError, "codebook given to VLAD is not fitted: call KMeans.fit first, or give n_words"),
        (KMeansCodebook(3), ValueError, "not fitted: call KMeansCodebook.fit first"),
        (np.ones((3, 12)), TypeError, "'codebook' parameter of VLAD must be a fitted clusterer.*Got ndarray instead"),
        (3, TypeError, "Got int instead"),
        (Words(np.ones(12)), ValueError, r"shape \(n_words, n_dims\). Got an array of float64 with shape \(12,\)"),
        (Words(np.ones((0, 12))), ValueError, r"with shape \(0, 12\)"),
        (Words([[1.0] * 11 + [np.nan]]), ValueError, "must be finite numbers"),
        (Words(np.ones((3, 7))), ValueError, "X has 12-d descriptors, but the codebook of VLAD was fitted with 7-d"),
    ],
    ids=["KMeans", "KMeansCodebook", "array", "int", "1-D", "empty", "NaN", "dimension"],
)
def test_bad_codebooks_are_named(image, codebook, error, message):
    with pytest.raises(error, match=message):
        VLAD(codebook=codebook).fit([image[0]])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_words", 0), ("n_words", 2.5), ("n_words", True), ("power", 0), ("power", -1), ("power", "half"),
        ("norm", "l1"), ("intra_norm", 1), ("residual_norm", None), ("mass_norm", "yes"), ("max_samples", 0),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(image, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of VLAD must be .*Got {value!r} instead"):
        VLAD(**{parameter: value}).fit([image[0]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_descriptors_that_are_not_finite_are_refused_by_image(rng, value):
    X = list(rng.normal(size=(40, 30, 4)))
    fitted = VLAD(n_words=3, random_state=0).fit(X)
    X[35][7, 2] = value
    for residual_norm in (False, True):
        with pytest.raises(ValueError, match="VLAD got descriptors of image 35 that are NaN, infinite or too large"):
            fitted.set_params(residual_norm=residual_norm).transform(X)
    with pytest.raises(ValueError, match="KMeansCodebook got descriptors of image 35"):
        VLAD(n_words=3).fit(X)


def test_numpy_numbers_are_numbers(image):
    encoded = VLAD(n_words=np.int64(3), power=np.float32(0.5), intra_norm=np.True_, random_state=0).fit_transform(
        [image[0]]
    )
    assert encoded.shape == (1, 36)


def test_more_words_than_descriptors_leave_blocks_of_zeros(rng):
    X = [rng.normal(size=(2, 4)), rng.normal(size=(1, 4))]
    with pytest.warns(UserWarning, match="5 of n_words=8 words stay empty"):
        fitted = VLAD(n_words=8, random_state=0).fit(X)
    blocks = fitted.transform([X[0] + 0.01])[0].reshape(8, 4)
    assert np.count_nonzero(blocks.any(axis=1)) == 2


def test_bytes_and_floats_of_the_same_values_agree(rng):
    X = [rng.integers(0, 256, (1500, 16), dtype=np.uint8) for _ in range(3)]
    floats = [x.astype(np.float64) for x in X]
    a, b = (VLAD(n_words=8, random_state=0).fit(x) for x in (X, floats))
    np.testing.assert_array_equal(a.transform(X), b.transform(floats))


def test_no_images_give_no_rows(image):
    fitted = VLAD(n_words=3, random_state=0).fit([image[0]])
    assert fitted.transform([]).shape == (0, 36)


@pytest.fixture(scope="module")
def photographs():
    """Four views of each of four scenes."""
    scenes = make_scenes(n_scenes=4, n_views=4, image_size=(240, 180), difficulty=0.2, random_state=0)
    return scenes.images, scenes.labels


def test_recognition_from_images_to_classes(photographs):
    images, scene = photographs
    pipeline = make_pipeline(SIFT(root=True, max_features=150), VLAD(n_words=16, random_state=0), LinearSVC())
    assert cross_val_score(pipeline, images, scene, cv=2, error_score="raise").mean() > 0.7


def test_grid_search_over_the_number_of_words(photographs):
    images, scene = photographs
    pipeline = make_pipeline(SIFT(root=True, max_features=150), VLAD(random_state=0), LinearSVC())
    search = GridSearchCV(pipeline, {"vlad__n_words": [16, 64]}, cv=2, error_score="raise").fit(images, scene)
    assert search.best_estimator_.named_steps["vlad"].codebook_.n_words in (16, 64)
    assert (search.cv_results_["mean_test_score"] > 0.7).all()
