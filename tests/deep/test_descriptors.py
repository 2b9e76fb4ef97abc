"""Estimators against the layers they are made of, and what happens when something is wrong."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from cvretrieval import ImageReader, ImageReadError, LearnedWhitening, PCAWhitening
from cvretrieval.deep import MAC, RMAC, Backbone, CroW, GeM, NetVLAD, SPoC, layers
from cvretrieval.deep.inference import resolve_device
from tests.deep.instances import BACKBONE
from tests.deep.test_backbones import real_network, small_network
from tests.parity import agree


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)


def feature_map(image, scale=1.0, backbone=BACKBONE):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    if scale != 1:
        size = (int(x.shape[2] * scale), int(x.shape[3] * scale))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return backbone.build().eval()(x)


def close(found, expected, atol=1e-6):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(
    ("estimator", "layer"),
    [
        (MAC(BACKBONE), layers.MAC()),
        (SPoC(BACKBONE), layers.SPoC()),
        (SPoC(BACKBONE, center_prior=False), layers.SPoC(center_prior=False)),
        (CroW(BACKBONE), layers.CroW()),
        (CroW(BACKBONE, channel_weighting=False), layers.CroW(channel_weighting=False)),
        (GeM(BACKBONE, p=4), layers.GeM(4)),
        (RMAC(BACKBONE, levels=2), layers.RMAC(2)),
        (RMAC(BACKBONE, include_global=True), layers.RMAC(include_global=True)),
    ],
    ids=repr,
)
def test_estimators_are_their_layers_normalised(estimator, layer, image):
    close(estimator.transform([image]), F.normalize(layer(feature_map(image))))
    plain = estimator.set_params(norm=None).transform([image])
    layer.norm = False
    close(plain, layer(feature_map(image)), atol=1e-5 * float(np.abs(plain).max()))


def test_scales_are_combined_as_cirtorch_does(image):
    scales = (1, 2**-0.5, 0.5)
    vectors = torch.stack([F.normalize(layers.GeM(2.5)(feature_map(image, scale))) for scale in scales])
    close(GeM(BACKBONE, p=2.5, scales=scales).transform([image]), F.normalize(vectors.pow(2.5).mean(0).pow(1 / 2.5)))
    vectors = torch.stack([F.normalize(layers.MAC()(feature_map(image, scale))) for scale in scales])
    close(MAC(BACKBONE, scales=scales).transform([image]), F.normalize(vectors.mean(0)))


def test_combination_of_scales_is_that_of_the_reference_program():
    with np.load(Path(__file__).parents[1] / "data" / "pooling.npz") as file:
        maps = [torch.as_tensor(x) for x in (file["rect/x"], file["square/x"], file["rect/x"][:, :, 3:14, 5:20])]
        vectors = [F.normalize(layers.GeM(3)(x)).detach() for x in maps]
        for power in (1.0, 2.92, 3.0):
            estimator = GeM(p=power) if power > 1 else MAC()
            found = estimator._combine(vectors).numpy()
            for i in (0, 1):
                agree("scales", found[i], file[f"multiscale/msp{power}_img{i}"], 2e-6)


def test_rmac_whitens_the_regions_of_other_images(rng, image):
    train = [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in range(6)]
    regions = torch.cat([layers.RMAC().regions(feature_map(each))[0] for each in train]).numpy()
    expected = PCAWhitening(7).fit(regions)
    fitted = RMAC(BACKBONE, whitening=PCAWhitening(7)).fit(train)
    np.testing.assert_allclose(fitted.whitening_.explained_variance_, expected.explained_variance_, rtol=1e-3)
    of_image = fitted.whitening_.transform(layers.RMAC().regions(feature_map(image))[0].numpy())
    close(fitted.transform([image])[0], of_image.sum(0) / np.linalg.norm(of_image.sum(0)), atol=1e-5)
    refitted = fitted.fit(train[:3]).transform([image])
    assert np.abs(refitted - fitted.fit(train).transform([image])).max() > 1e-3  # nothing stale is kept


def test_labels_reach_the_whitening_with_the_regions(rng):
    train = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(8)]
    fitted = RMAC(BACKBONE, whitening=LearnedWhitening(5, shrinkage=0.1)).fit(train, [0, 0, 1, 1, 2, 2, 3, 3])
    assert fitted.transform(train).shape == (8, 5)


def test_gem_whitens_each_scale_by_what_it_learned_on_all(rng, image):
    train = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(8)]
    scales = (1, 0.5)

    def vectors(images, scale):
        return np.stack([F.normalize(layers.GeM(2)(feature_map(each, scale)))[0].detach().numpy() for each in images])

    for whitening, labels in ((PCAWhitening(4), None), (LearnedWhitening(4, shrinkage=0.1), [0, 0, 1, 1, 2, 2, 3, 3])):
        fitted = GeM(BACKBONE, p=2, whitening=whitening, scales=scales).fit(train, labels)
        seen = np.concatenate([vectors(train, scale) for scale in scales])
        expected = clone(whitening).fit(seen, None if labels is None else labels * 2)
        np.testing.assert_allclose(fitted.whitening_.explained_variance_, expected.explained_variance_, rtol=2e-2)
        mean = sum(fitted.whitening_.transform(vectors([image], scale)) for scale in scales)
        close(fitted.transform([image]), mean / np.linalg.norm(mean), atol=1e-4)
    with pytest.raises(ValueError, match="X has no images"):
        GeM(BACKBONE, whitening=PCAWhitening(4)).fit([])


def test_netvlad_is_its_layer(rng, image):
    train = [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in range(5)]
    fitted = NetVLAD(clone(BACKBONE), n_clusters=4, random_state=0).fit(train)
    assert fitted.centers_.shape == (4, 128) and fitted.centers_.dtype == np.float32
    layer = layers.NetVLAD(4, 128).set_centers(fitted.centers_, fitted.alpha_)
    close(fitted.transform([image]), layer(feature_map(image)))
    with pytest.raises(ValueError, match=r"gives 64 channels, but NetVLAD was fitted with 128"):
        fitted.set_params(backbone__layer="layer1").transform([image])


def test_images_are_reduced_and_never_enlarged_or_distorted(rng):
    image = rng.integers(0, 256, (60, 120, 3), dtype=np.uint8)
    small = ImageReader(max_size=64).read(image, color="rgb").pixels
    assert small.shape == (32, 64, 3)
    close(GeM(BACKBONE, image_size=64).transform([image]), GeM(BACKBONE).transform([small]))
    reader = ImageReader(max_size=64)
    close(GeM(BACKBONE, image_size=None, reader=reader).transform([image]), GeM(BACKBONE).transform([small]))
    assert reader.max_size == 64


class Seen(nn.Module):
    """Records the shapes it is given; more images than it takes at once are more than memory takes."""

    def __init__(self, most=100):
        super().__init__()
        self.network = small_network()
        self.most = most
        self.shapes = []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        self.shapes.append(tuple(x.shape))
        return self.network(x)


def test_images_of_one_size_share_batches(rng):
    network = Seen()
    sizes = [(40, 56), (56, 40)] * 5
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    MAC(network, batch_size=4).transform(images)
    assert sorted(network.shapes[1:]) == sorted([(4, 3, 40, 56), (4, 3, 56, 40), (1, 3, 40, 56), (1, 3, 56, 40)])
    # Many sizes: no more than four batches' images wait.
    network.shapes.clear()
    images = [rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(30)]
    assert len(MAC(network, batch_size=2).transform(images)) == 30
    assert all(shape[0] == 1 for shape in network.shapes)


def test_batches_that_exceed_memory_are_halved(rng):
    images = list(rng.integers(0, 256, (13, 32, 40, 3), dtype=np.uint8))
    expected = GeM(Seen()).transform(images)
    network = Seen(most=3)
    with pytest.warns(UserWarning, match=r"memory enough on cpu for \d+ images of 40 x 32 pixels") as caught:
        found = GeM(network, batch_size=8, device="cpu").transform(images)
    assert len(caught) == 2 and "batch_size=2" in str(caught[-1].message)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    network = Seen()
    estimator = GeM(network, device="cpu").fit(images)
    network.most = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MemoryError, match="one image of 40 x 32 pixels.*image_size"):
            estimator.transform(images)


def test_images_are_read_while_the_network_runs(rng, monkeypatch):
    reading = threading.Event()
    read = ImageReader.read

    def slow_read(self, source, **options):
        if source.shape[0] == 50:
            reading.set()
        return read(self, source, **options)

    class Waiting(Seen):
        def forward(self, x):
            if x.shape[2] == 40:
                assert reading.wait(10), "the next image was not being read"
            return super().forward(x)

    monkeypatch.setattr(ImageReader, "read", slow_read)
    images = [rng.integers(0, 256, (size, 30, 3), dtype=np.uint8) for size in (40, 50)]
    MAC(Waiting(), batch_size=1, n_workers=1).transform(images)


def test_the_callers_module_is_left_as_it_was(image):
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()).train()
    module[2].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    estimator = MAC(module)
    one, other = estimator.transform([image]), estimator.transform([image])
    np.testing.assert_array_equal(one, other)
    assert [part.training for part in module] == [True, True, False, True]
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    with torch.no_grad():  # it is trained on: no copy of it is kept
        module[0].weight.add_(torch.rand_like(module[0].weight))
    assert np.abs(estimator.transform([image]) - one).max() > 1e-4


def test_the_network_is_built_once(image, monkeypatch):
    built = []
    build = Backbone.build
    monkeypatch.setattr(Backbone, "build", lambda self, **options: built.append(1) or build(self, **options))
    # weights of this test alone: networks are shared with every estimator that still lives
    estimator = GeM(Backbone("resnet18", weights=None, layer="layer1", random_state=79))
    for p in (1.0, 2.0, 3.0):
        estimator.set_params(p=p).transform([image])
    assert len(built) == 1
    estimator.set_params(backbone__layer="layer3").transform([image])
    assert len(built) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(dtype, image):
    found = GeM(BACKBONE, dtype=dtype, device="cpu").transform([image])
    assert found.dtype == np.float32
    assert float((found @ GeM(BACKBONE, device="cpu").transform([image]).T)[0, 0]) > 0.999


class Shape(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (MAC(nn.Conv2d(1, 4, 3)), r"Conv2d does not take RGB images of shape \(1, 3, 224, 224\).*1 channels"),
        (MAC(Shape(lambda x: x.mean((2, 3)))), r"must return feature maps.*shape \(1, 3\).*layer="),
        (MAC(Shape(lambda x: {"out": x})), "must return feature maps.*dict"),
        (MAC(Shape(lambda x: x * float("nan"))), "NaN or infinite activations of a grey image"),
        (MAC(Shape(lambda x: x / (x.shape[2] - 64))), "NaN or infinite activations for image 0"),
        (MAC(BACKBONE, device="cuda:77"), "no device 'cuda:77'.*device='auto'"),
        (MAC(BACKBONE, device="gpu"), "'device' parameter.*'gpu'"),
        (MAC(BACKBONE, dtype="float64"), "'dtype' parameter of MAC"),
        (MAC(BACKBONE, scales=()), "at least one scale"),
        (MAC(BACKBONE, scales=(1, 0)), "'scales' parameter of MAC"),
        (MAC(BACKBONE, batch_size=0), "'batch_size' parameter"),
        (MAC(BACKBONE, image_size=0), "'image_size' parameter"),
        (MAC(BACKBONE, norm="l1"), "'norm' parameter"),
        (MAC(BACKBONE, n_workers=0), "n_jobs must not be 0"),
        (GeM(BACKBONE, p=-1), "'p' parameter of GeM"),
        (SPoC(BACKBONE, center_prior=3), "'center_prior' parameter of SPoC"),
        (CroW(BACKBONE, spatial_weighting=None), "'spatial_weighting' parameter of CroW"),
        (RMAC(BACKBONE, levels=0), "'levels' parameter of RMAC"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_parameters_and_networks(estimator, message, image):
    with pytest.raises(ValueError, match=message):
        estimator.transform([image])


def test_an_image_too_small_for_the_network_is_named(rng):
    vgg = Backbone("vgg11", weights=None)
    images = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (64, 9)]
    with pytest.raises(ImageReadError, match="has 9 x 9 pixels as it was read, which the network cannot take"):
        MAC(vgg).transform(images)
    assert np.isfinite(MAC(Backbone("resnet18", weights=None)).transform([images[1]])).all()


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    assert resolve_device(torch.device("cpu")).type == "cpu"


@pytest.mark.real_data
def test_photographs_of_one_object_are_nearest(data_dir):
    paths = sorted((data_dir / "ukbench_56").rglob("*.jpg"))[:24]
    line = [GeM(real_network(data_dir, "squeezenet1_1"), image_size=256), RMAC(real_network(data_dir, "squeezenet1_1"))]
    for estimator in line:
        vectors = estimator.set_params(image_size=256).transform(paths)
        nearest = np.argsort(-vectors @ vectors.T, axis=1)[:, :4]
        same_object = nearest // 4 == np.arange(24)[:, None] // 4
        assert same_object.sum(1).mean() > 3.3


def test_estimators_share_a_network_of_one_description(tmp_path, image):
    prepared = MAC(BACKBONE)._prepare()
    assert RMAC(Backbone("resnet18", weights=None, layer="layer2"))._prepare() is prepared
    assert MAC(Backbone("resnet18", weights=None, layer="layer1"))._prepare() is not prepared
    path = tmp_path / "w.pth"
    for seed in (1, 2):  # a file that is written anew is read anew
        torch.manual_seed(seed)
        torch.save(Backbone("resnet18", weights=None, random_state=seed).build().network.network.state_dict(), path)
        found = MAC(Backbone("resnet18", weights=path, layer="layer1")).transform([image])
        close(found, MAC(Backbone("resnet18", weights=None, layer="layer1", random_state=seed)).transform([image]))
