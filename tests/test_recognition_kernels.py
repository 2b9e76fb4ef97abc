"""Exact histogram kernels and explicit maps: against slow twins, scikit-learn and VLFeat."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import pairwise
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from cvretrieval import SIFT, VLAD, BagOfWords, HomogeneousKernelMap, PowerNormalizer
from cvretrieval.datasets import make_scenes
from cvretrieval.recognition import additive_chi2_kernel, chi2_kernel, hellinger_kernel, histogram_intersection
from tests.parity import agree
from tests.reference import histogram_kernels as slow

KERNELS = {
    "intersection": (histogram_intersection, slow.histogram_intersection),
    "additive_chi2": (additive_chi2_kernel, lambda X, Y: -slow.chi2_distance(X, Y)),
    "chi2": (chi2_kernel, lambda X, Y: np.exp(-slow.chi2_distance(X, Y))),
    "hellinger": (hellinger_kernel, slow.hellinger),
}
each_kernel = pytest.mark.parametrize(("fast", "reference"), list(KERNELS.values()), ids=list(KERNELS))


def histograms(rng, n, n_features=300, dtype=np.float64):
    X = rng.dirichlet(np.full(n_features, 0.1), size=n)
    X[X < 1e-4] = 0
    return X.astype(dtype)


@each_kernel
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_agree_with_their_slow_twins(fast, reference, dtype, rng):
    X, Y = histograms(rng, 9, dtype=dtype), histograms(rng, 7, dtype=dtype)
    X[2] = 0
    values = fast(X, Y)
    assert values.dtype == dtype and values.shape == (9, 7)
    np.testing.assert_allclose(values, reference(X, Y), rtol=0, atol=2e-6 if dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(fast(X), reference(X, X), rtol=0, atol=2e-6 if dtype == np.float32 else 1e-13)


@each_kernel
def test_more_than_one_tile_threads_sparse_and_integers(fast, reference, rng):
    X, Y = rng.integers(0, 5, (150, 40)), rng.integers(0, 5, (130, 40))
    values = fast(X, Y)
    np.testing.assert_array_equal(fast(X, Y, n_jobs=2), values)
    np.testing.assert_array_equal(fast(csr_matrix(X), csr_matrix(Y)), values)
    np.testing.assert_allclose(values[:5, 120:], reference(X[:5], Y[120:]), atol=1e-12)
    square = fast(X)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, fast(X, X.copy()), atol=1e-12)
    np.testing.assert_array_equal(square, fast(X, X, n_jobs=3))


def test_chi2_is_that_of_scikit_learn(rng):
    X, Y = histograms(rng, 20), histograms(rng, 30)
    np.testing.assert_allclose(additive_chi2_kernel(X, Y), pairwise.additive_chi2_kernel(X, Y), atol=1e-13)
    agree("chi2-kernel", chi2_kernel(X, Y, gamma=0.3), pairwise.chi2_kernel(X, Y, gamma=0.3), 1e-13)


def test_smallest_numbers_and_zeros_stay_finite():
    tiny = np.array([[0.0, 1e-40, 3e-38]], dtype=np.float32)
    assert np.isfinite(chi2_kernel(tiny, np.zeros_like(tiny))).all()
    assert additive_chi2_kernel(tiny, tiny) == 0
    assert histogram_intersection(np.zeros((1, 3)), tiny.astype(np.float64)) == 0


@each_kernel
def test_what_is_no_histogram_is_refused(fast, reference, rng):
    X = rng.normal(size=(4, 6))
    with pytest.raises(ValueError, match="not negative.*Got a smallest value of -"):
        fast(X)
    with pytest.raises(ValueError, match="not negative"):
        fast(np.abs(X), X)
    with pytest.raises(ValueError, match=r"X\.shape\[1\] == 6 while Y\.shape\[1\] == 5"):
        fast(np.abs(X), np.ones((2, 5)))
    with pytest.raises(ValueError, match="NaN"):
        fast(np.full((2, 6), np.nan))


def test_gamma_is_checked():
    with pytest.raises(ValueError, match="'gamma' parameter of chi2_kernel must be a number in \\(0, inf\\). Got 0"):
        chi2_kernel([[1.0]], gamma=0)


def vlfeat_interpolated(mapping, x, order):
    """VLFeat's value: between neighbours 2^e (1 + k/n), n = 8 + 8 order, it interpolates linearly."""
    n = 8 + 8 * order
    mantissa, exponent = np.frexp(np.abs(x))
    place = (2 * mantissa - 1) * n
    low = np.floor(place)
    below, above = (mapping.transform(np.ldexp(1 + k / n, exponent - 1)[:, np.newaxis]) for k in (low, low + 1))
    return np.sign(x)[:, np.newaxis] * (below + (place - low)[:, np.newaxis] * (above - below))


def test_homogeneous_kernel_map_is_that_of_vlfeat():
    reference = dict(np.load(Path(__file__).parent / "data" / "homogeneous_kernel_map.npz"))
    x = reference.pop("x")
    assert len(reference) == 24
    for name, expected in reference.items():
        kernel, order, window, gamma = name.split("_")
        mapping = HomogeneousKernelMap(kernel, order=int(order[5:]), window=window, gamma=float(gamma[5:]))
        exact = mapping.fit_transform(x[:, np.newaxis])
        agree("kernel-map", vlfeat_interpolated(mapping, x, mapping.order), expected, 1e-10)
        np.testing.assert_allclose(exact, expected, rtol=0, atol=4e-4)  # their interpolation


@pytest.mark.parametrize("kernel", ["intersection", "chi2", "js"])
@pytest.mark.parametrize("window", ["rectangular", "uniform"])
def test_map_approximates_its_kernel_better_with_each_order(kernel, window, rng):
    X = histograms(rng, 30, 50)
    x, y = X[:, np.newaxis], X[np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = {
            "intersection": np.minimum(x, y),
            "chi2": 2 * x * y / (x + y),
            "js": 0.5 * (x * np.log2((x + y) / x) + y * np.log2((x + y) / y)),
        }[kernel]
    exact = np.where((x > 0) & (y > 0), terms, 0).sum(axis=2)
    errors = []
    for order in (1, 3, 9):
        Z = HomogeneousKernelMap(kernel, order=order, window=window).fit_transform(X)
        errors.append(np.abs(Z @ Z.T - exact).mean())
    assert errors[0] < 0.05 and errors[2] < errors[1] < errors[0]


def test_map_of_negative_and_zero_components_and_float32():
    mapping = HomogeneousKernelMap(order=2, gamma=0.5).fit([[1.0]])
    np.testing.assert_array_equal(mapping.transform([[-0.3]]), -mapping.transform([[0.3]]))
    np.testing.assert_array_equal(mapping.transform([[0.0]]), np.zeros((1, 5)))
    assert mapping.transform(np.ones((1, 1), dtype=np.float32)).dtype == np.float32
    # homogeneous of degree gamma: the kernel of (4x, 4y) is 4^gamma times that of (x, y)
    a, b = mapping.transform([[0.3], [0.5]])
    c, d = mapping.transform([[1.2], [2.0]])
    np.testing.assert_allclose(c @ d, 4**0.5 * (a @ b), rtol=1e-12)


@pytest.mark.parametrize("params", [{"kernel": "rbf"}, {"window": "hann"}, {"order": -1}, {"gamma": 0}, {"period": 0}])
def test_map_parameters_are_checked(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"The '{name}' parameter of HomogeneousKernelMap must be"):
        HomogeneousKernelMap(**params).fit([[1.0]])


def test_hellinger_map_is_the_square_root(rng):
    X = histograms(rng, 6)
    roots = PowerNormalizer(norm=None).fit_transform(X)
    np.testing.assert_allclose(hellinger_kernel(X), roots @ roots.T, atol=1e-14)


@pytest.fixture(scope="module")
def scenes():
    made = make_scenes(n_scenes=3, n_views=6, random_state=3)
    X = SIFT(root=True, max_features=150).transform(made.images)
    return X, np.array(made.labels)


def test_support_vector_machine_takes_the_kernels_over_the_whole_line(scenes):
    X, y = scenes
    for kernel in (histogram_intersection, partial(chi2_kernel, gamma=0.5), hellinger_kernel):
        line = make_pipeline(BagOfWords(n_words=20, random_state=0), SVC(kernel=kernel, C=10))
        assert line.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) >= 2 / 3
    made = make_scenes(n_scenes=2, n_views=2, random_state=3)
    images = make_pipeline(SIFT(max_features=80), BagOfWords(n_words=8, random_state=0), SVC(kernel=hellinger_kernel))
    assert images.fit(made.images, made.labels).predict(made.images).shape == (4,)


def test_calibration_and_grid_search_over_the_whole_line(scenes):
    X, y = scenes
    line = make_pipeline(BagOfWords(n_words=20, random_state=0), SVC(kernel=histogram_intersection))
    calibrated = CalibratedClassifierCV(line, cv=2, ensemble=False).fit(X, y)
    probabilities = calibrated.predict_proba(X)
    assert probabilities.shape == (len(X), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert calibrated.score(X, y) > 1 / 3
    grid = {"bagofwords__n_words": [5, 20], "svc__kernel": [histogram_intersection, chi2_kernel], "svc__C": [1, 10]}
    search = GridSearchCV(line, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ >= 2 / 3
    vlad = make_pipeline(VLAD(n_words=4, random_state=0), SVC(kernel="linear"))
    assert GridSearchCV(vlad, {"vlad__n_words": [2, 4]}, cv=2, error_score="raise").fit(X, y).best_score_ >= 2 / 3
