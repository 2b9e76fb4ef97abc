"""DenseSIFT: its kernels against the definition and VLFeat, its grid, and what becomes of flat patches."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cvretrieval import SIFT, DenseSIFT, ImageReader
from cvretrieval._kernels.dense_sift import map_orientations, normalize_bins, sample_bins
from cvretrieval.extraction.dense import bin_weights
from tests.parity import agree
from tests.reference.dense_sift import dense_sift, orientation_maps
from tests.reference.sift import root_sift_naive

VLFEAT = Path(__file__).parent / "data" / "dense_sift.npz"


@pytest.fixture(scope="module")
def photo():
    return cv2.cvtColor(load_sample_image("china.jpg"), cv2.COLOR_RGB2GRAY)[100:300, 150:400].copy()


def by_kernels(image, size, step, *, n_bins=4, n_orientations=8, window="gaussian", window_size=2.0, threshold=0.0,
               first=(0, 0)):  # fmt: skip
    height, width = image.shape
    margin = size
    maps = np.full((height, width + 2 * margin, n_orientations), np.nan, dtype=np.float32)
    map_orientations(image.astype(np.float32), margin, maps)
    extent = (n_bins - 1) * size
    shape = (len(range(first[1], height - extent, step)), len(range(first[0], width - extent, step)))
    grid = np.full((*shape, n_bins, n_bins, n_orientations), np.nan, dtype=np.float32)
    weights = bin_weights(size, window, n_bins=n_bins, window_size=window_size)
    sample_bins(maps, margin, weights, step, *first, grid)
    descriptors = grid.reshape(shape[0] * shape[1], -1)
    contrasts = np.full(len(descriptors), np.nan, dtype=np.float32)
    normalize_bins(descriptors, (extent + 1) ** 2, threshold, contrasts)
    return descriptors, contrasts


@pytest.mark.parametrize(
    ("variant", "size", "step", "options"),
    [
        ("step8_bin4", 4, 8, {}),
        ("step8_bin8", 8, 8, {}),
        ("step8_bin4_flat", 4, 8, {"window": "flat"}),
        ("step8_bin4_win1.5", 4, 8, {"window_size": 1.5}),
        ("step7_bin5_3x3x6", 5, 7, {"n_bins": 3, "n_orientations": 6}),
    ],
)
def test_kernels_equal_vlfeat(variant, size, step, options):
    with np.load(VLFEAT) as expected:
        descriptors, contrasts = by_kernels(expected["image_u8"] / 255, size, step, **options)
        agree("dense-sift", descriptors, expected[f"{variant}/descr"], 2e-5)
        agree("dense-sift-contrast", contrasts, expected[f"{variant}/frames"][:, 2], 1e-5)


@pytest.mark.parametrize(
    ("size", "step", "options"),
    [
        (1, 3, {}),
        (2, 5, {"window": None, "first": (1, 2)}),
        (3, 4, {"window": "flat", "first": (2, 0)}),
        (4, 6, {"window_size": 1.0}),
        (5, 9, {"n_bins": 2, "n_orientations": 5}),
        (4, 6, {"n_bins": 1, "n_orientations": 12}),
    ],
)
def test_kernels_equal_the_definition(rng, size, step, options):
    image = rng.uniform(size=(19, 23)).astype(np.float32)
    image[:9, :9] = 0.4  # pixels without a gradient
    descriptors, contrasts = by_kernels(image, size, step, **options)
    expected, expected_contrasts = dense_sift(image, size, step, **options)
    assert len(descriptors) > 3
    assert descriptors.min() >= 0
    np.testing.assert_allclose(descriptors, expected, atol=2e-6)
    np.testing.assert_allclose(contrasts, expected_contrasts, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("turn_deg", [0, 44, 45, 90, 135, 180, 225, 269, 270, 359.999])
def test_every_direction_of_a_ramp(turn_deg):
    """The angle is within the 0.0061 radians of the approximation, and the magnitude exact."""
    y, x = np.mgrid[:6, :7]
    angle = np.deg2rad(turn_deg)
    maps = np.empty((6, 7, 8), dtype=np.float32)
    map_orientations((3 * (np.cos(angle) * x + np.sin(angle) * y)).astype(np.float32), 0, maps)
    exact = orientation_maps(
        3 * (np.cos(angle) * x + np.sin(angle) * y), 8, lambda gx, gy: np.arctan2(gy, gx) % (2 * np.pi)
    )
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum(axis=2), 3, rtol=1e-5)
    np.testing.assert_allclose(maps.transpose(2, 0, 1), exact, atol=3 * 0.0062 * 8 / (2 * np.pi))


def test_threshold_zeroes_low_contrast(rng):
    image = rng.uniform(size=(24, 60)) * np.linspace(0, 0.2, 60)
    _, contrasts = by_kernels(image, 4, 4)
    threshold = float(np.median(contrasts))
    descriptors, again = by_kernels(image, 4, 4, threshold=threshold)
    np.testing.assert_array_equal(contrasts, again)
    zeroed = ~descriptors.any(axis=1)
    np.testing.assert_array_equal(zeroed, contrasts < np.float32(threshold))
    assert 0 < zeroed.sum() < len(zeroed)
    np.testing.assert_allclose(np.linalg.norm(descriptors[~zeroed], axis=1), 1, atol=1e-6)


def test_estimator_equals_the_definition(photo):
    crop = photo[50:90, 60:110]
    image = DenseSIFT(step=9, scales=(1.0, 1.5), sigma=0.7, contrast_threshold=0.0).transform([crop])[0]
    pixels = crop.astype(np.float32) / 255
    rows, places = [], []
    for size, scale in ((4, 1.0), (6, 1.5)):
        blurred = cv2.GaussianBlur(pixels, (0, 0), np.sqrt((0.7 * scale) ** 2 - 0.25), borderType=cv2.BORDER_REPLICATE)
        spare = np.array(crop.shape[::-1]) - 1 - 3 * size
        first = tuple(int(s % 9 // 2) for s in spare)
        rows.append(dense_sift(blurred, size, 9, first=first)[0])
        ys, xs = (np.arange(first[i], crop.shape[1 - i] - 3 * size, 9) + 1.5 * size for i in (1, 0))
        places.append([(x, y, size / 3, 0) for y in ys for x in xs])
    np.testing.assert_allclose(image.descriptors, 512 * np.concatenate(rows), atol=1e-2)
    np.testing.assert_allclose(image.keypoints, np.concatenate(places), atol=1e-5)
    assert image.descriptors.dtype == np.float32


def test_root(photo):
    plain = DenseSIFT().transform([photo]).descriptors
    np.testing.assert_allclose(DenseSIFT(root=True).transform([photo]).descriptors, root_sift_naive(plain), atol=1e-6)


def test_flat_patches_are_zero_and_stay_zero(photo):
    half = photo.copy()
    half[:, :125] = 90
    for root in (False, True):
        X = DenseSIFT(root=root).transform([half, np.full((40, 40), 7, np.uint8)])
        norms = np.linalg.norm(X.descriptors, axis=1)
        left = X.keypoints[:, 0] < 110
        assert (norms[X.image_index() == 1] == 0).all() and (norms[left] == 0).all() and left.sum() > 100
        assert (norms > 0.9).sum() > 100
        assert X.lengths[0] == DenseSIFT().transform([photo]).n_descriptors


def test_all_is_kept_without_a_threshold(photo):
    faint = (photo // 64 * 2 + 90).astype(np.uint8)
    kept = [DenseSIFT(contrast_threshold=t).transform([faint]).descriptors.any(axis=1).mean() for t in (0.0, 0.005)]
    assert kept[0] > kept[1]


def test_descriptors_are_close_to_those_of_sift(photo):
    """The same patches described by OpenCV, which samples and blurs differently."""
    image = DenseSIFT(step=16, patch_size=24, sigma=2.26).transform([photo])[0]
    points = [cv2.KeyPoint(float(x), float(y), float(2 * scale), 0.0, 1.0, 0) for x, y, scale, _ in image.keypoints]
    _, expected = cv2.SIFT_create(enable_precise_upscale=True).compute(photo, points)
    contrasted = image.descriptors.any(axis=1) & expected.any(axis=1)
    # OpenCV counts orientations from the x axis upwards.
    reversed_turn = expected.reshape(-1, 16, 8)[:, :, -np.arange(8)].reshape(-1, 128)
    a, b = image.descriptors[contrasted], reversed_turn[contrasted]
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.median(cosines) > 0.95
    assert np.median(np.linalg.norm(a, axis=1)) == pytest.approx(np.median(np.linalg.norm(b, axis=1)), rel=0.05)


def test_grid_is_centred_and_inside():
    image = np.zeros((50, 90), np.uint8)
    keypoints = DenseSIFT(step=7, scales=(1, 2)).transform([image])[0].keypoints
    for size in (4, 8):
        grid = keypoints[np.isclose(keypoints[:, 2], size / 3)]
        for axis, side in ((0, 90), (1, 50)):
            values = np.unique(grid[:, axis])
            assert set(np.diff(values)) == {7}
            before, after = values[0] - 1.5 * size, side - 1 - 1.5 * size - values[-1]
            assert 0 <= before <= after <= before + 1 and before + after < 7


def test_small_images_have_the_scales_that_fit():
    images = [np.zeros(shape, np.uint8) for shape in ((1, 1), (12, 50), (13, 13), (30, 30))]
    X = DenseSIFT(step=100, scales=(1.0, 2.0)).transform(images)
    assert X.lengths.tolist() == [0, 0, 1, 2] and X.n_dims == 128
    assert DenseSIFT(patch_size=4, step=1, sigma=0).transform([np.zeros((4, 5), np.uint8)]).lengths.tolist() == [2]


def test_coordinates_are_those_of_the_original(photo):
    half = DenseSIFT(step=10, reader=ImageReader(max_size=125)).transform([photo])[0]
    assert half.keypoints[:, 0].max() > 200 and np.diff(np.unique(half.keypoints[:, 0]))[0] == pytest.approx(20)
    assert half.keypoints[0, 2] == pytest.approx(8 / 3)


@pytest.mark.parametrize(
    "parameters",
    [{"step": 0}, {"step": 1.5}, {"patch_size": 3}, {"scales": ()}, {"scales": 2.0}, {"scales": "1"},
     {"scales": (1.0, 0.1)}, {"sigma": -1}, {"contrast_threshold": -1}, {"root": 1}, {"window": "box"}],
)  # fmt: skip
def test_bad_parameters_are_named(photo, parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of DenseSIFT"):
        DenseSIFT(**parameters).fit([photo])


def test_codec_is_that_of_sift():
    for root in (False, True):
        assert DenseSIFT(root=root).descriptor_codec == SIFT(root=root).descriptor_codec
