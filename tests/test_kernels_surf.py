"""SURF's kernels against their slow twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cvretrieval._kernels.surf_descriptor import describe_keypoints, reduce_image, sample_patch, sum_cells, window_side
from cvretrieval._kernels.surf_hessian import filter_layer, integrate, laplacian_signs, split_columns
from cvretrieval._kernels.surf_maxima import find_maxima
from cvretrieval._kernels.surf_orientation import assign_orientations
from tests.reference.surf import (
    filter_layer_naive,
    find_maxima_naive,
    gaussian,
    laplacian_sign_naive,
    orientation_naive,
    reduce_image_naive,
    sample_patch_naive,
    sum_cells_naive,
)


def integral_of(pixels):
    integral = np.empty((pixels.shape[0] + 1, pixels.shape[1] + 1), dtype=np.int32)
    integrate(pixels, integral)
    return integral


def phases_of(integral, step):
    phases = np.empty((step, len(integral), -(-integral.shape[1] // step)), dtype=np.int32)
    split_columns(integral, phases)
    return phases


@pytest.fixture
def pixels(rng):
    """Smooth blotches with noise: gradients at all scales."""
    coarse = np.kron(rng.integers(0, 200, (8, 10)), np.ones((9, 9)))
    return (coarse[:70, :85] + rng.integers(0, 50, (70, 85))).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5)])
def test_integral_image(shape, rng):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    integral = integral_of(pixels)
    for y in range(shape[0] + 1):
        for x in range(shape[1] + 1):
            assert integral[y, x] == pixels[:y, :x].astype(int).sum()


def test_integral_image_beyond_31_bits():
    """The sums wrap around; those over boxes do not."""
    integral = integral_of(np.full((2100, 4200), 255, dtype=np.uint8))
    assert integral.min() < 0
    signs = laplacian_signs(integral, np.array([2050]), np.array([4150]), 27)
    assert signs[0] == 0
    reduced = np.empty((3, 5), dtype=np.float32)
    reduce_image(integral, 1000, reduced)
    np.testing.assert_array_equal(reduced, 255)


@pytest.mark.parametrize("step", [1, 2, 3, 8])
@pytest.mark.parametrize("n_columns", [1, 7, 8, 9])
def test_columns_are_split(step, n_columns, rng):
    integral = rng.integers(-99, 99, (3, n_columns)).astype(np.int32)
    phases = phases_of(integral, step)
    padded = np.zeros((3, phases.shape[2] * step), dtype=np.int32)
    padded[:, :n_columns] = integral
    for p in range(step):
        np.testing.assert_array_equal(phases[p], padded[:, p::step])


@pytest.mark.parametrize(("step", "size"), [(1, 9), (1, 15), (1, 33), (2, 18), (2, 30), (4, 36), (8, 66)])
def test_box_filters(pixels, step, size):
    expected = filter_layer_naive(pixels, size, step)
    determinants, sums = np.empty(expected.shape, dtype=np.float32), np.empty((3, 85), dtype=np.float32)
    filter_layer(phases_of(integral_of(pixels), step), size, sums, determinants)
    np.testing.assert_allclose(determinants, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [9, 21, 54])
def test_laplacian_signs(pixels, size):
    top, left = (a.ravel() for a in np.mgrid[0 : 71 - size : 5, 0 : 86 - size : 5])
    signs = laplacian_signs(integral_of(pixels), top, left, size)
    expected = [laplacian_sign_naive(pixels, y, x, size) for y, x in zip(top, left, strict=True)]
    np.testing.assert_array_equal(signs, expected)
    assert len(set(signs.tolist())) > 1


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("border", [1, 3])
@pytest.mark.parametrize("shape", [(3, 3), (2, 9), (20, 31)])
def test_maxima(shape, threshold, border, rng):
    below, here, above = rng.normal(size=(3, *shape)).astype(np.float32)
    here *= 1.5
    found = np.full((-(-shape[0] // 2) * -(-shape[1] // 2), 6), np.nan, dtype=np.float32)
    n_found = find_maxima(below, here, above, threshold, border, found)
    expected = find_maxima_naive(below, here, above, threshold, border)
    assert n_found == len(expected) and (n_found > 3 or shape != (20, 31))
    np.testing.assert_allclose(found[:n_found], expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(found[n_found:]).all()


def test_plateaus_are_no_maxima():
    layers = np.zeros((3, 7, 7), dtype=np.float32)
    layers[1, 3, 3] = layers[1, 3, 4] = 5
    found = np.empty((16, 6), dtype=np.float32)
    assert find_maxima(*layers, 1.0, 1, found) == 0
    layers[1, 3, 4] = 4
    assert find_maxima(*layers, 1.0, 1, found) == 1
    np.testing.assert_array_equal(found[0, :2], 3)
    assert found[0, 2] > 0 and found[0, 3] == 0 and found[0, 5] == 5
    layers[2, 4, 4] = 5
    assert find_maxima(*layers, 1.0, 1, found) == 0


def test_orientations(pixels, rng):
    n = 60
    keypoints = np.column_stack([rng.uniform(8, 77, n), rng.uniform(8, 62, n), rng.integers(9, 40, n)])
    keypoints = keypoints.astype(np.float32)
    angles = np.empty(n, dtype=np.float32)
    assign_orientations(integral_of(pixels), keypoints, gaussian(13, 2.5).astype(np.float32), angles)
    n_clear = 0
    for keypoint, angle in zip(keypoints.astype(np.float64), angles, strict=True):
        expected, margin = orientation_naive(pixels, *keypoint)
        if margin > 1e-4:
            n_clear += 1
            assert abs((angle - expected + np.pi) % (2 * np.pi) - np.pi) < 1e-3
    assert n_clear > 0.8 * n
    assert (angles >= 0).all() and (angles < np.float32(2 * np.pi)).all()


def test_orientation_without_gradient_or_without_room():
    angles = np.full(2, 9, dtype=np.float32)
    keypoints = np.array([[15, 15, 12], [15, 15, 500]], dtype=np.float32)
    assign_orientations(integral_of(np.full((30, 30), 7, np.uint8)), keypoints, np.ones(13, np.float32), angles)
    np.testing.assert_array_equal(angles, 0)


@pytest.mark.parametrize("factor", [1, 2, 4, 100])
def test_reduced_image(pixels, factor):
    expected = reduce_image_naive(pixels, factor)
    reduced = np.empty(expected.shape, dtype=np.float32)
    reduce_image(integral_of(pixels), factor, reduced)
    np.testing.assert_allclose(reduced, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [21, 25, 42, 50])
@pytest.mark.parametrize(("x", "y"), [(42.3, 35.1), (3.0, 68.5), (-20.0, 35.0)])
@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5 * math.pi])
def test_patch(pixels, n, x, y, angle):
    line, total = np.empty(n + 3, dtype=np.float32), np.empty(n + 3, dtype=np.float32)
    patch = np.full((21, 21), np.nan, dtype=np.float32)
    sample_patch(pixels.astype(np.float32), x, y, n, 0.9, angle, line, total, patch)
    # Places are rounded to 1/65536 of a pixel.
    np.testing.assert_allclose(patch, sample_patch_naive(pixels, x, y, n, 0.9, angle), atol=0.1)


@pytest.mark.parametrize("n_dims", [64, 128])
def test_cells(n_dims, rng):
    patch = rng.uniform(0, 255, (21, 21)).astype(np.float32)
    descriptor = np.empty(n_dims, dtype=np.float32)
    weights = gaussian(20, 3.3).astype(np.float32)
    sum_cells(patch, weights, descriptor)
    np.testing.assert_allclose(descriptor, sum_cells_naive(patch.astype(np.float64), n_dims == 128), atol=1e-5)
    sum_cells(np.full_like(patch, 9), weights, descriptor)
    np.testing.assert_array_equal(descriptor, 0)


@pytest.mark.parametrize("factor", [1, 2])
def test_description_is_of_the_window_of_20_scales(pixels, factor):
    keypoints = np.array([[40.2, 33.7, 22], [50.0, 40.0, 31]], dtype=np.float32)
    angles = np.array([0.3, 4.0], dtype=np.float32)
    reduced = reduce_image_naive(pixels, factor).astype(np.float32)
    descriptors = np.empty((2, 64), dtype=np.float32)
    describe_keypoints(reduced, factor, keypoints, angles, gaussian(20, 3.3).astype(np.float32), descriptors)
    for (x, y, size), angle, descriptor in zip(keypoints, angles, descriptors, strict=True):
        side = math.floor(21 * 1.2 * size / 9)
        n = math.ceil(side / factor)
        middle = (np.array([x, y], dtype=np.float64) + 0.5) / factor - 0.5
        patch = sample_patch_naive(reduced, *middle, n, side / (n * factor), float(angle))
        np.testing.assert_allclose(descriptor, sum_cells_naive(patch, False), atol=2e-3)


def test_window_sides_are_exact():
    for size in range(9, 3000):
        assert window_side(np.float32(size)) == 14 * size // 5
