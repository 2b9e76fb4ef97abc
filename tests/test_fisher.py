"""Fisher vectors: the definition, VLFeat's and scikit-image's numbers, options, and what they say to bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import SIFT, VLAD, FisherVector, GMMCodebook, LocalFeatures, PerDescriptor
from cvretrieval.codebooks import GaussianPosteriors
from cvretrieval.datasets import make_scenes
from tests.parity import agree
from tests.reference.fisher import fisher_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "fisher.npz")
PLAIN = {"power": None, "norm": None}
# What float32 leaves of log-likelihoods of some tens; which processor sums them changes it by a factor of six.
ROUNDING = 1e-5


class Mixture:
    """A fitted mixture with given parameters."""

    def __init__(self, weights, means, covariances):
        self.weights_, self.means_, self.covariances_ = np.asarray(weights), np.asarray(means), np.asarray(covariances)

    def fit(self, X):
        raise AssertionError("a given mixture is never fitted again")


def of_reference(weights="priors"):
    return Mixture(REFERENCE[weights], REFERENCE["means"], REFERENCE["covariances"])


def encode(descriptors, gmm, **options):
    return FisherVector(gmm=gmm, **options).fit([descriptors]).transform([descriptors])[0]


def expected_of(descriptors, gmm, **options):
    return fisher_naive(descriptors, gmm.weights_, gmm.means_, gmm.covariances_, **options)


@pytest.fixture
def image(rng):
    means = rng.normal(size=(6, 12))
    gmm = Mixture(rng.dirichlet(np.full(6, 3)), means, rng.uniform(0.3, 1.5, size=(6, 12)))
    return (means[rng.integers(0, 6, 300)] + rng.normal(size=(300, 12))).astype(np.float32), gmm


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("none", PLAIN),
        ("sqrt", {"norm": None}),
        ("normalized", {"power": None}),
        ("improved", {}),
        ("fast", {"fast": True, **PLAIN}),
        ("improved_fast", {"fast": True}),
    ],
)
@pytest.mark.parametrize("arithmetic", ["f4", "f8"])
def test_vectors_are_those_of_vlfeat(flags, options, arithmetic):
    found = encode(REFERENCE["X"], of_reference(), **options)
    np.testing.assert_allclose(found, REFERENCE[f"vlfeat/{flags}_{arithmetic}"], atol=ROUNDING)
    if arithmetic == "f8":
        agree("fisher", found, REFERENCE[f"vlfeat/{flags}_f8"], ROUNDING)


@pytest.mark.parametrize(("flags", "options"), [("none", PLAIN), ("improved", {})])
def test_components_next_to_weightless_are_left_out_as_in_vlfeat(flags, options):
    found = encode(REFERENCE["X"], of_reference("priors_degenerate"), **options)
    np.testing.assert_allclose(found, REFERENCE[f"vlfeat/degenerate_{flags}_f8"], atol=ROUNDING)
    (dead,) = np.flatnonzero(REFERENCE["priors_degenerate"] < 1e-6)
    assert (found.reshape(2, 5, 16)[:, dead] == 0).all()
    single = encode(REFERENCE["X"][:1], of_reference(), **options)
    np.testing.assert_allclose(single, REFERENCE[f"vlfeat/single_{flags}_f8"], atol=ROUNDING)


@pytest.mark.parametrize(
    ("kind", "options"), [("basic", PLAIN), ("improved", {}), ("improved_alpha0.3", {"power": 0.3})]
)
@pytest.mark.parametrize("descriptors", ["f4in", "f8in"])
def test_vectors_are_those_of_scikit_image(kind, options, descriptors):
    X = REFERENCE["X"].astype(descriptors[:2])
    found = encode(X, of_reference(), layout="skimage", **options)
    agree("fisher-skimage", found, REFERENCE[f"skimage/{kind}_{descriptors}"], ROUNDING)


@pytest.mark.parametrize(
    "gradients",
    [("means",), ("variances",), ("weights",), ("variances", "weights"), ("weights", "means", "variances"), ["means"]],
)
@pytest.mark.parametrize(("layout", "sign", "cut"), [("vlfeat", 1, 1e-6), ("skimage", -1, 0)])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("power", "norm"), [(None, None), (1, "l2"), (0.5, None), (0.2, "l2")])
def test_every_option_is_its_definition(image, gradients, layout, sign, cut, fast, power, norm):
    descriptors, gmm = image
    found = encode(descriptors, gmm, gradients=gradients, layout=layout, fast=fast, power=power, norm=norm)
    expected = expected_of(
        descriptors, gmm, gradients=gradients, sign=sign, cut=cut, fast=fast, power=1 if power is None else power,
        l2_norm=norm == "l2",
    )  # fmt: skip
    # A low power magnifies what rounding leaves of components next to zero.
    np.testing.assert_allclose(found, expected, atol=1e-5 if power != 0.2 else 1e-4)


@pytest.mark.parametrize("layout", ["vlfeat", "skimage"])
def test_the_layout_names_its_gradients(image, layout):
    descriptors, gmm = image
    names = ("weights", "means", "variances") if layout == "skimage" else ("means", "variances")
    np.testing.assert_array_equal(
        encode(descriptors, gmm, layout=layout), encode(descriptors, gmm, layout=layout, gradients=names)
    )
    fitted = FisherVector(gmm=gmm, layout=layout).fit([descriptors])
    assert len(fitted.get_feature_names_out()) == 6 * (layout == "skimage") + 2 * 6 * 12


def test_permuting_components_permutes_blocks(image, rng):
    descriptors, gmm = image
    order = rng.permutation(6)
    permuted = Mixture(gmm.weights_[order], gmm.means_[order], gmm.covariances_[order])
    for options in ({}, PLAIN, {"fast": True}):
        blocks = encode(descriptors, gmm, **options).reshape(2, 6, 12)
        found = encode(descriptors, permuted, **options).reshape(2, 6, 12)
        np.testing.assert_allclose(found, blocks[:, order], atol=1e-5)


@pytest.mark.parametrize("options", [{}, PLAIN, {"fast": True}, {"layout": "skimage", "power": None}])
def test_duplicating_all_descriptors_changes_nothing(image, options):
    descriptors, gmm = image
    twice = np.repeat(descriptors, 2, axis=0)
    np.testing.assert_allclose(encode(twice, gmm, **options), encode(descriptors, gmm, **options), atol=1e-5)


@pytest.mark.parametrize("power", [None, 0.5])
def test_fast_with_equal_spherical_gaussians_of_equal_weight_is_vlad(power, rng):
    centers = rng.normal(size=(7, 10)).astype(np.float32)
    descriptors = rng.normal(size=(400, 10)).astype(np.float32)
    gmm = Mixture(np.full(7, 1 / 7), centers, np.full(centers.shape, 0.4))

    class Words:
        cluster_centers_ = centers

    vlad = VLAD(codebook=Words(), power=power, norm=None).fit([descriptors]).transform([descriptors])[0]
    means = encode(descriptors, gmm, gradients=("means",), fast=True, power=power, norm=None)
    scale = 1 / (400 * np.sqrt(1 / 7) * np.sqrt(0.4))
    np.testing.assert_allclose(means, scale ** (power or 1) * vlad, rtol=1e-4, atol=1e-5)


def test_gradients_of_a_mixture_that_fits_are_small(rng):
    """The gradient of the likelihood vanishes where the likelihood is largest."""
    X = rng.normal(size=(400, 5))
    gmm = GaussianMixture(3, covariance_type="diag", tol=1e-9, max_iter=2000, reg_covar=0, random_state=0).fit(X)
    found = encode(X, gmm, gradients=("weights", "means", "variances"), **PLAIN)
    np.testing.assert_allclose(found, 0, atol=1e-4)
    elsewhere = encode(X + 1, gmm, gradients=("weights", "means", "variances"), **PLAIN)
    assert np.abs(elsewhere).max() > 0.1


def test_gradients_are_derivatives_of_the_log_likelihood(image):
    """With respect to μ, times σ / √π; to σ, times σ / √(2 π)."""
    descriptors, gmm = image
    sigmas = np.sqrt(gmm.covariances_)
    found = encode(descriptors, gmm, **PLAIN).reshape(2, 6, 12)

    def likelihood(means, deviations):
        mixture = GaussianPosteriors(gmm.weights_, means, deviations**2, "this test")
        return np.mean(np.concatenate([block.log_likelihood for block in mixture.blocks(descriptors, 0)]))

    step = 1e-2
    for k, d in ((0, 0), (3, 11), (5, 4)):
        shift = np.zeros((6, 12))
        shift[k, d] = step
        by_mean = (likelihood(gmm.means_ + shift, sigmas) - likelihood(gmm.means_ - shift, sigmas)) / (2 * step)
        by_sigma = (likelihood(gmm.means_, sigmas + shift) - likelihood(gmm.means_, sigmas - shift)) / (2 * step)
        scale = sigmas[k, d] / np.sqrt(gmm.weights_[k])
        np.testing.assert_allclose(found[:, k, d], [by_mean * scale, by_sigma * scale / np.sqrt(2)], atol=5e-4)


def ill_scaled(rng):
    """SIFT in 0 … 512, dimensions next to constant, one component for nine in ten descriptors."""
    means = np.minimum(rng.gamma(0.6, 40, size=(16, 32)), 400)
    variances = rng.uniform(0.2, 1, size=means.shape) * (means + 1) ** 2
    means[:, 3], variances[:, 3] = 511.5, 1e-6
    variances[4:, 9] = 1e-6
    weights = np.full(16, 0.1 / 15)
    weights[0] = 0.9
    return Mixture(weights, means, variances)


@pytest.mark.parametrize("options", [{}, {"power": None}, {"fast": True}, {"layout": "skimage"}])
@pytest.mark.parametrize("n", [20, 2000])
def test_ill_scaled_data_agree_with_float64(options, n, rng):
    gmm = ill_scaled(rng)
    component = rng.choice(16, n, p=gmm.weights_)
    X = (gmm.means_[component] + rng.normal(size=(n, 32)) * np.sqrt(gmm.covariances_[component])).astype(np.float32)
    expected = expected_of(
        X, gmm, power=options.get("power", 0.5) or 1, fast=options.get("fast", False),
        **({"sign": -1, "cut": 0, "gradients": ("weights", "means", "variances")} if "layout" in options else {}),
    )  # fmt: skip
    np.testing.assert_allclose(encode(X, gmm, **options), expected, atol=1e-5)


def test_norms_are_one(image):
    descriptors, gmm = image
    assert np.linalg.norm(encode(descriptors, gmm)) == pytest.approx(1, abs=1e-6)


def test_a_vector_of_zeros_stays_zero():
    gmm = Mixture([1.0], [[3.0, 4.0]], [[1.0, 1.0]])
    found = encode(np.array([[2.0, 3.0], [4.0, 5.0], [2.0, 5.0], [4.0, 3.0]]), gmm)
    np.testing.assert_array_equal(found, 0)


def test_images_without_features_are_zero(image):
    descriptors, gmm = image
    found = FisherVector(gmm=gmm).fit([descriptors]).transform([None, descriptors, None])
    np.testing.assert_array_equal(found[[0, 2]], 0)
    np.testing.assert_array_equal(found[1], encode(descriptors, gmm))


@pytest.mark.parametrize(
    "gmm", [GMMCodebook(5, random_state=0), GaussianMixture(5, covariance_type="diag", random_state=0)]
)
def test_a_fitted_mixture_is_kept_as_it_is(gmm, rng):
    X = [rng.normal(size=(60, 8)).astype(np.float32) for _ in range(4)]
    gmm.fit(X if isinstance(gmm, GMMCodebook) else np.concatenate(X))
    means = gmm.means_.copy()
    fisher = FisherVector(n_components=99, gmm=gmm).fit(X[:1])
    assert fisher.gmm_ is gmm
    np.testing.assert_array_equal(gmm.means_, means)
    found = fisher.transform(X)
    assert found.shape == (4, 80) == (4, len(fisher.get_feature_names_out()))
    np.testing.assert_allclose(found[2], expected_of(X[2], gmm), atol=1e-5)


def test_cloning_keeps_the_given_mixture_fitted(rng):
    X = LocalFeatures.from_images(list(rng.normal(size=(12, 20, 4))))
    y = np.arange(12) % 2
    gmm = GaussianMixture(3, covariance_type="diag", random_state=0).fit(X.descriptors)
    original = FisherVector(gmm=gmm, power=0.3).set_output(transform="default")
    copy = clone(original)
    assert copy is not original and copy.gmm is gmm and copy.power == 0.3
    assert np.isfinite(cross_val_score(make_pipeline(original, LinearSVC()), X, y, cv=3, error_score="raise")).all()


def test_a_given_mixture_needs_no_descriptors_to_fit(image):
    descriptors, gmm = image
    fitted = FisherVector(gmm=gmm).fit([None, None])
    np.testing.assert_array_equal(fitted.transform([descriptors])[0], encode(descriptors, gmm))


def test_the_mixture_is_learned_from_chunks(rng):
    X = LocalFeatures.from_images(list(rng.normal(size=(8, 40, 4))))
    whole = FisherVector(3, random_state=0).fit(X)
    chunks = FisherVector(3, random_state=0).fit(X[start : start + 2] for start in range(0, 8, 2))
    np.testing.assert_array_equal(whole.transform(X), chunks.transform(X))


@pytest.mark.parametrize(
    ("gmm", "error", "message"),
    [
        (GMMCodebook(3), ValueError, "gmm given to FisherVector is not fitted: call GMMCodebook.fit first"),
        (3, TypeError, "'gmm' parameter of FisherVector must be a fitted mixture.*Got int instead"),
        (Mixture([1], [[0.0] * 7], [[1.0] * 7]), ValueError, "X has 12-d descriptors, but the gmm of FisherVector was"),
    ],
    ids=["unfitted", "int", "dimension"],
)
def test_bad_mixtures_are_named(image, gmm, error, message):
    with pytest.raises(error, match=message):
        FisherVector(gmm=gmm).fit([image[0]])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_components", 0), ("n_components", 2.5), ("power", 0), ("power", "half"), ("norm", "l1"), ("fast", 1),
        ("layout", "opencv"), ("max_samples", 0), ("gradients", ()), ("gradients", "means"),
        ("gradients", ("means", "sigmas")), ("gradients", ("means", "means")), ("gradients", 3),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(image, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of FisherVector must be .*Got .* instead"):
        FisherVector(**{parameter: value}).fit([image[0]])


def test_fitting_without_descriptors_is_refused():
    with pytest.raises(ValueError, match="FisherVector cannot be fitted: none of the images has any descriptor"):
        FisherVector(3).fit([None, None])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_descriptors_that_are_not_finite_are_refused_by_image(rng, value):
    X = list(rng.normal(size=(40, 30, 4)))
    fitted = FisherVector(3, random_state=0).fit(X)
    X[35][7, 2] = value
    with pytest.raises(ValueError, match="FisherVector got descriptors of image 35 that are NaN, infinite or too"):
        fitted.transform(X)
    with pytest.raises(ValueError, match="GMMCodebook got descriptors of image 35"):
        FisherVector(3).fit(X)


def test_bytes_and_floats_of_the_same_values_agree(rng):
    X = [rng.integers(0, 256, (1500, 16), dtype=np.uint8) for _ in range(3)]
    floats = [x.astype(np.float64) for x in X]
    a, b = (FisherVector(8, random_state=0).fit(x) for x in (X, floats))
    np.testing.assert_array_equal(a.transform(X), b.transform(floats))


def test_constant_dimensions_give_finite_vectors(rng):
    X = list(rng.normal(size=(6, 50, 8)))
    for x in X:
        x[:, 5] = 2.5
    found = FisherVector(3, random_state=0).fit_transform(X)
    assert np.isfinite(found).all() and np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5


def test_no_images_give_no_rows(image):
    descriptors, gmm = image
    assert FisherVector(gmm=gmm).fit([descriptors]).transform([]).shape == (0, 144)


@pytest.fixture(scope="module")
def photographs():
    """Four views of each of four scenes."""
    scenes = make_scenes(n_scenes=4, n_views=4, image_size=(240, 180), difficulty=0.2, random_state=0)
    return scenes.images, scenes.labels


def test_recognition_from_images_to_classes(photographs):
    images, scene = photographs
    pipeline = make_pipeline(
        SIFT(root=True, max_features=150), PerDescriptor(PCA(32, random_state=0)), FisherVector(8, random_state=0),
        LinearSVC(),
    )  # fmt: skip
    search = GridSearchCV(pipeline, {"fishervector__n_components": [4, 8]}, cv=2, error_score="raise")
    search.fit(images, scene)
    assert (search.cv_results_["mean_test_score"] > 0.7).all()
