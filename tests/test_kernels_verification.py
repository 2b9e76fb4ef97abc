"""Matching and geometry kernels against their slow twins, and against reference programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval._kernels.places import count_places
from cvretrieval._kernels.point_normalization import normalize_pairs
from cvretrieval._kernels.transform_fitting import AFFINE, HOMOGRAPHY, SIMILARITY, fit_transform
from cvretrieval.verification import match_descriptors
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.estimation import estimate_transform
from cvretrieval.verification.hypotheses import single_correspondence
from tests.parity import agree
from tests.reference import geometry, matching

REFERENCE = np.load(Path(__file__).parent / "data" / "spatial_verification.npz")
AGREEMENT = Agreement(6.0, 7.0, float(np.log(2)), float(np.cos(np.deg2rad(30))))


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (1, 2), (2, 1), (63, 130), (64, 128), (65, 129), (200, 257), (0, 5)])
@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("mutual", [True, False])
def test_matches_are_those_of_the_definition(n_a, n_b, ratio, mutual, rng):
    # Whole numbers: every distance is exact in float32, and ties occur.
    base = rng.integers(0, 200, (40, 16))
    a = (base[rng.integers(0, 40, n_a)] + rng.integers(0, 9, (n_a, 16))).astype(np.uint8)
    b = (base[rng.integers(0, 40, n_b)] + rng.integers(0, 9, (n_b, 16))).astype(np.uint8)
    found = match_descriptors(a, b, ratio=ratio, mutual=mutual)
    assert [tuple(row) for row in found.tolist()] == matching.match(a, b, ratio, mutual)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_matches_are_one_to_one_whatever_the_ties(seed, n_a, n_b, mutual):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (n_a, 3)).astype(np.uint8), rng.integers(0, 2, (n_b, 3)).astype(np.uint8)
    found = match_descriptors(a, b, ratio=1.0, mutual=mutual)
    assert [tuple(row) for row in found.tolist()] == matching.match(a, b, 1.0, mutual)
    assert len(set(found[:, 0])) == len(set(found[:, 1])) == len(found)


def test_float_descriptors_match_like_the_definition(rng):
    a, b = rng.normal(size=(90, 32)).astype(np.float32), rng.normal(size=(70, 32)).astype(np.float32)
    for ratio in (1.0, 0.95):
        found = match_descriptors(a, b, ratio=ratio)
        assert [tuple(row) for row in found.tolist()] == matching.match(a, b, ratio, True)


def test_bad_matching_input():
    a = np.zeros((3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"'ratio' parameter of match_descriptors must be a number in \(0, 1\]"):
        match_descriptors(a, a, ratio=0)
    with pytest.raises(ValueError, match="4-d descriptors, the second 5-d ones"):
        match_descriptors(a, np.zeros((3, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="b must be a 2-D array of numbers.*shape \\(4,\\)"):
        match_descriptors(a, a[0])


def correspondences(rng, n=60, n_good=35):
    """Keypoints under a mild homography with noise, and random ones."""
    transform = np.array([[1.2, -0.5, 40.0], [0.4, 1.1, -30.0], [1e-4, -5e-5, 1.0]])
    a = np.column_stack([rng.uniform(0, 640, n), rng.uniform(0, 480, n), rng.uniform(1, 9, n), rng.uniform(-3, 3, n)])
    b = np.column_stack([rng.uniform(0, 640, n), rng.uniform(0, 480, n), rng.uniform(1, 9, n), rng.uniform(-3, 3, n)])
    for j in range(n_good):
        b[j, :2] = geometry.apply(transform, a[j])[0] + rng.normal(0, 1.5, 2)
        b[j, 2] = 1.25 * a[j, 2] * np.exp(rng.normal(0, 0.3))
        b[j, 3] = a[j, 3] + 0.38 + rng.normal(0, 0.25)
    return a.astype(np.float32), b.astype(np.float32), transform


def test_scores_of_hypotheses(rng):
    a, b, _ = correspondences(rng)
    expected = geometry.scores(
        a, b, 4 * AGREEMENT.tolerance_a, 4 * AGREEMENT.tolerance_b, AGREEMENT.max_log_scale, AGREEMENT.min_cos
    )
    assert expected.max() > 8
    np.testing.assert_array_equal(single_correspondence(Correspondences(a, b), AGREEMENT).scores, expected)


def test_hypothesis_maps_its_keypoint_onto_the_other(rng):
    a, b, _ = correspondences(rng)
    pairs = Correspondences(a, b)
    made = single_correspondence(pairs, AGREEMENT)
    for i in (0, 7, 59):
        np.testing.assert_allclose(pairs.to_original(made.transform_of(i)), geometry.similarity(a[i], b[i]), atol=2e-3)


@pytest.mark.parametrize("widening", [1.0, 4.0])
def test_inliers_of_a_transform(rng, widening):
    a, b, transform = correspondences(rng)
    pairs = Correspondences(a, b)
    # Into the coordinates centred on the points, in which the class works.
    to_a, to_b = np.eye(3), np.eye(3)
    to_a[:2, 2], to_b[:2, 2] = a[:, :2].mean(axis=0), -b[:, :2].mean(axis=0)
    marked = np.zeros(len(a))
    count = pairs.weigh_inliers(to_b @ transform @ to_a, AGREEMENT, widening, marked)
    expected = geometry.inliers(
        a, b, transform, widening * AGREEMENT.tolerance_a, widening * AGREEMENT.tolerance_b,
        AGREEMENT.max_log_scale, AGREEMENT.min_cos,
    )  # fmt: skip
    assert 15 < count == expected.sum() < len(a)
    np.testing.assert_array_equal(marked > 0, expected)
    assert (marked <= 1).all() and (marked[expected] >= 1e-3).all()


def test_singular_and_mirrored_transforms_explain_nothing(rng):
    a, _, _ = correspondences(rng)
    pairs = Correspondences(a, a * [-1, 1, 1, 1])
    marked = np.ones(len(a))
    assert pairs.weigh_inliers(np.zeros((3, 3)), AGREEMENT, 1.0, marked) == 0 and not marked.any()
    mirror = np.diag([-1.0, 1.0, 1.0])
    assert pairs.weigh_inliers(mirror, AGREEMENT, 1.0, marked) == 0


def test_linear_fits_are_the_least_squares_solutions(rng):
    a, b, _ = correspondences(rng)
    pairs = np.ascontiguousarray(np.hstack([a[:, :2], b[:, :2]]).T)
    marked = rng.random(len(a)) < 0.6
    transform = np.empty((3, 3))
    assert fit_transform(pairs, marked.astype(float), AFFINE, transform)
    np.testing.assert_allclose(transform, geometry.affine(a[marked, :2], b[marked, :2]), rtol=1e-7, atol=1e-7)
    assert fit_transform(pairs, marked.astype(float), SIMILARITY, transform)
    np.testing.assert_allclose(transform, geometry.fit_similarity(a[marked, :2], b[marked, :2]), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["similarity", "affine", "homography"])
@pytest.mark.parametrize("outliers", [50, 80, 90, 95])
def test_reference_sets(kind, outliers):
    """pycolmap's affine fit, Umeyama's similarity, the DLT homography; and the inliers among up to 95 % outliers."""
    key = f"{kind}_{outliers}/"
    matches, truth = REFERENCE[key + "matches"], REFERENCE[key + "is_inlier"]
    pairs = np.ascontiguousarray(matches[:, [0, 1, 4, 5]].T)
    transform = np.empty((3, 3))
    for model, line, name in ((AFFINE, "affine", "lsq_affine_pycolmap"), (SIMILARITY, "similarity", "lsq_similarity")):
        assert fit_transform(pairs, truth.astype(float), model, transform)
        np.testing.assert_allclose(transform[:2], REFERENCE[key + name], rtol=1e-6, atol=1e-9)
        agree(line, transform[:2], REFERENCE[key + name], 1e-6)
    assert fit_transform(pairs, truth.astype(float), HOMOGRAPHY, transform)
    points, images = matches[truth, :2], matches[truth, 4:6]
    ours = geometry.transfer_error(transform, points, images)
    assert ours <= geometry.transfer_error(REFERENCE[key + "dlt_homography"], points, images) * (1 + 1e-9)
    found, inliers, name = estimate_transform(Correspondences(matches[:, :4], matches[:, 4:]), AGREEMENT, kind, 5)
    assert name == kind
    inliers = inliers > 0
    assert (inliers & truth).sum() >= 0.95 * truth.sum() and (inliers & ~truth).sum() <= 2
    expected = REFERENCE[key + "T_2_from_1"]
    grid = np.array([(x, y) for x in (100, 400, 700) for y in (100, 300, 500)], dtype=np.float64)
    errors = [np.linalg.norm(geometry.apply(found, p)[0] - geometry.apply(expected, p)[0]) for p in grid]
    assert np.median(errors) < 2


def test_homography_is_a_local_minimum(rng):
    a, b, _ = correspondences(rng)
    pairs = np.ascontiguousarray(np.hstack([a[:, :2], b[:, :2]]).T)
    marked = np.arange(len(a)) < 35
    transform = np.empty((3, 3))
    assert fit_transform(pairs, marked.astype(float), HOMOGRAPHY, transform)
    least = geometry.transfer_error(transform, a[marked, :2], b[marked, :2])
    assert least < geometry.transfer_error(geometry.affine(a[marked, :2], b[marked, :2]), a[marked, :2], b[marked, :2])
    for r, c in np.ndindex(3, 3):
        if (r, c) != (2, 2):
            for sign in (-1, 1):
                moved = transform.copy()
                moved[r, c] += sign * 1e-3 * max(abs(moved[r, c]), 1e-3)
                assert geometry.transfer_error(moved, a[marked, :2], b[marked, :2]) >= least * (1 - 1e-6)


@pytest.mark.parametrize(
    ("points", "model"),
    [
        ([(0, 0)], SIMILARITY),
        ([(5, 5), (5, 5)], SIMILARITY),
        ([(0, 0), (1, 1)], AFFINE),
        ([(0, 0), (1, 1), (2, 2), (3, 3)], AFFINE),
        ([(0, 0), (1, 0), (0, 1)], HOMOGRAPHY),
        ([(0, 0), (1, 1), (2, 2), (5, 5)], HOMOGRAPHY),
    ],
)
def test_points_that_determine_nothing(points, model):
    pairs = np.ascontiguousarray(np.tile(np.array(points, dtype=np.float32).T, (2, 1)))
    transform = np.full((3, 3), 7.0)
    assert not fit_transform(pairs, np.ones(len(points)), model, transform)
    assert (transform == 7).all()


@pytest.mark.parametrize(("apart_a", "apart_b"), [(0.5, 0.5), (2.0, 1.0), (0.0, 0.0)])
def test_places_count_once(rng, apart_a, apart_b):
    pairs = rng.integers(0, 6, (4, 50)).astype(np.float32)
    weights = np.where(rng.random(50) < 0.7, rng.random(50), 0)
    marked = weights > 0
    expected = geometry.count_places(pairs[:2, marked].T, pairs[2:, marked].T, apart_a, apart_b)
    assert 1 < expected <= marked.sum() and (expected < marked.sum()) == (apart_a > 0)
    assert count_places(pairs, weights, apart_a, apart_b) == expected


def test_normalization_equals_its_twin(rng):
    pairs = (rng.normal(size=(4, 20)) * [[3], [5], [200], [9]] + [[10], [-4], [1000], [0]]).astype(np.float32)
    weights = rng.random(20) * (rng.random(20) < 0.7)
    expected, mean, spreads = geometry.normalized_pairs(pairs, weights)
    found = normalize_pairs(pairs, weights, 8)
    assert found[0]
    np.testing.assert_allclose(found[1], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[2], mean, rtol=1e-12)
    np.testing.assert_allclose(found[3:], spreads, rtol=1e-12)
    assert not normalize_pairs(pairs, weights, np.count_nonzero(weights) + 1)[0]
    assert not normalize_pairs(pairs, np.zeros(20), 0)[0]
    assert not normalize_pairs(np.repeat(pairs[:, :1], 20, axis=1), np.ones(20), 2)[0]
