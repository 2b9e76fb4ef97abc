"""OpenCVFeatures: every detector and descriptor that OpenCV has, in our convention."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_sample_image

from cvretrieval import SIFT, LocalFeatures, OpenCVFeatures
from cvretrieval._state import from_config, to_config
from tests.parity import record

BINARY = ["AKAZE", "BRISK", "ORB"]


def has(name):
    return hasattr(cv2, f"{name}_create") or hasattr(getattr(cv2, "xfeatures2d", None), f"{name}_create")


@pytest.fixture(scope="module")
def photo():
    return cv2.cvtColor(load_sample_image("china.jpg"), cv2.COLOR_RGB2GRAY)[150:350, 150:400].copy()


@pytest.mark.parametrize("name", ["AKAZE", "BRISK", "KAZE", "ORB"])
def test_equals_opencv(photo, name):
    if not has(name):
        pytest.skip(f"this OpenCV has no {name}")
    module = cv2 if hasattr(cv2, f"{name}_create") else cv2.xfeatures2d
    options = {"nfeatures": 1_000_000} if name == "ORB" else {}
    points, descriptors = getattr(module, f"{name}_create")(**options).detectAndCompute(photo, None)
    extractor = OpenCVFeatures(name, max_features=None)
    image = extractor.transform([photo])[0]
    assert len(image.descriptors) == len(points) > 50
    assert image.descriptors.dtype == (np.uint8 if name in BINARY else np.float32)
    assert extractor.metric == ("hamming" if name in BINARY else "euclidean")
    assert image.descriptors.shape[1] == extractor.n_dims == descriptors.shape[1]
    expected = {
        (*np.float32([*p.pt, p.size / 2, np.deg2rad(p.angle)]).tolist(), d.tobytes())
        for p, d in zip(points, descriptors, strict=True)
    }
    found = {(*k.tolist(), d.tobytes()) for k, d in zip(image.keypoints, image.descriptors, strict=True)}
    assert found == expected
    record("opencv-features", 0)


def test_sift_is_sift(photo):
    options = (("enable_precise_upscale", True),) if "enable_precise_upscale" in cv2.SIFT_create.__doc__ else ()
    ours, theirs = OpenCVFeatures("SIFT", options=options, max_features=None), SIFT(max_features=None)
    for a, b in zip(ours.transform([photo])[0][:2], theirs.transform([photo])[0][:2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "detector"), [("AKAZE", None), ("BRIEF", "FAST"), ("KAZE", None)])
def test_exactly_the_strongest_are_kept(photo, name, detector):
    if not has({"BRIEF": "BriefDescriptorExtractor"}.get(name, name)):
        pytest.skip(f"this OpenCV has no {name}")
    everything = OpenCVFeatures(name, detector=detector, max_features=None).transform([photo])[0]
    some = OpenCVFeatures(name, detector=detector, max_features=37).transform([photo])[0]
    np.testing.assert_array_equal(some.keypoints, everything.keypoints[:37])
    np.testing.assert_array_equal(some.descriptors, everything.descriptors[:37])


def test_a_detector_and_a_descriptor(photo):
    image = OpenCVFeatures("SIFT", detector="FAST", detector_options={"threshold": 40}, max_features=None).transform(
        [photo]
    )[0]
    points = cv2.FastFeatureDetector_create(threshold=40).detect(photo, None)
    assert 50 < len(image.descriptors) == len(points)
    assert {tuple(k) for k in image.keypoints[:, :2].tolist()} == {p.pt for p in points}
    assert (image.keypoints[:, 3] == 0).all() and (image.keypoints[:, 2] == 3.5).all()
    mser = OpenCVFeatures("ORB", detector="MSER").transform([photo])
    assert mser.n_descriptors > 20 and mser.descriptors.dtype == np.uint8


def test_options_reach_opencv(photo):
    few = OpenCVFeatures("ORB", options=(("nfeatures", 30), ("nlevels", 1)), max_features=None)
    assert few.transform([photo]).n_descriptors == 30
    assert np.unique(few.transform([photo]).keypoints[:, 2]).tolist() == [15.5]


def test_images_without_features():
    images = [np.zeros(shape, np.uint8) for shape in ((1, 1), (5, 9), (20, 20), (100, 100))]
    for name in ("ORB", "SIFT", *(n for n in ("AKAZE", "BRISK", "KAZE") if has(n))):
        X = OpenCVFeatures(name).transform(images)
        assert X.lengths.tolist() == [0, 0, 0, 0] and X.n_dims == OpenCVFeatures(name).n_dims
    assert OpenCVFeatures("ORB").transform([]).shape == (0,)


@pytest.mark.parametrize("name", ["ORB", "AKAZE"])
def test_jobs_and_batches_do_not_change_a_bit(photo, name):
    images = [photo[i * 5 : 130 + i * 5, :200] for i in range(9)]
    one = OpenCVFeatures(name).transform(images)
    for other in (
        OpenCVFeatures(name, n_jobs=3).transform(images),
        LocalFeatures.concatenate([OpenCVFeatures(name).transform([image]) for image in images]),
    ):
        for attribute in ("descriptors", "keypoints", "offsets", "image_sizes"):
            np.testing.assert_array_equal(getattr(one, attribute), getattr(other, attribute))


def test_pairs_are_stored_and_mappings_cloned():
    extractor = OpenCVFeatures("ORB", options=(("nlevels", 3),))
    assert repr(from_config(to_config(extractor))) == repr(extractor)
    assert clone(OpenCVFeatures("ORB", options={"nlevels": 3})).options == {"nlevels": 3}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"descriptor": "ORBB"}, r"OpenCV \d.* has no detector or descriptor 'ORBB'.*It has: .*FAST.*ORB.*SIFT"),
        ({"descriptor": 3}, "no detector or descriptor 3"),
        ({"descriptor": "DISK"}, "no detector or descriptor 'DISK'"),
        ({"descriptor": "SURF"}, "cvretrieval.SURF"),
        ({"descriptor": "surf"}, "cvretrieval.SURF"),
        ({"descriptor": "MSER"}, r'MSER of OpenCV only detects.*OpenCVFeatures\("BRIEF", detector=\'MSER\'\)'),
        ({"descriptor": "ORB", "options": {"nlevel": 3}}, "OpenCV's ORB cannot be made with the options.*nlevel"),
        ({"descriptor": "ORB", "options": 3}, "'options' parameter of OpenCVFeatures must be a mapping or pairs"),
        ({"descriptor": "ORB", "options": ((1, 2),)}, "'options' parameter of OpenCVFeatures must be a mapping"),
        ({"descriptor": "ORB", "options": {"WTA_K": 3}}, "NORM_HAMMING2"),
        ({"descriptor": "ORB", "max_features": 0}, "'max_features' parameter of OpenCVFeatures"),
        ({"descriptor": "ORB", "detector": "FASTER"}, "no detector or descriptor 'FASTER'"),
    ],
)
def test_bad_parameters_are_named(photo, parameters, message):
    with pytest.raises(ValueError, match=message):
        OpenCVFeatures(**parameters).fit([photo])
    with pytest.raises(ValueError, match=message):
        OpenCVFeatures(**parameters).transform([photo])


@pytest.mark.skipif(not has("FREAK"), reason="this OpenCV has no FREAK")
def test_descriptors_that_do_not_detect_say_so(photo):
    with pytest.raises(ValueError, match=r"FREAK of OpenCV describes, but does not detect.*detector=\"FAST\""):
        OpenCVFeatures("FREAK").fit([photo])
    with pytest.raises(ValueError, match="'FREAK', does not detect"):
        OpenCVFeatures("ORB", detector="FREAK").fit([photo])


@pytest.mark.skipif(not hasattr(cv2, "xfeatures2d"), reason="this OpenCV has no contributed modules")
@pytest.mark.parametrize("name", ["BRIEF", "FREAK", "LATCH", "DAISY"])
@pytest.mark.parametrize("detector", ["FAST", "GFTT", "STAR"])
def test_contributed_descriptors_at_other_keypoints(photo, name, detector):
    extractor = OpenCVFeatures(name, detector=detector, max_features=50)
    X = extractor.transform([photo, np.zeros((90, 90), np.uint8)])
    assert 10 < X.lengths[0] <= 50 and X.lengths[1] == 0
    assert X.n_dims == extractor.n_dims and np.isfinite(X.keypoints).all()
