"""Matching restricted by visual words and in integers: kernels and their twins, all against exhaustive matches."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import SIFT
from cvretrieval._kernels.integer_products import integer_products, quantize_rows
from cvretrieval._kernels.word_matching import ROWS, group_by_word, match_within_words, unpack_rows
from cvretrieval.datasets import make_scenes
from cvretrieval.verification import match_descriptors
from cvretrieval.verification.matching import make_matcher
from tests.reference import matching

ALL_WORDS = 10_000


@pytest.fixture(scope="module")
def features():
    """Two views each of two scenes, RootSIFT in bytes as stores keep them."""
    X = SIFT(root=True, max_features=600).transform(make_scenes(n_scenes=2, n_views=2, random_state=3).images)
    return X.with_descriptors(np.clip(np.rint(X.descriptors * 512), 0, 255).astype(np.uint8))


def pairs(matches):
    return {tuple(row) for row in matches.tolist()}


@pytest.mark.parametrize("n_words", [1, 3, 40])
@pytest.mark.parametrize("n_rows", [0, 1, 57])
def test_rows_are_grouped_by_word(n_words, n_rows, rng):
    words = rng.integers(0, n_words, n_rows).astype(np.int32)
    order, bounds = np.full(n_rows, -1, dtype=np.int32), np.full(n_words + 1, -1)
    group_by_word(words, order, bounds)
    np.testing.assert_array_equal(order, np.argsort(words, kind="stable"))
    np.testing.assert_array_equal(bounds, np.searchsorted(np.sort(words), np.arange(n_words + 1)))


@pytest.mark.parametrize(("n_a", "n_b", "n_words"), [(1, 1, 1), (1, 5, 2), (2, 1, 3), (37, 130, 2), (60, 41, 7)])
@pytest.mark.parametrize("n_dims", [3, 16, 33])
def test_nearest_within_words_are_those_of_the_definition(n_a, n_b, n_words, n_dims, rng):
    # Whole numbers of a small range: distances are exact in float32, and ties occur.
    a, b = rng.integers(0, 4, (n_a, n_dims)).astype(np.float32), rng.integers(0, 4, (n_b, n_dims)).astype(np.float32)
    is_member, words = rng.random((n_a, n_words)) < 0.6, rng.integers(0, n_words, n_b).astype(np.int32)
    of_words, members = np.nonzero(is_member.T)
    starts = np.searchsorted(of_words, np.arange(n_words + 1)).astype(np.int64)
    order, bounds = np.empty(n_b, dtype=np.int32), np.empty(n_words + 1, dtype=np.int64)
    group_by_word(words, order, bounds)
    half_a, half_b = (np.float32(0.5) * (rows**2).sum(axis=1) for rows in (a, b))
    best, second = np.full(n_a, 7, dtype=np.float32), np.full(n_a, 7, dtype=np.float32)
    nearest, best_of_b = np.full(n_a, 7, dtype=np.int32), np.full(n_b, 7, dtype=np.float32)
    scratch = np.empty((ROWS, n_a), dtype=np.float32)
    match_within_words(
        a, half_a, members.astype(np.int32), starts, b, half_b, order, bounds, scratch, best, second, nearest, best_of_b
    )
    for found, expected in zip(
        (best, second, nearest, best_of_b), matching.match_within_words(a, b, is_member, words), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_rows_are_unpacked(dtype, step, rng):
    descriptors = rng.integers(0, 256, (9, 16)).astype(dtype)
    keys = np.empty((9, len(range(0, 16, step))), dtype=np.float32)
    rows, half_norms = np.empty((9, 16), dtype=np.float32), np.empty(9, dtype=np.float32)
    unpack_rows(descriptors, step, rows, keys, half_norms)
    np.testing.assert_array_equal(rows, descriptors)
    np.testing.assert_array_equal(keys, descriptors[:, ::step])
    np.testing.assert_array_equal(half_norms, 0.5 * (descriptors.astype(np.float64) ** 2).sum(axis=1))


@pytest.mark.parametrize("n_dims", [1, 4, 31, 128])
def test_quantized_rows_and_their_products(n_dims, rng):
    rows = (rng.normal(size=(12, n_dims)) * 10.0 ** rng.integers(-4, 5, (12, 1))).astype(np.float32)
    rows[3], rows[4, 0], rows[5, 0] = 0, np.nan, np.inf
    width = n_dims + n_dims % 2
    radius = np.float32(181 - 0.5 * np.sqrt(n_dims))
    quantized = np.full((12, width), 9, dtype=np.int16)
    scales, half_norms = np.empty(12, dtype=np.float32), np.empty(12, dtype=np.float32)
    quantize_rows(rows, radius, quantized, scales, half_norms)
    for i, row in enumerate(rows):
        integers, scale, half_norm = matching.quantize(row, float(radius))
        # Where a half is rounded, float32 may decide otherwise.
        assert np.abs(quantized[i, :n_dims] - integers).max() <= 1 and (quantized[i, :n_dims] != integers).sum() <= 1
        assert (quantized[i, n_dims:] == 0).all() and (quantized[i].astype(int) ** 2).sum() <= 181**2
        np.testing.assert_allclose([scales[i], half_norms[i]], [scale, half_norm], rtol=2e-2)
    # Opposite rows give the most negative product, equal ones the largest.
    others = np.ascontiguousarray(np.vstack([quantized, -quantized])[: 12 + 11])
    products = np.empty((23, 12), dtype=np.float32)
    more = np.concatenate([scales, scales])[:23]
    integer_products(
        np.ascontiguousarray(quantized.T), scales, others, more, np.empty((8, 12), dtype=np.int16), products
    )
    exact = (others.astype(np.int64) @ quantized.T.astype(np.int64)).astype(np.float32)
    np.testing.assert_array_equal(products, exact * (scales * more[:, None]))


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (1, 40), (40, 1), (33, 70), (300, 257)])
@pytest.mark.parametrize("ratio", [1.0, 0.85])
@pytest.mark.parametrize("mutual", [True, False])
def test_all_words_give_the_exhaustive_matches(n_a, n_b, ratio, mutual, rng):
    base = rng.integers(0, 200, (40, 16))
    a = (base[rng.integers(0, 40, n_a)] + rng.integers(0, 9, (n_a, 16))).astype(np.uint8)
    b = (base[rng.integers(0, 40, n_b)] + rng.integers(0, 9, (n_b, 16))).astype(np.uint8)
    expected = match_descriptors(a, b, ratio=ratio, mutual=mutual)
    found = match_descriptors(a, b, ratio=ratio, mutual=mutual, matching="words", n_assignments=ALL_WORDS)
    np.testing.assert_array_equal(found, expected)


def test_most_matches_are_found_within_words_and_in_integers(features):
    exhaustive = pairs(match_descriptors(features[0].descriptors, features[1].descriptors))
    assert len(exhaustive) > 100
    for options, share in [
        ({"matching": "words"}, 0.93),
        ({"matching": "words", "n_assignments": 12}, 0.98),
        ({"matching": "quantized"}, 0.97),
    ]:
        found = pairs(match_descriptors(features[0].descriptors, features[1].descriptors, **options))
        assert len(found & exhaustive) >= share * len(exhaustive), options
        assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)


@pytest.mark.parametrize("mode", ["words", "quantized"])
def test_types_and_layouts_of_descriptors_match_alike(mode, features, tmp_path):
    a, b = features[0].descriptors, features[1].descriptors
    expected = match_descriptors(a, b, matching=mode)
    read_only = b.astype(np.float32)
    read_only.flags.writeable = False
    np.save(tmp_path / "b.npy", b)
    for other in (
        b.astype(np.float32), b.astype(np.float64), np.asfortranarray(b.astype(np.float32)), read_only,
        np.load(tmp_path / "b.npy", mmap_mode="r"), b[::-1].copy()[::-1],
    ):  # fmt: skip
        np.testing.assert_array_equal(match_descriptors(a.astype(other.dtype), other, matching=mode), expected)
    np.testing.assert_array_equal(match_descriptors(read_only, read_only, matching=mode)[:, 0], np.arange(len(b)))


@pytest.mark.parametrize("mode", ["words", "quantized"])
@pytest.mark.parametrize("shape", [(0, 128), (0, 0)])
def test_images_without_features_have_no_matches(mode, shape, features):
    none, some = np.empty(shape, dtype=np.float32), features[0].descriptors
    for a, b in ((none, some), (some, none), (none, none)):
        assert match_descriptors(a, b, matching=mode).shape == (0, 2)


@pytest.mark.parametrize("mode", ["exhaustive", "words", "quantized"])
@pytest.mark.parametrize("ratio", [1.0, 0.9])
def test_descriptors_that_are_no_numbers_have_no_match(mode, ratio, rng):
    a = rng.random((50, 8), dtype=np.float32)
    broken = a.copy()
    broken[7, 3], broken[11, 0] = np.nan, np.inf
    for one, other in ((a, broken), (broken, a), (broken, broken)):
        found = match_descriptors(one, other, ratio=ratio, matching=mode, n_assignments=ALL_WORDS)
        assert {7, 11}.isdisjoint(found.ravel().tolist()) and len(found) > 40


@pytest.mark.parametrize("mode", ["words", "quantized"])
def test_equal_descriptors_match_themselves(mode, rng):
    a = np.repeat(rng.random((1, 8), dtype=np.float32), 40, axis=0)
    assert len(match_descriptors(a, a, matching=mode)) == 0
    assert len(match_descriptors(a, a, ratio=1.0, matching=mode)) == 1
    assert len(match_descriptors(np.zeros_like(a), a, ratio=1.0, matching=mode)) == 1


def test_matches_with_one_image_do_not_depend_on_the_others(features):
    for mode in ("words", "quantized"):
        matcher = make_matcher(
            features[0].descriptors, ratio=0.9, mutual=True, metric="euclidean", matching=mode, n_assignments=5
        )
        together = [matcher.match(image.descriptors) for image in features]
        for image, found in zip(features, together, strict=True):
            np.testing.assert_array_equal(
                match_descriptors(features[0].descriptors, image.descriptors, matching=mode), found
            )


def test_binary_descriptors_are_compared_exhaustively(rng):
    a, b = rng.integers(0, 256, (90, 32)).astype(np.uint8), rng.integers(0, 256, (80, 32)).astype(np.uint8)
    expected = match_descriptors(a, b, metric="hamming", ratio=0.98)
    assert len(expected)
    for mode in ("words", "quantized"):
        np.testing.assert_array_equal(match_descriptors(a, b, metric="hamming", ratio=0.98, matching=mode), expected)


def test_bad_parameters_of_matching():
    a = np.zeros((3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="'matching' parameter of match_descriptors must be one of 'words'"):
        match_descriptors(a, a, matching="word")
    with pytest.raises(ValueError, match="'n_assignments' parameter of match_descriptors"):
        match_descriptors(a, a, matching="words", n_assignments=0)
