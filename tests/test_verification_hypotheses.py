"""Hypotheses by single correspondences and by votes, upright models, effective inliers; parity with COLMAP's counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval._kernels.places import count_cells
from cvretrieval._kernels.similarity_hypotheses import score_frames
from cvretrieval._kernels.similarity_votes import vote_similarities
from cvretrieval._kernels.transform_fitting import TRANSLATION_SCALE, UPRIGHT_AFFINE, fit_transform
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.estimation import MODELS, estimate_transform
from cvretrieval.verification.hypotheses import HYPOTHESES, single_correspondence, vote_and_verify
from tests.parity import agree
from tests.reference import geometry

REFERENCE = np.load(Path(__file__).parent / "data" / "spatial_verification.npz")
AGREEMENT = Agreement(6.0, 7.0, float(np.log(2)), float(np.cos(np.deg2rad(30))))
KINDS = [f"{kind}_{outliers}/" for kind in ("similarity", "affine", "homography") for outliers in (50, 80, 90, 95)]


def random_keypoints(rng, n, width=640, height=480):
    return np.column_stack(
        [rng.uniform(0, width, n), rng.uniform(0, height, n), rng.uniform(1, 9, n), rng.uniform(-7, 7, n)]
    ).astype(np.float32)


def moved_keypoints(a, transform, rng=None, noise=0.0):
    """Keypoints as a similarity moves them."""
    b = a.astype(np.float64)
    b[:, :2] = [geometry.apply(transform, p)[0] for p in a]
    b[:, 2] *= np.hypot(*transform[:2, 0])
    b[:, 3] += np.arctan2(transform[1, 0], transform[0, 0])
    if rng is not None:
        b += rng.uniform(-1, 1, b.shape) * [noise, noise, 0.02, 0.02]
    return b.astype(np.float32)


def similarity(scale, degrees, x=0.0, y=0.0):
    turn = np.deg2rad(degrees)
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1.0]])


def test_votes_are_those_of_the_definition(rng):
    a = random_keypoints(rng, 150)
    b = moved_keypoints(a, similarity(1.3, 75, 200, -30), rng, 4.0)
    b[60:] = random_keypoints(rng, 90)
    a[:, :2] -= [320, 240]
    b[:, :2] -= [320, 240]
    pairs = np.ascontiguousarray(np.hstack([a[:, :2], b[:, :2]]).T)
    turn = b[:, 3] - a[:, 3]
    log_scale = np.log(b[:, 2] / a[:, 2])
    frames, seeds = np.empty((200, 4), dtype=np.float32), np.empty(200, dtype=np.int64)
    n = vote_similarities(pairs, log_scale, np.cos(turn), np.sin(turn), 700.0, frames, seeds)
    expected = geometry.vote(a, b, 700.0)
    assert n == len(expected) < 150
    cell_of = {i: cell for cell, (_, voters, _) in expected.items() for i in voters}
    scores = [expected[cell_of[i]][0] for i in seeds[:n]]
    assert scores == sorted((score for score, _, _ in expected.values()), reverse=True) and scores[0] > 10
    for frame, seed in zip(frames[:n], seeds[:n], strict=True):
        _, voters, mean = expected[cell_of[seed]]
        assert seed == min(voters)
        np.testing.assert_allclose(frame, mean, rtol=1e-4, atol=1e-2)
    few = np.empty((3, 4), dtype=np.float32)
    assert vote_similarities(pairs, log_scale, np.cos(turn), np.sin(turn), 700.0, few, seeds) == 3
    np.testing.assert_array_equal(few, frames[:3])


def test_scores_of_given_similarities(rng):
    a = random_keypoints(rng, 80)
    b = moved_keypoints(a, similarity(0.8, -20, 10, 40), rng, 3.0)
    c = Correspondences(a, b)
    made = single_correspondence(c, AGREEMENT)
    frames = np.array([made.transform_of(k)[[0, 1, 0, 1], [0, 0, 2, 2]] for k in range(80)], dtype=np.float32)
    scores = np.empty(80, dtype=np.int32)
    score_frames(c.pairs, c.log_scale, c.cos_turn, c.sin_turn, frames, *map(np.float32, (24.0, 28.0, np.log(2), 0.866)),
                 scores)  # fmt: skip
    assert np.abs(scores - made.scores).max() <= 1 and scores.max() > 40


@pytest.mark.parametrize("n_cells", [1, 4, 32])
def test_cells(n_cells, rng):
    for points in (rng.uniform(-5, 90, (60, 2)), np.repeat(rng.uniform(0, 9, (3, 2)), 5, axis=0),
                   np.column_stack([np.arange(40), np.full(40, 2)]), np.zeros((1, 2))):  # fmt: skip
        pairs = np.ascontiguousarray(np.vstack([points.T, points.T + 1]), dtype=np.float32)
        weights = (np.arange(len(points)) % 4 != 1).astype(float)
        expected = geometry.count_cells(pairs[:2, weights > 0].T.astype(np.float64), n_cells)
        assert count_cells(pairs, weights, n_cells) == expected >= 1
    assert count_cells(pairs, np.zeros(1), n_cells) == 0


def test_effective_inliers_are_colmaps():
    """Of an exact similarity COLMAP finds the 100 inliers; its grid of 32 × 32 over the first image's points."""
    for key in ("colmap_style_0/", "colmap_style_1/", "colmap_style_3/", "colmap_style_4/", "similarity_50/"):
        matches = REFERENCE[key + "matches"]
        inliers = np.arange(len(matches)) < 100
        if key + "is_inlier" in REFERENCE:
            inliers = REFERENCE[key + "is_inlier"]
        assert REFERENCE[key + "vv_no_eff"] == inliers.sum() == 100
        c = Correspondences(matches[:, :4], matches[:, 4:])
        assert c.count_cells(inliers.astype(float)) == REFERENCE[key + "vv_default"]


@pytest.mark.parametrize("case", range(5))
def test_exact_similarities_as_in_colmaps_test(case):
    key = f"colmap_style_{case}/"
    matches, (scale, turn) = REFERENCE[key + "matches"], REFERENCE[key + "scale_angle"]
    c = Correspondences(matches[:, :4], matches[:, 4:])
    transform, weights, name = estimate_transform(c, AGREEMENT, "affine", 5, "vote_and_verify")
    assert name == "affine" and (weights[:100] > 0).all()
    np.testing.assert_allclose(transform, similarity(scale, np.rad2deg(turn)), atol=2e-2)
    assert abs(c.count_cells(weights) - REFERENCE[key + "vv_default"]) <= REFERENCE[key + "vv_no_eff"] - 100 + 2


@pytest.mark.parametrize("key", KINDS)
def test_counts_of_colmap(key):
    """COLMAP's counts with its thresholds, of the sum of both squared errors; ours bound each of them.

    Bounds of the whole sum accept all that COLMAP accepts, bounds of half of it no more; local optimisation finds more
    than COLMAP, above all with its narrow thresholds and under perspective.
    """
    matches, truth = REFERENCE[key + "matches"], REFERENCE[key + "is_inlier"]
    c = Correspondences(matches[:, :4], matches[:, 4:])

    def found(c, square):
        # COLMAP accepts twice the area, and does not compare turns.
        loose = Agreement(square**0.5, square**0.5, 0.5 * float(np.log(2)), -1.0)
        _, weights, _ = estimate_transform(c, loose, "affine", 5, "vote_and_verify")
        return weights

    for setting, square in (("vv_no_eff", 1e4), ("vv_no_eff_err800", 800.0), ("vv_no_eff_err50", 50.0)):
        assert (found(c, square) > 0).sum() >= REFERENCE[key + setting]
    half = found(c, 0.5e4)
    agree("vote-and-verify", (half > 0).sum(), REFERENCE[key + "vv_no_eff"], 0.15)
    agree("vote-and-verify", c.count_cells(half), REFERENCE[key + "vv_default"], 0.15)
    pure = Correspondences(*np.split(matches[truth], 2, axis=1))
    assert REFERENCE[key + "vv_pure_inliers_no_eff"] <= (found(pure, 1e4) > 0).sum() <= truth.sum()


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("hypotheses", HYPOTHESES)
def test_reference_sets(key, hypotheses):
    matches, truth = REFERENCE[key + "matches"], REFERENCE[key + "is_inlier"]
    kind = key.split("_")[0]
    c = Correspondences(matches[:, :4], matches[:, 4:])
    found, weights, name = estimate_transform(c, AGREEMENT, kind, 5, hypotheses)
    assert name == kind
    assert (weights[truth] > 0).sum() >= 0.95 * truth.sum() and (weights[~truth] > 0).sum() <= 2
    grid = np.array([(x, y) for x in (100, 400, 700) for y in (100, 300, 500)], dtype=np.float64)
    expected = REFERENCE[key + "T_2_from_1"]
    errors = [np.linalg.norm(geometry.apply(found, p)[0] - geometry.apply(expected, p)[0]) for p in grid]
    assert np.median(errors) < 2


def test_upright_fits_are_the_least_squares_solutions(rng):
    a = random_keypoints(rng, 30)[:, :2]
    b = (a @ np.array([[1.2, 0.3], [0, 0.7]]) + [5, 9] + rng.normal(0, 3, (30, 2))).astype(np.float32)
    pairs, weights = np.ascontiguousarray(np.hstack([a, b]).T), (rng.random(30) < 0.7).astype(float)
    kept, transform = weights > 0, np.empty((3, 3))
    for model, twin in (
        (TRANSLATION_SCALE, geometry.fit_translation_scale),
        (UPRIGHT_AFFINE, geometry.fit_upright_affine),
    ):
        assert fit_transform(pairs, weights, model, transform)
        np.testing.assert_allclose(transform, twin(a[kept], b[kept]), rtol=1e-6, atol=1e-5)
    # Turned by 180° there is no positive scale.
    turned = np.ascontiguousarray(np.hstack([a, -a]).T)
    assert not fit_transform(turned, weights, TRANSLATION_SCALE, transform)
    line = np.ascontiguousarray(np.tile(np.arange(9), (4, 1)), dtype=np.float32)
    assert not fit_transform(line, np.ones(9), UPRIGHT_AFFINE, transform)
    assert fit_transform(line, np.ones(9), TRANSLATION_SCALE, transform)


@pytest.mark.parametrize("hypotheses", HYPOTHESES)
@pytest.mark.parametrize("model", ["translation_scale", "upright_affine"])
def test_upright_models(model, hypotheses, rng):
    a = random_keypoints(rng, 200)
    transform = similarity(1.4, 0, -50, 20)
    if model == "upright_affine":
        transform = transform @ np.array([[1.0, 0, 0], [0.2, 0.8, 0], [0, 0, 1]])
    b = a.copy()
    b[:, :2] = [geometry.apply(transform, p)[0] for p in a]
    b[:, 2] *= 1.3
    # Photos are not upright to the degree, nor are gradients.
    b[:, 3] += rng.normal(0, 0.15, 200)
    b[100:] = random_keypoints(rng, 100)
    found, weights, name = estimate_transform(Correspondences(a, b), AGREEMENT, model, 5, hypotheses)
    assert name == model and (weights[:100] > 0).all() and (weights[100:] > 0).sum() <= 2
    np.testing.assert_allclose(found, transform, atol=0.5 if model == "upright_affine" else 0.2)
    assert found[0, 1] == 0 and (model == "upright_affine" or (found[1, 0] == 0 and found[0, 0] == found[1, 1]))
    turned = estimate_transform(
        Correspondences(a, moved_keypoints(a, similarity(1.0, 90))), AGREEMENT, model, 5, hypotheses
    )
    assert turned is None or (turned[1] > 0).sum() <= 3


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(-180, 180), st.floats(0.2, 5), st.sampled_from(list(HYPOTHESES)))
def test_any_rotation_and_scale(seed, degrees, scale, hypotheses):
    """Turned pictures have the inliers of upright ones, and so have exchanged ones."""
    rng = np.random.default_rng(seed)
    a = random_keypoints(rng, 120)
    b = moved_keypoints(a, similarity(scale, degrees, 30, -80), rng, 0.3)
    b[70:] = random_keypoints(rng, 50)
    found, weights, _ = estimate_transform(Correspondences(a, b), AGREEMENT, "similarity", 5, hypotheses)
    assert (weights[:70] > 0).all()
    back, back_weights, _ = estimate_transform(
        Correspondences(b, a), Agreement(7.0, 6.0, *(AGREEMENT.max_log_scale, AGREEMENT.min_cos)), "similarity", 5,
        hypotheses,
    )  # fmt: skip
    np.testing.assert_array_equal(back_weights[:70] > 0, weights[:70] > 0)
    corners = np.array([[0, 0], [640, 480]])
    for corner in corners:
        again = geometry.apply(back, geometry.apply(found, corner)[0])[0]
        assert np.abs(again - corner).max() < 3


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31), st.integers(0, 12), st.sampled_from(["random", "line", "one place", "twice"]),
    st.sampled_from(list(MODELS)), st.sampled_from(list(HYPOTHESES)),
)  # fmt: skip
def test_few_and_degenerate_matches(seed, n, case, model, hypotheses):
    """No error, no NaN, and what is returned explains what it says."""
    rng = np.random.default_rng(seed)
    a, b = random_keypoints(rng, n), random_keypoints(rng, n)
    if case == "line":
        a[:, 1], b[:, :2] = 5, a[:, :2] + 3
    elif case == "one place":
        a[:, :2], b[:, :2] = 7, 9
    elif case == "twice" and n:
        a, b = np.repeat(a, 2, axis=0), np.repeat(b, 2, axis=0)
    if n == 0:
        assert vote_and_verify(Correspondences(a, b), AGREEMENT).scores.size == 0
        assert estimate_transform(Correspondences(a, b), AGREEMENT, model, 5, hypotheses) is None
        return
    found = estimate_transform(Correspondences(a, b), AGREEMENT, model, 5, hypotheses)
    if found is None:
        return
    transform, weights, name = found
    assert np.isfinite(transform).all() and transform[2, 2] == pytest.approx(1) and MODELS[name] <= MODELS[model]
    assert weights.shape == (len(a),) and weights.any() and (weights >= 0).all()
    for p, q in zip(a[weights > 0], b[weights > 0], strict=True):
        assert np.linalg.norm(geometry.apply(transform, p)[0] - q[:2]) <= AGREEMENT.tolerance_b + 0.01


def test_the_order_of_matches_does_not_matter(rng):
    key = "affine_90/"
    matches = REFERENCE[key + "matches"]
    order = rng.permutation(len(matches))
    for hypotheses in HYPOTHESES:
        one = estimate_transform(Correspondences(*np.split(matches, 2, axis=1)), AGREEMENT, "affine", 5, hypotheses)
        other = estimate_transform(
            Correspondences(*np.split(matches[order], 2, axis=1)), AGREEMENT, "affine", 5, hypotheses
        )
        np.testing.assert_array_equal(one[1][order] > 0, other[1] > 0)
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-4)
