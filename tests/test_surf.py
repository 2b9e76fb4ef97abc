"""SURF: that it equals OpenCV's, and what it promises beyond."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cvretrieval import SURF, ImageReader, LocalFeatures, SpatialVerifier
from tests.parity import agree

REFERENCE = np.load(Path(__file__).parent / "data" / "surf.npz")
#: path in the data folder, and the SHA-256 of the grey pixels that OpenCV 3.4 was given
PHOTOS = {
    "graf1": ("oxford_affine/graf/img1.png", "9b91967ac8684f5b25b9baa2d705e75cb3c2405dacc9ceca06832fe5e5b93367"),
    "boat1": ("oxford_affine/boat/img1.png", "14f2132f182d41a69358aeb6f710ee5c168c199eb3c94dceda24c983e0078242"),
    "wall1": ("oxford_affine/wall/img1.png", "094016e4739936a23423d71d5b9592028fe0050c0b3e2edb624a7b32aee2d30f"),
    "ukb0": ("ukbench_56/images/ukbench00000.jpg", "a3a6543dd77ea51c9d6d08e282c7dd989df5a833410351ec6b94ec281f9a06b8"),
}
SYNTH = {
    "t100": {"hessian_threshold": 100},
    "t400": {"hessian_threshold": 400},
    "t100_ext": {"hessian_threshold": 100, "extended": True},
    "t100_upright": {"hessian_threshold": 100, "upright": True},
    "t100_o3_l4": {"hessian_threshold": 100, "n_octaves": 3, "n_octave_layers": 4},
}
VARIANTS = {"std": {}, "ext": {"extended": True}, "upright": {"upright": True},
            "upright_ext": {"upright": True, "extended": True}}  # fmt: skip


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).convert("L"))


@pytest.fixture(scope="module")
def all_features(photo):
    return SURF(max_features=None).detect_and_describe(photo)


def angle_difference(a, b):
    return np.abs((np.asarray(a, dtype=np.float64) - b + np.pi) % (2 * np.pi) - np.pi)


def assert_equals_opencv(pixels, key, **parameters):
    """Compare the strongest features with OpenCV's by place, scale, angle, response, Laplacian and descriptor."""
    expected, meta, descriptors = (REFERENCE[f"{key}/{name}"] for name in ("kp", "meta", "desc"))
    surf = SURF(max_features=None, reader=ImageReader(max_size=None), **parameters)
    ours = surf.detect_and_describe(pixels)
    assert len(ours.keypoints) == REFERENCE[f"{key}/total"]
    assert (np.diff(ours.responses) <= 0).all()
    ours = type(ours)(*(column[: len(expected)] for column in ours))
    distance = np.hypot(*(ours.keypoints[:, None, :2] - expected[None, :, :2]).transpose(2, 0, 1))
    scale_error = np.abs(ours.keypoints[:, None, 2] / (expected[:, 2] * 1.2 / 9) - 1)
    near = (distance < 1) & (scale_error < 0.05)
    found = near.any(axis=0)
    assert found.mean() >= 0.99
    match = np.where(near, distance + scale_error, np.inf).argmin(axis=0)[found]
    agree("surf-places", ours.keypoints[match, :2], expected[found, :2], 1e-2)
    agree("surf-responses", ours.responses[match], expected[found, 4], 1e-4)
    np.testing.assert_array_equal(ours.laplacians[match], meta[found, 1])
    turned = angle_difference(ours.keypoints[match, 3], np.deg2rad(expected[found, 3]))
    assert (turned < np.deg2rad(5)).mean() >= 0.98
    described = np.flatnonzero(found) < len(descriptors)
    theirs = descriptors[np.flatnonzero(found)[described]].astype(np.float32)
    cosines = (ours.descriptors[match[described]] * theirs).sum(axis=1)
    assert len(cosines) >= 45 and np.median(cosines) >= 0.99 and np.quantile(cosines, 0.05) > 0.97


@pytest.mark.parametrize("variant", SYNTH)
def test_equals_opencv(variant):
    assert_equals_opencv(REFERENCE["synth/gray"], f"synth/{variant}", **SYNTH[variant])


@pytest.mark.real_data
@pytest.mark.parametrize("key", [f"{name}/std" for name in PHOTOS] + [f"graf1/{name}" for name in list(VARIANTS)[1:]])
def test_equals_opencv_on_photos(data_dir, key):
    name, variant = key.split("/")
    path, digest = PHOTOS[name]
    pixels = cv2.imread(str(data_dir / path), cv2.IMREAD_GRAYSCALE)
    if hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() != digest:
        pytest.skip(f"{path} is read to other pixels than those of the reference")
    assert_equals_opencv(pixels, key, hessian_threshold=400, **VARIANTS[variant])


def test_transform_says_the_same(photo, all_features):
    image = SURF(max_features=None).transform([photo])[0]
    assert len(image.descriptors) > 1000 and image.image_size == (640, 427)
    np.testing.assert_array_equal(image.descriptors, all_features.descriptors)
    np.testing.assert_array_equal(image.keypoints, all_features.keypoints)
    assert image.descriptors.dtype == image.keypoints.dtype == np.float32
    assert all_features.laplacians.dtype == np.int8 and set(all_features.laplacians.tolist()) == {-1, 1}


@pytest.mark.parametrize("max_features", [1, 100, 777])
def test_exactly_the_strongest_features_are_kept(photo, all_features, max_features):
    ours = SURF(max_features=max_features).detect_and_describe(photo)
    for column, whole in zip(ours, all_features, strict=True):
        np.testing.assert_array_equal(column, whole[:max_features])


def test_descriptors_have_unit_norm_and_the_dimension_asked_for(photo, all_features):
    extended = SURF(max_features=200, extended=True).transform([photo])
    assert extended.n_dims == 128 and all_features.descriptors.shape[1] == SURF().n_dims == 64
    for descriptors in (extended.descriptors, all_features.descriptors):
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    # The halves of a sum add up to the sum of 64 dimensions, up to the norms.
    halves = extended.descriptors.reshape(200, 16, 8)
    # In the order dx, abs dx, dy, abs dy.
    whole = halves[..., [0, 1, 4, 5]] + halves[..., [2, 3, 6, 7]]
    whole = whole[..., [0, 2, 1, 3]].reshape(200, 64)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(whole, all_features.descriptors[:200], atol=1e-5)


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("sigma", [3.0, 8.0])
def test_geometry_of_a_blob(bright, sigma):
    """A Gaussian blob is found at its centre, at a scale in proportion to its sigma, with the sign of its Laplacian.

    A Gaussian filter would respond most at the blob's own sigma, the boxes that stand for it do at 3/4 of it.
    """
    y, x = np.mgrid[:200, :300]
    blob = np.exp(-((x - 120.25) ** 2 + (y - 70.4) ** 2) / (2 * sigma**2))
    blob = (40 + 200 * blob if bright else 240 - 200 * blob).astype(np.uint8)
    ours = SURF().detect_and_describe(blob)
    np.testing.assert_allclose(ours.keypoints[0, :2], [120.25, 70.4], atol=0.2)
    assert ours.keypoints[0, 2] == pytest.approx(0.76 * sigma, rel=0.1)
    assert ours.laplacians[0] == (-1 if bright else 1)


@pytest.mark.parametrize("degrees", [0, 30, 135, 200, 315])
def test_angle_points_up_the_gradient(degrees):
    """From the x towards the y axis, y down: a blob on a slope has the direction in which the slope gets brighter."""
    y, x = np.mgrid[-60:61, -60:61]
    slope = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    image = (110 + slope + 15 * np.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / (2 * 6.0**2))).astype(np.uint8)
    ours = SURF().detect_and_describe(image)
    assert np.hypot(*(ours.keypoints[0, :2] - 60)) < 1
    assert angle_difference(ours.keypoints[0, 3], np.deg2rad(degrees)) < np.deg2rad(6)


def test_a_quarter_turn_turns_the_angles(photo, all_features):
    """np.rot90 maps (x, y) to (y, width - 1 - x): directions turn from the y to the x axis."""
    turned = SURF(max_features=500).detect_and_describe(np.rot90(photo))
    there = turned.keypoints
    back = np.column_stack([photo.shape[1] - 1 - there[:, 1], there[:, 0], there[:, 2], there[:, 3] + np.pi / 2])
    here = all_features.keypoints
    distance = np.hypot(*(back[:, None, :2] - here[None, :, :2]).transpose(2, 0, 1))
    distance[np.abs(np.log(back[:, None, 2] / here[None, :, 2])) > 0.1] = np.inf
    match, near = distance.argmin(axis=1), distance.min(axis=1) < 1
    assert near.mean() > 0.8
    assert (angle_difference(back[near, 3], here[match[near], 3]) < np.deg2rad(5)).mean() > 0.9
    cosines = (turned.descriptors[near] * all_features.descriptors[match[near]]).sum(axis=1)
    assert np.median(cosines) > 0.97


@pytest.mark.parametrize("extended", [False, True])
def test_a_turned_photo_is_verified(photo, extended):
    turn = np.vstack([cv2.getRotationMatrix2D((320, 213), 35, 0.8), [0, 0, 1]])
    turned = cv2.warpAffine(photo, turn[:2], (640, 427), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    X = SURF(extended=extended).transform([photo, turned])
    result = SpatialVerifier("similarity").verify(X[0], X[1])
    assert result and result.n_inliers > 100
    corners = np.array([[100, 100, 1], [500, 100, 1], [300, 400, 1]], dtype=float).T
    np.testing.assert_allclose((result.transform @ corners)[:2], (turn @ corners)[:2], atol=1.5)
    assert not SpatialVerifier("similarity").verify(*SURF(upright=True).transform([photo, turned]))


def test_upright(photo, all_features):
    ours = SURF(upright=True, max_features=300).detect_and_describe(photo)
    np.testing.assert_array_equal(ours.keypoints[:, :3], all_features.keypoints[:300, :3])
    np.testing.assert_allclose(ours.keypoints[:, 3], 1.5 * np.pi)
    assert not np.allclose(ours.descriptors, all_features.descriptors[:300])


def test_coordinates_are_those_of_the_original(photo, all_features):
    """Reduced to a half, a feature keeps its place and scale in the original, and `transform` agrees."""
    surf = SURF(max_features=300, reader=ImageReader(max_size=320))
    half = surf.detect_and_describe(photo).keypoints
    np.testing.assert_array_equal(surf.transform([photo]).keypoints, half)
    whole = all_features.keypoints
    distance = np.hypot(*(half[:, None, :2] - whole[None, :, :2]).transpose(2, 0, 1))
    near = (distance < 2) & (np.abs(np.log(half[:, None, 2] / whole[None, :, 2])) < 0.3)
    assert near.any(axis=1).mean() > 0.5
    offset = (half[:, None, :2] - whole[None, :, :2])[near]
    assert np.abs(np.median(offset, axis=0)).max() < 0.2


def test_images_without_features():
    images = [np.zeros((1, 1), np.uint8), np.full((50, 50), 99, np.uint8), np.zeros((9, 300), np.uint8)]
    X = SURF(hessian_threshold=0).transform(images)
    assert X.lengths.tolist() == [0, 0, 0] and X.n_dims == 64 and X.keypoints.shape == (0, 4)
    assert SURF().transform([]).shape == (0,) and SURF(extended=True).transform([]).n_dims == 128
    nothing = SURF().detect_and_describe(images[0])
    assert [column.shape for column in nothing] == [(0, 64), (0, 4), (0,), (0,)]


@pytest.mark.parametrize("shape", [(20, 20), (21, 200), (23, 23), (40, 64), (64, 33)])
def test_small_images(shape, rng):
    """No filter reaches beyond the image, whatever its size and the number of octaves."""
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    ours = SURF(hessian_threshold=0, n_octaves=12, n_octave_layers=6).detect_and_describe(image)
    assert (ours.keypoints[:, :2] >= 0).all() and (ours.keypoints[:, :2] <= np.array(shape[::-1]) - 1).all()
    assert np.isfinite(ours.descriptors).all() and (len(ours.keypoints) > 0) == (min(shape) > 30)


def test_filters_whose_sums_would_not_fit_are_left_out(photo, monkeypatch):
    whole = SURF(max_features=None).detect_and_describe(photo)
    monkeypatch.setattr("cvretrieval.extraction.surf._LARGEST_FILTER", 60)
    cut = SURF(max_features=None).detect_and_describe(photo)
    assert 7.5 * whole.keypoints[:, 2].max() > 100 and 7.5 * cut.keypoints[:, 2].max() < 60
    small = whole.keypoints[:, 2] < 20 / 7.5
    np.testing.assert_array_equal(cut.descriptors[cut.keypoints[:, 2] < 20 / 7.5], whole.descriptors[small])


@pytest.mark.parametrize("upright", [False, True])
def test_jobs_and_batches_do_not_change_a_bit(photo, upright):
    images = [photo[i * 20 : 150 + i * 20, :200] for i in range(9)]
    one = SURF(upright=upright).transform(images)
    for other in (
        SURF(upright=upright, n_jobs=3).transform(images),
        LocalFeatures.concatenate([SURF(upright=upright).transform([image]) for image in images]),
    ):
        for name in ("descriptors", "keypoints", "offsets", "image_sizes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "parameters",
    [{"max_features": 0}, {"hessian_threshold": -1}, {"hessian_threshold": "a"}, {"n_octaves": 0}, {"n_octaves": 1.5},
     {"n_octave_layers": 0}, {"extended": 1}, {"upright": "yes"}],
)  # fmt: skip
def test_bad_parameters_are_named(photo, parameters):
    for run in (lambda surf: surf.transform([photo]), lambda surf: surf.detect_and_describe(photo),
                lambda surf: surf.fit([photo])):  # fmt: skip
        with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of SURF"):
            run(SURF(**parameters))


def test_the_patent_notice_stands():
    assert "patented" in SURF.__doc__ and "jurisdiction" in SURF.__doc__
