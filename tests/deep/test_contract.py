"""The contract that every estimator keeps, for those that describe images by a network."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import ImageReadError, LocalFeatures, PCAWhitening, load_model, save_model
from cvretrieval._state import from_config, to_config
from cvretrieval.deep import Ensemble
from cvretrieval.images import ImageRegion
from tests.deep.instances import ENSEMBLES, EVERYTHING, EXTRACTORS, LEARNING, PLAIN

SIZES = [(64, 80), (48, 72), (64, 80), (40, 40), (90, 64), (64, 80), (48, 72)]


def each(table):
    return pytest.mark.parametrize("estimator", list(table.values()), ids=list(table))


@pytest.fixture
def images(rng):
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def same(one, other, atol=2e-5):
    assert one.dtype == np.float32 and one.flags.c_contiguous
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=atol * max(1.0, float(np.abs(other).max())))


def of_members(estimator, params):
    """The same parameters of all members of an ensemble."""
    members = getattr(estimator, "members", None)
    return params if members is None else {f"{m}__{key}": value for m, _ in members for key, value in params.items()}


def equal(found, expected):
    """The same bits, of vectors or of local features."""
    if isinstance(expected, LocalFeatures):
        for name in ("descriptors", "offsets", "keypoints", "image_sizes"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    else:
        np.testing.assert_array_equal(found, expected)


def close(found, expected):
    """The same but for rounding."""
    if isinstance(expected, LocalFeatures):
        equal(found.with_descriptors(expected.descriptors), expected)
        same(found.descriptors, expected.descriptors)
    else:
        same(found, expected)


@each({**EVERYTHING, **EXTRACTORS})
def test_init_stores_its_parameters_and_nothing_else(estimator):
    names = [name for name in inspect.signature(type(estimator).__init__).parameters if name != "self"]
    sentinels = {name: object() for name in names}
    assert vars(type(estimator)(**sentinels)) == sentinels


@each({**EVERYTHING, **EXTRACTORS})
def test_clone_params_and_plain_configuration(estimator):
    assert repr(clone(estimator)) == repr(estimator)
    assert repr(from_config(json.loads(json.dumps(to_config(estimator))))) == repr(estimator)
    layer = "mac__backbone__layer" if isinstance(estimator, Ensemble) else "backbone__layer"
    assert clone(estimator).set_params(**{layer: "layer1"}).get_params()[layer] == "layer1"
    with pytest.raises(ValueError, match="Invalid parameter 'scale'"):
        clone(estimator).set_params(scale=3)


@each({**EVERYTHING, **EXTRACTORS})
def test_fit_returns_self_and_changes_no_parameter(estimator, images):
    fresh = clone(estimator)
    assert fresh.fit(images) is fresh
    assert repr(fresh) == repr(estimator)
    new = set(vars(fresh)) - set(vars(clone(estimator)))
    assert all(name.endswith("_") or name.startswith("_") for name in new)


@each({**PLAIN, **EXTRACTORS})
def test_those_that_learn_nothing_need_no_fit(estimator, images):
    equal(clone(estimator).transform(images), clone(estimator).fit(images[:2]).transform(images))


@each({**LEARNING, **ENSEMBLES})
def test_unfitted_is_said(estimator, images):
    with pytest.raises(NotFittedError, match=type(estimator).__name__):
        clone(estimator).transform(images)
    with pytest.raises(ValueError, match="X has no images"):
        clone(estimator).fit([])


@each(EVERYTHING)
def test_order_batches_and_workers_change_rounding_only(estimator, images, rng):
    fitted = clone(estimator).fit(images)
    whole = fitted.transform(images)
    assert np.isfinite(whole).all() and len(whole) == len(images)
    order = rng.permutation(len(images))
    same(fitted.transform([images[i] for i in order]), whole[order])
    same(np.concatenate([fitted.transform([image]) for image in images]), whole)
    for changed in ({"batch_size": 1}, {"batch_size": 2, "n_workers": 1}, {"n_workers": None}):
        again = clone(estimator).set_params(**of_members(estimator, changed)).fit(images)
        same(again.transform(images), whole, atol=2e-4)


@each({**EVERYTHING, **EXTRACTORS})
def test_same_seed_same_bits(estimator, images):
    equal(*(clone(estimator).fit(images).transform(images) for _ in range(2)))


@each(EVERYTHING)
def test_vectors_are_normalised(estimator, images):
    norms = np.linalg.norm(clone(estimator).fit(images).transform(images), axis=1)
    if estimator.norm == "l2":
        np.testing.assert_allclose(norms, 1, rtol=1e-5)
    else:
        assert (np.abs(norms - 1) > 0.1).all()


@each(EXTRACTORS)
def test_order_batches_and_workers_change_rounding_of_features_only(estimator, images, rng):
    whole = estimator.transform(images)
    order = rng.permutation(len(images))
    close(LocalFeatures.concatenate([estimator.transform([images[i]]) for i in order]), whole[order])
    close(estimator.transform([images[i] for i in order]), whole[order])
    for changed in ({"batch_size": 1}, {"batch_size": 2, "n_workers": 1}, {"n_workers": None}):
        close(clone(estimator).set_params(**changed).transform(images), whole)


@each({name: {**EVERYTHING, **EXTRACTORS}[name] for name in ("GeM", "RMAC-whitened", "NetVLAD", "DeepLocalFeatures")})
def test_every_kind_of_input_is_the_same(estimator, images, tmp_path):
    fitted = clone(estimator).fit(images)
    expected = fitted.transform(images)
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    equal(fitted.transform(paths), expected)
    equal(fitted.transform([str(path) for path in paths]), expected)
    equal(fitted.transform([Image.fromarray(image) for image in images]), expected)
    for image in images:
        image.setflags(write=False)
    equal(fitted.transform([image.astype(np.float64) / 255 for image in images]), expected)
    np.save(tmp_path / "a.npy", images[0])
    close(fitted.transform([np.asfortranarray(images[0])]), expected[:1])
    close(fitted.transform([np.load(tmp_path / "a.npy", mmap_mode="r")]), expected[:1])
    close(fitted.transform(np.stack([images[0], images[2]])), expected[[0, 2]])
    region = ImageRegion(paths[4], (8, 16, 56, 80))
    cut = fitted.transform([images[4][16:80, 8:56]])
    if isinstance(cut, LocalFeatures):
        keypoints = cut.keypoints + np.array([8, 16, 0, 0], dtype=np.float32)
        cut = LocalFeatures(cut.descriptors, cut.offsets, keypoints, [(64, 90)])
    close(fitted.transform([region]), cut)


@each(EVERYTHING)
def test_no_images_and_single_images(estimator, images):
    fitted = clone(estimator).fit(images)
    n_features = fitted.transform(images[:1]).shape[1]
    assert fitted.transform([]).shape == (0, n_features)
    names = fitted.get_feature_names_out()
    assert len(names) == n_features and names[0] == f"{type(estimator).__name__.lower()}0"
    with pytest.raises(TypeError, match=r"Wrap it in a list"):
        fitted.transform("photo.jpg")
    grey = clone(estimator).fit(images).transform([np.zeros((50, 60), dtype=np.uint8)])
    assert np.isfinite(grey).all()


@each(LEARNING)
def test_fitting_on_one_image(estimator, images):
    assert np.isfinite(clone(estimator).fit(images[:1]).transform(images)).all()


@each({**EVERYTHING, **EXTRACTORS})
def test_saved_and_loaded_it_returns_the_same_bits(estimator, images, tmp_path):
    fitted = clone(estimator).fit(images)
    expected = fitted.transform(images)
    loaded = type(estimator).load(fitted.save(tmp_path / "model.cvm"))
    assert repr(loaded) == repr(fitted)
    equal(loaded.transform(images), expected)
    for other in (copy.copy(fitted), copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        equal(other.transform(images), expected)


@each({**EVERYTHING, **EXTRACTORS})
def test_an_unreadable_image_is_named(estimator, images, tmp_path):
    fitted = clone(estimator).fit(images)
    with pytest.raises(ImageReadError, match=r"missing\.jpg: does not exist"):
        fitted.transform([*images, tmp_path / "missing.jpg", images[0]])


def test_pipelines_searches_and_files(images, tmp_path):
    y = [0, 1] * 6
    X = [np.roll(images[i % 2], i, axis=0) for i in range(12)]
    model = make_pipeline(clone(PLAIN["GeM"]), PCAWhitening(3), LinearSVC())
    assert np.isfinite(cross_val_score(model, X, y, cv=2, error_score="raise")).all()
    search = GridSearchCV(model, {"gem__p": [1.0, 4.0]}, cv=2, error_score="raise").fit(X, y)
    line = make_pipeline(clone(LEARNING["RMAC-whitened"]), PCAWhitening(3)).fit(X)
    loaded = load_model(save_model(line, tmp_path / "line.cvm"))
    np.testing.assert_array_equal(loaded.transform(X), line.transform(X))
    assert search.best_params_["gem__p"] in (1.0, 4.0)
