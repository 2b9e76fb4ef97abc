"""Where the object is drawn, what a transform does in words, and which lines are kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from cvretrieval.datasets import make_scenes
from cvretrieval.plotting.lines import pack_matches, pack_points, spread_rows
from cvretrieval.plotting.outline import (
    describe_motion,
    frame_corners,
    matched_outline,
    motion_facts,
    object_outlines,
    project_outline,
    usable_transform,
)
from tests.reports import apply, similarity


def inside(points, polygon, slack=1e-6):
    """Whether points lie in a convex polygon."""
    equations = ConvexHull(polygon).equations
    return (points @ equations[:, :2].T + equations[:, 2] <= slack).all(axis=1)


def overlap(a, b):
    """Intersection over union of two convex polygons, by counting grid points."""
    low, high = np.minimum(a.min(0), b.min(0)), np.maximum(a.max(0), b.max(0))
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 200).T), axis=-1).reshape(-1, 2)
    in_a, in_b = inside(grid, a), inside(grid, b)
    return (in_a & in_b).sum() / (in_a | in_b).sum()


def test_frame_runs_along_the_outer_edges_of_the_pixels():
    assert frame_corners(4, 3).tolist() == [[-0.5, -0.5], [3.5, -0.5], [3.5, 2.5], [-0.5, 2.5]]
    assert frame_corners(4, 3, (1, 1, 2, 3)).tolist() == [[0.5, 0.5], [1.5, 0.5], [1.5, 2.5], [0.5, 2.5]]


@pytest.mark.parametrize(
    "transform",
    [None, np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan), np.diag([1.0, 0.0, 1.0])],
    ids=["none", "shape", "zero", "nan", "singular"],
)
def test_unusable_transform_draws_nothing(transform):
    assert usable_transform(transform) is None
    assert project_outline(transform, frame_corners(10, 10), 10, 10) is None
    assert describe_motion(transform, 10, 10) is None
    assert motion_facts(transform, 10, 10) == {}


@pytest.mark.parametrize("sign", [1, -1])
def test_projection_is_that_of_the_corners_where_nothing_is_cut(sign):
    transform = sign * np.array([[0.9, 0.1, 20], [-0.1, 1.1, 15], [1e-4, -2e-4, 1]])
    corners = frame_corners(200, 100)
    found = project_outline(transform, corners, 300, 200)
    expected = apply(transform, corners)
    # The same ring, wherever it begins.
    start = int(np.argmin(np.abs(found - expected[0]).sum(axis=1)))
    np.testing.assert_allclose(np.roll(found, -start, axis=0), expected, atol=1e-9)


def test_horizon_in_the_frame_gives_a_finite_outline_on_the_right_side():
    # w = 0 along x = 100: the right half of the frame lies behind the camera.
    transform = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    found = project_outline(transform, frame_corners(180, 100), 200, 150)
    assert np.isfinite(found).all()
    assert (found >= [-200.001, -150.001]).all() and (found <= [400.001, 300.001]).all()
    # The middle of the frame, in front of the camera, is inside.
    assert inside(apply(transform, [[60.0, 50.0]]), found, slack=1e-3).all()


def test_frame_that_is_projected_far_away_is_not_drawn():
    assert project_outline(similarity(1, 0, (10_000, 0)), frame_corners(100, 100), 200, 150) is None


@pytest.mark.parametrize("turn", [-170.0, -30.0, 0.0, 90.0])
def test_motion_of_a_similarity(turn):
    motion = describe_motion(3.0 * similarity(0.5, turn), 101, 51)
    assert motion.scale == pytest.approx(0.5)
    assert motion.rotation_deg == pytest.approx(turn)
    assert motion.stretch == pytest.approx(1.0)
    assert not motion.mirrored
    np.testing.assert_allclose(motion.translation, apply(similarity(0.5, turn), [[50, 25]])[0] - [50, 25], atol=1e-9)


def test_motion_of_a_homography_is_that_of_its_derivative():
    transform = np.array([[0.9, 0.1, 20], [-0.2, 1.1, 15], [1e-3, -2e-3, 1]])
    middle = np.array([99.5, 49.5])
    step = 1e-4
    derivative = np.column_stack(
        [(apply(transform, [middle + d])[0] - apply(transform, [middle - d])[0]) / (2 * step) for d in np.eye(2) * step]
    )
    motion = describe_motion(transform, 200, 100)
    assert motion.scale == pytest.approx(np.sqrt(np.linalg.det(derivative)), rel=1e-6)
    assert motion.stretch == pytest.approx(np.linalg.cond(derivative), rel=1e-6)


def test_motion_in_words():
    assert motion_facts(similarity(2, 90, (5, 0)), 11, 11) == {
        "scale": "× 2",
        "rotation": "90.0° clockwise",
        "centre moves": "10 px left, 5 px down",
    }
    mirrored = motion_facts(np.diag([-1.0, 1.2, 1.0]), 1, 1)
    assert mirrored["mirrored"] == "yes" and mirrored["stretch"] == "× 1.2 along one axis"
    assert motion_facts(similarity(1, -12.34), 1, 1)["rotation"] == "12.3° anticlockwise"


def test_outline_encloses_the_points_and_leaves_out_strays(rng):
    points = rng.uniform(100, 200, (200, 2))
    hull = matched_outline(points)
    assert inside(points, hull).all()
    assert (hull > 90).all() and (hull < 210).all()
    with_strays = matched_outline(np.vstack([points, [[900, 900], [0, 500]]]))
    np.testing.assert_allclose(with_strays, hull)


def test_outline_keeps_lonely_points_near_crowded_ones(rng):
    lines_of_text = np.vstack([rng.normal(center, 2.0, (40, 2)) for center in ([20, 20], [80, 20], [80, 80], [20, 80])])
    lonely = np.array([[50.0, 95.0]])
    assert inside(lonely, matched_outline(np.vstack([lines_of_text, lonely]))).all()


@pytest.mark.parametrize(
    "points",
    [np.empty((0, 2)), np.ones((2, 2)), np.ones((20, 2)), np.column_stack([np.arange(30.0), np.arange(30.0)])],
    ids=["none", "two", "one-place", "line"],
)
def test_points_without_area_have_no_outline(points):
    assert matched_outline(points) is None


def test_outline_of_matches_is_the_object_in_true_scenes(rng):
    scenes = make_scenes(n_scenes=3, n_views=2, image_size=(320, 240), random_state=1)
    for scene in range(3):
        height, width = scenes.references[scene].shape[:2]
        first, second = scenes.homographies[2 * scene : 2 * scene + 2]
        points = rng.random((300, 2)) * [width - 1, height - 1]
        matches = np.hstack([apply(first, points), apply(second, points)])
        asked, found = object_outlines(matches, second @ np.linalg.inv(first), (320, 240), (320, 240))
        frame = frame_corners(width, height)
        assert overlap(asked, apply(first, frame)) > 0.85
        assert overlap(found, apply(second, frame)) > 0.85


def test_region_that_was_asked_for_is_outlined_itself():
    transform = similarity(0.5, 0, (10, 20))
    matches = np.hstack([np.eye(4, 2) * 50, apply(transform, np.eye(4, 2) * 50)])
    asked, found = object_outlines(matches, transform, (200, 100), (200, 100), (20, 30, 60, 80))
    assert asked.tolist() == frame_corners(0, 0, (20, 30, 60, 80)).tolist()
    assert sorted(found.tolist()) == sorted(apply(transform, asked).tolist())


def test_without_matches_the_frame_is_outlined():
    asked, found = object_outlines(None, similarity(0.5, 0), (200, 100), (200, 100))
    assert asked.tolist() == frame_corners(200, 100).tolist()
    assert sorted(found.tolist()) == sorted((asked * 0.5).tolist())


def test_images_of_unknown_size_are_not_drawn_on():
    transform = similarity(1, 0)
    matches = np.tile([[0, 0], [50, 0], [0, 50]], 2)
    assert object_outlines(None, transform, (0, 0), (200, 100)) == (None, None)
    asked, found = object_outlines(matches, transform, (0, 0), (200, 100))
    assert asked is None and found is not None
    asked, found = object_outlines(matches, transform, (200, 100), (0, 0))
    assert asked is not None and found is None


def test_packed_matches_are_rounded_and_finite():
    rows = [[1.04, 2, 3.26, 4], [np.nan, 1, 1, 1], [5, 6, 7, np.inf], [-0.01, 0, 9, 8]]
    assert pack_matches(rows, 10) == [1, 2, 3.3, 4, 0, 0, 9, 8]
    assert pack_matches(None, 10) == [] == pack_matches(np.empty((0, 4)), 10)
    assert pack_points(None) is None
    assert pack_points([[1.26, 2], [3, 4]]) == [1.3, 2, 3, 4]


def test_kept_lines_are_spread_over_the_image(rng):
    rows = rng.random((1000, 4))
    kept = spread_rows(rows, 50)
    assert len(kept) == 50
    positions = [np.flatnonzero((rows == row).all(axis=1))[0] for row in kept]
    assert positions == sorted(positions) and len(set(positions)) == 50
    assert (np.histogram(kept[:, 0], bins=5, range=(0, 1))[0] >= 8).all()
    assert spread_rows(rows, 1000) is rows
    assert len(spread_rows(rows, 0)) == 0
