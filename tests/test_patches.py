"""Patches: what is cut and where, the same for an image wherever it stands; and ZCA whitening of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA

from cvretrieval import SIFT, DenseSIFT, LocalFeatures, OpenCVFeatures, Patches, PerDescriptor, ZCAWhitening
from tests.reference.patches import patch_at
from tests.reference.zca_whitening import zca_naive


@pytest.fixture(scope="module")
def photo():
    return cv2.cvtColor(load_sample_image("china.jpg"), cv2.COLOR_RGB2GRAY)[150:350, 150:400].copy()


@pytest.mark.parametrize("mode", ["grid", "random"])
@pytest.mark.parametrize("size", [2, 5, 8])
def test_equals_the_definition(photo, mode, size):
    image = Patches(mode, patch_size=size, step=7, n_patches=60, epsilon=3.0).transform([photo])[0]
    assert len(image.descriptors) == 60 or mode == "grid"
    corners = np.rint(image.keypoints[:, :2] - (size - 1) / 2).astype(int)
    np.testing.assert_array_equal(corners + (size - 1) / 2, image.keypoints[:, :2])
    expected = [patch_at(photo, left, top, size, 3.0) for left, top in corners]
    np.testing.assert_allclose(image.descriptors, expected, atol=2e-5)
    np.testing.assert_allclose(image.keypoints[:, 2:], [[size / 12, 0]] * len(expected), rtol=1e-6)
    assert image.descriptors.dtype == np.float32


def test_grid_is_centred(photo):
    keypoints = Patches(patch_size=6, step=10).transform([photo[:50, :93]])[0].keypoints
    x, y = np.unique(keypoints[:, 0]), np.unique(keypoints[:, 1])
    assert len(keypoints) == len(x) * len(y) == 9 * 5
    np.testing.assert_array_equal(x - 2.5, 3 + 10 * np.arange(9))
    np.testing.assert_array_equal(y - 2.5, 2 + 10 * np.arange(5))


def test_random_places_differ_and_follow_the_seed_and_the_image(photo):
    first, second = photo[:100, :120], photo[100:, 100:220]
    X = Patches("random", n_patches=200).transform([first, second, first])
    assert X.lengths.tolist() == [200, 200, 200]
    assert len(np.unique(X[0].keypoints, axis=0)) == 200
    np.testing.assert_array_equal(X[0].keypoints, X[2].keypoints)
    assert not np.array_equal(X[0].keypoints, X[1].keypoints)
    again = Patches("random", n_patches=200, n_jobs=2).transform([second, first])
    np.testing.assert_array_equal(again[0].descriptors, X[1].descriptors)
    np.testing.assert_array_equal(again[1].descriptors, X[0].descriptors)
    other = Patches("random", n_patches=200, random_state=1).transform([first])
    assert not np.array_equal(other.keypoints, X[0].keypoints)


def test_random_places_are_everywhere_alike(photo):
    keypoints = Patches("random", patch_size=4, n_patches=8000).transform([photo])[0].keypoints
    counts, *_ = np.histogram2d(keypoints[:, 0], keypoints[:, 1], bins=4, range=[(1.5, 247.5), (1.5, 197.5)])
    assert abs(counts / 500 - 1).max() < 0.2


def test_all_places_of_a_small_image():
    image = np.random.default_rng(0).integers(0, 256, (9, 11)).astype(np.uint8)
    everywhere = Patches("grid", step=1).transform([image])[0]
    few = Patches("random", n_patches=8).transform([image])[0]
    np.testing.assert_array_equal(few.keypoints, everywhere.keypoints)
    assert len(few.descriptors) == 8


def test_at_keypoints(photo):
    sift = SIFT(max_features=80)
    found = sift.transform([photo])[0].keypoints
    image = Patches("keypoints", patch_size=9, extractor=sift).transform([photo])[0]
    assert 40 < len(image.descriptors) <= 80 and (image.keypoints[:, 3] == 0).all()
    assert {tuple(k) for k in image.keypoints[:, :3].tolist()} <= {tuple(k) for k in found[:, :3].tolist()}
    np.testing.assert_allclose(image.descriptors.mean(axis=1), 0, atol=1e-5)
    for other in (None, OpenCVFeatures("ORB", detector="FAST")):
        X = Patches("keypoints", extractor=other).transform([photo, np.zeros((30, 30), np.uint8)])
        assert X.lengths[0] > 40 and X.lengths[1] == 0 and X.n_dims == 64


def test_patch_of_a_keypoint_covers_twelve_sigma(photo):
    """DenseSIFT's keypoints have sizes that are known: sigma 4/3 gives 16 pixels, averaged in pairs."""
    dense = DenseSIFT(step=20)
    found = dense.transform([photo])[0].keypoints
    image = Patches("keypoints", patch_size=8, extractor=dense, epsilon=1.0).transform([photo])[0]
    assert 20 < len(image.keypoints) <= len(found)
    for descriptor, (x, y, _, _) in zip(image.descriptors, image.keypoints, strict=True):
        left, top = round(x - 7.5), round(y - 7.5)
        halved = photo[top : top + 16, left : left + 16].reshape(8, 2, 8, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(descriptor, patch_at(halved, 0, 0, 8, 1.0), atol=1e-4)


def test_even_patches_are_zero_and_small_images_have_none():
    X = Patches().transform([np.full((20, 20), 77, np.uint8), np.zeros((7, 30), np.uint8), np.zeros((1, 1), np.uint8)])
    assert X.lengths.tolist() == [16, 0, 0] and (X.descriptors == 0).all()


@pytest.mark.parametrize("mode", ["grid", "random", "keypoints"])
def test_jobs_and_batches_do_not_change_a_bit(photo, mode):
    images = [photo[i * 8 : 120 + i * 8, :200] for i in range(9)]
    one = Patches(mode).transform(images)
    for other in (
        Patches(mode, n_jobs=3).transform(images),
        LocalFeatures.concatenate([Patches(mode).transform([image]) for image in images]),
    ):
        for name in ("descriptors", "keypoints", "offsets", "image_sizes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "parameters",
    [{"mode": "dense"}, {"patch_size": 1}, {"patch_size": 2.5}, {"step": 0}, {"n_patches": 0}, {"epsilon": 0},
     {"random_state": None}, {"random_state": -1}, {"extractor": PCA()}],
)  # fmt: skip
def test_bad_parameters_are_named(photo, parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of Patches"):
        Patches(**parameters).fit([photo])


def test_bad_parameters_of_the_extractor_are_named(photo):
    with pytest.raises(ValueError, match="'max_features' parameter of SIFT"):
        Patches("keypoints", extractor=SIFT(max_features=0)).fit([photo])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 5.0])
def test_zca_equals_the_definition(rng, epsilon):
    X = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6)) + 3
    Z = ZCAWhitening(epsilon).fit(X).transform(X[:20])
    np.testing.assert_allclose(Z, zca_naive(X, X[:20], epsilon), atol=1e-6)


def test_zca_zeroes_directions_without_variance(rng):
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 8))
    Z = ZCAWhitening(epsilon=0).fit_transform(X)
    values = np.linalg.eigvalsh(np.cov(Z.T, bias=True))
    np.testing.assert_allclose(values, [0] * 5 + [1] * 3, atol=1e-6)


def test_whitening_of_patches(photo):
    X = Patches(patch_size=6, step=2).transform([photo, photo[:40, :40]])
    zca = PerDescriptor(ZCAWhitening(epsilon=0)).fit_transform(X)
    covariance = np.cov(zca.descriptors.T, bias=True)
    # Without its mean a patch has one direction less.
    np.testing.assert_allclose(covariance, np.eye(36) - 1 / 36, atol=2e-2)
    pca = PerDescriptor(PCA(20, whiten=True)).fit_transform(X)
    np.testing.assert_allclose(np.cov(pca.descriptors.T), np.eye(20), atol=1e-2)
    assert zca.keypoints is X.keypoints
    similarity = (zca.descriptors * X.descriptors).sum(axis=1)
    assert (similarity[np.linalg.norm(X.descriptors, axis=1) > 1] > 0).mean() > 0.95


@pytest.mark.parametrize("epsilon", [-1, "a", None])
def test_bad_epsilon_is_named(rng, epsilon):
    with pytest.raises(ValueError, match="'epsilon' parameter of ZCAWhitening"):
        ZCAWhitening(epsilon).fit(rng.normal(size=(9, 3)))
