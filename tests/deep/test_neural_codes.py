"""Activations of fully connected layers: which layer, of which pixels, before or after its ReLU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from cvretrieval import ImageReader
from cvretrieval.deep import Backbone, NeuralCodes, SPoC
from cvretrieval.deep.backbones.cutting import last_vector
from cvretrieval.deep.backbones.torchvision_models import build_torchvision
from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from tests.deep.instances import BACKBONE
from tests.deep.test_backbones import real_network, small_network
from tests.deep.test_descriptors import Seen, Shape


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)


def as_input(image):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


class Head(nn.Module):
    """A linear layer on the mean of a map: as one, or as a convolution of 1 x 1."""

    def __init__(self, linear, convolution):
        super().__init__()
        self.body = small_network()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.head = nn.Linear(8, 5)
        self.convolution = convolution
        if linear is not None:
            self.load_state_dict(linear.state_dict())

    def forward(self, x):
        pooled = self.body(x).mean((2, 3), keepdim=True)
        if self.convolution:
            return F.conv2d(pooled, self.head.weight[:, :, None, None], self.head.bias)
        return self.head(pooled.flatten(1))


@pytest.mark.parametrize("relu", [True, False])
def test_codes_of_a_convolution_of_one_pixel_are_those_of_the_linear_layer(image, relu):
    linear = Head(None, convolution=False)
    convolution = Head(linear, convolution=True)
    one, other = (NeuralCodes(module, input_size=32, relu=relu) for module in (linear, convolution))
    found = one.transform([image])
    assert found.shape == (1, 5) and (relu or found.min() < 0)
    np.testing.assert_allclose(other.transform([image]), found, rtol=1e-5, atol=1e-7)


def codes_of_alexnet(pixels, n_linear, relu):
    network, normalization, _ = Backbone("alexnet", weights=None)._build_named(None, "vector")
    network.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization)
    with torch.inference_mode():
        x = network.avgpool(network.features((as_input(pixels) - mean) / std)).flatten(1)
        linears = [part for part in network.classifier if isinstance(part, nn.Linear)]
        for i, linear in enumerate(linears[:n_linear]):
            x = linear(x)
            if i < n_linear - 1 or relu:
                x = F.relu(x)
    return F.normalize(x).numpy()


@pytest.mark.parametrize(
    ("layer", "relu", "n_linear"),
    [(None, True, 2), ("classifier.1", True, 1), ("classifier.1", False, 1), ("classifier.6", False, 3)],
)
def test_layers_of_alexnet(image, layer, relu, n_linear):
    pixels = FixedSizeReader(ImageReader(), 64, "squash").read(image).pixels
    found = NeuralCodes(Backbone("alexnet", weights=None, layer=layer), input_size=64, relu=relu).transform([image])
    is_rectified = relu or layer is None
    np.testing.assert_allclose(found, codes_of_alexnet(pixels, n_linear, is_rectified), rtol=1e-3, atol=1e-5)
    assert (found.min() < 0) == (not is_rectified)


@pytest.mark.parametrize(
    ("name", "n_features", "step"),
    [
        ("alexnet", 4096, "classifier.5"),
        ("vgg11", 4096, "classifier.4"),
        ("resnet18", 512, "flatten"),
        ("mobilenet_v2", 1280, "flatten"),
        ("mobilenet_v3_small", 1024, "classifier.1"),
        ("densenet121", 1024, "flatten"),
        ("squeezenet1_1", 1000, "flatten"),
        ("vit_b_32", 768, "getitem_5"),
    ],
)
def test_networks_end_before_their_last_fully_connected_layer(name, n_features, step):
    network, _, _ = build_torchvision(name, None)
    assert last_vector(network.eval()) == step
    if name != "vit_b_32":  # 88 million weights
        estimator = NeuralCodes(Backbone(name, weights=None), input_size=64)
        assert estimator.get_feature_names_out().shape == (n_features,)


def test_timm_networks_end_in_what_their_classifier_takes(image):
    pytest.importorskip("timm")
    codes = NeuralCodes(Backbone("timm/resnet18", weights=None), input_size=64).transform([image])
    pixels = FixedSizeReader(ImageReader(), 64, "squash").read(image).pixels
    pooled = SPoC(Backbone("timm/resnet18", weights=None), center_prior=False).transform([pixels])
    np.testing.assert_allclose(codes, pooled, rtol=1e-4, atol=1e-6)


def test_maps_are_flattened_channel_by_channel(image):
    estimator = NeuralCodes(BACKBONE, input_size=40, norm=None)
    pixels = FixedSizeReader(ImageReader(), 40, "squash").read(image).pixels
    with torch.inference_mode():
        expected = BACKBONE.build()(as_input(pixels)).flatten(1).numpy()
    found = estimator.transform([image])
    assert found.shape == (1, 128 * 5 * 5) == (1, len(estimator.get_feature_names_out()))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_squares_of_images(image):
    squashed = FixedSizeReader(ImageReader(), 32, "squash").read(image)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(squashed.pixels, expected)
    assert (squashed.width, squashed.height, squashed.scale, squashed.origin) == (96, 64, (3.0, 2.0), (0.0, 0.0))
    cropped = FixedSizeReader(ImageReader(), 32, "crop").read(image)
    expected = Image.fromarray(image[:, 16:80]).resize((32, 32), Image.Resampling.BILINEAR)
    # At its border an average reaches into what is left out.
    np.testing.assert_array_equal(cropped.pixels[1:-1, 1:-1], np.asarray(expected)[1:-1, 1:-1])
    assert cropped.scale == (2.0, 2.0) and cropped.origin == (16.0, 0.0)
    np.testing.assert_array_equal(
        FixedSizeReader(ImageReader(), 64, "crop").read(image.transpose(1, 0, 2)).pixels,
        image.transpose(1, 0, 2)[16:80],
    )
    reduced = FixedSizeReader(ImageReader(max_size=48), 64, "crop").read(image)
    assert reduced.pixels.shape == (64, 64, 3) and reduced.scale == (1.0, 1.0) and reduced.origin == (16.0, 0.0)


def test_images_of_all_sizes_share_batches(rng):
    network = Seen()
    images = [rng.integers(0, 256, (20 + i, 50, 3), dtype=np.uint8) for i in range(7)]
    NeuralCodes(network, input_size=48, batch_size=4).transform(images)
    assert network.shapes == [(1, 3, 48, 48), (4, 3, 48, 48), (3, 3, 48, 48)]


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (NeuralCodes(BACKBONE, input_size=0), "'input_size' parameter of NeuralCodes"),
        (NeuralCodes(BACKBONE, resize="pad"), "'resize' parameter of NeuralCodes.*'squash', 'crop'"),
        (NeuralCodes(BACKBONE, relu=None), "'relu' parameter of NeuralCodes"),
        (NeuralCodes(BACKBONE, device="cuda:77"), "no device 'cuda:77'"),
        (NeuralCodes(nn.Conv2d(1, 4, 3)), r"does not take RGB images of shape \(1, 3, 224, 224\)"),
        (
            NeuralCodes(Shape(lambda x: x.mean((1, 2, 3)))),
            r"must return vectors \(B, D\) or feature maps.*shape \(1,\)",
        ),
        (NeuralCodes(Shape(lambda x: x.mean((2, 3)) / 0)), "NaN or infinite activations of a grey image"),
        (NeuralCodes(Backbone("vgg11", weights=None), input_size=16), r"vgg11 does not take RGB images .*16, 16\)"),
        (NeuralCodes(Backbone("vgg11", weights=None, layer="classifier.7")), "no layer 'classifier.7'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(estimator, message, image):
    with pytest.raises(ValueError, match=message):
        estimator.transform([image])


@pytest.mark.real_data
def test_photographs_of_one_object_are_nearest(data_dir):
    paths = sorted((data_dir / "ukbench_56").rglob("*.jpg"))[:24]
    module = real_network(data_dir, "mobilenet_v2")
    scores = Shape(module.classify)
    for network in (scores, module):
        vectors = NeuralCodes(network, relu=False).transform(paths)
        nearest = np.argsort(-vectors @ vectors.T, axis=1)[:, :4]
        assert (nearest // 4 == np.arange(24)[:, None] // 4).sum(1).mean() > 3
