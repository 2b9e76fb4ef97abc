"""SIFT and PerDescriptor: what is kept, where it lies, and that it equals OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer

from cvretrieval import SIFT, ImageReader, ImageReadError, LocalFeatures, PerDescriptor
from cvretrieval.images import ImageRegion
from tests.parity import record
from tests.reference.sift import root_sift_naive


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).convert("L"))


@pytest.fixture(scope="module")
def all_features(photo):
    return SIFT(max_features=None).transform([photo])


def test_equals_opencv(photo):
    detector = cv2.SIFT_create(enable_precise_upscale=True)
    points, descriptors = detector.detectAndCompute(photo, None)
    image = SIFT(max_features=None).transform([photo])[0]
    assert len(image.descriptors) == len(points) > 1000
    expected = {
        (p.pt[0], p.pt[1], p.size / 2, np.deg2rad(p.angle), d.tobytes())
        for p, d in zip(points, descriptors, strict=True)
    }
    found = {(*map(float, k), d.tobytes()) for k, d in zip(image.keypoints, image.descriptors, strict=True)}
    expected = {tuple(np.float32(v) if not isinstance(v, bytes) else v for v in row) for row in expected}
    found = {tuple(np.float32(v) if not isinstance(v, bytes) else v for v in row) for row in found}
    assert found == expected
    record("sift", 0)


@pytest.mark.parametrize("max_features", [1, 100, 777])
def test_exactly_the_strongest_features_are_kept(photo, all_features, max_features):
    """All features come strongest first, so a cut must be a prefix."""
    image = SIFT(max_features=max_features).transform([photo])[0]
    assert len(image.descriptors) == max_features
    np.testing.assert_array_equal(image.keypoints, all_features[0].keypoints[:max_features])
    np.testing.assert_array_equal(image.descriptors, all_features[0].descriptors[:max_features])


def test_root_sift(photo):
    plain = SIFT(max_features=200).transform([photo]).descriptors
    root = SIFT(max_features=200, root=True).transform([photo]).descriptors
    np.testing.assert_allclose(root, root_sift_naive(plain), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(root, axis=1), 1, atol=1e-6)
    assert root.dtype == np.float32


def test_upright(photo):
    image = SIFT(upright=True, max_features=300).transform([photo])[0]
    assert len(image.descriptors) == 300 and (image.keypoints[:, 3] == 0).all()
    assert len(np.unique(image.keypoints[:, :3], axis=0)) == 300
    turned = SIFT(upright=True, max_features=300).transform([np.rot90(photo).copy()])[0]
    assert not np.array_equal(image.descriptors, turned.descriptors)


def test_geometry_of_a_blob():
    """A Gaussian blob is found at its centre with its own sigma."""
    y, x = np.mgrid[:200, :300]
    blob = (40 + 200 * np.exp(-((x - 120.25) ** 2 + (y - 70.5) ** 2) / (2 * 12.0**2))).astype(np.uint8)
    image = SIFT(contrast_threshold=0.01).transform([blob])[0]
    np.testing.assert_allclose(image.keypoints[0, :2], [120.25, 70.5], atol=0.3)
    assert image.keypoints[0, 2] == pytest.approx(12, rel=0.2)
    assert image.image_size == (300, 200)


def test_coordinates_are_those_of_the_original(photo):
    """Reduced to a half, a feature keeps its place and scale in the original."""
    whole = SIFT(max_features=2000).transform([photo])[0].keypoints
    half = SIFT(max_features=300, reader=ImageReader(max_size=max(photo.shape) // 2)).transform([photo])[0].keypoints
    distance = np.hypot(*(half[:, None, :2] - whole[None, :, :2]).transpose(2, 0, 1))
    scale = np.abs(np.log(half[:, None, 2] / whole[None, :, 2]))
    near = (distance < 1.5) & (scale < 0.3)
    assert near.any(axis=1).mean() > 0.5
    offset = (half[:, None, :2] - whole[None, :, :2])[near]
    assert np.abs(np.median(offset, axis=0)).max() < 0.15


def test_region_gives_original_coordinates(photo):
    image = SIFT(max_features=None).transform([ImageRegion(photo, (200, 100, 400, 300))])[0]
    x, y = image.keypoints[:, 0], image.keypoints[:, 1]
    assert len(x) > 50 and x.min() >= 199 and x.max() <= 400 and y.min() >= 99 and y.max() <= 300
    assert image.image_size == (photo.shape[1], photo.shape[0])


def test_images_without_features():
    X = SIFT().transform([np.zeros((1, 1), np.uint8), np.full((50, 50), 99, np.uint8)])
    assert X.lengths.tolist() == [0, 0] and X.n_dims == 128 and X.keypoints.shape == (0, 4)
    assert SIFT().transform([]).shape == (0,)


@pytest.mark.parametrize("upright", [False, True])
def test_jobs_and_batches_do_not_change_a_bit(photo, upright):
    images = [photo[i * 20 : 150 + i * 20, :200] for i in range(9)]
    one = SIFT(upright=upright, root=True).transform(images)
    for other in (
        SIFT(upright=upright, root=True, n_jobs=3).transform(images),
        LocalFeatures.concatenate([SIFT(upright=upright, root=True).transform([image]) for image in images]),
    ):
        for name in ("descriptors", "keypoints", "offsets", "image_sizes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_unreadable_image_is_named(photo, tmp_path):
    (tmp_path / "bad.jpg").write_text("text")
    with pytest.raises(ImageReadError, match="bad"):
        SIFT(n_jobs=2).transform([photo, tmp_path / "bad.jpg"])


@pytest.mark.parametrize(
    "parameters",
    [{"max_features": 0}, {"max_features": 2.5}, {"contrast_threshold": -1}, {"edge_threshold": 0}, {"sigma": "a"},
     {"n_octave_layers": 0}, {"root": 1}, {"upright": "yes"}],
)  # fmt: skip
def test_bad_parameters_are_named(photo, parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of SIFT"):
        SIFT(**parameters).transform([photo])
    with pytest.raises(ValueError, match=next(iter(parameters))):
        SIFT(**parameters).fit([photo])


def test_numpy_numbers_are_numbers(photo):
    assert SIFT(max_features=np.int64(5)).transform([photo]).n_descriptors == 5


def test_per_descriptor_equals_the_transformer_on_all_rows(rng):
    X = LocalFeatures.from_images([(rng.normal(size=(n, 16)), rng.normal(size=(n, 4))) for n in (30, 0, 20)])
    reduced = PerDescriptor(PCA(4)).fit_transform(X)
    expected = PCA(4).fit_transform(X.descriptors)
    np.testing.assert_allclose(reduced.descriptors, expected, atol=1e-5)
    assert reduced.keypoints is X.keypoints and reduced.lengths.tolist() == [30, 0, 20]
    assert reduced.descriptors.dtype == np.float32


def test_per_descriptor_sample_is_seeded_and_bounded(rng):
    X = [rng.normal(size=(200, 8))]
    fits = [PerDescriptor(PCA(2), max_samples=50, random_state=s).fit(X).estimator_ for s in (0, 0, 1)]
    assert fits[0].n_samples_ == 50
    np.testing.assert_array_equal(fits[0].components_, fits[1].components_)
    assert not np.array_equal(fits[0].components_, fits[2].components_)


def test_per_descriptor_errors(rng):
    X = [rng.normal(size=(20, 8))]
    with pytest.raises(NotFittedError):
        PerDescriptor(PCA(2)).transform(X)
    fitted = PerDescriptor(PCA(2)).fit(X)
    with pytest.raises(ValueError, match="X has 7-d descriptors, but PerDescriptor was fitted with 8-d descriptors"):
        fitted.transform([np.ones((3, 7))])
    assert fitted.transform([None]).descriptors.shape == (0, 2)
    with pytest.raises(ValueError, match="none of the images has any descriptor"):
        PerDescriptor(PCA(2)).fit([None])
    halving = PerDescriptor(FunctionTransformer(lambda rows: rows[::2])).fit(X)
    with pytest.raises(ValueError, match="must turn each row into one row. FunctionTransformer turned 20 rows into an"):
        halving.transform(X)
