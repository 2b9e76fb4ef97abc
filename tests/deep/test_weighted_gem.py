"""Weights of pixels: given, or learned while the network stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cvretrieval.deep import Backbone, GeM, WeightedGeM, layers
from cvretrieval.deep.descriptors.attention_learning import learn_attention, split_pixels
from cvretrieval.deep.layers.spatial_weights import BIAS_OF_ONE
from tests.deep.instances import BACKBONE
from tests.deep.test_backbones import real_network
from tests.deep.test_descriptors import Shape, feature_map


@pytest.fixture
def images(rng):
    return list(rng.integers(0, 256, (6, 48, 64, 3), dtype=np.uint8))


def test_given_weights_are_those_of_the_layer(images, rng):
    layer = layers.WeightedGeM(128, 2.5)
    with torch.no_grad():
        layer.attention.weight.copy_(torch.as_tensor(rng.normal(size=128)))
        layer.attention.bias.fill_(0.3)
    estimator = WeightedGeM(BACKBONE, p=2.5).set_attention(layer.attention.weight, layer.attention.bias)
    with torch.inference_mode():
        expected = F.normalize(layer(feature_map(images[0]))).numpy()
    np.testing.assert_allclose(estimator.transform(images[:1]), expected, rtol=1e-4, atol=1e-6)
    again = estimator.set_attention(np.zeros(128), 0.0)  # equal weights
    np.testing.assert_allclose(again.transform(images), GeM(BACKBONE, p=2.5).transform(images), rtol=1e-4, atol=1e-6)


def clutter(rng, kinds, n_pixels=40, n_channels=12):
    """Images of one kind share a few pixels; most of their pixels are clutter that differs from image to image."""
    motifs = rng.random((max(kinds) + 1, n_channels)) * 2
    rows = rng.random((len(kinds), n_pixels, n_channels)) * 3
    rows[:, :, 0] = 4  # by which clutter is known
    for i, kind in enumerate(kinds):
        rows[i, :8] = motifs[kind]
        rows[i, :8, 0] = 0
        rows[i] = rows[i, rng.permutation(n_pixels)]
    return rows.astype(np.float32)


def separation(rows, kinds, attention, bias, p=3.0):
    x = torch.as_tensor(rows).transpose(1, 2).unsqueeze(3)
    layer = layers.WeightedGeM(rows.shape[2], p)
    with torch.no_grad():
        layer.attention.weight.copy_(torch.as_tensor(attention))
        layer.attention.bias.fill_(bias)
        vectors = F.normalize(layer(x)).numpy()
    similar = vectors @ vectors.T
    same = np.equal.outer(kinds, kinds)
    return similar[same & ~np.eye(len(kinds), dtype=bool)].mean() - similar[~same].mean()


def test_labels_teach_which_pixels_are_clutter(rng):
    kinds = np.repeat(np.arange(8), 4)
    rows = clutter(rng, kinds)
    views = rows[:, split_pixels(40, 20, rng)]
    attention, bias = learn_attention(views, kinds, 3.0, 1e-6, torch.device("cpu"), penalty=1e-3)
    assert attention.dtype == np.float32 and attention[0] < 2 * np.sort(attention)[1] < 0
    other = rng.permutation(np.repeat(np.arange(6), 5))
    rows = clutter(rng, other)
    plain = separation(rows, other, np.zeros(12), BIAS_OF_ONE)
    assert separation(rows, other, attention, bias) > plain + 0.1


def test_without_labels_what_all_images_share_counts_little(rng):
    n_images, n_channels = 24, 12
    own = rng.random((n_images, 1, n_channels)) * 2 + 0.2 * rng.random((n_images, 10, n_channels))
    sky = np.full((n_images, 30, n_channels), 2.5) + 0.2 * rng.random((n_images, 30, n_channels))
    own[:, :, 0], sky[:, :, 0] = 0, 4
    rows = np.concatenate([own, sky], 1)[:, rng.permutation(40)].astype(np.float32)
    attention, _ = learn_attention(rows[:, split_pixels(40, 20, rng)], None, 3.0, 1e-6, torch.device("cpu"))
    assert attention[0] < 2 * np.sort(attention)[1] < 0  # what sky is known by, well before all else
    one, bias = learn_attention(rows[:1, split_pixels(40, 20, rng)], None, 3.0, 1e-6, torch.device("cpu"))
    np.testing.assert_allclose(one, 0, atol=1e-6)  # a single image has nothing to be told from
    assert bias == pytest.approx(BIAS_OF_ONE)


def test_scale_of_the_map_and_silent_maps_do_not_matter(rng):
    rows = clutter(rng, np.repeat(np.arange(6), 3))[:, split_pixels(40, 20, rng)]
    one, bias = learn_attention(rows, None, 3.0, 1e-6, torch.device("cpu"))
    other, same = learn_attention(1000 * rows, None, 3.0, 1e-6, torch.device("cpu"))
    np.testing.assert_allclose(1000 * other, one, rtol=0.05, atol=0.02)
    assert same == pytest.approx(bias, abs=0.05)
    for p in (1.0, 60.0):
        values, bias = learn_attention(np.zeros_like(rows), None, p, 1e-6, torch.device("cpu"))
        assert np.isfinite(values).all() and np.isfinite(bias)


def test_views_share_no_pixel():
    rng = np.random.RandomState(0)
    for n_pixels in (2, 7, 30):
        one, other = split_pixels(n_pixels, 10, rng)
        assert len(one) == len(other) == 10
        assert len(set(one) & set(other)) == n_pixels % 2
        assert set(one) <= set(range(n_pixels))
    assert split_pixels(1, 3, rng).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_labels_change_what_is_learned(images):
    one = WeightedGeM(BACKBONE, random_state=0).fit(images)
    other = WeightedGeM(BACKBONE, random_state=0).fit(images, [0, 0, 1, 1, 2, 2])
    named = WeightedGeM(BACKBONE, random_state=0).fit(images, list("aabbcc"))
    assert np.abs(one.attention_ - other.attention_).max() > 1e-4
    np.testing.assert_array_equal(named.attention_, other.attention_)
    few = WeightedGeM(BACKBONE, random_state=0, max_train_images=4).fit(images, [0, 0, 1, 1, 2, 2])
    assert few.attention_.shape == (128,)


def test_bad_input(images):
    with pytest.raises(ValueError, match="6 images, but y has 2 labels"):
        WeightedGeM(BACKBONE).fit(images, [0, 1])
    with pytest.raises(ValueError, match=r"gives 128 channels, so weight must be 128 finite.*shape \(3,\)"):
        WeightedGeM(BACKBONE).set_attention(np.zeros(3), 0)
    with pytest.raises(ValueError, match="finite"):
        WeightedGeM(BACKBONE).set_attention(np.full(128, np.nan), 0)
    fitted = WeightedGeM(Backbone("resnet18", weights=None, layer="layer2")).fit(images)
    with pytest.raises(ValueError, match="gives 64 channels, but WeightedGeM was fitted with 128"):
        fitted.set_params(backbone__layer="layer1").transform(images)
    with pytest.raises(ValueError, match="NaN or infinite activations for image"):
        WeightedGeM(Shape(lambda x: x / (x.shape[2] - 48))).fit(images)
    with pytest.raises(ValueError, match="'p' parameter of WeightedGeM"):
        WeightedGeM(nn.Conv2d(3, 4, 3), p=0).fit(images)


@pytest.mark.real_data
def test_labels_help_on_classes_not_learned_from(data_dir):
    folders = {}
    for path in sorted((data_dir / "grocery_store").rglob("*.jpg")):
        folders.setdefault(path.parent.name, []).append(path)
    classes = [paths[:5] for _, paths in sorted(folders.items()) if len(paths) >= 6]
    train, test = ([path for paths in part for path in paths] for part in (classes[::2], classes[1::2]))
    network = real_network(data_dir, "squeezenet1_1")
    labels = np.arange(len(test)) // 5

    def mean_precision(estimator):
        vectors = estimator.transform(test)
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1)
        relevant = labels[np.argsort(-similar, axis=1)[:, :-1]] == labels[:, None]
        return np.mean([np.mean(np.arange(1, 5) / (np.flatnonzero(row) + 1)) for row in relevant])

    learned = WeightedGeM(network, image_size=192, random_state=0).fit(train, np.arange(len(train)) // 5)
    plain = mean_precision(GeM(network, image_size=192))
    assert mean_precision(learned) > plain + 0.005, plain
