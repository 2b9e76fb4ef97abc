"""VLAD kernels against their slow twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval._kernels.vlad import (
    aggregate_residuals,
    aggregate_unit_residuals,
    aggregate_weighted_residuals,
    aggregate_weighted_unit_residuals,
    normalize_vlad,
    rotate_blocks,
)
from tests.reference.vlad import normalize_naive, rotate_naive, sum_residuals_naive, sum_weighted_residuals_naive

AGGREGATE = {False: aggregate_residuals, True: aggregate_unit_residuals}
AGGREGATE_WEIGHTED = {False: aggregate_weighted_residuals, True: aggregate_weighted_unit_residuals}


def aggregate(descriptors, words, centers, unit):
    vlad, masses = np.zeros(centers.shape, dtype=np.float32), np.zeros(len(centers))
    AGGREGATE[unit](descriptors, words, centers, vlad, masses)
    return vlad, masses


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("n_descriptors", [0, 1, 2, 255, 256, 257])
@pytest.mark.parametrize("n_dims", [1, 7, 8, 33])
def test_residuals_are_added_up_by_word(unit, n_words, n_descriptors, n_dims, rng):
    descriptors = rng.normal(size=(n_descriptors, n_dims)).astype(np.float32)
    centers = rng.normal(size=(n_words, n_dims)).astype(np.float32)
    words = rng.integers(0, max(n_words - 1, 1), n_descriptors).astype(np.int32)
    vlad, counts = aggregate(descriptors, words, centers, unit)
    expected, expected_counts = sum_residuals_naive(descriptors, words, centers, unit)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_allclose(vlad, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("unit", [False, True])
def test_sums_go_on_from_what_is_there(unit, rng):
    descriptors, centers = rng.normal(size=(20, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    words = rng.integers(0, 3, 20).astype(np.int32)
    vlad, counts = aggregate(descriptors[:8], words[:8], centers, unit)
    AGGREGATE[unit](descriptors[8:], words[8:], centers, vlad, counts)
    whole, whole_counts = aggregate(descriptors, words, centers, unit)
    np.testing.assert_array_equal(vlad, whole)
    np.testing.assert_array_equal(counts, whole_counts)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("n_nearest", [1, 2, 5])
@pytest.mark.parametrize("n_descriptors", [0, 1, 257])
@pytest.mark.parametrize("n_dims", [1, 7, 33])
def test_weighted_residuals_are_added_up_by_word(unit, n_nearest, n_descriptors, n_dims, rng):
    descriptors = rng.normal(size=(n_descriptors, n_dims)).astype(np.float32)
    centers = rng.normal(size=(6, n_dims)).astype(np.float32)
    descriptors[:1] = centers[2]  # a residual of zero
    words = rng.permuted(np.tile(np.arange(6), (n_descriptors, 1)), axis=1)[:, :n_nearest].astype(np.int32)
    weights = rng.uniform(size=words.shape).astype(np.float32)
    weights[::3] = 0
    assignments = np.zeros((n_descriptors, 6))
    np.put_along_axis(assignments, words, weights, axis=1)
    expected, expected_masses = sum_weighted_residuals_naive(descriptors, assignments, centers, unit)
    vlad, masses = np.zeros((6, n_dims), dtype=np.float32), np.zeros(6)
    for rows in (slice(0, 100), slice(100, None)):  # sums go on from what is there
        AGGREGATE_WEIGHTED[unit](
            descriptors[rows], np.ascontiguousarray(words[rows].T), np.ascontiguousarray(weights[rows].T), centers,
            vlad, masses,
        )  # fmt: skip
    np.testing.assert_allclose(vlad, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(masses, expected_masses, rtol=1e-6)


@pytest.mark.parametrize("n_dims", [1, 7, 64])
def test_blocks_are_rotated_unless_empty(n_dims, rng):
    rotations = np.linalg.qr(rng.normal(size=(4, n_dims, n_dims)))[0].astype(np.float32)
    vlads = rng.normal(size=(3, 4, n_dims)).astype(np.float32)
    masses = rng.integers(0, 2, (3, 4)).astype(np.float64)
    masses[0], masses[1, 2] = 1, 0
    expected = [rotate_naive(vlad, rotations) for vlad in vlads]
    before = vlads.copy()
    rotate_blocks(rotations, masses, vlads)
    np.testing.assert_allclose(vlads[masses == 1], np.array(expected)[masses == 1], atol=1e-5)
    np.testing.assert_array_equal(vlads[masses == 0], before[masses == 0])


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("n", [1, 3, 7, 100])
def test_zero_residuals_stay_exactly_zero(unit, n, rng):
    """Σ x − n·c would leave rounding errors here, and power and per-word norms would make a full-size block of them."""
    centers = rng.normal(size=(2, 33)).astype(np.float32)
    vlad, counts = aggregate(np.repeat(centers[:1], n, axis=0), np.zeros(n, dtype=np.int32), centers, unit)
    np.testing.assert_array_equal(vlad, 0)
    normalize_vlad(vlad, counts, False, 0.5, True, True)
    np.testing.assert_array_equal(vlad, 0)


def test_unit_residuals_have_unit_length_whatever_their_size(rng):
    directions = rng.normal(size=(3, 16))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centers = np.zeros((3, 16), dtype=np.float32)
    descriptors = (directions * np.array([[1e-6], [1.0], [1e6]])).astype(np.float32)
    vlad, _ = aggregate(descriptors, np.arange(3, dtype=np.int32), centers, True)
    np.testing.assert_allclose(vlad, directions, atol=1e-6)


@pytest.mark.parametrize(
    ("mass_norm", "intra_norm", "l2_norm"), list(itertools.product([False, True], repeat=3))
)  # fmt: skip
@pytest.mark.parametrize("power", [1.0, 0.5, 0.2, 0.75, 2.0])
@pytest.mark.parametrize("n_words", [1, 2, 6])
def test_normalisations_and_their_order(mass_norm, intra_norm, l2_norm, power, n_words, rng):
    vlad = rng.normal(scale=30, size=(n_words, 33)).astype(np.float32)
    counts = rng.integers(1, 50, n_words)
    if n_words > 2:
        vlad[1], counts[1] = 0, 0  # no descriptor
        vlad[4] = 0  # zero residuals only
    expected = normalize_naive(vlad, counts, mass_norm, power, intra_norm, l2_norm)
    normalize_vlad(vlad, counts, mass_norm, power, intra_norm, l2_norm)
    np.testing.assert_allclose(vlad, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("l2_norm", [False, True])
def test_norms_are_at_least_1e_12(l2_norm):
    vlad = np.array([[3e-14, 4e-14]], dtype=np.float32)
    expected = normalize_naive(vlad, [1], False, 1, True, l2_norm)
    normalize_vlad(vlad, np.array([1]), False, 1.0, True, l2_norm)
    np.testing.assert_allclose(vlad, expected, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 40), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([1.0, 0.5, 0.2]),
)  # fmt: skip
def test_whole_images_equal_the_definition(seed, n_words, n, unit, mass_norm, intra_norm, power):
    # Residuals are quarters: exact in float32 whatever the order, so no sum is zero in one precision only.
    rng = np.random.default_rng(seed)
    descriptors = rng.integers(-8, 9, (n, 5)).astype(np.float32) / 4
    centers = rng.integers(-8, 9, (n_words, 5)).astype(np.float32) / 4
    words = rng.integers(0, n_words, n).astype(np.int32)
    vlad, counts = aggregate(descriptors, words, centers, unit)
    sums, _ = sum_residuals_naive(descriptors, words, centers, unit)
    np.testing.assert_allclose(vlad, sums, atol=1e-5)
    expected = normalize_naive(vlad, counts, mass_norm, power, intra_norm, True)
    normalize_vlad(vlad, counts, mass_norm, power, intra_norm, True)
    np.testing.assert_allclose(vlad, expected, atol=2e-6)
