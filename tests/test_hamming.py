"""Binary descriptors: Hamming kernels, matching and verification."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cvretrieval import LocalFeatures, OpenCVFeatures, SpatialVerifier
from cvretrieval._kernels.hamming import count_bits, hamming_distances, nearest_by_hamming, pack_bytes
from cvretrieval.datasets import make_scenes
from cvretrieval.verification import match_descriptors
from tests.parity import agree
from tests.reference.hamming import hamming, match_binary


def binary(rng, n, n_bytes):
    return rng.integers(0, 256, (n, n_bytes), dtype=np.uint8)


@pytest.mark.parametrize("n_bytes", [1, 7, 8, 32, 61, 64])
def test_distances_and_nearest_equal_the_definition(rng, n_bytes):
    a, b = binary(rng, 50, n_bytes), binary(rng, 40, n_bytes)
    a[3], b[5], b[6] = 0, 255, a[7]
    a[4] = 255
    expected = hamming(a, b)
    distances = np.full((40, 50), -1, dtype=np.float32)
    hamming_distances(pack_bytes(b), pack_bytes(a), distances)
    np.testing.assert_array_equal(distances.T, expected)
    words, least = np.full(50, -1, np.int32), np.full(50, -1, np.int32)
    nearest_by_hamming(pack_bytes(a), pack_bytes(b), words, least)
    np.testing.assert_array_equal(words, expected.argmin(axis=1))
    np.testing.assert_array_equal(least, expected.min(axis=1))


def test_bits_are_counted_in_the_order_of_unpackbits(rng):
    descriptors = binary(rng, 60, 5)
    words = rng.integers(0, 4, 60).astype(np.int32)
    words[words == 2] = 1
    ones, sizes = np.zeros((4, 40), np.int64), np.zeros(4, np.int64)
    count_bits(descriptors, words, ones, sizes)
    bits = np.unpackbits(descriptors, axis=1)
    np.testing.assert_array_equal(ones, [bits[words == k].sum(axis=0) for k in range(4)])
    np.testing.assert_array_equal(sizes, np.bincount(words, minlength=4))


@pytest.mark.parametrize("ratio", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize(("n_a", "n_b"), [(40, 300), (200, 129), (5, 1), (1, 5), (0, 4), (4, 0)])
def test_matches_equal_the_definition(rng, ratio, mutual, n_a, n_b):
    b = binary(rng, n_b, 4)
    a = binary(rng, n_a, 4)
    n = min(n_a, n_b)
    a[: n // 2] = b[: n // 2] ^ (1 << rng.integers(0, 8, (n // 2, 4))).astype(np.uint8)
    found = match_descriptors(a, b, ratio=ratio, mutual=mutual, metric="hamming")
    assert [tuple(pair) for pair in found.tolist()] == match_binary(a, b, ratio, mutual)


def test_equals_opencv(rng):
    b = binary(rng, 300, 32)
    a = b[rng.permutation(300)[:200]] ^ (binary(rng, 200, 32) & binary(rng, 200, 32) & binary(rng, 200, 32))
    expected = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(a, b)
    found = match_descriptors(a, b, ratio=1.0, metric="hamming")
    pairs = sorted((m.queryIdx, m.trainIdx) for m in expected)
    agree("hamming-matching", sorted(map(tuple, found.tolist())), pairs, 0)
    assert len(found) > 150


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_scenes=3, n_views=2, random_state=5)


def test_binary_features_are_verified(scenes):
    X = OpenCVFeatures("ORB", max_features=1500).transform(scenes.images)
    verifier = SpatialVerifier(metric="hamming")
    n_found = 0
    for i in range(len(X)):
        for j, result in enumerate(verifier.verify_candidates(X[i], X)):
            same = scenes.labels[i] == scenes.labels[j]
            assert same or not result, (i, j)
            n_found += bool(result) and i != j
    assert n_found >= 4
    again = verifier.verify_candidates(X[0], X, n_jobs=2)
    assert [r.n_inliers for r in again] == [r.n_inliers for r in verifier.verify_candidates(X[0], X)]


def test_an_image_without_features_is_rejected(scenes):
    X = OpenCVFeatures("ORB").transform([scenes.images[0], np.zeros((99, 99), np.uint8)])
    blank = LocalFeatures.from_images([(np.empty((0, 32), np.float32), np.empty((0, 4)), (99, 99))])
    verifier = SpatialVerifier(metric="hamming")
    assert "second image has no features" in verifier.verify(X[0], X[1]).reason
    assert "first image has no features" in verifier.verify(blank[0], X[0]).reason


def test_errors(rng):
    a = rng.normal(size=(5, 32)).astype(np.float32)
    with pytest.raises(ValueError, match=r"Hamming distance and needs binary ones, uint8.*Got an array of float32"):
        match_descriptors(a, a, metric="hamming")
    with pytest.raises(ValueError, match="'metric' parameter of match_descriptors must be one of 'euclidean', 'hamm"):
        match_descriptors(a, a, metric="cosine")
    with pytest.raises(ValueError, match="32-d descriptors, the second 16-d"):
        match_descriptors(binary(rng, 3, 32), binary(rng, 3, 16), metric="hamming")
    X = LocalFeatures.from_images([(a, np.ones((5, 4)), (9, 9))])
    with pytest.raises(ValueError, match="needs binary ones"):
        SpatialVerifier(metric="hamming").verify(X[0], X[0])
    with pytest.raises(ValueError, match="'metric' parameter of SpatialVerifier"):
        SpatialVerifier(metric="l2").verify(X[0], X[0])
