"""Published models: files of the same structure, made here, against the networks that their programs build."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

from cvretrieval import ImageRetriever, PCAWhitening, StoreError, load_model, save_model
from cvretrieval.deep import Backbone, load_cirtorch, load_dir, load_netvlad

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def images(rng):
    return list(rng.integers(0, 256, (3, 96, 128, 3), dtype=np.uint8))


def normalised(images, mean=MEAN, std=STD):
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gem(maps, p):
    return maps.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)


def random_network(name, seed=3):
    torch.manual_seed(seed)
    network = getattr(torchvision.models, name)(weights=None).eval()
    for part in network.modules():  # of a trained network they are not 0 and 1
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return network


def close(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-3, atol=2e-5)


# -- cirtorch


def features_of(name, network):
    """Return the steps that this program puts into a sequence, whose numbers are the names of its weights."""
    if name.startswith("resnet"):
        return nn.Sequential(*list(network.children())[:-2])
    steps = list(network.features.children())
    if name.startswith("densenet"):
        return nn.Sequential(*steps, nn.ReLU())
    return nn.Sequential(*(steps[:-1] if name.startswith(("vgg", "alexnet")) else steps))


def write_cirtorch(path, name="resnet18", pooling="gem", whiten=False, lw=(), **meta):
    features = features_of(name, random_network(name)).eval()
    n_dims = features(torch.zeros(1, 3, 96, 128)).shape[1]
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    if pooling == "gem":
        state["pool.p"] = torch.tensor([2.7])
    rng = np.random.default_rng(1)
    if whiten:
        state["whiten.weight"] = torch.from_numpy(rng.normal(size=(n_dims, n_dims)) / 20).float()
        state["whiten.bias"] = torch.from_numpy(rng.normal(size=n_dims) / 50).float()
    learned = {
        name_of: {
            kind: {"m": rng.normal(size=(n_dims, 1)) / 50, "P": rng.normal(size=(n_dims, n_dims))}
            for kind in ("ss", "ms")
        }
        for name_of in lw
    }
    meta = {"architecture": name, "pooling": pooling, "local_whitening": False, "regional": False, "whitening": whiten,
            "mean": MEAN, "std": STD, "outputdim": n_dims, **({"Lw": learned} if lw else {}), **meta}  # fmt: skip
    torch.save({"epoch": 30, "meta": meta, "state_dict": state, "min_loss": np.float64(0.2)}, path)
    return features, state, learned


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "alexnet", "densenet121", "squeezenet1_1"])
def test_cirtorch_networks(name, images, tmp_path):
    features, _, _ = write_cirtorch(tmp_path / "net.pth", name)
    with torch.inference_mode():
        expected = unit(gem(features(normalised(images)), 2.7).numpy())
    model = load_cirtorch(tmp_path / "net.pth", device="cpu")
    close(model.transform(images), expected)
    assert model.estimator.p == pytest.approx(2.7)


@pytest.mark.parametrize(("pooling", "pool"), [("mac", lambda x: x.amax((2, 3))), ("spoc", lambda x: x.mean((2, 3)))])
def test_cirtorch_poolings(pooling, pool, images, tmp_path):
    features, state, _ = write_cirtorch(tmp_path / "net.pth", pooling=pooling, whiten=True)
    with torch.inference_mode():
        vectors = F.normalize(pool(features(normalised(images))))
        expected = F.normalize(F.linear(vectors, state["whiten.weight"], state["whiten.bias"]))
    close(load_cirtorch(tmp_path / "net.pth").transform(images), expected)
    with pytest.raises(ValueError, match=f"whitens {pooling} at each scale"):
        load_cirtorch(tmp_path / "net.pth", scales=(1, 0.5))


def at_scales(features, images, scales):
    for scale in scales:
        x = normalised(images)
        yield features(x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False))


def test_cirtorch_learned_whitening_of_one_scale_and_several(images, tmp_path):
    names = ("retrieval-SfM-30k", "retrieval-SfM-120k")
    features, _, learned = write_cirtorch(tmp_path / "net.pth", lw=names)
    for scales, kind in (((1.0,), "ss"), ((1.0, 0.5), "ms")):
        with torch.inference_mode():
            parts = [F.normalize(gem(maps, 2.7)) for maps in at_scales(features, images, scales)]
            vectors = unit((sum(part**2.7 for part in parts) / len(parts)).pow(1 / 2.7).numpy())
        close(load_cirtorch(tmp_path / "net.pth", scales=scales, whitening=None).transform(images), vectors)
        for chosen in (*names, "auto"):
            lw = learned["retrieval-SfM-120k" if chosen == "auto" else chosen][kind]
            expected = unit((vectors - lw["m"].T) @ lw["P"].T)
            close(load_cirtorch(tmp_path / "net.pth", scales=scales, whitening=chosen).transform(images), expected)


def test_cirtorch_whitening_layer_is_of_each_scale(images, tmp_path):
    features, state, _ = write_cirtorch(tmp_path / "net.pth", whiten=True)
    with torch.inference_mode():
        vectors = [
            F.normalize(F.linear(F.normalize(gem(maps, 2.7)), state["whiten.weight"], state["whiten.bias"]))
            for maps in at_scales(features, images, (1.0, 0.5))
        ]
    close(load_cirtorch(tmp_path / "net.pth").transform(images), vectors[0])
    close(load_cirtorch(tmp_path / "net.pth", scales=(1.0, 0.5)).transform(images), F.normalize(sum(vectors) / 2))


def test_a_published_model_is_not_fitted_again_and_is_stored(images, tmp_path):
    write_cirtorch(tmp_path / "net.pth", whiten=True, lw=("retrieval-SfM-120k",))
    model = load_cirtorch(tmp_path / "net.pth", image_size=128)
    expected = model.transform(images)
    close(clone(model).fit(images, None).transform(images), expected)
    line = make_pipeline(model, PCAWhitening(2)).fit(images)
    np.testing.assert_array_equal(load_model(save_model(model, tmp_path / "m.cvm")).transform(images), expected)
    loaded = load_model(save_model(line, tmp_path / "line.cvm"))
    np.testing.assert_array_equal(loaded.transform(images), line.transform(images))
    with ImageRetriever(encoder=model, location=tmp_path / "a.cvr").fit(images, ids=["a", "b", "c"]):
        pass
    with ImageRetriever.load(tmp_path / "a.cvr") as retriever:
        close(retriever._store.vectors([record.key for record in retriever._store.records()]), expected)
        assert retriever.search(images[1:2], k=1).ids == [["b"]]
    write_cirtorch(tmp_path / "net.pth", "vgg11")
    with pytest.raises(StoreError, match=r"net\.pth does not fit resnet18"):
        load_model(tmp_path / "m.cvm").transform(images)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"regional": True}, ValueError, "a model with regional"),
        ({"local_whitening": True}, ValueError, "a model with local whitening"),
        ({"pooling": "crow"}, ValueError, "pooling 'crow'. Known: gem, mac"),
        ({"mean": None}, StoreError, "no 'mean'"),
        ({"architecture": "resnet19"}, ValueError, "no classification network 'resnet19'"),
        ({"Lw": {"x": {"ss": {"m": np.zeros((2, 1))}}}}, StoreError, "a whitening 'x' without 'P'"),
        ({"Lw": {"x": {"ss": {"m": np.full((2, 1), np.nan), "P": np.eye(2)}}}}, StoreError, "must be 2-dimensional"),
        ({"Lw": {"x": {}}}, StoreError, "has no 'ss'"),
    ],
)
def test_cirtorch_files_that_cannot_be_used(change, error, message, tmp_path):
    write_cirtorch(tmp_path / "net.pth", **change)
    with pytest.raises(error, match=message):
        load_cirtorch(tmp_path / "net.pth")


def test_what_is_missing_is_said(tmp_path):
    write_cirtorch(tmp_path / "net.pth", lw=("x",))
    with pytest.raises(ValueError, match="no whitening 'y'. It has: x"):
        load_cirtorch(tmp_path / "net.pth", whitening="y")
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "other.pth")
    for load in (load_cirtorch, load_dir):
        with pytest.raises(StoreError, match=r"other\.pth has no '(meta|model_options)'"):
            load(tmp_path / "other.pth")
    for load, name in ((load_cirtorch, "none.pth"), (load_dir, "none.pt"), (load_netvlad, "none.mat")):
        with pytest.raises(StoreError, match=f"{name} does not exist"):
            load(tmp_path / name)


# -- deep-image-retrieval


class Dangerous:
    def __reduce__(self):
        return os.system, ("touch /tmp/cvretrieval-was-here",)


def write_dir(path, pooling="gem", pca=None, prefix="module.", **options):
    network = random_network("resnet18")
    torch.manual_seed(5)
    network.fc = nn.Linear(512, 24)
    nn.init.normal_(network.fc.weight)
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    if pooling == "gem":
        state[f"{prefix}adpool.p"] = torch.tensor([2.2])
    torch.save(
        {
            "epoch": 1,
            "model_options": {"arch": "resnet18_rmac", "out_dim": 24, "pooling": pooling, "gemp": 3, **options},
            "state_dict": state,
            "preprocess": {"mean": MEAN, "std": STD, "input_size": 224},
            **({} if pca is None else {"pca": pca}),
        },
        path,
    )
    return nn.Sequential(*list(network.children())[:-2]), network.fc


@pytest.mark.parametrize("norm_features", [False, True])
@pytest.mark.parametrize("pooling", ["gem", "max", "avg"])
def test_dir_networks_and_their_pca(pooling, norm_features, images, rng, tmp_path):
    train = unit(rng.normal(size=(60, 24)) * np.arange(1, 25))
    pca = PCA(whiten=True).fit(train.astype(np.float32))
    features, fc = write_dir(
        tmp_path / "net.pt", pooling, {"Landmarks_clean": pca, "other": PCA(3).fit(train)}, norm_features=norm_features
    )
    pool = {"gem": lambda x: gem(x, 2.2), "max": lambda x: x.amax((2, 3)), "avg": lambda x: x.mean((2, 3))}[pooling]
    with torch.inference_mode():
        pooled = pool(features(normalised(images)))
        vectors = F.normalize(fc(F.normalize(pooled) if norm_features else pooled)).numpy()
    close(load_dir(tmp_path / "net.pt", whitening=None).transform(images), vectors)
    whitened = (vectors - pca.mean_) @ pca.components_.T / pca.explained_variance_**0.25
    close(load_dir(tmp_path / "net.pt").transform(images), unit(whitened))
    close(load_dir(tmp_path / "net.pt", n_components=5).transform(images), unit(whitened[:, :5]))
    assert load_dir(tmp_path / "net.pt", whitening="other").transform(images).shape == (3, 3)
    with pytest.raises(ValueError, match="no whitening 'none'. It has: Landmarks_clean, other"):
        load_dir(tmp_path / "net.pt", whitening="none")


def test_dir_pca_as_plain_arrays_and_without_layer(images, rng, tmp_path):
    pca = PCA(4, whiten=True).fit(rng.normal(size=(30, 512)))
    plain = {name: getattr(pca, name) for name in ("mean_", "components_", "explained_variance_")}
    for found in ({"a": plain}, plain, {"a": {name: torch.from_numpy(value) for name, value in plain.items()}}):
        features, _ = write_dir(tmp_path / "net.pt", pca=found, prefix="", without_fc=True)
        with torch.inference_mode():
            vectors = F.normalize(gem(features(normalised(images)), 2.2)).numpy()
        whitened = (vectors - pca.mean_) @ pca.components_.T / pca.explained_variance_**0.5
        close(load_dir(tmp_path / "net.pt", power=0.5).transform(images), unit(whitened))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "senet154_rmac"}, "a model 'senet154_rmac'"),
        ({"center_bias": 0.5}, "distance from the centre"),
        ({"pooling": "rmac"}, "pooling 'rmac'. Known"),
    ],
)
def test_dir_models_without_a_counterpart(change, message, tmp_path):
    write_dir(tmp_path / "net.pt", **change)
    with pytest.raises(ValueError, match=message):
        load_dir(tmp_path / "net.pt")
    write_dir(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="at one scale"):
        load_dir(tmp_path / "net.pt", scales=(1, 0.5))


def test_nothing_in_a_file_is_run(tmp_path):
    for load, write in ((load_cirtorch, write_cirtorch), (load_dir, write_dir)):
        write(tmp_path / "net.pth")
        checkpoint = torch.load(tmp_path / "net.pth", weights_only=False)
        for payload in (Dangerous(), {"Landmarks_clean": Dangerous()}, np.array([Dangerous()], dtype=object)):
            torch.save({**checkpoint, "pca": payload}, tmp_path / "bad.pth")
            with pytest.raises(StoreError, match=r"holds more than weights.*never run.*save what is needed of it"):
                load(tmp_path / "bad.pth")
            with pytest.raises(StoreError, match="holds more than weights"):
                Backbone("resnet18", weights=tmp_path / "bad.pth").build()
    assert not os.path.exists("/tmp/cvretrieval-was-here")


# -- NetVLAD


def write_netvlad(path, rng, n_clusters=3, n_components=7, whitening=True):
    """Write what hloc reads: layers as structures, filters (h, w, in, out), centres with their sign reversed."""
    torch.manual_seed(2)
    vgg = torchvision.models.vgg16(weights=None).features[:29].eval()
    mean = np.array([122.0, 115.0, 101.0])
    layers = [
        {"type": "conv", "weights": cells([step.weight.detach().permute(2, 3, 1, 0).numpy(),
                                           step.bias.detach().numpy().reshape(1, -1)])}
        if isinstance(step, nn.Conv2d) else {"type": "relu", "weights": cells([])}
        for step in vgg
    ]  # fmt: skip
    assignment, centers = (rng.normal(size=(512, n_clusters)).astype(np.float32) for _ in range(2))
    layers.append({"type": "custom", "name": "preL2", "weights": cells([])})
    layers.append({"type": "custom", "name": "vlad", "weights": cells([20 * assignment, -centers])})
    weight = rng.normal(size=(1, 1, 512 * n_clusters, n_components)).astype(np.float32)
    bias = rng.normal(size=(1, n_components)).astype(np.float32) / 10
    if whitening:
        layers += [{"type": "custom", "weights": cells([])}] * 2
        layers.append({"type": "conv", "name": "WPCA", "weights": cells([weight, bias])})
    average = np.tile(mean.reshape(1, 1, 3), (224, 224, 1)).astype(np.float32)
    net = {"layers": cells(layers), "meta": {"normalization": {"averageImage": average}}}
    savemat(path, {"net": net})
    return vgg, mean, torch.from_numpy(20 * assignment), torch.from_numpy(centers), weight[0, 0], bias[0]


def cells(parts):
    made = np.empty((1, len(parts)), dtype=object)
    for i, part in enumerate(parts):
        made[0, i] = part
    return made


def test_netvlad_of_its_authors(images, rng, tmp_path):
    vgg, mean, assignment, centers, weight, bias = write_netvlad(tmp_path / "net.mat", rng)
    with torch.inference_mode():
        x = F.normalize(vgg(normalised(images, mean / 255, [1 / 255] * 3).float()).flatten(2), dim=1)
        shares = torch.einsum("dk,bdn->bkn", assignment, x).softmax(1)
        residuals = x.unsqueeze(2) - centers.unsqueeze(0).unsqueeze(-1)  # (B, D, K, n)
        vlad = F.normalize((shares.unsqueeze(1) * residuals).sum(-1), dim=1)
        cluster_fastest = F.normalize(vlad.flatten(1)).numpy()
    plain = load_netvlad(tmp_path / "net.mat", whitening=False, device="cpu")
    by_cluster = cluster_fastest.reshape(3, 512, 3).transpose(0, 2, 1).reshape(3, -1)
    close(plain.transform(images), by_cluster)
    whitened = load_netvlad(tmp_path / "net.mat")
    close(whitened.transform(images), unit(cluster_fastest @ weight + bias))
    loaded = load_model(save_model(whitened, tmp_path / "m.cvm"))
    np.testing.assert_array_equal(loaded.transform(images), whitened.transform(images))


def test_netvlad_files_that_cannot_be_used(rng, tmp_path):
    write_netvlad(tmp_path / "net.mat", rng, whitening=False)
    with pytest.raises(StoreError, match="no whitening at layer 33"):
        load_netvlad(tmp_path / "net.mat")
    savemat(tmp_path / "other.mat", {"x": np.eye(2)})
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    (tmp_path / "hdf5.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    for name, message in (("other", "holds no network"), ("bad", "damaged"), ("hdf5", "HDF5 format")):
        with pytest.raises(StoreError, match=message):
            load_netvlad(tmp_path / f"{name}.mat")
    net = {"layers": cells([{"weights": cells(["text", "more"])}]), "meta": {}}
    savemat(tmp_path / "text.mat", {"net": net})
    with pytest.raises(StoreError, match="holds no network of MatConvNet"):
        load_netvlad(tmp_path / "text.mat")
