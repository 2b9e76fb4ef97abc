"""VLAD by soft assignment and by posteriors, and with adapted centres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from cvretrieval import VLAD, GMMCodebook, KMeansCodebook, LocalFeatures
from tests.parity import agree
from tests.reference.assignment import nearest_words_naive
from tests.reference.vlad import normalize_naive, soft_assignments_naive, sum_weighted_residuals_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "vlad.npz")
PLAIN = {"power": None, "norm": None}


class Words:
    """A fitted clusterer with given words."""

    def __init__(self, centers):
        self.cluster_centers_ = np.asarray(centers)

    def fit(self, X):
        raise AssertionError("a given codebook is never fitted again")


def mixture(weights, means, variances):
    gmm = GaussianMixture(len(means), covariance_type="diag")
    gmm.weights_, gmm.means_, gmm.covariances_ = (np.asarray(a, dtype=float) for a in (weights, means, variances))
    gmm.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    return gmm


def posteriors_naive(descriptors, weights, means, variances):
    x = np.asarray(descriptors, dtype=np.float64)[:, None]
    log_densities = np.log(weights) - 0.5 * (np.log(variances) + (x - means) ** 2 / variances).sum(axis=2)
    shares = np.exp(log_densities - log_densities.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def encode(descriptors, codebook, **options):
    return VLAD(codebook=codebook, **options).fit([descriptors]).transform([descriptors])[0]


def vlad_naive(descriptors, assignments, centers, *, unit=False, power=1, intra_norm=False, mass_norm=False, l2=True):
    sums, masses = sum_weighted_residuals_naive(descriptors, assignments, centers, unit)
    return normalize_naive(sums, masses, mass_norm, power, intra_norm, l2).ravel()


@pytest.fixture
def image(rng):
    return rng.normal(size=(300, 12)).astype(np.float32), rng.normal(size=(6, 12)).astype(np.float32)


def options_of(flags):
    """VLFeat's flags are bits: 1 per-word L2, 2 square root, 4 no global L2, 8 mass."""
    return {
        "intra_norm": bool(flags & 1), "power": 0.5 if flags & 2 else None, "norm": None if flags & 4 else "l2",
        "mass_norm": bool(flags & 8),
    }  # fmt: skip


@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize("vectors", ["soft_f4", "soft_f8"])
def test_vectors_of_given_weights_are_those_of_vlfeat(flags, vectors):
    encoder = VLAD(codebook=Words(REFERENCE["means"]), assignment="soft", n_nearest=5, sigma=1.0, **options_of(flags))
    votes = encoder.fit([None]).assign([REFERENCE["X"]])
    encoded = encoder.pool(votes._replace(weights=REFERENCE["assign_soft"]), [0, 500])[0]
    expected = REFERENCE[vectors][flags]
    # VLFeat's float32 is up to 6e-5 away from its own float64: near zero, as some of these sums are, the root is steep.
    tolerance = 7e-5 if vectors == "soft_f4" and flags & 2 else 2e-5 if flags & 2 else 2e-6
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if vectors == "soft_f8":
        agree("vlad-soft", encoded, expected, tolerance)


def test_soft_assignment_of_all_words_gives_the_weights_of_the_reference():
    """They are exp(−d²/12) over their sum, less what is below 1e-3."""
    encoder = VLAD(codebook=Words(REFERENCE["means"]), assignment="soft", n_nearest=5, sigma=6**0.5).fit([None])
    votes = encoder.assign([REFERENCE["X"]])
    expected = REFERENCE["assign_soft"]
    np.testing.assert_allclose(np.where(votes.weights < 1e-3, 0, votes.weights), expected, atol=1e-5)
    assert votes.words is None and (votes.best_words() == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("n_nearest", [1, 2, 3, 6, 99])
@pytest.mark.parametrize("residual_norm", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"intra_norm": True, "power": None}, {"mass_norm": True, "power": 0.2}], ids=str
)
def test_soft_assignment_is_its_definition(image, n_nearest, residual_norm, options):
    descriptors, centers = image
    encoded = encode(
        descriptors, Words(centers), assignment="soft", n_nearest=n_nearest, sigma=1.2, residual_norm=residual_norm,
        **options,
    )  # fmt: skip
    assignments = soft_assignments_naive(descriptors, centers, n_nearest, 1.2)
    options = {**{"power": 0.5}, **options}
    options["power"] = options["power"] or 1
    np.testing.assert_allclose(
        encoded, vlad_naive(descriptors, assignments, centers, unit=residual_norm, **options), atol=1e-5
    )


@pytest.mark.parametrize("residual_norm", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"intra_norm": True, "power": None}, {"mass_norm": True, "power": 0.2}], ids=str
)
def test_posteriors_are_their_definition(image, rng, residual_norm, options):
    descriptors, means = image
    weights, variances = rng.dirichlet(np.ones(6)), rng.uniform(0.5, 2, (6, 12))
    encoded = encode(
        descriptors, mixture(weights, means, variances), assignment="posterior", residual_norm=residual_norm, **options
    )
    options = {**{"power": 0.5}, **options}
    options["power"] = options["power"] or 1
    expected = vlad_naive(
        descriptors, posteriors_naive(descriptors, weights, means, variances), means, unit=residual_norm, **options
    )
    np.testing.assert_allclose(encoded, expected, atol=1e-5)


def ill_scaled(kind, rng):
    """Descriptors and words as SIFT in [0, 512], far from the origin, or one word with all but a few descriptors."""
    if kind == "sift":
        modes = rng.gamma(0.6, size=(16, 128)) * 25
        descriptors = np.minimum(modes[rng.integers(0, 16, 2000)] * rng.gamma(4, 0.25, size=(2000, 128)), 512).round()
        return descriptors.astype(np.float32), (modes * 1.05).astype(np.float32)
    centers = rng.normal(size=(8, 32))
    words = rng.integers(0, 8, 2000) if kind == "offset" else np.where(rng.random(2000) < 0.99, 0, 1)
    scale = 0.5 if kind == "offset" else 1e-2
    descriptors = centers[words] + rng.normal(size=(2000, 32)) * scale + 0.1 * scale
    offset = 100.0 if kind == "offset" else 0.0
    return (descriptors + offset).astype(np.float32), (centers + offset).astype(np.float32)


@pytest.mark.parametrize("kind", ["sift", "offset", "dominant"])
@pytest.mark.parametrize("assignment", ["soft", "soft-all", "posterior"])
@pytest.mark.parametrize("intra_norm", [False, True])
def test_float32_stays_within_1e_5_of_float64_on_ill_scaled_data(kind, assignment, intra_norm, rng):
    descriptors, centers = ill_scaled(kind, rng)
    residuals = descriptors - centers[nearest_words_naive(descriptors, centers)]
    variances = np.maximum(np.broadcast_to(residuals.astype(np.float64).var(axis=0), centers.shape), 1e-4)
    options = {"power": None, "intra_norm": intra_norm}
    if assignment == "posterior":
        shares = np.full(len(centers), 1 / len(centers))
        encoded = encode(descriptors, mixture(shares, centers, variances), assignment="posterior", **options)
        assignments = posteriors_naive(descriptors, shares, centers.astype(np.float64), variances)
    else:
        n_nearest, sigma = (3 if assignment == "soft" else len(centers)), float(np.sqrt(variances.sum() / len(centers)))
        encoded = encode(descriptors, Words(centers), assignment="soft", n_nearest=n_nearest, sigma=sigma, **options)
        assignments = soft_assignments_naive(descriptors, centers, n_nearest, sigma)
    # Words that got next to nothing have a block after intra-normalisation, whose digits are those of tiny weights.
    expected = vlad_naive(descriptors, assignments, centers, intra_norm=intra_norm).reshape(centers.shape)
    counted = assignments.sum(axis=0) > 1e-3
    np.testing.assert_allclose(encoded.reshape(centers.shape)[counted], expected[counted], atol=1e-5)


def test_sums_that_cancel_are_taken_residual_by_residual(image):
    """The product Σ q x − (Σ q) c would leave rounding errors of x, and power and per-word norms a full-size block."""
    _, centers = image
    centers = centers[:2] * [[1], [50]]
    descriptors = np.repeat(centers, 9, axis=0)
    options = {"assignment": "soft", "n_nearest": 2, "sigma": 0.5, "intra_norm": True}
    np.testing.assert_array_equal(encode(descriptors, Words(centers), **options), 0)


@pytest.mark.parametrize("n_nearest", [2, 6])
@pytest.mark.parametrize("options", [{}, {"power": None, "intra_norm": True}, {"residual_norm": True}], ids=str)
def test_soft_becomes_hard_as_the_assignment_sharpens(image, n_nearest, options):
    descriptors, centers = image
    hard = encode(descriptors, Words(centers), **options)
    distances = [
        np.abs(
            encode(descriptors, Words(centers), assignment="soft", n_nearest=n_nearest, sigma=sigma, **options) - hard
        ).max()
        for sigma in (2.0, 0.5, 0.1, 1e-3)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.02 and distances[-1] < 1e-5


def test_posteriors_become_hard_as_the_variances_shrink(image):
    descriptors, means = image
    shares = np.full(6, 1 / 6)
    sharp = encode(descriptors, mixture(shares, means, np.full((6, 12), 1e-6)), assignment="posterior")
    np.testing.assert_allclose(sharp, encode(descriptors, Words(means)), atol=1e-5)


def test_posteriors_of_equal_spheres_are_soft_assignments_to_all_words(image):
    descriptors, means = image
    sphere = encode(descriptors, mixture(np.full(6, 1 / 6), means, np.full((6, 12), 1.5**2)), assignment="posterior")
    soft = encode(descriptors, Words(means), assignment="soft", n_nearest=6, sigma=1.5)
    np.testing.assert_allclose(sphere, soft, atol=1e-5)


def variants(centers, order=slice(None)):
    variances = np.linspace(0.5, 2, 72).reshape(6, 12)
    return {
        "soft": (Words(centers[order]), {"assignment": "soft", "sigma": 1.0}),
        "soft-all": (Words(centers[order]), {"assignment": "soft", "n_nearest": 6, "sigma": 1.0}),
        "posterior": (
            mixture(np.full(6, 1 / 6), centers[order], variances[order]), {"assignment": "posterior"}
        ),
        "adapted": (Words(centers[order]), {"adapt_centers": True, "assignment": "soft", "sigma": 1.0}),
        "local": (Words(centers[order]), {"local_coordinates": True, "residual_norm": True, "power": 0.2}),
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["soft", "soft-all", "posterior", "adapted", "local"])
def test_permuting_words_permutes_blocks(image, rng, variant):
    descriptors, centers = image
    order = rng.permutation(6)
    # Adapted to other descriptors than those encoded: to the same, the sums would be rounding errors.
    X, Z = [descriptors[:200]], [descriptors[200:]]
    codebook, options = variants(centers)[variant]
    blocks = VLAD(codebook=codebook, **options).fit(X).transform(Z).reshape(6, 12)
    codebook, options = variants(centers, order)[variant]
    permuted = VLAD(codebook=codebook, **options).fit(X).transform(Z).reshape(6, 12)
    np.testing.assert_allclose(permuted, blocks[order], atol=2e-5)


@pytest.mark.parametrize("variant", ["soft", "soft-all", "posterior", "adapted", "local"])
@pytest.mark.parametrize("norms", [{}, {"intra_norm": True, "mass_norm": True}], ids=str)
def test_duplicating_all_descriptors_leaves_the_normalised_vector(image, variant, norms):
    descriptors, centers = image
    codebook, options = variants(centers)[variant]
    fitted = VLAD(codebook=codebook, **options, **norms).fit([descriptors[:200]])
    once, twice = fitted.transform([descriptors[200:], np.repeat(descriptors[200:], 2, axis=0)])
    np.testing.assert_allclose(twice, once, atol=1e-5)


@pytest.mark.parametrize("variant", ["soft", "soft-all", "posterior", "adapted", "local"])
def test_transform_is_pool_of_assign(image, variant):
    descriptors, centers = image
    X = LocalFeatures.from_images([descriptors[:90], None, descriptors[90:]])
    codebook, options = variants(centers)[variant]
    fitted = VLAD(codebook=codebook, **options).fit(X)
    np.testing.assert_array_equal(fitted.pool(fitted.assign(X), X.offsets), fitted.transform(X))


def test_learned_sigma_makes_vectors_independent_of_the_unit(image):
    descriptors, centers = image
    small = encode(descriptors, Words(centers), assignment="soft")
    large = encode(512 * descriptors, Words(512 * centers), assignment="soft")
    np.testing.assert_allclose(large, small, atol=1e-5)
    assert VLAD(codebook=Words(centers), assignment="soft", sigma=3).fit([descriptors]).sigma_ == 3.0
    assert not hasattr(VLAD(codebook=Words(centers)).fit([descriptors]), "sigma_")


def test_adapted_centres_are_the_means_of_their_descriptors(image):
    descriptors, centers = image
    centers[5] = 1e3  # nearest to none
    X = [descriptors[:100], None, descriptors[100:]]
    fitted = VLAD(codebook=Words(centers), adapt_centers=True, **PLAIN).fit(X)
    words = nearest_words_naive(descriptors, centers)
    for k in range(5):
        np.testing.assert_allclose(fitted.centers_[k], descriptors[words == k].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(fitted.centers_[5], centers[5])
    # Descriptors stay with the words of the codebook, though others of the moved points may be nearer.
    assert (nearest_words_naive(descriptors, fitted.centers_) != words).any()
    expected = vlad_naive(X[0], np.eye(6)[words[:100]], fitted.centers_, l2=False)
    np.testing.assert_allclose(fitted.transform(X)[0], expected, atol=1e-3)
    np.testing.assert_allclose(fitted.transform(X).sum(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_adapted_centres_of_chunks_are_those_of_all(rng, n_jobs):
    X = [rng.normal(size=(20, 6)).astype(np.float32) for _ in range(70)]
    options = {"codebook": Words(rng.normal(size=(4, 6))), "adapt_centers": True, "assignment": "soft", "sigma": 1.0}
    whole = VLAD(**options, n_jobs=n_jobs).fit(X)
    chunks = [LocalFeatures.from_images(X[:32]), LocalFeatures.from_images(X[32:])]
    np.testing.assert_array_equal(VLAD(**options).fit(chunks).centers_, whole.centers_)


def test_a_vocabulary_of_other_images_is_adapted_to_those_searched(rng):
    """A shift of all descriptors of a data set is what adaptation takes out."""
    X = [rng.normal(size=(200, 8)) for _ in range(3)]
    words = KMeansCodebook(4, random_state=0).fit(X)
    shift = 0.05 * rng.normal(size=8)
    moved = [x + shift for x in X]
    adapted = VLAD(codebook=words, adapt_centers=True).fit(moved).transform(moved)
    plain = VLAD(codebook=words).fit(moved).transform(moved)
    target = VLAD(codebook=words, adapt_centers=True).fit(X).transform(X)
    assert (np.sum(adapted * target, axis=1) > np.sum(plain * target, axis=1) + 0.1).all()


def test_the_learned_mixture_is_the_codebook(rng):
    X = [rng.normal(size=(60, 5)) for _ in range(4)]
    fitted = VLAD(n_words=3, assignment="posterior", random_state=0).fit(X)
    assert isinstance(fitted.codebook_, GMMCodebook) and fitted.codebook_.means_.shape == (3, 5)
    same = VLAD(codebook=fitted.codebook_, assignment="posterior").fit(X)
    np.testing.assert_array_equal(same.transform(X), fitted.transform(X))
    theirs = GaussianMixture(3, covariance_type="diag", random_state=0).fit(np.concatenate(X))
    expected = vlad_naive(X[1], theirs.predict_proba(X[1]), theirs.means_, power=0.5)
    np.testing.assert_allclose(encode(X[1], theirs, assignment="posterior"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"codebook": Words(np.ones((3, 12))), "assignment": "posterior"}, TypeError, "'codebook' parameter of VLAD"),
        ({"codebook": GaussianMixture(3), "assignment": "posterior"}, ValueError, "not fitted"),
        ({"codebook": GaussianMixture(3)}, ValueError, "not fitted|cluster_centers_"),
        ({"assignment": "fuzzy"}, ValueError, "'assignment' parameter of VLAD must be one of 'hard', 'soft', 'post"),
        ({"n_nearest": 0}, ValueError, "'n_nearest' parameter of VLAD"),
        ({"sigma": 0.0}, ValueError, "'sigma' parameter of VLAD"),
        ({"adapt_centers": 1}, ValueError, "'adapt_centers' parameter of VLAD must be True or False"),
        ({"local_coordinates": "yes"}, ValueError, "'local_coordinates' parameter of VLAD must be True or False"),
    ],
)
def test_bad_parameters_are_named(image, options, error, message):
    with pytest.raises(error, match=message):
        VLAD(**options).fit([image[0]])


def test_a_given_codebook_without_descriptors(image):
    _, centers = image
    with pytest.raises(ValueError, match="VLAD cannot learn sigma: none of the images.*Give the 'sigma'"):
        VLAD(codebook=Words(centers), assignment="soft").fit([None])
    for option in ("adapt_centers", "local_coordinates"):
        with pytest.raises(ValueError, match="VLAD cannot be fitted: none of the images"):
            VLAD(codebook=Words(centers), **{option: True}).fit([None])


@pytest.mark.parametrize("option", [{"assignment": "soft"}, {"adapt_centers": True}, {"local_coordinates": True}])
def test_options_set_after_fit_need_another_fit(image, option):
    descriptors, centers = image
    fitted = VLAD(codebook=Words(centers)).fit([descriptors])
    with pytest.raises(ValueError, match="not fitted yet"):
        fitted.set_params(**option).transform([descriptors])


@pytest.mark.parametrize("variant", ["soft", "soft-all", "posterior"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
def test_descriptors_that_are_not_finite_are_refused_by_image(image, variant, value):
    descriptors, centers = image
    codebook, options = variants(centers)[variant]
    fitted = VLAD(codebook=codebook, **options).fit([descriptors])
    bad = descriptors.copy()
    bad[7, 2] = value
    with pytest.raises(ValueError, match="VLAD got descriptors of image 1 that are NaN, infinite or too large"):
        fitted.transform([descriptors, bad])
