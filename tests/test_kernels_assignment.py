"""Nearest-word kernels against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval._kernels.assignment import best_words, nearest_few_words, nearest_words, read_ahead
from cvretrieval.codebooks import AllWords, NearestWord, NearestWords, SoftWords
from cvretrieval.codebooks.assignment import BLOCK, WORD_CHUNK, block_bounds
from tests.reference.assignment import (
    best_words_naive,
    nearest_several_naive,
    nearest_words_naive,
    several_words_naive,
    sum_squares_naive,
)


def assign(descriptors, centers):
    return NearestWord(centers, "this test").assign(np.asarray(descriptors, dtype=np.float32), 3)


def whole_numbers(rng, n, n_dims, high=4):
    """Every product and distance of these is exact in float32, and ties are frequent."""
    return rng.integers(-high, high + 1, (n, n_dims)).astype(np.float32)


@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 5, 6, 17])
@pytest.mark.parametrize("n_descriptors", [1, 7, 8, 9, 255, 256, 257])
def test_best_words_is_the_running_maximum(n_words, n_descriptors, rng):
    products = rng.integers(-9, 10, (n_words, n_descriptors + 5)).astype(np.float32)
    half_norms = rng.integers(0, 5, n_words).astype(np.float32) / 2
    expected_best, expected = best_words_naive(products[:, :n_descriptors] - half_norms[:, None])
    best, words = np.full(n_descriptors, 99, np.float32), np.full(n_descriptors, 99, np.int32)
    best_words(products, half_norms, 0, best, words)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(best, expected_best)
    # Two calls, each with a part of the words, say the same.
    cut = n_words // 2
    best_words(products[:cut], half_norms[:cut], 0, best, words)
    if cut:
        best_words(products[cut:], half_norms[cut:], cut, best, words)
        np.testing.assert_array_equal(words, expected)
        np.testing.assert_array_equal(best, expected_best)


def test_best_words_never_lets_nan_win():
    products = np.array([[np.nan, 1, np.nan], [2, np.nan, np.nan]], dtype=np.float32)
    best, words = np.empty(3, np.float32), np.empty(3, np.int32)
    best_words(products, np.zeros(2, np.float32), 0, best, words)
    expected_best, expected = best_words_naive(products)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(best, expected_best)
    assert words.tolist() == [1, 0, 0] and best[2] == -np.inf


@pytest.mark.parametrize("shape", [(1, 1), (3, 128), (257, 5), (0, 8)])
def test_read_ahead_sums_squares(shape, rng):
    descriptors = rng.integers(-9, 9, shape).astype(np.float32)
    assert read_ahead(descriptors) == sum_squares_naive(descriptors)


@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("n_descriptors", [1, 2, 255, 256, 257])
def test_words_are_nearest_and_ties_go_to_the_lowest(n_words, n_descriptors, rng):
    centers, descriptors = whole_numbers(rng, n_words, 3, 2), whole_numbers(rng, n_descriptors, 3, 3)
    words = assign(descriptors, centers)
    np.testing.assert_array_equal(words, nearest_words_naive(descriptors, centers))
    assert words.dtype == np.int32


@pytest.mark.parametrize("n_descriptors", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_blocks_of_descriptors_have_no_seams(n_descriptors, rng):
    centers, descriptors = whole_numbers(rng, 5, 4), whole_numbers(rng, n_descriptors, 4)
    np.testing.assert_array_equal(assign(descriptors, centers), nearest_words_naive(descriptors, centers))


@pytest.mark.parametrize("n_words", [WORD_CHUNK - 1, WORD_CHUNK, WORD_CHUNK + 1, 2 * WORD_CHUNK + 3])
def test_chunks_of_words_have_no_seams(n_words, rng):
    # Repeated words: the tie between the first and the last chunk goes to the first.
    centers = whole_numbers(rng, n_words, 6)
    centers[-1] = centers[0]
    descriptors = np.concatenate([whole_numbers(rng, 60, 6), centers[:1]])
    words = assign(descriptors, centers)
    np.testing.assert_array_equal(words, nearest_words_naive(descriptors, centers))
    assert words[-1] == 0


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 40), st.integers(1, 9))
def test_words_of_whole_numbers_are_exact(seed, n_words, n_descriptors, n_dims):
    rng = np.random.default_rng(seed)
    centers, descriptors = whole_numbers(rng, n_words, n_dims, 1), whole_numbers(rng, n_descriptors, n_dims, 1)
    np.testing.assert_array_equal(assign(descriptors, centers), nearest_words_naive(descriptors, centers))


def test_words_of_real_numbers_are_nearest_within_rounding(rng):
    centers, descriptors = rng.normal(size=(64, 128)), rng.normal(size=(500, 128))
    words = assign(descriptors, centers)
    squares = ((descriptors[:, None] - centers) ** 2).sum(axis=2)
    excess = squares[np.arange(500), words] - squares.min(axis=1)
    assert excess.max() < 1e-4
    assert (words == nearest_words_naive(descriptors, centers)).mean() > 0.99


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20])
@pytest.mark.parametrize("row", [0, 700, 1499])
def test_descriptors_that_are_not_finite_are_refused(value, row, rng):
    descriptors, centers = rng.normal(size=(1500, 5)), rng.normal(size=(3, 5))
    descriptors[row, 2] = value
    with pytest.raises(ValueError, match="this test got descriptors of image 3 that are NaN, infinite or too large"):
        assign(descriptors, centers)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 5 * BLOCK))
def test_blocks_cover_an_image_evenly(n_descriptors):
    bounds = block_bounds(n_descriptors)
    sizes = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == n_descriptors
    assert all(0 < size <= BLOCK for size in sizes)
    assert len(sizes) == 0 or max(sizes) - min(sizes) <= 1


def test_bytes_are_converted_block_by_block(rng):
    descriptors, centers = rng.integers(0, 256, (1300, 8), dtype=np.uint8), rng.integers(0, 256, (7, 8))
    words = NearestWord(centers, "this test").assign(descriptors, 0)
    np.testing.assert_array_equal(words, nearest_words_naive(descriptors, centers))


@pytest.mark.parametrize("keep", [nearest_words, nearest_few_words])
@pytest.mark.parametrize("n_nearest", [1, 2, 3, 6])
@pytest.mark.parametrize("n_words", [6, 7, 17])
@pytest.mark.parametrize("n_descriptors", [0, 1, 9, 257])
def test_nearest_words_keeps_the_best_and_ties_go_to_the_lowest(keep, n_nearest, n_words, n_descriptors, rng):
    products = rng.integers(-3, 4, (n_words, n_descriptors + 5)).astype(np.float32)
    half_norms = rng.integers(0, 3, n_words).astype(np.float32) / 2
    expected_scores, expected = several_words_naive(products[:, :n_descriptors] - half_norms[:, None], n_nearest)
    scores = np.full((n_nearest, n_descriptors), 99, np.float32)
    words = np.full(scores.shape, 99, np.int32)
    for cut in (0, n_words // 2):  # one call, then two with a part of the words each
        keep(products[:cut], half_norms[:cut], 0, scores, words)
        keep(products[cut:], half_norms[cut:], cut, scores, words)
        np.testing.assert_array_equal(words, expected)
        np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("keep", [nearest_words, nearest_few_words])
def test_nearest_words_never_lets_nan_win(keep):
    products = np.array([[np.nan], [2], [np.nan], [5]], dtype=np.float32)
    scores, words = np.empty((3, 1), np.float32), np.empty((3, 1), np.int32)
    keep(products, np.zeros(4, np.float32), 0, scores, words)
    assert words.ravel().tolist() == [3, 1, 0] and scores.ravel().tolist() == [5, 2, -np.inf]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 40), st.integers(1, 9), st.integers(1, 11))
def test_several_words_of_whole_numbers_are_exact(seed, n_words, n_descriptors, n_dims, n_nearest):
    rng = np.random.default_rng(seed)
    n_nearest = min(n_nearest, n_words)
    centers, descriptors = whole_numbers(rng, n_words, n_dims, 1), whole_numbers(rng, n_descriptors, n_dims, 1)
    words, gaps = NearestWords(centers, n_nearest, "this test").assign(descriptors, 0)
    expected, expected_gaps = nearest_several_naive(descriptors, centers, n_nearest)
    np.testing.assert_array_equal(words, expected.reshape(n_descriptors, n_nearest))
    np.testing.assert_array_equal(gaps, expected_gaps.reshape(n_descriptors, n_nearest))


@pytest.mark.parametrize("n_words", [WORD_CHUNK - 1, 2 * WORD_CHUNK + 3])
@pytest.mark.parametrize("n_descriptors", [BLOCK, 2 * BLOCK + 1])
def test_several_words_have_no_seams(n_words, n_descriptors, rng):
    centers, descriptors = whole_numbers(rng, n_words, 6), whole_numbers(rng, n_descriptors, 6)
    centers[-1] = centers[0]  # a tie between the first and the last chunk
    words, gaps = NearestWords(centers, 3, "this test").assign(descriptors, 0)
    squares = ((descriptors[:, None] - centers) ** 2).sum(axis=2)
    expected = np.argsort(squares, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(words, expected)
    ranked = np.take_along_axis(squares, expected, axis=1)
    np.testing.assert_array_equal(gaps, ranked - ranked[:, :1])
    np.testing.assert_array_equal(words[:, 0], assign(descriptors, centers))


def test_gaps_keep_their_digits_far_from_all_words(rng):
    """Distances of 1e8 in float32 are known to 8; the gap between them, of some 100, to much less."""
    centers = rng.normal(size=(8, 4))
    descriptors = np.full((50, 4), 5000.0) + rng.integers(0, 9, (50, 4))
    words, gaps = NearestWords(centers, 2, "this test").assign(descriptors, 0)
    expected, expected_gaps = nearest_several_naive(descriptors, centers.astype(np.float32), 2)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_allclose(gaps, expected_gaps, atol=0.05)


def test_several_words_refuse_what_is_not_finite(rng):
    descriptors = rng.normal(size=(1500, 5))
    descriptors[1499, 2] = np.nan
    with pytest.raises(ValueError, match="this test got descriptors of image 3 that are NaN, infinite or too large"):
        NearestWords(rng.normal(size=(4, 5)), 2, "this test").assign(descriptors, 3)


@pytest.mark.parametrize("n_words", [1, 5, WORD_CHUNK, 2 * WORD_CHUNK + 3])
@pytest.mark.parametrize("n_descriptors", [0, 1, BLOCK + 1])
@pytest.mark.parametrize("sigma", [1e-30, 2.0, 1e6])
def test_weights_of_all_words_and_of_the_nearest_are_those_of_the_kernel(n_words, n_descriptors, sigma, rng):
    centers, descriptors = whole_numbers(rng, n_words, 6), whole_numbers(rng, n_descriptors, 6)
    squares = ((descriptors[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    with np.errstate(over="ignore"):
        expected = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / (2 * np.longdouble(sigma) ** 2))
    expected = expected.astype(np.float64)
    parts = [weights.T for _, weights in AllWords(centers, sigma, "this test").blocks(descriptors, 0)]
    everything = np.concatenate(parts) if parts else np.empty((0, n_words))
    np.testing.assert_allclose(everything, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    n_nearest = min(3, n_words)
    order = np.argsort(squares, axis=1, kind="stable")[:, :n_nearest]
    nearest = np.take_along_axis(expected, order, axis=1)
    start = 0
    for rows, words, weights in SoftWords(centers, n_nearest, sigma, "this test").blocks(descriptors, 0):
        block = slice(start, start + len(rows))
        np.testing.assert_array_equal(words.T, order[block])
        shares = nearest[block] / nearest[block].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights.T, shares, atol=1e-6)
        start = block.stop
    assert start == n_descriptors
