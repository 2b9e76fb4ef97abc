"""CGD and fine-tuned descriptors: what is learned, that it can be interrupted, and what is refused."""

from __future__ import annotations

import copy
import errno
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

from cvretrieval import ImageReadError, ImageRetriever, LearnedWhitening, PCAWhitening, StoreError
from cvretrieval.deep import CGD, MAC, RMAC, Backbone, FineTuned, GeM, NetVLAD, NeuralCodes, losses
from cvretrieval.deep.training import trainer as training_loop
from cvretrieval.deep.training.estimator import TrainedParts

# Its weights are drawn in a tenth of a second, those of a ResNet in three.
NAMED = Backbone("squeezenet1_1", weights=None, layer="features.4")


class Small(nn.Module):
    """A network with everything that has a state or draws numbers."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.steps = nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=2),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Dropout2d(0.2),
                nn.Conv2d(8, 12, 3),
                nn.ReLU(),
            )

    def forward(self, x):
        return self.steps(x)


def small(**params):
    options = {
        "n_components": 8, "n_epochs": 3, "classes_per_batch": 3, "images_per_class": 2, "learning_rate": 3e-3,
        "resize_to": 36, "input_size": 32, "n_workers": 1, "random_state": 0, "device": "cpu",
    }  # fmt: skip
    return CGD(params.pop("backbone", Small()), **{**options, **params})


def tuned(descriptor, **params):
    options = {"n_epochs": 2, "classes_per_batch": 3, "images_per_class": 2, "resize_to": 36, "input_size": 32,
               "learning_rate": 1e-3, "random_state": 0}  # fmt: skip
    return FineTuned(descriptor, **{**options, **params})


@pytest.fixture
def photos(rng):
    """Three classes of four images: stripes of three widths, in noise."""
    images, labels = [], []
    for name, width in (("fine", 2), ("middle", 4), ("wide", 8)):
        stripes = (np.arange(40) // width % 2 * 120)[:, None, None]
        for _ in range(4):
            noise = rng.integers(0, 100, (40, 40, 3))
            images.append((stripes + noise + rng.integers(0, 30)).astype(np.uint8))
            labels.append(name)
    return images, labels


def test_ten_images_are_learned_by_heart(rng):
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(10)]
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    cgd = small(n_epochs=60, classes_per_batch=5, resize_to=32, flip=False, n_components=16, decay_at=(0.8,))
    before = clone(cgd).set_params(n_epochs=1, learning_rate=1e-9).fit(images, labels)
    cgd.fit(images, labels)
    assert cgd.score(images, labels) == 1 > before.score(images, labels)
    assert cgd.history_["loss"][-1] < 0.5 * cgd.history_["loss"][0]


def test_vectors_have_unit_length_and_follow_from_the_seed(photos):
    vectors = [
        small(random_state=seed, n_workers=n).fit(*photos).transform(photos[0]) for seed, n in ((0, 1), (0, 3), (1, 1))
    ]
    assert vectors[0].shape == (12, 8) and vectors[0].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[0], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


def test_training_leaves_the_given_network_and_torchs_generator_alone(photos):
    network = Small()
    weights = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    cgd = small(backbone=network).fit(*photos)
    cgd.transform(photos[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert not torch.equal(weights["steps.0.weight"], cgd._prepare().network.state_dict()["steps.0.weight"])


def test_vectors_are_those_of_the_formula(photos):
    images, labels = photos
    cgd = small(branches="SG", n_epochs=1).fit(images, labels)
    prepared = cgd._prepare()
    head = cgd._pooling(prepared)
    x = torch.from_numpy(np.stack([image[:32, :32] for image in images])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        maps = prepared.network(x)
        parts = [maps.mean((2, 3)), maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)]
        reduced = [F.normalize(part @ layer.weight.T) for part, layer in zip(parts, head.reductions, strict=True)]
        expected = F.normalize(torch.cat(reduced, 1)).numpy()
    found = cgd.transform([image[:32, :32] for image in images])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_validation", [False, True])
@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_training_goes_on_bit_by_bit(photos, tmp_path, monkeypatch, with_validation, after):
    images, labels = photos
    cgd = small(n_epochs=4, decay_at=(0.3, 0.6), accumulate=2)
    fit = {"validation": (images[::2], labels[::2])} if with_validation else {}
    whole = clone(cgd).fit(images, labels, **fit)
    original = training_loop.Trainer._step
    n_steps = []

    def interrupted(self, *arguments):
        n_steps.append(1)
        if len(n_steps) == 2 * after + 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_step", interrupted)
        with pytest.warns(UserWarning, match=f"CGD was interrupted after epoch {after} of 4; epoch [12] is kept"):
            partial = clone(cgd).fit(images, labels, checkpoint_to=tmp_path, **fit)
    assert len(partial.history_["loss"]) == after and np.isfinite(partial.transform(images)).all()
    resumed = clone(cgd).fit(images, labels, resume_from=tmp_path, **fit)
    np.testing.assert_array_equal(resumed.weights_, whole.weights_)
    assert resumed.best_epoch_ == whole.best_epoch_
    for name in ("epoch", "loss", "ranking", "classification", "learning_rate", "recall_at_1"):
        np.testing.assert_array_equal(resumed.history_[name], whole.history_[name])
    # Done is done: nothing is trained again.
    monkeypatch.setattr(training_loop.Trainer, "_step", None)
    again = clone(cgd).fit(images, labels, resume_from=tmp_path, **fit)
    np.testing.assert_array_equal(again.weights_, whole.weights_)


def test_a_seed_by_chance_is_resumed_too(photos, tmp_path):
    whole = small(random_state=None).fit(*photos, checkpoint_to=tmp_path)
    again = small(random_state=None).fit(*photos, resume_from=tmp_path)
    np.testing.assert_array_equal(again.weights_, whole.weights_)


def test_other_trainings_are_not_gone_on_with(photos, tmp_path):
    images, labels = photos
    small().fit(images, labels, checkpoint_to=tmp_path)
    with pytest.raises(StoreError, match=r"of another training: branches was \"'MG'\" and is \"'GM'\" now"):
        small(branches="GM").fit(images, labels, resume_from=tmp_path)
    with pytest.raises(StoreError, match="of another training: the digest of the classes was"):
        small().fit(images[1:], labels[1:], resume_from=tmp_path)
    with pytest.raises(StoreError, match="holds no checkpoint"):
        small().fit(images, labels, resume_from=tmp_path / "other")


def test_an_interruption_before_the_first_epoch_is_raised(photos, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_loop.Trainer, "_step", interrupted)
    cgd = small()
    with pytest.raises(KeyboardInterrupt):
        cgd.fit(*photos)
    with pytest.raises(NotFittedError):
        cgd.transform(photos[0])


def test_the_best_epoch_of_the_validation_is_kept(photos, monkeypatch):
    images, labels = photos
    recalls = iter([0.3, 0.7, 0.5, 0.6, 0.9])
    monkeypatch.setattr("cvretrieval.deep.training.estimator.recall_at_1", lambda *_: next(recalls))
    cgd = small(n_epochs=5, patience=2, decay_at=()).fit(images, labels, validation=(images, labels))
    assert cgd.best_epoch_ == 2 and cgd.history_["recall_at_1"].tolist() == [0.3, 0.7, 0.5, 0.6]
    monkeypatch.undo()
    two = small(n_epochs=2, decay_at=()).fit(images, labels)
    np.testing.assert_array_equal(cgd.weights_, two.weights_)


def test_a_loss_that_is_no_number_names_the_images(photos, tmp_path, monkeypatch):
    images, labels = photos
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    calls = []

    def loss(vectors, targets):
        calls.append(1)
        return vectors.sum() * (np.nan if len(calls) == 4 else 1)

    cgd = small(ranking_loss=loss)
    with pytest.raises(
        FloatingPointError, match=r"CGD is nan in epoch 2, batch 2, on the images .*\.png, .* and 2 more"
    ):
        cgd.fit(paths, labels, checkpoint_to=tmp_path / "ckpt")
    assert cgd.best_epoch_ == 1 and np.isfinite(cgd.transform(paths)).all()


def test_an_unreadable_image_and_a_full_disk_leave_the_best_model(photos, tmp_path, monkeypatch):
    images, labels = photos
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    cgd = small(n_epochs=3)
    original = training_loop.Trainer._keep

    def keep(self, row):
        original(self, row)
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_keep", keep)
        with pytest.raises(ImageReadError, match=r"a\.png: does not exist"):
            cgd.fit([path, *images[1:]], labels, checkpoint_to=tmp_path / "ckpt")
    assert cgd.best_epoch_ == 1 and cgd.transform(images).shape == (12, 8)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        cgd.fit(images, labels, checkpoint_to=tmp_path / "other")
    monkeypatch.undo()
    assert cgd.best_epoch_ == 1 and cgd.transform(images).shape == (12, 8)


@pytest.mark.parametrize(
    "params",
    [
        {"backbone": Backbone("resnet18", weights=None, layer="layer1")},
        {"branches": "S", "train_p": True},
        {"branches": "SGM", "n_components": 9},
    ],
    ids=["MG", "S", "SGM"],
)
def test_saved_and_loaded_it_returns_the_same_bits(photos, tmp_path, params):
    images, labels = photos
    cgd = small(**{"backbone": NAMED, "n_epochs": 1, **params}).fit(images, labels, validation=(images, labels))
    expected = cgd.transform(images)
    for other in (CGD.load(cgd.save(tmp_path / "cgd.cvm")), copy.deepcopy(cgd), pickle.loads(pickle.dumps(cgd))):
        np.testing.assert_array_equal(other.transform(images), expected)
        assert other.history_.keys() == cgd.history_.keys()
        assert other.classes_.tolist() == ["fine", "middle", "wide"] and repr(other) == repr(cgd)


def test_files_need_no_weights_that_training_began_with(photos, tmp_path):
    network, _, _ = Backbone("squeezenet1_1", weights=None, random_state=5)._build_named(None, "map")
    torch.save(network.state_dict(), tmp_path / "start.pt")
    start = Backbone(
        "squeezenet1_1", weights=tmp_path / "start.pt", layer="features.4", mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)
    )
    cgd = small(backbone=start, n_epochs=1).fit(*photos)
    cgd.save(tmp_path / "cgd.cvm")
    expected = cgd.transform(photos[0])
    (tmp_path / "start.pt").unlink()
    np.testing.assert_array_equal(CGD.load(tmp_path / "cgd.cvm").transform(photos[0]), expected)


def test_a_given_module_cannot_be_stored(photos, tmp_path):
    with pytest.raises(TypeError, match="CGD.backbone is a Small, which cannot be stored"):
        small(n_epochs=1).fit(*photos).save(tmp_path / "cgd.cvm")


def test_clones_searches_and_pipelines(photos):
    images, labels = photos
    cgd = small(n_epochs=1)
    assert clone(cgd).get_params()["branches"] == "MG"
    search = GridSearchCV(cgd, {"branches": ["S", "MG"]}, cv=2, error_score="raise").fit(images, labels)
    assert search.best_params_["branches"] in ("S", "MG")
    line = make_pipeline(clone(cgd), PCAWhitening(3)).fit(images, labels)
    assert line.transform(images[:2]).shape == (2, 3)
    assert cgd.fit(images, labels).get_feature_names_out().tolist() == [f"cgd{i}" for i in range(8)]
    assert cgd.transform([]).shape == (0, 8)


def test_a_trained_one_is_searched_with(photos, tmp_path):
    images, labels = photos
    cgd = small(backbone=NAMED, n_epochs=1).fit(images, labels)
    with pytest.raises(ValueError, match=r"An ImageRetriever is given a trained one as FrozenEstimator"):
        ImageRetriever(encoder=cgd).fit(images)
    retriever = ImageRetriever(encoder=FrozenEstimator(cgd), verifier=None).fit(images, ids=list("abcdefghijkl"))
    retriever.save(tmp_path / "a.cvr")
    vectors = cgd.transform(images)
    expected = np.sort(vectors @ vectors[5])[::-1]
    for one in (retriever, ImageRetriever.load(tmp_path / "a.cvr")):
        hits = one.search([images[5]], k=12)[0].hits
        assert hits[0].id == "f" and len({hit.id for hit in hits}) == 12
        np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-5)


def last_stage(backbone, **params):
    parts = CGD(backbone, **params)._start_backbone()
    with torch.inference_mode():
        return tuple(parts.build()(torch.zeros(1, 3, 64, 64)).shape[2:])


def test_the_last_stage_of_resnets_keeps_its_resolution():
    named = Backbone("resnet18", weights=None)
    assert last_stage(named) == (4, 4) and last_stage(named, last_stride=None) == (2, 2)
    assert last_stage(Backbone("resnet18", weights=None, strides=(("layer3", 1),))) == (4, 4)
    assert last_stage(Backbone("squeezenet1_1", weights=None)) == (3, 3)
    whole = CGD(Backbone("resnet18", weights=None))._start_backbone()
    network = whole.build()
    strided = [
        m for n, m in network.named_modules() if "layer4" in n and isinstance(m, nn.Conv2d) and m.stride != (1, 1)
    ]
    assert not strided


ABLATIONS = {
    "ranking only": ({"classification_weight": 0}, {"ranking"}),
    "classification only": ({"ranking_weight": 0}, {"classification"}),
    "no temperature": ({"temperature": 1.0}, {"ranking", "classification"}),
    "no smoothing": ({"label_smoothing": 0.0}, {"ranking", "classification"}),
    "sum before": ({"combine": "sum_before_fc"}, {"ranking", "classification"}),
    "concatenation before": ({"combine": "concatenate_before_fc"}, {"ranking", "classification"}),
    "semi-hard": ({"ranking_loss": "semi_hard"}, {"ranking", "classification"}),
    "multi-similarity": ({"ranking_loss": "multi_similarity"}, {"ranking", "classification"}),
    "smooth AP": ({"ranking_loss": "smooth_ap"}, {"ranking", "classification"}),
    "contrastive": ({"ranking_loss": "contrastive", "margin": 0.5}, {"ranking", "classification"}),
    "a module": ({"ranking_loss": losses.SmoothAP(0.1)}, {"ranking", "classification"}),
    "bfloat16": ({"dtype": "bfloat16"}, {"ranking", "classification"}),
    "frozen statistics": ({"freeze_batch_norm": True}, {"ranking", "classification"}),
}


@pytest.mark.parametrize(("params", "terms"), list(ABLATIONS.values()), ids=list(ABLATIONS))
def test_ablations_are_parameters(photos, params, terms):
    cgd = small(n_epochs=1, **params).fit(*photos)
    assert terms == {"ranking", "classification"} & cgd.history_.keys()
    np.testing.assert_allclose(cgd.history_["loss"], sum(cgd.history_[name] for name in terms), rtol=1e-5)
    assert np.isfinite(cgd.transform(photos[0])).all()
    plain = small(n_epochs=1).fit(*photos)
    assert not np.array_equal(cgd.weights_, plain.weights_)
    network = cgd._prepare().network
    moved = not torch.equal(network.steps[1].running_mean, torch.zeros(8))
    assert moved != bool(params.get("freeze_batch_norm"))


def test_the_joint_loss_and_its_gradient(rng):
    cgd = small(branches="SG", ranking_weight=0.7, classification_weight=1.3, backbone=nn.Identity())
    head = cgd._make_head(3).double()
    auxiliary = cgd._make_auxiliary(3, 2).double()
    parts = TrainedParts(nn.Identity(), head, auxiliary, "float32")
    parts.maps = lambda images: images
    x = torch.tensor(rng.random((4, 3, 4, 4)), requires_grad=True)
    targets = torch.tensor([0, 0, 1, 1])
    terms = cgd._loss_terms()

    def total(images):
        return sum(terms(parts, images, targets).values())

    assert torch.autograd.gradcheck(total, x)
    scores = auxiliary(x.mean((2, 3)))
    expected = 0.7 * losses.BatchHardTriplet(0.1)(head(x), targets) + 1.3 * F.cross_entropy(
        scores / 0.5, targets, label_smoothing=0.1
    )
    torch.testing.assert_close(total(x), expected)
    # One step of Adam against the gradient of finite differences.
    weight = head.reductions[0].weight
    total(x).backward()
    with torch.no_grad():
        weight[0, 0] += 1e-6
        above = total(x)
        weight[0, 0] -= 2e-6
        below = total(x)
    np.testing.assert_allclose(weight.grad[0, 0], (above - below) / 2e-6, rtol=1e-5, atol=1e-9)


def test_accumulated_batches_are_averaged(photos):
    images, labels = photos
    rates = {"n_epochs": 1, "freeze_batch_norm": True, "classification_weight": 0}
    plain, accumulated = (small(accumulate=n, **rates).fit(images, labels) for n in (1, 2))
    assert not np.array_equal(plain.weights_, accumulated.weights_)
    more = small(accumulate=5, **rates).fit(images, labels)  # more than an epoch has
    np.testing.assert_array_equal(more.weights_, accumulated.weights_)


def test_a_class_of_one_image_is_trained_with(photos):
    images, labels = photos
    cgd = small(n_epochs=1).fit(images[:9], labels[:9])
    assert np.isfinite(cgd.history_["loss"]).all()


@pytest.mark.parametrize(
    ("params", "fit", "error", "message"),
    [
        ({"branches": "MX"}, {}, ValueError, "'branches' parameter of CGD must be letters out of S, M and G"),
        ({"branches": "SGM"}, {}, ValueError, "'n_components' parameter of CGD must be a multiple of the 3 branches"),
        ({"combine": "sum"}, {}, ValueError, "'combine' parameter of CGD"),
        ({"n_epochs": 0}, {}, ValueError, "'n_epochs' parameter of CGD"),
        ({"classes_per_batch": 1}, {}, ValueError, "'classes_per_batch' parameter of CGD"),
        ({"resize_to": 30}, {}, ValueError, r"'resize_to' parameter of CGD must be an integer in \[32"),
        ({"learning_rate": 0}, {}, ValueError, "'learning_rate' parameter of CGD"),
        ({"decay_at": (1.5,)}, {}, ValueError, "'decay_at' parameter of CGD"),
        ({"ranking_loss": "hard"}, {}, ValueError, "'ranking_loss' parameter of CGD must be one of 'batch_hard'"),
        ({"ranking_loss": losses.SmoothAP(), "margin": 0.1}, {}, ValueError, "does not know the margin of a given"),
        ({"ranking_loss": "smooth_ap", "margin": 0.1}, {}, ValueError, "has no margin"),
        ({"ranking_weight": 0, "classification_weight": 0}, {}, ValueError, "nothing to learn from"),
        ({"temperature": 0}, {}, ValueError, "'temperature' parameter"),
        ({}, {"y": None}, ValueError, r"CGD is trained with classes: fit\(X, y\)"),
        ({}, {"y": ["a"] * 12}, ValueError, "needs at least two. Got 1"),
        ({}, {"y": ["a", "b"]}, ValueError, "Got 12 images and labels of shape"),
        ({}, {"validation": ([], [])}, ValueError, "validation must be at least two images"),
    ],
    ids=lambda value: "" if isinstance(value, (dict, type)) else value[:30],
)
def test_bad_input(photos, params, fit, error, message):
    images, labels = photos
    with pytest.raises(error, match=message):
        small(**params).fit(images, **{"y": labels, **fit})


DESCRIPTORS = {
    "GeM": lambda: GeM(NAMED, scales=(1, 0.7)),
    "GeM-whitened": lambda: GeM(NAMED, whitening=LearnedWhitening(4, shrinkage=0.01)),
    "RMAC-whitened": lambda: RMAC(NAMED, whitening=PCAWhitening(4)),
    "NetVLAD": lambda: NetVLAD(NAMED, n_clusters=3, descriptors_per_image=20, random_state=0),
}


@pytest.mark.parametrize("name", list(DESCRIPTORS))
def test_descriptors_are_trained_with_their_pooling(photos, tmp_path, name):
    images, labels = photos
    descriptor = DESCRIPTORS[name]()
    frozen = clone(descriptor).fit(images, labels)
    still = tuned(descriptor, n_epochs=1, learning_rate=1e-12).fit(images, labels)
    np.testing.assert_allclose(still.transform(images), frozen.transform(images), rtol=1e-3, atol=1e-5)
    trained = tuned(descriptor).fit(images, labels)
    before = dict(still._pooling(still._prepare()).named_parameters())
    after = dict(trained._pooling(trained._prepare()).named_parameters())
    assert before.keys() == after.keys() and before
    assert all(not torch.equal(before[key], after[key]) for key in before), "a part of the pooling was not trained"
    loaded = FineTuned.load(trained.save(tmp_path / "tuned.cvm"))
    np.testing.assert_array_equal(loaded.transform(images), trained.transform(images))
    assert repr(clone(trained)) == repr(loaded)


def test_fine_tuning_separates_classes(photos):
    images, labels = photos
    gem = GeM(Small(), image_size=40)
    trained = tuned(gem, n_epochs=30, learning_rate=3e-3, ranking_loss="batch_hard").fit(images, labels)

    def gap(vectors):
        same = np.array(labels)[:, None] == np.array(labels)
        between = vectors @ vectors.T
        return between[same].mean() - between[~same].mean()

    assert gap(trained.transform(images)) > 2 * gap(gem.transform(images))


def test_hard_negatives_are_found_anew_and_resumed(photos, tmp_path, monkeypatch):
    images, labels = photos
    model = tuned(GeM(Small(), image_size=40), n_negatives=2, classes_per_batch=2, n_epochs=3)
    whole = clone(model).fit(images, labels)
    assert not np.array_equal(whole.weights_, clone(model).set_params(n_negatives=0).fit(images, labels).weights_)
    original = training_loop.Trainer._epoch

    def interrupted(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_epoch", interrupted)
        with pytest.warns(UserWarning, match="interrupted after epoch 1 of 3"):
            clone(model).fit(images, labels, checkpoint_to=tmp_path)
    resumed = clone(model).fit(images, labels, resume_from=tmp_path)
    np.testing.assert_array_equal(resumed.weights_, whole.weights_)


def test_what_cannot_be_fine_tuned():
    with pytest.raises(TypeError, match="must be a descriptor of feature maps such as GeM.*Got PCAWhitening"):
        FineTuned(PCAWhitening(2)).fit([], [])
    for other in (CGD(), NeuralCodes()):
        with pytest.raises(TypeError, match=f"Got {type(other).__name__}"):
            FineTuned(other).fit([], [])


class SummedMAC(MAC):
    """Has a way of its own to describe maps and to combine scales."""

    def _describe(self, pooling, found):
        return 2 * super()._describe(pooling, found)

    def _combine(self, by_scale):
        return torch.stack(by_scale).sum(0)


def test_descriptors_keep_their_ways_to_describe_and_to_combine_scales(photos):
    images, labels = photos
    mac = SummedMAC(Small(), scales=(1, 0.7), image_size=40)
    still = tuned(mac, n_epochs=1, learning_rate=1e-12).fit(images, labels)
    expected = mac.transform(images)
    assert np.linalg.norm(expected[0]) > 3
    np.testing.assert_allclose(still.transform(images), expected, rtol=1e-3, atol=1e-5)


def test_scales_are_averaged_with_the_trained_exponent(photos):
    images, labels = photos
    trained = tuned(GeM(Small(), scales=(1, 0.7), image_size=40)).fit(images, labels)
    p = float(trained._pooling(trained._prepare()).p.detach())
    assert p != 3 and trained._scale_power == trained.scale_power_ == p
