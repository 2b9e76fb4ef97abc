"""Heat maps against the definition of each pooling, region shares and cluster maps against their layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, LearnedWhitening, PCAWhitening
from cvretrieval.deep import (
    MAC,
    RMAC,
    CroW,
    GeM,
    NetVLAD,
    SPoC,
    cluster_map,
    explain_regions,
    explain_similarity,
    layers,
)
from cvretrieval.images import ImageRegion
from tests.deep.instances import BACKBONE


@pytest.fixture
def images(rng):
    return list(rng.integers(0, 256, (6, 64, 96, 3), dtype=np.uint8))


def feature_map(image):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return BACKBONE.build().eval()(x)[0].numpy().astype(np.float64)


SUMMING = [
    SPoC(BACKBONE), SPoC(BACKBONE, center_prior=False), MAC(BACKBONE), GeM(BACKBONE), GeM(BACKBONE, p=7.0),
    CroW(BACKBONE), RMAC(BACKBONE), RMAC(BACKBONE, levels=2, include_global=True),
    GeM(BACKBONE, scales=(1.0, 2**-0.5, 0.5)), MAC(BACKBONE, scales=(0.5, 1.3)),
]  # fmt: skip


@pytest.mark.parametrize("estimator", SUMMING, ids=lambda estimator: " ".join(repr(estimator).split()))
def test_contributions_add_up_to_the_similarity(estimator, images):
    found = explain_similarity(estimator, images[0], images[1])
    a, b = estimator.transform(images[:2])
    assert found.similarity == pytest.approx(float(a @ b), abs=1e-5)
    assert found.a.sum() == pytest.approx(found.similarity, abs=1e-4) and abs(found.rest_a) < 1e-4
    assert found.b.sum() == pytest.approx(found.similarity, abs=1e-4) and abs(found.rest_b) < 1e-4
    assert min(found.a.shape) >= 4


def slow_spoc(x, v):
    return np.einsum("chw,c->hw", x, v) / np.linalg.norm(x.sum((1, 2)))


def slow_mac(x, v):
    shares = np.zeros(x.shape[1:])
    norm = np.linalg.norm(x.max((1, 2)))
    for channel, weight in zip(x, v, strict=True):
        at = np.unravel_index(channel.argmax(), channel.shape)
        shares[at] += weight * channel[at] / norm
    return shares


def slow_gem(x, v):
    x = x.clip(1e-6)
    pooled = (x**3).mean((1, 2)) ** (1 / 3)
    parts = x**3 / (x**3).sum((1, 2), keepdims=True)
    return np.einsum("chw,c->hw", parts, v * pooled) / np.linalg.norm(pooled)


@pytest.mark.parametrize(
    ("estimator", "slow"),
    [(SPoC(BACKBONE, center_prior=False), slow_spoc), (MAC(BACKBONE), slow_mac), (GeM(BACKBONE), slow_gem)],
    ids=["SPoC", "MAC", "GeM"],
)
def test_contributions_are_those_of_the_definition(estimator, slow, images):
    found = explain_similarity(estimator, images[0], images[1])
    a, b = estimator.transform(images[:2])
    np.testing.assert_allclose(found.b, slow(feature_map(images[1]), a), atol=2e-5)
    np.testing.assert_allclose(found.a, slow(feature_map(images[0]), b), atol=2e-5)


def test_the_rest_is_what_a_whitening_subtracts(images):
    gem = GeM(BACKBONE)
    pipeline = make_pipeline(gem, PCAWhitening(4)).fit(images)
    found = explain_similarity(pipeline, images[0], images[1])
    a, b = pipeline.transform(images[:2])
    assert found.similarity == pytest.approx(float(a @ b), abs=1e-4)
    whitening = pipeline[-1]
    plain = layers.Whitening(whitening, norm=False)
    row = torch.as_tensor(gem.transform(images[1:2]))
    bias = plain.linear.bias.detach()
    expected = float(torch.as_tensor(a) @ bias / plain(row).detach().norm())
    assert found.rest_b == pytest.approx(expected, abs=1e-4)


def test_learned_whitenings_are_explained(images):
    pipeline = make_pipeline(MAC(BACKBONE), LearnedWhitening(3, shrinkage=0.01)).fit(images, [0, 0, 1, 1, 2, 2])
    a, b = pipeline.transform(images[:2])
    assert explain_similarity(pipeline, images[0], images[1]).similarity == pytest.approx(float(a @ b), abs=1e-4)


def test_netvlad_has_a_rest(images):
    netvlad = NetVLAD(BACKBONE, n_clusters=3, random_state=0).fit(images)
    found = explain_similarity(netvlad, images[0], images[1])
    a, b = netvlad.transform(images[:2])
    assert found.similarity == pytest.approx(float(a @ b), abs=1e-5)
    assert found.b.sum() + found.rest_b == pytest.approx(found.similarity, abs=1e-5)


def test_maps_lie_where_the_image_is(images):
    found = explain_similarity(MAC(BACKBONE), images[0], ImageRegion(images[1], (16, 8, 80, 56)))
    assert found.a.shape == (8, 12) and found.b.shape == (6, 8)
    # Cells of 8 pixels; the first sees pixels around the first one.
    np.testing.assert_allclose(found.frame_a, [-4, -4, 92, 60], atol=1)
    np.testing.assert_allclose(found.frame_b - found.frame_a[[0, 1, 0, 1]], [16, 8, 80, 56], atol=1)
    enlarged = np.kron(images[0], np.ones((2, 2, 1), dtype=np.uint8))
    reduced = explain_similarity(MAC(BACKBONE, image_size=96), enlarged, images[1])
    np.testing.assert_allclose((reduced.frame_a + 0.5) / 2 - 0.5, found.frame_a, atol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [
        RMAC(BACKBONE),
        RMAC(BACKBONE, levels=2, include_global=True, scales=(1, 0.7)),
        RMAC(BACKBONE, whitening=PCAWhitening(6), random_state=0),
    ],
    ids=repr,
)
def test_region_shares_add_up_to_the_similarity(estimator, images):
    fitted = estimator.fit(images)
    found = explain_regions(fitted, images[0], images[1])
    a, b = fitted.transform(images[:2])
    assert found.similarity == pytest.approx(float(a @ b), abs=1e-5)
    assert found.shares.sum() == pytest.approx(found.similarity, abs=1e-5)
    assert found.boxes.shape == (len(found.shares), 4)
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.boxes >= -0.5).all() and (found.boxes <= (95.5, 63.5) * 2).all()


def test_clusters_are_those_of_the_layer(images):
    netvlad = NetVLAD(BACKBONE, n_clusters=3, random_state=0).fit(images)
    found = cluster_map(make_pipeline(netvlad, PCAWhitening(2).fit(netvlad.transform(images))), images[2])
    np.testing.assert_allclose(found.shares.sum(0), 1, rtol=1e-5)
    x = feature_map(images[2])
    x = (x / np.linalg.norm(x, axis=0)).reshape(len(x), -1).T
    nearest = ((x[:, None] - netvlad.centers_[None]) ** 2).sum(2).argmin(1)
    assert found.clusters.shape == (8, 12) and (found.clusters.ravel() == nearest).all()


def test_what_cannot_be_explained_is_refused(images):
    with pytest.raises(TypeError, match="pooled from a feature map.*SIFT"):
        explain_similarity(SIFT(), *images[:2])
    with pytest.raises(TypeError, match="PCA"):
        explain_similarity(make_pipeline(MAC(BACKBONE), PCA(2)), *images[:2])
    with pytest.raises(TypeError, match="NetVLAD.*MAC"):
        cluster_map(MAC(BACKBONE), images[0])
    with pytest.raises(TypeError, match="RMAC"):
        explain_regions(RMAC(BACKBONE, norm=None), *images[:2])
