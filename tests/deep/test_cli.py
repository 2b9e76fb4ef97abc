"""Networks from the shell: index, add, search, info, evaluate, and every way in which their weights can be missing."""

from __future__ import annotations

import json
import os
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from cvretrieval import ImageRetriever
from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes
from cvretrieval.deep import Backbone
from tests.deep.test_backbones import real_network


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    scenes = make_scenes(n_scenes=4, n_views=3, image_size=(200, 150), random_state=5)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / ("queries" if view == 2 else "photos") / f"scene {label}" / f"{view}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    network = Backbone("resnet18", weights=None).build().network.network
    torch.save(network.state_dict(), root / "weights.pth")
    return root


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


@pytest.mark.parametrize(
    ("method", "options", "n_dims", "class_name"),
    [
        ("gem", ("--scales", "1,0.5"), 64, "GeM"),
        ("mac", ("--pca", 5), 5, "MAC"),
        ("spoc", (), 64, "SPoC"),
        ("crow", (), 64, "CroW"),
        ("rmac", ("--pca", 6), 6, "RMAC"),
        ("netvlad", ("--words", 2), 128, "NetVLAD"),
    ],
)
def test_index_add_search_info(photos, tmp_path, capsys, monkeypatch, method, options, n_dims, class_name):
    monkeypatch.chdir(photos)
    path, query = tmp_path / "a.cvr", photos / "queries" / "scene 1" / "2.jpg"
    options = ("--method", method, "--backbone", "resnet18", "--weights", "weights.pth", "--layer", "layer1",
               "--max-size", 150, "--features", 150, *options)  # fmt: skip
    assert run("index", photos / "photos", "--out", path, *options) == 0
    assert "8 added" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)  # the file of weights is found from anywhere
    assert run("add", path, photos / "queries", "-q") == 0
    assert run("search", path, query, "-k", 2, "--json") == 0
    best = json.loads(capsys.readouterr().out)["results"][0]
    assert best["id"] == "scene 1/2.jpg" and best["n_inliers"] > 20 and best["score"] == pytest.approx(1, abs=1e-4)
    assert run("search", path, query, "--no-verify", "--rerank", "aqe", "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["n_inliers"] is None
    assert run("info", path, "--json", "--check") == 0
    facts = json.loads(capsys.readouterr().out)
    assert class_name in facts["method"]["encoder"] and str(photos / "weights.pth") in facts["method"]["encoder"]
    assert facts["n_images"] == 12 and facts["damages"] == []
    with ImageRetriever.load(path) as retriever:
        assert retriever._store.vectors([1]).shape == (1, n_dims)
    # The same again goes on, whatever the file is called from here; anything else is refused.
    monkeypatch.chdir(photos)
    assert run("index", photos / "photos", "--out", path, *options) == 0
    for other, shown in (
        (("--backbone", "resnet50"), "--backbone resnet18"),
        (("--scales", "0.3"), "--scales 1,0.5" if method == "gem" else "--scales 1"),
        (("--weights", "other.pth"), f"--weights {photos / 'weights.pth'}"),
        (("--method", "vlad"), f"--method {method}"),
        (("--no-verify",), "--verify"),
    ):
        capsys.readouterr()
        assert run("index", photos / "photos", "--out", path, *other) == 2
        assert f"({shown})" in capsys.readouterr().err


def test_without_verification_there_are_no_local_features(photos, tmp_path, capsys):
    path, query = tmp_path / "a.cvr", photos / "queries" / "scene 2" / "2.jpg"
    options = ("--method", "gem", "--backbone", "resnet18", "--weights", photos / "weights.pth", "--no-verify")
    assert run("index", photos / "photos", "--out", path, *options, "-q") == 0
    assert run("search", path, query, "--report", tmp_path / "r.html") == 0
    assert "scene" in capsys.readouterr().out and (tmp_path / "r.html").stat().st_size > 5000
    assert run("info", path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_features"] == 0 and set(facts["method"]) == {"encoder", "metric"}
    assert run("index", photos / "photos", "--out", path, *options, "-q") == 0
    assert run("index", photos / "photos", "--out", path, *options[:-1], "--verify", "-q") == 2
    assert "(no --verify)" in capsys.readouterr().err


def test_evaluate_puts_networks_beside_local_features(photos, capsys):
    methods = ("--method", "gem:verify=no,scales=1+0.5", "--method", "netvlad:words=2", "--method", "vlad:words=4")
    options = ("--backbone", "resnet18", "--weights", photos / "weights.pth", "--layer", "layer1", "--features", 150)
    assert run("evaluate", photos / "photos", *methods, *options, "--protocol", "recall@1", "--json") == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert list(found) == ["gem:verify=no,scales=1+0.5", "netvlad:words=2", "vlad:words=4"]
    gem, netvlad, vlad = found.values()
    assert "extractor" not in gem["method"] and "(1.0, 0.5)" in gem["method"]["encoder"]
    assert "SIFT" in netvlad["method"]["extractor"] and "VLAD" in vlad["method"]["encoder"]
    assert gem["bytes_per_image"] == pytest.approx(4 * 64, rel=0.1)
    assert netvlad["bytes_per_image"] == pytest.approx(4 * 128, rel=0.1)


def test_weights_that_cannot_be_had(photos, tmp_path, capsys, monkeypatch):
    def offline(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    out = tmp_path / "a.cvr"
    assert run("index", photos / "photos", "--out", out, "--method", "gem", "--backbone", "resnet18") == 2
    error = capsys.readouterr().err
    assert "resnet18" in error and "resnet18-f37072fd.pth" in error and str(tmp_path) in error
    assert "no route to host" in error and "--weights /path/to/resnet18-f37072fd.pth" in error
    for weights, message in (
        (tmp_path / "none.pth", "none.pth does not exist"),
        (tmp_path, "is a folder, not a file of weights"),
        (photos / "photos" / "scene 0" / "0.jpg", "cannot be read"),
        ("IMAGENET99", "torchvision has no weights 'IMAGENET99'"),
    ):
        options = ("--method", "mac", "--backbone", "resnet18", "--weights", weights)
        assert run("index", photos / "photos", "--out", out, *options) == 2
        error = capsys.readouterr().err
        assert message in error or (message == "cannot be read" and "damaged" in error)
        assert len(error.splitlines()) == 1 and not out.exists()
    assert run("index", photos / "photos", "--out", out, "--method", "mac", "--backbone", "resnet19") == 2
    assert "no classification network 'resnet19'" in capsys.readouterr().err and not out.exists()


def test_a_file_of_weights_that_changed_or_is_gone(photos, tmp_path, capsys):
    weights, out = tmp_path / "w.pth", tmp_path / "a.cvr"
    os.link(photos / "weights.pth", weights)
    options = ("--method", "mac", "--backbone", "resnet18", "--weights", weights, "--no-verify", "-q")
    assert run("index", photos / "photos", "--out", out, *options) == 0
    query = photos / "queries" / "scene 2" / "2.jpg"
    weights.unlink()
    for command in (("search", out, query), ("add", out, photos / "queries"), ("search", out, query, "--json")):
        assert run(*command) == 2
        assert f"{weights} does not exist: put the weights there" in capsys.readouterr().err
    assert run("info", out) == 0 and run("search", out, "--id", "scene 1/0.jpg") == 0  # these need no network
    capsys.readouterr()
    network = Backbone("resnet18", weights=None, random_state=9).build().network.network
    torch.save(network.state_dict(), weights)
    assert run("search", out, query) == 2
    assert "are not those that MAC was fitted with" in capsys.readouterr().err


@pytest.mark.real_data
def test_those_weights_are_the_same_network(data_dir, tmp_path):
    torch.save(squeezenet_weights(data_dir), tmp_path / "w.pth")
    x = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        expected = real_network(data_dir, "squeezenet1_1")(x)
        found = Backbone("squeezenet1_1", weights=tmp_path / "w.pth").build()(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


@pytest.mark.real_data
def test_real_weights_find_the_same_object(data_dir, tmp_path, capsys):
    weights = tmp_path / "squeezenet1_1.pth"
    torch.save(squeezenet_weights(data_dir), weights)
    paths = sorted((data_dir / "ukbench_56").rglob("*.jpg"))[:24]
    photos = tmp_path / "photos"
    for i, path in enumerate(paths):
        (photos / f"{i // 4:02d}").mkdir(parents=True, exist_ok=True)
        os.symlink(path, photos / f"{i // 4:02d}" / f"{i:02d}.jpg")
    options = ("--backbone", "squeezenet1_1", "--weights", weights, "--max-size", 320, "--protocol", "recall@1,2")
    methods = [part for name in ("gem", "rmac", "mac") for part in ("--method", f"{name}:verify=no")]
    assert run("evaluate", photos, *methods, *options, "--json", "-q") == 0
    for name, measured in json.loads(capsys.readouterr().out)["methods"].items():
        assert measured["figures"]["R@1"] >= 0.9, name


def squeezenet_weights(data_dir):
    """Return the weights of SqueezeNet under torchvision's names, for images normalised as torchvision does it.

    The program they come from takes B, G, R in [0, 255] less a mean. Its first convolution has no padding, so that
    another normalisation is another filter and bias.
    """
    with np.load(data_dir / "cnn_weights" / "squeezenet1_1_notop.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    filters = arrays["conv1.weight"].flip(1)
    scale = 255 * torch.tensor([0.229, 0.224, 0.225])
    shift = 255 * torch.tensor([0.485, 0.456, 0.406]) - torch.tensor([122.679, 116.669, 104.006])
    weights = {
        "features.0.weight": filters * scale.view(1, 3, 1, 1),
        "features.0.bias": arrays["conv1.bias"] + (filters * shift.view(1, 3, 1, 1)).sum((1, 2, 3)),
    }
    for fire, layer in {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}.items():
        for part, name in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
            for kind in ("weight", "bias"):
                weights[f"features.{layer}.{name}.{kind}"] = arrays[f"fire{fire}/{part}.{kind}"]
    return weights
