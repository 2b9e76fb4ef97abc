"""Fundamental matrices: kernels against their slow twins, scenes with depth, planes, and chance."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import SpatialVerifier
from cvretrieval._kernels.epipolar_inliers import search_plane_and_parallax, search_seven_point, weigh_epipolar
from cvretrieval._kernels.fundamental_fitting import fit_fundamental, solve_seven_point
from cvretrieval._kernels.transform_fitting import HOMOGRAPHY, fit_transform
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.epipolar import estimate_fundamental
from tests.reference import epipolar

AGREEMENT = Agreement(6.4, 6.4, float(np.log(2)), float(np.cos(np.deg2rad(30))))


def kernel_pairs(a, b):
    return np.ascontiguousarray(np.hstack([a[:, :2], b[:, :2]]).T)


def same_up_to_sign(one, other, atol):
    sign = np.sign((one * other).sum())
    np.testing.assert_allclose(sign * one, other, atol=atol)


def distances(f, a, b):
    return np.array([max(epipolar.line_distances(f, p, q)) for p, q in zip(a, b, strict=True)])


def test_fit_is_the_eight_point_algorithm(rng):
    a, b, _ = epipolar.two_views(rng, 40, 0, "volume")
    pairs, found = kernel_pairs(a, b), np.empty((3, 3))
    weights = np.ones(40)
    weights[30:] = 0
    assert fit_fundamental(pairs, weights, found)
    same_up_to_sign(found, epipolar.fit(a[:30, :2], b[:30, :2]), 1e-6)
    assert np.linalg.svd(found)[1][2] < 1e-10 and np.linalg.norm(found) == pytest.approx(1)
    clean = epipolar.two_views(np.random.default_rng(5), 40, 0, "volume", noise=0.0)
    assert fit_fundamental(kernel_pairs(*clean[:2]), np.ones(40), found)
    assert distances(found, a[:, :2], b[:, :2]).mean() < 2


def test_seven_points_lie_on_their_lines(rng):
    a, b, _ = epipolar.two_views(rng, 30, 0, "volume", noise=0.0)
    pairs, found = kernel_pairs(a, b), np.empty((3, 3, 3))
    n_close = 0
    for _ in range(20):
        rows = rng.permutation(30)[:7]
        n = solve_seven_point(pairs, rows, found)
        assert 1 <= n <= 3
        for f in found[:n]:
            assert abs(np.linalg.svd(f)[1][2]) < 1e-8
            assert distances(f, a[rows, :2], b[rows, :2]).max() < 1e-3
        n_close += min(distances(f, a[:, :2], b[:, :2]).max() for f in found[:n]) < 1
    assert n_close >= 15  # the true one is among the solutions; float32 coordinates leave few samples ill-conditioned


@pytest.mark.parametrize("case", ["one point", "line", "few"])
def test_points_that_determine_no_fundamental_matrix(case, rng):
    places = {"one point": np.ones((20, 2)), "line": np.column_stack([np.arange(20), np.full(20, 3)])}
    points = places.get(case, rng.uniform(0, 99, (7, 2))).astype(np.float32)
    pairs, found = kernel_pairs(points, points), np.full((3, 3), 7.0)
    assert not fit_fundamental(pairs, np.ones(len(points)), found) and (found == 7).all()
    if case != "few":
        assert solve_seven_point(pairs, np.arange(7), np.empty((3, 3, 3))) == 0


def test_inliers_by_the_definition(rng):
    a, b, truth = epipolar.two_views(rng, 60, 300, "volume")
    # On their lines, but on the other side of the epipole.
    epipole = np.linalg.svd(truth.T)[2][-1]
    b[50:60, :2] = 2 * epipole[:2] / epipole[2] - b[50:60, :2]
    pairs, weights = kernel_pairs(a, b), np.empty(360)
    for tolerances in ((3.0, 3.0), (8.0, 2.0)):
        count = weigh_epipolar(pairs, truth, *tolerances, weights)
        expected = epipolar.explained(truth, a[:, :2], b[:, :2], *tolerances)
        np.testing.assert_array_equal(weights > 0, expected)
        assert count == expected.sum() > 40 and weights.max() <= 1
        assert not expected[50:60].any() and (distances(truth, a[50:60], b[50:60]) < 2).any()


def test_searches_find_what_explains_most(rng):
    a, b, _ = epipolar.two_views(rng, 100, 40, "dominant plane", noise=0.3)
    pairs, found, weights = kernel_pairs(a, b), np.empty((3, 3)), np.empty(140)
    draws = np.random.RandomState(0).randint(0, 2**31, (400, 7))
    plane = np.arange(100) >= 20
    homography = np.empty((3, 3))
    fit_transform(pairs, np.append(plane, np.zeros(40)).astype(float), HOMOGRAPHY, homography)
    off_plane = np.flatnonzero(~np.append(plane, np.zeros(40, dtype=bool)))
    total = search_plane_and_parallax(pairs, homography, off_plane, draws, 3.0, 3.0, found)
    weigh_epipolar(pairs, found, 3.0, 3.0, weights)
    assert total == pytest.approx(weights.sum()) and (weights[:100] > 0).sum() >= 90
    total = search_seven_point(pairs, draws, 3.0, 3.0, found)
    weigh_epipolar(pairs, found, 3.0, 3.0, weights)
    assert total == pytest.approx(weights.sum()) and (weights[:100] > 0).sum() >= 80
    before = found.copy()
    assert search_seven_point(pairs[:, :7].copy(), draws, 3.0, 3.0, found) == 0
    assert search_plane_and_parallax(pairs, homography, off_plane[:1], draws, 3.0, 3.0, found) == 0
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("kind", ["volume", "dominant plane"])
@pytest.mark.parametrize(("n", "outliers"), [(300, 0.5), (200, 0.8), (100, 0.9)])
def test_scenes_with_depth(kind, n, outliers, rng):
    n_outliers = int(n * outliers / (1 - outliers))
    a, b, _ = epipolar.two_views(rng, n, n_outliers, kind)
    matrix, weights, name = estimate_fundamental(Correspondences(a, b), AGREEMENT, 5, "single_correspondence")
    assert name == "fundamental" and np.linalg.norm(matrix) == pytest.approx(1)
    assert abs(np.linalg.det(matrix)) < 1e-12
    assert (weights[:n] > 0).sum() >= 0.75 * n and (weights[n:] > 0).sum() <= 3
    clean = epipolar.two_views(np.random.default_rng(1), 200, 0, "volume", noise=0.0)
    assert np.median(distances(matrix, *clean[:2])) < 1.5


@pytest.mark.parametrize("n_outliers", [0, 100, 800])
def test_a_plane_has_a_homography(n_outliers, rng):
    a, b, _ = epipolar.two_views(rng, 100, n_outliers, "plane")
    _, weights, name = estimate_fundamental(Correspondences(a, b), AGREEMENT, 5, "single_correspondence")
    assert name == "homography" and (weights[:100] > 0).all()


def test_order_of_images_and_of_matches(rng):
    a, b, _ = epipolar.two_views(rng, 120, 200, "volume")
    matrix, weights, _ = estimate_fundamental(Correspondences(a, b), AGREEMENT, 5, "single_correspondence")
    back, back_weights, name = estimate_fundamental(Correspondences(b, a), AGREEMENT, 5, "single_correspondence")
    assert name == "fundamental" and np.mean((weights > 0) == (back_weights > 0)) > 0.95
    assert np.median(distances(back.T, a[:120], b[:120])) < 2
    order = rng.permutation(320)
    _, mixed, name = estimate_fundamental(Correspondences(a[order], b[order]), AGREEMENT, 5, "vote_and_verify")
    assert name == "fundamental" and np.mean((mixed > 0) == (weights[order] > 0)) > 0.95
    again = estimate_fundamental(Correspondences(a, b), AGREEMENT, 5, "single_correspondence")
    np.testing.assert_array_equal(again[0], matrix)


def with_descriptors(keypoints, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(keypoints), 16)).astype(np.float32), keypoints, (800, 600)


def test_verifier_gives_the_matrix_and_no_transform(rng):
    a, b, _ = epipolar.two_views(rng, 150, 150, "volume")
    result = SpatialVerifier("fundamental").verify(with_descriptors(a), with_descriptors(b))
    assert result and result.model == "fundamental" and result.transform is None and result.n_inliers > 80
    inside = (np.abs(a[:, :2] - [400, 300]) < [400, 300]).all(axis=1)
    assert np.median(distances(result.fundamental, a[:150][inside[:150]], b[:150][inside[:150]])) < 2
    flat = epipolar.two_views(rng, 150, 150, "plane")
    result = SpatialVerifier("fundamental").verify(with_descriptors(flat[0]), with_descriptors(flat[1]))
    assert result.model == "homography" and result.fundamental is None and result.transform is not None
    assert SpatialVerifier().verify(with_descriptors(a), with_descriptors(b)).fundamental is None


def test_random_matches_are_rejected(rng):
    for seed in range(20):
        a, b, _ = epipolar.two_views(np.random.default_rng(seed), 1, 300, "volume")
        result = SpatialVerifier("fundamental").verify(with_descriptors(a), with_descriptors(b))
        assert not result and result.n_inliers < 8 and result.reason
