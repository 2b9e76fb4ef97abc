"""An estimator from a file works with the network it was fitted with, or says that this one is another."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from cvretrieval import PCAWhitening, StoreError, load_model, save_model
from cvretrieval._state import to_config
from cvretrieval.deep import MAC, Backbone, GeM, NetVLAD
from tests.deep.test_backbones import small_network


def write_weights(path, seed=1, **extra):
    network = Backbone("resnet18", weights=None, random_state=seed).build().network.network
    torch.save({"state_dict": network.state_dict(), **extra}, path)


@pytest.fixture
def images(rng):
    return list(rng.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8))


def make(path):
    return GeM(Backbone("resnet18", weights=path, layer="layer1"))


def test_a_file_of_weights_is_found_again_from_another_folder(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.pth")
    for path in ("w.pth", tmp_path / "w.pth"):  # names and paths alike
        line = make_pipeline(make(path), PCAWhitening(2)).fit(images)
        expected = line.transform(images)
        save_model(line, tmp_path / "line.cvm")
        monkeypatch.chdir("/")
        loaded = load_model(tmp_path / "line.cvm")
        assert loaded[0].backbone.weights == str(tmp_path / "w.pth")
        np.testing.assert_array_equal(loaded.transform(images), expected)
        monkeypatch.chdir(tmp_path)
        assert line[0].backbone.weights == path  # as it was given


def test_other_weights_in_that_file_are_refused_and_the_same_ones_are_not(tmp_path, images):
    write_weights(tmp_path / "w.pth")
    fitted = make(tmp_path / "w.pth").fit(images)
    expected = fitted.transform(images)
    fitted.save(tmp_path / "gem.cvm")
    write_weights(tmp_path / "w.pth", epoch=4)  # another file, the same weights
    np.testing.assert_array_equal(load_model(tmp_path / "gem.cvm").transform(images), expected)
    write_weights(tmp_path / "w.pth", seed=2)
    for use in (lambda model: model.transform(images), lambda model: model.prepare()):
        with pytest.raises(StoreError, match=r"weights in .*w\.pth are not those that GeM.*former file"):
            use(load_model(tmp_path / "gem.cvm"))
    # Fitted anew, or with the weights of another path, it is another estimator.
    again = load_model(tmp_path / "gem.cvm").fit(images).transform(images)
    assert np.abs(again - expected).max() > 1e-3
    os.rename(tmp_path / "w.pth", tmp_path / "v.pth")
    moved = load_model(tmp_path / "gem.cvm").set_params(backbone__weights=tmp_path / "v.pth")
    np.testing.assert_array_equal(moved.transform(images), again)
    with pytest.raises(StoreError, match=r"w\.pth does not exist: put the weights there"):
        load_model(tmp_path / "gem.cvm").transform(images)


def test_random_weights_and_names_are_remembered_as_well(tmp_path, images, monkeypatch):
    fitted = NetVLAD(Backbone("resnet18", weights=None, layer="layer1"), n_clusters=2, random_state=0).fit(images)
    fitted.save(tmp_path / "netvlad.cvm")
    loaded = load_model(tmp_path / "netvlad.cvm")
    assert loaded.network_ == fitted.network_
    loaded.network_ = (loaded.network_[0], "0" * 32)
    with pytest.raises(StoreError, match="random weights of resnet18 are not those that NetVLAD was fitted with"):
        loaded.transform(images)
    url = "cvretrieval.deep.backbones.torchvision_models._published_weights"
    network = Backbone("squeezenet1_1", weights=None).build().network.network
    monkeypatch.setattr(url, lambda name, entry: network.state_dict())
    mac = MAC("squeezenet1_1").fit([])
    mac.save(tmp_path / "mac.cvm")
    del mac
    changed = {name: value + 1 for name, value in network.state_dict().items()}
    monkeypatch.setattr(url, lambda name, entry: changed)
    with pytest.raises(StoreError, match="weights 'default' of squeezenet1_1 are not those"):
        load_model(tmp_path / "mac.cvm").transform(images)


def test_a_module_is_not_described_and_may_be_trained_on(images):
    module = small_network()
    fitted = MAC(module).fit(images)
    assert fitted.network_ is None
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert np.isfinite(fitted.transform(images)).all()


def test_prepare_says_at_once_what_is_missing(tmp_path):
    assert clone(make(None)).prepare().backbone.weights is None
    with pytest.raises(StoreError, match=r"none\.pth does not exist"):
        make(tmp_path / "none.pth").prepare()
    with pytest.raises(ValueError, match="'batch_size' parameter"):
        make(None).set_params(batch_size=0).prepare()


def test_the_configuration_is_json(tmp_path):
    write_weights(tmp_path / "w.pth")
    config = json.loads(json.dumps(to_config(make(tmp_path / "w.pth"))))
    assert config["params"]["backbone"]["estimator"]["params"]["weights"] == str(tmp_path / "w.pth")
