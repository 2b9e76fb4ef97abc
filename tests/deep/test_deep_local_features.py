"""The pixels of feature maps as local features: their places, their selection, and all that takes local features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

from cvretrieval import (
    ASMK,
    VLAD,
    BagOfWords,
    FisherVector,
    HammingEmbedding,
    ImageReader,
    ImageReadError,
    ImageRetriever,
    InvertedIndex,
    LocalFeatures,
    PerDescriptor,
    SpatialPyramid,
    SpatialVerifier,
    load_model,
    save_model,
)
from cvretrieval.deep import MAC, Backbone, DeepLocalFeatures, NetVLAD
from cvretrieval.deep.local.map_geometry import GeometryTracer
from cvretrieval.images import ImageRegion
from tests.deep.instances import BACKBONE
from tests.deep.test_backbones import real_network
from tests.deep.test_descriptors import Seen, Shape, feature_map

ALL = DeepLocalFeatures(BACKBONE, max_features=None, norm=None)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)


def geometry_of(network, height, width):
    tracer = GeometryTracer()
    images = torch.zeros(1, 3, height, width)
    with torch.inference_mode(), tracer.watch(images):
        found = network.eval()(images)
    return tracer.geometry(found), found


# --- where the pixels of a map lie ------------------------------------------------------------------------------------


class SamePadding(nn.Module):
    """Pads by what the size of the image asks for, more at the end: TensorFlow's convolutions."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 4, 3)])

    def forward(self, x):
        for convolution in self.convolutions:
            (kernel, _), (stride, _) = convolution.kernel_size, convolution.stride
            pad = []
            for size in (x.shape[3], x.shape[2]):
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                pad += [total // 2, total - total // 2]
            x = convolution(F.pad(x, pad))
        return x


class Block(nn.Module):
    """Two branches of different fields, added up, and weights from the whole map."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 4, dilation=2), nn.BatchNorm2d(4))
        self.narrow = nn.Conv2d(3, 4, 1, 2)
        self.squeeze = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.wide(x) + self.narrow(x)
        y = y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        return torch.cat([y, F.relu(y)], 1).view(1, 2, 4, *y.shape[2:]).transpose(1, 2).flatten(1, 2)


NETWORKS = {
    "plain": nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3)),
    "even": nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.AvgPool2d(2), nn.Conv2d(4, 4, (3, 1), (2, 1), padding=(1, 0))),
    "same": nn.Sequential(nn.Conv2d(3, 4, 5, padding="same"), nn.MaxPool2d(2, ceil_mode=True)),
    "reflected": nn.Sequential(nn.ReflectionPad2d((3, 1, 2, 0)), nn.Conv2d(3, 4, 4, 2)),
    "tensorflow": SamePadding(),
}


def reached(network, height, width, y, x):
    """Return the first and last row and column of the image that a pixel of the map changes with."""
    network = network.double().eval()
    rng = np.random.default_rng(0)
    seen = np.zeros((height, width), dtype=bool)
    for _ in range(8):  # dead units differ from image to image
        images = torch.as_tensor(rng.normal(size=(1, 3, height, width))).requires_grad_()
        network(images)[0, :, y, x].abs().sum().backward()
        seen |= images.grad[0].abs().sum(0).numpy() > 0
    network.float()
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (50, 83)], ids=str)
def test_receptive_fields_are_what_a_pixel_depends_on(name, size):
    geometry, found = geometry_of(NETWORKS[name], *size)
    y, x = found.shape[2] // 2, found.shape[3] // 2
    expected = reached(NETWORKS[name], *size, y, x)
    fields = [(axis.first + i * axis.step, axis.last + i * axis.step) for axis, i in zip(geometry, (y, x), strict=True)]
    np.testing.assert_allclose(np.ravel(fields), expected)


def test_branches_are_joined_and_global_weights_left_out():
    geometry, found = geometry_of(Block(), 64, 64)
    assert tuple(geometry.y) == tuple(geometry.x) == (2.0, -4.0, 4.0)
    assert found.shape[1] == 8


def test_fields_of_known_networks():
    for name, layer, step, side in (
        ("resnet18", "layer4", 32, 435),
        ("resnet50", "layer4", 32, 427),
        ("vgg16", "features.29", 16, 196),
        ("alexnet", "features.11", 16, 163),
    ):
        geometry, _ = geometry_of(Backbone(name, weights=None, layer=layer).build(), 256, 320)
        assert geometry.x == geometry.y and geometry.y.step == step and geometry.y.size == side
    assert geometry_of(Backbone("resnet50", weights=None).build(), 65, 97)[0].y.start == 0


def test_maps_that_cannot_be_followed_cover_the_image_evenly():
    lost = Shape(lambda x: F.interpolate(x, size=(4, 6), mode="bilinear"))
    geometry, _ = geometry_of(lost, 64, 96)
    assert tuple(geometry.y) == tuple(geometry.x) == (16.0, 0.0, 15.0)


def test_keypoints_at_two_scales_and_reduced_images(image):
    plain = ALL.transform([image])
    map_ = feature_map(image)
    n_rows, n_columns = map_.shape[2:]
    np.testing.assert_allclose(
        plain.descriptors, map_[0].flatten(1).T, rtol=1e-4, atol=1e-5 * float(map_.max())
    )  # row by row
    field = 99 / 12  # layer2 of ResNet-18
    expected = [(8.0 * x, 8.0 * y, field, 0) for y in range(n_rows) for x in range(n_columns)]
    np.testing.assert_allclose(plain.keypoints, expected, rtol=1e-6)
    np.testing.assert_array_equal(plain.image_sizes, [(96, 64)])
    both = DeepLocalFeatures(BACKBONE, max_features=None, scales=(1, 0.5)).transform([image])
    assert len(both.descriptors) == n_rows * n_columns + 4 * 6
    half = both.keypoints[n_rows * n_columns :]
    # Pixel i of the half image is centred between pixels 2i and 2i + 1.
    np.testing.assert_allclose(half[:8, 0], [16 * i + 0.5 for i in (0, 1, 2, 3, 4, 5, 0, 1)], rtol=1e-6)
    np.testing.assert_allclose(half[:, 2], 2 * field, rtol=1e-6)
    reduced = DeepLocalFeatures(BACKBONE, max_features=None, image_size=48).transform([image])
    np.testing.assert_allclose(reduced.keypoints, half, rtol=1e-6)


def test_regions_keep_the_coordinates_of_the_image(image):
    region = ImageRegion(image, (32, 16, 96, 64))
    found = ALL.transform([region, image[16:64, 32:96]])
    np.testing.assert_array_equal(found[0].descriptors, found[1].descriptors)
    np.testing.assert_allclose(found[0].keypoints[:, :2] - [32, 16], found[1].keypoints[:, :2], atol=1e-5)
    assert found[0].image_size == (96, 64)


def test_features_follow_what_they_show(rng):
    """A bright spot is found where it was put, at any scale of a large image."""
    for x, y in ((100, 60), (300, 200), (250, 31)):
        image = np.zeros((256, 384, 3), dtype=np.uint8)
        image[y - 4 : y + 5, x - 4 : x + 5] = 255
        network = nn.Sequential(nn.AvgPool2d(8, 4), nn.ReLU())
        for scales, image_size in (((1,), None), ((0.5,), None), ((1,), 200)):
            found = DeepLocalFeatures(
                network, max_features=1, norm=None, scales=scales, image_size=image_size, reader=ImageReader()
            ).transform([image])
            assert np.abs(found.keypoints[0, :2] - (x, y)).max() <= 5


# --- which are kept ---------------------------------------------------------------------------------------------------


def test_the_strongest_are_kept_in_their_order(image):
    everything = ALL.transform([image])
    norms = np.linalg.norm(everything.descriptors, axis=1)
    few = DeepLocalFeatures(BACKBONE, max_features=7, norm=None).transform([image])
    expected = np.sort(np.argsort(-norms)[:7])
    np.testing.assert_array_equal(few.keypoints, everything.keypoints[expected])
    np.testing.assert_array_equal(few.descriptors, everything.descriptors[expected])
    threshold = float(np.sort(norms)[-20:-18].mean())
    strong = DeepLocalFeatures(BACKBONE, min_norm=threshold).transform([image])
    assert len(strong.descriptors) == 19
    np.testing.assert_allclose(np.linalg.norm(strong.descriptors, axis=1), 1, rtol=1e-5)
    none = DeepLocalFeatures(BACKBONE, min_norm=1e9).transform([image, image])
    assert none.lengths.tolist() == [0, 0] and none.n_dims == 128


def test_silent_pixels_are_no_features():
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    image[:16, :16] = 200
    found = DeepLocalFeatures(nn.AvgPool2d(16)).transform([image, np.zeros_like(image)])
    assert found.lengths.tolist() == [1, 0]
    np.testing.assert_allclose(found.descriptors, 1 / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(found.keypoints, [(7.5, 7.5, 16 / 12, 0)], rtol=1e-6)


def test_the_map_may_come_in_half_precision(image):
    found = DeepLocalFeatures(BACKBONE, max_features=None, dtype="bfloat16", device="cpu").transform([image])
    plain = DeepLocalFeatures(BACKBONE, max_features=None, device="cpu").transform([image])
    np.testing.assert_array_equal(found.keypoints, plain.keypoints)
    assert found.descriptors.dtype == np.float32 and (found.descriptors * plain.descriptors).sum(1).min() > 0.99


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (DeepLocalFeatures(BACKBONE, max_features=0), "'max_features' parameter of DeepLocalFeatures"),
        (DeepLocalFeatures(BACKBONE, min_norm=-1), "'min_norm' parameter"),
        (DeepLocalFeatures(BACKBONE, norm="l1"), "'norm' parameter"),
        (DeepLocalFeatures(BACKBONE, scales=()), "at least one scale"),
        (DeepLocalFeatures(BACKBONE, device="cuda:77"), "no device 'cuda:77'"),
        (DeepLocalFeatures(nn.Conv2d(1, 4, 3)), "does not take RGB images"),
        (DeepLocalFeatures(Shape(lambda x: x / (x.shape[2] - 64))), "NaN or infinite activations for image 1"),
    ],
    ids=str,
)
def test_bad_input(extractor, message, image):
    with pytest.raises(ValueError, match=message):
        extractor.transform([image[:50], image])


def test_images_too_small_and_too_many_at_once(image, rng):
    vgg = DeepLocalFeatures(Backbone("vgg11", weights=None))
    with pytest.raises(ImageReadError, match="has 9 x 9 pixels as it was read, which the network cannot take"):
        vgg.transform([image, image[:9, :9]])
    images = list(rng.integers(0, 256, (6, 32, 40, 3), dtype=np.uint8))
    expected = DeepLocalFeatures(Seen(), device="cpu").transform(images)
    with pytest.warns(UserWarning, match="memory enough on cpu"):
        found = DeepLocalFeatures(Seen(most=3), device="cpu").transform(images)
    np.testing.assert_allclose(found.descriptors, expected.descriptors, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)


# --- what takes them --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos():
    """Six textures, each twice, the second shifted by whole pixels of the map."""
    rng = np.random.default_rng(4)
    made = []
    for _ in range(6):
        texture = rng.integers(0, 256, (22, 28, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        made += [texture[:128, :160], texture[32:160, 48:208]]
    return made


EXTRACTOR = DeepLocalFeatures(BACKBONE, max_features=200, scales=(1, 0.7))


@pytest.mark.parametrize(
    "encoder",
    [
        BagOfWords(12, random_state=0),
        VLAD(4, random_state=0),
        VLAD(4, local_coordinates=True, random_state=0),
        FisherVector(2, random_state=0),
        SpatialPyramid(BagOfWords(6, random_state=0)),
        make_pipeline(PerDescriptor(PCA(16)), VLAD(4, random_state=0)),
        HammingEmbedding(5, random_state=0),
        ASMK(5, random_state=0),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_encoders_take_them(encoder, photos, tmp_path):
    line = make_pipeline(EXTRACTOR, encoder).fit(photos)
    expected = line.transform(photos)
    assert len(expected) == 12 if not hasattr(expected, "shape") else expected.shape[0] == 12
    found = load_model(save_model(line, tmp_path / "line.cvm")).transform(photos)
    for one, other in zip(_arrays(found), _arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def _arrays(rows):
    if isinstance(rows, np.ndarray):
        return [rows]
    if hasattr(rows, "toarray"):
        return [rows.toarray()]
    return [value for value in vars(rows).values() if isinstance(value, np.ndarray)]


@pytest.mark.parametrize(
    ("encoder", "index"),
    [
        (make_pipeline(PerDescriptor(PCA(24)), VLAD(4, random_state=0)), None),
        (ASMK(16, random_state=0), InvertedIndex("asmk", idf=None)),
        (HammingEmbedding(16, random_state=0), InvertedIndex("hamming_embedding", idf=None)),
        (MAC(BACKBONE), None),
    ],
    ids=["VLAD", "ASMK", "HammingEmbedding", "MAC"],
)
def test_image_retriever_searches_and_verifies_by_them(encoder, index, photos, tmp_path):
    retriever = ImageRetriever(
        extractor=EXTRACTOR,
        encoder=encoder,
        index=index,
        verifier=SpatialVerifier("translation_scale", min_inliers=8),
        location=tmp_path / "index",
        n_jobs=2,
    ).fit(photos, ids=[str(i) for i in range(12)])
    loaded = ImageRetriever.load(tmp_path / "index")
    assert repr(loaded.extractor) == repr(EXTRACTOR)
    for engine in (retriever, loaded):
        for i, result in enumerate(engine.search(photos[:4], k=3)):
            first, second = result.hits[:2]
            assert (first.id, second.id) == (str(i), str(i ^ 1))
            assert first.verified and second.verified and first.n_inliers > second.n_inliers
            shift = (-48, -32) if i % 2 == 0 else (48, 32)
            np.testing.assert_allclose(second.transform, [[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], atol=2)


def test_netvlad_with_sharp_assignment_is_vlad_of_the_map(photos):
    netvlad = NetVLAD(BACKBONE, n_clusters=4, random_state=0).fit(photos)
    netvlad.alpha_ = 1e7

    class Codebook:
        cluster_centers_ = netvlad.centers_

    features = DeepLocalFeatures(BACKBONE, max_features=None).transform(photos)
    vlad = VLAD(codebook=Codebook(), power=None, intra_norm=True).fit(features)
    np.testing.assert_allclose(netvlad.transform(photos), vlad.transform(features), atol=1e-4)


def test_no_images():
    found = EXTRACTOR.transform([])
    assert isinstance(found, LocalFeatures) and len(found) == 0 and found.n_dims == 128
    assert found.keypoints.shape == (0, 4)


@pytest.mark.real_data
def test_real_photographs_of_one_object_are_matched(data_dir):
    paths = sorted((data_dir / "ukbench_56").rglob("*.jpg"))[:24]
    extractor = DeepLocalFeatures(real_network(data_dir, "squeezenet1_1"), image_size=320, max_features=300)
    vlad = make_pipeline(extractor, PerDescriptor(PCA(64)), VLAD(16, random_state=0)).fit(paths)
    vectors = vlad.transform(paths)
    nearest = np.argsort(-vectors @ vectors.T, axis=1)[:, :4]
    assert (nearest // 4 == np.arange(24)[:, None] // 4).sum(1).mean() > 3.3
