"""Networks by name, by module and from files: where they are cut, what they are normalised by, what is refused."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.base import clone
from torch import nn

from cvretrieval import StoreError
from cvretrieval.deep import Backbone


def run(backbone, size=(64, 64), batch=1):
    with torch.inference_mode():
        return backbone.build()(torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)))


def small_network(n_channels=8):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, n_channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(n_channels, n_channels, 3, 2, 1), nn.ReLU()
    )


@pytest.fixture
def resnet_file(tmp_path):
    torch.manual_seed(7)
    path = tmp_path / "resnet18.pth"
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), path)
    return path, network.eval()


# The shapes are those of the maps that the classifiers pool, at 128 x 96 pixels.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (512, 4, 3)),
        ("vgg11", (512, 8, 6)),  # without its last max-pooling
        ("alexnet", (256, 7, 5)),
        ("squeezenet1_1", (512, 7, 5)),
        ("mobilenet_v2", (1280, 4, 3)),
        ("densenet121", (1024, 4, 3)),
    ],
)
def test_torchvision_networks_end_at_the_map_their_classifier_pools(name, shape):
    found = run(Backbone(name, weights=None), (128, 96))
    assert tuple(found.shape) == (1, *shape)
    assert found.min() == 0  # after a ReLU


def test_maps_are_those_of_the_network(resnet_file):
    path, network = resnet_file
    x = torch.rand(2, 3, 64, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        y = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        y = network.maxpool(network.relu(network.bn1(network.conv1(y))))
        by_layer = {}
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            y = by_layer[layer] = getattr(network, layer)(y)
        for layer in (None, "layer2", "layer3", "layer4"):
            found = Backbone("resnet18", weights=path, layer=layer).build()(x)
            torch.testing.assert_close(found, by_layer[layer or "layer4"])


def test_strides_of_a_layer_are_changed_and_its_weights_are_not():
    plain, dense = Backbone("resnet50", weights=None), Backbone("resnet50", weights=None, strides=(("layer4", 1),))
    assert run(plain, (224, 224)).shape == (1, 2048, 7, 7)
    assert run(dense, (224, 224)).shape == (1, 2048, 14, 14)
    one, other = plain.build().state_dict(), dense.build().state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = (run(Backbone("resnet18", weights=None, random_state=seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["plain", "wrapped", "parallel", "trainer", "safetensors"])
def test_checkpoints_of_many_programs(resnet_file, tmp_path, kind):
    path, network = resnet_file
    state = network.state_dict()
    made = {
        "plain": state,
        "wrapped": {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        "parallel": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "trainer": {"model": {f"module.encoder.{key}": value for key, value in state.items() if "fc" not in key}},
        "safetensors": state,
    }[kind]
    file = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(made, file)
    else:
        torch.save(made, file)
    torch.testing.assert_close(run(Backbone("resnet18", weights=file)), run(Backbone("resnet18", weights=str(path))))


def test_weights_that_do_not_fit_are_refused(resnet_file, tmp_path):
    path, network = resnet_file
    with pytest.raises(StoreError, match=r"does not fit resnet50: \d+ of \d+ weights are missing.*'conv1|layer"):
        Backbone("resnet50", weights=path).build()
    state = network.state_dict()
    del state["fc.weight"]  # cut away anyway
    torch.save(state, path)
    Backbone("resnet18", weights=path).build()
    del state["layer3.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(StoreError, match=r"1 of \d+ weights are missing.*'layer3.0.conv1.weight'"):
        Backbone("resnet18", weights=path).build()
    Backbone("resnet18", weights=path, layer="layer2").build()
    state["layer2.0.conv1.weight"] = torch.full_like(state["layer2.0.conv1.weight"], float("nan"))
    torch.save(state, path)
    with pytest.raises(StoreError, match=r"'layer2.0.conv1.weight' has NaN"):
        Backbone("resnet18", weights=path, layer="layer2").build()


class Attack:
    def __reduce__(self):
        return exec, ("import builtins; builtins.attacked = True",)


def test_no_code_in_a_file_is_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}, "extra": Attack()}, path)
    with pytest.raises(StoreError, match="more than weights"):
        Backbone("resnet18", weights=path).build()
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(StoreError):
        Backbone("resnet18", weights=path).build()
    import builtins

    assert not hasattr(builtins, "attacked")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "cannot be read|damaged"), (b"PK\x03\x04 no zip", "cannot be read|damaged")],
)
def test_missing_and_damaged_files(tmp_path, content, message):
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"weights{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            Backbone("resnet18", weights=path).build()
    buffer = io.BytesIO()
    torch.save([torch.zeros(3)], buffer)
    path = tmp_path / "list.pth"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(StoreError, match="holds no weights by name"):
        Backbone("resnet18", weights=path).build()


def test_published_weights_come_from_torchs_cache(resnet_file, tmp_path, monkeypatch):
    path, _ = resnet_file
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cache = tmp_path / "home" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path.rename(cache / "resnet18-f37072fd.pth")
    expected = run(Backbone("resnet18", weights=cache / "resnet18-f37072fd.pth"))
    for weights in ("default", "IMAGENET1K_V1"):
        torch.testing.assert_close(run(Backbone("resnet18", weights=weights)), expected)


def test_weights_that_cannot_be_had_are_named_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    message = r"V2 of resnet50 are not at .*resnet50-11ad3fa6.pth.*no route to host.*Backbone\('resnet50', weights="
    with pytest.raises(StoreError, match=message):
        Backbone("resnet50").build()
    assert not list(tmp_path.rglob("*.pth"))
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", no_network)
    with pytest.raises(StoreError, match=r"resnet18.*huggingface.co/timm/.*Backbone\('timm/resnet18', weights="):
        Backbone("timm/resnet18").build()


def test_timm_networks(tmp_path):
    pytest.importorskip("timm")
    found = run(Backbone("timm/resnet18", weights=None))
    assert found.shape == (1, 512, 2, 2)
    network = Backbone("timm/resnet18", weights=None).build().network
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.testing.assert_close(run(Backbone("timm/resnet18", weights=tmp_path / "w.pth", random_state=5)), found)
    assert run(Backbone("timm/resnet18", weights=None, layer="layer2")).shape == (1, 128, 8, 8)


def test_a_module_is_taken_as_it_is():
    module = small_network().train()
    x = torch.rand(1, 3, 16, 16)
    built = Backbone(module).build()
    assert built is module and module.training
    torch.testing.assert_close(Backbone(module, layer="1").build()(x), module[:2](x))
    changed = Backbone(module, strides=(("2", 1),)).build()
    assert changed(x).shape[2:] == (8, 8) and module(x).shape[2:] == (4, 4)
    normalised = Backbone(module, mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.4)).build()
    std = torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(normalised(x), module((x - 0.5) / std))


def test_it_is_plain_values():
    backbone = Backbone("resnet18", weights=None, strides=(("layer4", 1),), random_state=4)
    copy = clone(backbone)
    assert copy.get_params() == backbone.get_params()
    assert torch.equal(run(copy), run(backbone))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (Backbone("resnet49", weights=None), ValueError, "no classification network 'resnet49'.*resnet50"),
        (Backbone("timm/resnet49", weights=None), ValueError, "timm has no network 'resnet49'"),
        (
            Backbone("resnet18", weights="IMAGENET22K"),
            ValueError,
            "no weights 'IMAGENET22K'.*IMAGENET1K_V1",
        ),
        (Backbone("resnet18", weights=None, layer="layer5"), ValueError, "no layer 'layer5'.*'layer4'"),
        (Backbone("resnet18", weights=None, strides=(("layer9", 1),)), ValueError, "no layer 'layer9'"),
        (Backbone("resnet18", weights=None, strides=(("layer1", 1),)), ValueError, "'layer1' has no stride"),
        (Backbone("resnet18", weights=None, strides=(("layer4", 0),)), ValueError, "strides of layer4"),
        (Backbone("vit_b_16", weights=None), ValueError, "no feature map that is pooled"),
        (Backbone("resnet18", weights=None, std=(1, 1, 0)), ValueError, "'std' parameter"),
        (Backbone("resnet18", weights=None, mean=(1, 1)), ValueError, "'mean' parameter"),
        (Backbone(3), TypeError, "name of a network or a torch module.*int"),
        (Backbone(Branching(), layer="x"), ValueError, "Branching cannot be cut"),
        (Backbone(small_network(), weights="best"), ValueError, "no weights named 'best'"),
    ],
)
def test_what_cannot_be_built(backbone, error, message):
    if "timm" in str(backbone.model):
        pytest.importorskip("timm")
    with pytest.raises(error, match=message):
        backbone.build()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_real_networks_as_modules(data_dir, name):
    module = real_network(data_dir, name)
    found = run(Backbone(module), (224, 224))
    assert found.shape[1] == {"mobilenet_v2": 1280, "squeezenet1_1": 512}[name]
    assert found.min() == 0 and np.isfinite(found.numpy()).all() and float((found > 0).float().mean()) > 0.02


def real_network(data_dir, name):
    import importlib.util

    spec = importlib.util.spec_from_file_location("backbones", data_dir / "cnn_weights" / "backbones.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()
