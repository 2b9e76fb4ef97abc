"""ONNX graphs, run by onnxruntime, against the estimators they were made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import nn

from cvretrieval import LearnedWhitening, PCAWhitening, PowerNormalizer, StoreError
from cvretrieval.deep import (
    MAC,
    RMAC,
    Backbone,
    CroW,
    GeM,
    MultiScaleRMAC,
    NetVLAD,
    NeuralCodes,
    SPoC,
    export,
    export_onnx,
)
from tests.deep.instances import BACKBONE

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def small_network():
    """A graph of a ResNet takes ten times as long to export and to compile."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()


SMALL = small_network()


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert [each.name for each in session.get_outputs()] == ["vectors"]
    x = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return session.run(None, {"images": x})[0]


@pytest.fixture
def train(rng):
    return list(rng.integers(0, 256, (6, 64, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "estimator",
    [
        MAC(BACKBONE),
        SPoC(SMALL),
        CroW(SMALL),
        GeM(SMALL, p=2.5, scales=(1, 0.5)),
        GeM(SMALL, whitening=PCAWhitening(4), scales=(1, 1.3)),
        NetVLAD(SMALL, n_clusters=3, random_state=0),
        NetVLAD(SMALL, n_clusters=2, form="authors", random_state=0),
        make_pipeline(MAC(SMALL), StandardScaler(), "passthrough", PCA(3), Normalizer()),
        FrozenEstimator(make_pipeline(CroW(Backbone("squeezenet1_1", weights=None)), PCAWhitening(3, power=0.25))),
    ],
    ids=lambda estimator: " ".join(repr(estimator).split())[:60],
)
def test_graphs_of_any_size(estimator, train, rng, tmp_path):
    frozen = isinstance(estimator, FrozenEstimator)
    (estimator.estimator if frozen else estimator).fit(train)
    path = export_onnx(estimator, tmp_path / "a.onnx")
    assert path == tmp_path / "a.onnx" and [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    for n_images, height, width in ((1, 64, 80), (3, 96, 50), (2, 65, 65)):
        images = list(rng.integers(0, 256, (n_images, height, width, 3), dtype=np.uint8))
        expected = estimator.transform(images)
        np.testing.assert_allclose(run(path, images), expected, rtol=1e-3, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    "rmac",
    [
        RMAC(SMALL, whitening=PCAWhitening(5), scales=(1, 0.7)),
        MultiScaleRMAC(SMALL, whitening=PCAWhitening(4), scales=(1, 1.3)),
        MultiScaleRMAC(SMALL, sum_of="regions", scales=(1, 1.3)),
    ],
    ids=["whitened", "vectors", "regions"],
)
def test_regions_need_a_size(rmac, train, rng, tmp_path):
    rmac.fit(train)
    with pytest.raises(ValueError, match=r"regions R-MAC has depends on the size.*size=\(height, width\)"):
        export_onnx(rmac, tmp_path / "a.onnx")
    path = export_onnx(rmac, tmp_path / "a.onnx", size=(72, 96))
    images = list(rng.integers(0, 256, (3, 72, 96, 3), dtype=np.uint8))
    np.testing.assert_allclose(run(path, images), rmac.transform(images), rtol=1e-3, atol=2e-5)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(path, list(rng.integers(0, 256, (1, 72, 80, 3), dtype=np.uint8)))


def test_fully_connected_layers_have_one_size(train, rng, tmp_path):
    torch.manual_seed(1)
    network = nn.Sequential(*SMALL, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 9))
    codes = NeuralCodes(network, input_size=48)
    path = export_onnx(make_pipeline(codes, PCAWhitening(4)).fit(train), tmp_path / "a.onnx")
    images = list(rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8))
    expected = make_pipeline(codes, PCAWhitening(4)).fit(train).transform(images)
    np.testing.assert_allclose(run(path, images), expected, rtol=1e-3, atol=2e-5)
    with pytest.raises(ValueError, match="take images of 48 x 48 pixels, not of"):
        export_onnx(codes, tmp_path / "b.onnx", size=(64, 64))


def test_labels_learned_whitening(train, tmp_path):
    line = make_pipeline(GeM(SMALL), LearnedWhitening(3, shrinkage=0.1)).fit(train, [0, 0, 1, 1, 2, 2])
    found = run(export_onnx(line, tmp_path / "a.onnx"), train)
    np.testing.assert_allclose(found, line.transform(train), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_exported(train, tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(TypeError, match="descriptors of feature maps, such as GeM. Got PCA"):
        export_onnx(PCA(), path)
    with pytest.raises(TypeError, match="PowerNormalizer cannot be exported"):
        export_onnx(make_pipeline(GeM(SMALL), PowerNormalizer()), path)
    with pytest.raises(NotFittedError):
        export_onnx(NetVLAD(SMALL), path)
    with pytest.raises(NotFittedError):
        export_onnx(make_pipeline(GeM(SMALL), PCAWhitening(2)), path)
    with pytest.raises(ValueError, match="The folder .* does not exist"):
        export_onnx(GeM(SMALL), tmp_path / "none" / "a.onnx")
    assert not path.exists()


class Frozen(torch.nn.Module):
    """A network that a trace takes for what it does at the traced size."""

    def forward(self, x):
        return x * float(x.shape[2] + x.shape[3])


def test_a_graph_that_differs_is_not_written(tmp_path):
    with pytest.raises((StoreError, ValueError), match=r"size=\(height, width\)"):
        export_onnx(GeM(Frozen(), norm=None), tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
    assert export_onnx(GeM(Frozen(), norm=None), tmp_path / "a.onnx", size=(40, 60)).exists()


def test_without_onnx_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "import_optional", missing)
    with pytest.raises(ImportError, match=r"export_onnx needs onnx.*cvretrieval\[onnx\]"):
        export_onnx(GeM(SMALL), tmp_path / "a.onnx")


def missing(name, purpose):
    from cvretrieval._optional import import_optional

    return import_optional(f"{name}.is_not_there", purpose)
