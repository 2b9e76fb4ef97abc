"""`SpatialVerifier`: pairs of images that show the same thing, pairs that do not, and input that determines nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.base import clone

from cvretrieval import SIFT, ImageReader, LocalFeatures, SpatialVerifier
from cvretrieval.datasets import make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_scenes=3, n_views=3, random_state=5)


@pytest.fixture(scope="module")
def features(scenes):
    return SIFT(root=True, max_features=700).transform(scenes.images)


def corner_error(found, truth, image):
    """Largest distance of the image's corners under the two transforms, in pixels."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], dtype=np.float64)
    one, other = corners @ found.T, corners @ truth.T
    return np.abs(one[:, :2] / one[:, 2:] - other[:, :2] / other[:, 2:]).max()


def test_views_of_a_scene_agree_and_others_do_not(scenes, features):
    verifier = SpatialVerifier()
    for i in range(len(features)):
        for j, result in enumerate(verifier.verify_candidates(features[i], features)):
            same = scenes.labels[i] == scenes.labels[j]
            assert bool(result) == same, (i, j, result.reason)
            assert (result.reason == "") == same
            assert result.inliers.shape == (len(result.matches),) and result.inliers.sum() >= result.n_inliers
            if same:
                truth = scenes.homographies[j] @ np.linalg.inv(scenes.homographies[i])
                pairs = result.inlier_coordinates(features[i], features[j])
                mapped = cv2.perspectiveTransform(pairs[None, :, :2].astype(np.float64), truth)[0]
                assert np.median(np.linalg.norm(mapped - pairs[:, 2:], axis=1)) < 2


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
@pytest.mark.parametrize("degrees", [0, 90, 137])
def test_transform_of_a_warped_image(model, degrees, rng):
    image = np.kron(rng.integers(0, 256, (30, 40)), np.ones((10, 10))).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    turn = np.deg2rad(degrees)
    truth = np.array(
        [[1.1 * np.cos(turn), -1.1 * np.sin(turn), 0], [1.1 * np.sin(turn), 1.1 * np.cos(turn), 0], [0, 0, 1.0]]
    )
    if model != "similarity":
        truth = truth @ np.array([[1.0, 0.25, 0], [0, 0.8, 0], [0, 0, 1]])
    if model == "homography":
        truth = np.array([[1, 0, 0], [0, 1, 0], [3e-4, -2e-4, 1]]) @ truth
    middle = truth @ np.array([200.0, 150.0, 1.0])
    shift = np.eye(3)
    shift[:2, 2] = 300 - middle[:2] / middle[2]
    truth = shift @ truth
    truth /= truth[2, 2]
    warped = cv2.warpPerspective(image, truth, (600, 600), borderValue=128)
    a, b = SIFT(root=True).transform([image, warped])
    result = SpatialVerifier(model=model).verify(a, b)
    assert result and result.model == model and result.n_inliers > 50
    assert result.transform[2, 2] == pytest.approx(1) and corner_error(result.transform, truth, image) < 4


def test_bytes_and_floats_verify_alike(features):
    as_bytes = features.with_descriptors(np.clip(np.rint(features.descriptors * 512), 0, 255).astype(np.uint8))
    as_floats = as_bytes.with_descriptors(as_bytes.descriptors.astype(np.float32))
    one = SpatialVerifier().verify_candidates(as_bytes[0], as_bytes)
    other = SpatialVerifier().verify_candidates(as_floats[0], as_floats)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.matches, b.matches)
        assert a.n_inliers == b.n_inliers


def test_jobs_batches_and_repeats_do_not_change_a_bit(features):
    outcomes = []
    for n_jobs in (None, 2, 3):
        outcomes.append(SpatialVerifier(n_jobs=n_jobs).verify_candidates(features[0], features))
    outcomes.append([SpatialVerifier().verify_candidates(features[0], [candidate])[0] for candidate in features])
    outcomes.append(SpatialVerifier().verify_candidates(features[0], features, n_jobs=2))
    for results in outcomes[1:]:
        for a, b in zip(outcomes[0], results, strict=True):
            np.testing.assert_array_equal(a.matches, b.matches)
            np.testing.assert_array_equal(a.inliers, b.inliers)
            assert (a.transform is None) == (b.transform is None)
            if a.transform is not None:
                np.testing.assert_array_equal(a.transform, b.transform)


@pytest.mark.parametrize("matching", ["exhaustive", "words", "quantized"])
def test_ways_of_matching_find_the_same_views(scenes, features, matching):
    verifier = SpatialVerifier(matching=matching)
    for i in range(len(features)):
        for j, result in enumerate(verifier.verify_candidates(features[i], features)):
            exhaustive = verifier.verify(features[i], features[j])
            assert bool(result) == bool(exhaustive) == (scenes.labels[i] == scenes.labels[j])
            if matching == "exhaustive":
                np.testing.assert_array_equal(result.matches, exhaustive.matches)
            if result:
                assert result.n_inliers >= 0.85 * exhaustive.n_inliers


def test_more_words_find_more_matches(features):
    n_inliers = [
        sum(r.n_inliers for r in SpatialVerifier(n_assignments=n).verify_candidates(features[0], features[:3]))
        for n in (1, 2, 8, 10_000)
    ]
    assert n_inliers == sorted(n_inliers) and n_inliers[0] < n_inliers[-1]
    exhaustive = SpatialVerifier(matching="exhaustive").verify_candidates(features[0], features[:3])
    assert n_inliers[-1] == pytest.approx(sum(r.n_inliers for r in exhaustive), rel=0.01)


def test_input_is_not_changed_and_may_be_read_only(features):
    arrays = (features.descriptors, features.keypoints)
    before = [array.copy() for array in arrays]
    flags = [array.flags.writeable for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    SpatialVerifier().verify_candidates(features[0], features)
    for array, copy, flag in zip(arrays, before, flags, strict=True):
        np.testing.assert_array_equal(array, copy)
        array.setflags(write=flag)


def test_large_originals_have_the_same_inliers(rng):
    """The tolerance goes with the image: a photo of 4000 pixels reduced to 500 is verified like one of 500."""
    image = cv2.GaussianBlur(np.kron(rng.integers(0, 256, (25, 25)), np.ones((20, 20))).astype(np.uint8), (0, 0), 3)
    large = np.kron(image, np.ones((8, 8), dtype=np.uint8))
    small = SIFT(root=True, reader=ImageReader(max_size=500)).transform([image, np.rot90(image)])
    reduced = SIFT(root=True, reader=ImageReader(max_size=500)).transform([large, np.rot90(large)])
    one = SpatialVerifier().verify(small[0], small[1])
    other = SpatialVerifier().verify(reduced[0], reduced[1])
    assert other.n_inliers == pytest.approx(one.n_inliers, rel=0.15)
    assert np.abs(other.transform[:2, 2] / 8 - one.transform[:2, 2]).max() < 4


def entry(n, rng, place=None):
    keypoints = np.column_stack([rng.uniform(0, 99, (n, 2)), np.full(n, 2.0), np.zeros(n)])
    if place is not None:
        keypoints[:, :2] = place
    return rng.random((n, 8)).astype(np.float32), keypoints.astype(np.float32), (100, 100)


def test_degenerate_input_is_a_falsy_result_with_a_reason(rng):
    verifier = SpatialVerifier()
    some, none = entry(40, rng), entry(0, rng)
    for a, b, reason in [
        (none, some, "the first image has no features"),
        (some, none, "the second image has no features"),
        (none, none, "the first image has no features"),
        (entry(1, rng), some, "match, fewer than min_inliers=10"),
        (entry(9, rng), entry(9, rng), "fewer than min_inliers=10"),
    ]:
        result = verifier.verify(a, b)
        assert not result and reason in result.reason and result.n_inliers == 0 and result.transform is None
    # All at one place: a single inlier, however many matches.
    spot = entry(40, rng, place=(50, 50))
    result = verifier.verify(spot, spot)
    assert not result and result.n_inliers == 1 and "1 inlier, fewer than" in result.reason
    # On a line: nothing but a similarity is determined.
    line = entry(40, rng, place=np.column_stack([np.linspace(0, 99, 40), np.full(40, 20.0)]))
    result = verifier.verify(line, line)
    assert result and result.model == "similarity" and result.inliers.all() and result.n_inliers == 40
    np.testing.assert_allclose(result.transform, np.eye(3), atol=1e-4)


def test_keypoints_that_are_no_numbers_or_have_no_scale(rng):
    descriptors, keypoints, size = entry(40, rng)
    for column, value in [(0, np.nan), (2, 0.0), (3, np.inf), (2, np.nan)]:
        broken = keypoints.copy()
        broken[:, column] = value
        result = SpatialVerifier().verify((descriptors, keypoints, size), (descriptors, broken, size))
        assert not result and result.reason


def test_without_image_sizes(features):
    bare = LocalFeatures(features.descriptors, features.offsets, features.keypoints)
    result = SpatialVerifier().verify(bare[0], bare[1])
    assert result and result.n_inliers == pytest.approx(
        SpatialVerifier().verify(features[0], features[1]).n_inliers, rel=0.2
    )


def test_no_candidates(features):
    assert SpatialVerifier().verify_candidates(features[0], features[:0]) == []
    assert SpatialVerifier().verify_candidates(features[0], []) == []


def test_wrong_input_is_said(features, rng):
    verifier = SpatialVerifier()
    with pytest.raises(ValueError, match="SpatialVerifier needs keypoints"):
        verifier.verify((features[0].descriptors,), features[1])
    with pytest.raises(ValueError, match="128-d descriptors, the second 8-d"):
        verifier.verify(features[0], entry(5, rng))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("model", "translation"), ("ratio", 0), ("ratio", 1.5), ("mutual", "yes"), ("tolerance", 0), ("min_inliers", 0),
        ("max_scale_ratio", 0.5), ("max_turn_deg", 200), ("n_hypotheses", 0), ("min_inliers", 2.5),
        ("hypotheses", "ransac"), ("score", "matches"),
        ("matching", "word"), ("n_assignments", 0.5),
    ],
)  # fmt: skip
def test_bad_parameters(features, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of SpatialVerifier"):
        SpatialVerifier(**{parameter: value}).verify(features[0], features[1])


def test_clone_and_params():
    verifier = clone(SpatialVerifier("affine", ratio=0.8))
    assert verifier.get_params()["model"] == "affine" and verifier.get_params()["ratio"] == 0.8


@pytest.mark.parametrize("hypotheses", ["single_correspondence", "vote_and_verify"])
@pytest.mark.parametrize("model", ["similarity", "affine", "homography", "fundamental"])
def test_exchanged_images(features, model, hypotheses):
    """The same pairs are accepted either way round, and the transforms are each other's inverse."""
    verifier = SpatialVerifier(model, hypotheses=hypotheses)
    for i, j in [(0, 1), (0, 4), (3, 5)]:
        one, other = verifier.verify(features[i], features[j]), verifier.verify(features[j], features[i])
        assert bool(one) == bool(other) and one.n_inliers == pytest.approx(other.n_inliers, rel=0.2, abs=3)
        if one and one.transform is not None:
            both = other.transform @ one.transform
            pairs = one.inlier_coordinates(features[i], features[j]).astype(np.float64)
            again = cv2.perspectiveTransform(pairs[None, :, :2], both)[0]
            # The poorer models explain a part of a view in perspective, and not quite the same part either way round.
            is_exact = one.model == other.model == "homography"
            allowed = 3 if is_exact else verifier.tolerance * max(features[i].image_size)
            assert np.median(np.linalg.norm(again - pairs[:, :2], axis=1)) < allowed


@pytest.mark.parametrize("hypotheses", ["single_correspondence", "vote_and_verify"])
@pytest.mark.parametrize("degrees", [30, 90, 180, 225])
def test_turned_images_have_the_inliers_of_upright_ones(hypotheses, degrees):
    scene = make_scenes(n_scenes=1, n_views=2, random_state=8).images
    height, width = scene[1].shape[:2]
    side = int(np.hypot(width, height)) + 2
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    turned = cv2.warpAffine(scene[1], turn, (side, side), flags=cv2.INTER_CUBIC)
    X = SIFT(root=True, max_features=700).transform([scene[0], scene[1], turned])
    verifier = SpatialVerifier(hypotheses=hypotheses)
    upright, result = verifier.verify(X[0], X[1]), verifier.verify(X[0], X[2])
    assert result and result.n_inliers >= 0.7 * upright.n_inliers


@pytest.mark.parametrize("hypotheses", ["single_correspondence", "vote_and_verify"])
def test_every_way_to_hypotheses_accepts_the_same_scenes(scenes, features, hypotheses):
    for score in ("inliers", "effective_inliers"):
        results = SpatialVerifier(hypotheses=hypotheses, score=score).verify_candidates(features[0], features)
        assert [bool(result) for result in results] == [label == scenes.labels[0] for label in scenes.labels]
        for result in results:
            assert result.n_effective_inliers <= result.inliers.sum()
            assert result.score == (result.n_inliers if score == "inliers" else result.n_effective_inliers)


@pytest.mark.real_data
@pytest.mark.parametrize("hypotheses", ["single_correspondence", "vote_and_verify"])
@pytest.mark.parametrize("sequence", ["graf", "boat", "wall", "ubc"])
def test_solves_what_magsac_solves(data_dir, sequence, hypotheses):
    """Solved: corners of image 1 within 2 % of the longer side of where the ground truth puts them, on average."""
    folder = data_dir / "oxford_affine" / sequence
    paths = [next(folder.glob(f"img{n}.*")) for n in range(1, 7)]
    X = SIFT(root=True, max_features=2000).transform(paths)
    height, width = cv2.imread(str(paths[0]), cv2.IMREAD_GRAYSCALE).shape
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], dtype=np.float64)
    n_solved = 0
    for n in range(2, 7):
        result = SpatialVerifier(hypotheses=hypotheses).verify(X[0], X[n - 1])
        a, b = (X[i].keypoints[result.matches[:, column], :2] for i, column in ((0, 0), (n - 1, 1)))
        peer, _ = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 3.0, maxIters=20_000, confidence=0.9999)
        expected = cv2.perspectiveTransform(corners, np.loadtxt(next(folder.glob(f"H1to{n}p*"))))
        ours, theirs = (
            np.linalg.norm(cv2.perspectiveTransform(corners, found) - expected, axis=2).mean() / max(width, height)
            for found in (result.transform, peer)
        )
        assert ours <= 0.02 or theirs > 0.02, (sequence, n, ours, theirs)
        n_solved += ours <= 0.02
    assert n_solved >= 4


@pytest.mark.real_data
@pytest.mark.parametrize(("sequence", "last"), [("graf", 4), ("boat", 6), ("wall", 5), ("ubc", 6)])
def test_oxford_affine_homographies(data_dir, sequence, last):
    """Real photographs of planes under changing viewpoint, zoom and rotation, compression; against the ground truth."""
    folder = data_dir / "oxford_affine" / sequence
    paths = [next(folder.glob(f"img{n}.*")) for n in range(1, last + 1)]
    X = SIFT(root=True, max_features=2000).transform(paths)
    image = cv2.imread(str(paths[0]), cv2.IMREAD_GRAYSCALE)
    for n in range(2, last + 1):
        truth = np.loadtxt(next(folder.glob(f"H1to{n}p*")))
        result = SpatialVerifier(model="homography").verify(X[0], X[n - 1])
        assert result and result.model == "homography" and result.n_inliers >= 15, (sequence, n, result.reason)
        # Where the inliers fill a part of the image, its corners are extrapolated: as far off as by MAGSAC's model.
        a, b = (X[i].keypoints[result.matches[:, column], :2] for i, column in ((0, 0), (n - 1, 1)))
        peer, _ = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 3.0, maxIters=20_000, confidence=0.9999)
        ours, theirs = corner_error(result.transform, truth, image), corner_error(peer, truth, image)
        assert ours <= max(1.25 * theirs, 4), (sequence, n, ours, theirs)
