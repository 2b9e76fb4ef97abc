"""``cvretrieval train cgd``: from folders of classes to a model and its curves, interrupted or not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cvretrieval import load_model
from cvretrieval.cli import train
from cvretrieval.deep import CGD, Backbone
from cvretrieval.deep.training import trainer as training_loop
from tests.deep.test_cli import run


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("cup", "pen", "shoe", "tree"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    network, _, _ = Backbone("squeezenet1_1", weights=None)._build_named(None, "map")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path


def options(folder, *more):
    return ("train", "cgd", folder / "photos", "--out", folder / "cgd.cvm", "--backbone", "squeezenet1_1", "--weights",
            folder / "weights.pth", "--dims", 6, "--epochs", 2, "--size", 32, "--classes", 2, "--images", 2, "--device",
            "cpu", *more)  # fmt: skip


def test_a_model_and_its_curves(folder, capsys):
    assert run(*options(folder, "--hold-out", 0.5, "--report", folder / "a.html", "--branches", "SG",
                        "--augment", "random_resized_crop")) == 0  # fmt: skip
    found = capsys.readouterr().err
    assert "6 images of 2 classes, 6 of 2 held out" in found
    assert "CGD SG, 6 dimensions, epoch" in found and "R@1" in found and "report:" in found
    cgd = load_model(folder / "cgd.cvm")
    assert (
        isinstance(cgd, CGD) and (cgd.branches, cgd.augment) == ("SG", "random_resized_crop") and len(cgd.classes_) == 2
    )
    paths = sorted((folder / "photos").rglob("*.png"))
    assert cgd.transform(paths).shape == (12, 6)
    assert "Recall at 1 of the validation" in (folder / "a.html").read_text(encoding="utf-8")


def test_the_same_command_goes_on_after_an_interruption(folder, capsys, monkeypatch):
    more = ("--hold-out", 0, "--checkpoints", folder / "ckpt", "--jobs", 1)
    assert run(*options(folder, *more[:2])) == 0
    whole = load_model(folder / "cgd.cvm")
    original = training_loop.Trainer._epoch

    def interrupted(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_epoch", interrupted)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert run(*options(folder, *more)) == 0
    assert "warning: CGD was interrupted after epoch 1 of 2; epoch 1 is kept" in capsys.readouterr().err
    assert len(load_model(folder / "cgd.cvm").history_["loss"]) == 1
    assert run(*options(folder, *more)) == 0
    assert "0 of 0 held out, going on from" in capsys.readouterr().err
    np.testing.assert_array_equal(load_model(folder / "cgd.cvm").weights_, whole.weights_)


def test_what_cannot_be_trained(folder, capsys):
    bad = [
        (("--branches", "XY"), "'branches' parameter of CGD must be letters out of S, M and G"),
        (("--augment", "none"), "'augment' parameter of CGD must be one of 'random_resized_crop'"),
        (("--dims", 7), "'n_components' parameter of CGD must be a multiple of the 2 branches"),
        (("--report", folder / "none" / "a.html"), "for the report does not exist"),
        (("--learning-rate", 1e30), "Use a smaller learning_rate"),
        (("--device", "cuda:99"), "no device 'cuda:99'"),
    ]
    for more, message in bad:
        assert run(*options(folder, *more)) == 2
        assert message in capsys.readouterr().err
    assert not (folder / "cgd.cvm").exists()
    (folder / "photos" / "cup" / "0.png").write_bytes(b"none")
    assert run(*options(folder)) == 1
    assert "0.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "first"), [({}, True), ({"WORLD_SIZE": "2", "RANK": "0"}, True), ({"WORLD_SIZE": "2", "RANK": "1"}, False)]
)
def test_the_first_of_several_processes_writes(monkeypatch, told, first):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert train._is_first() is first
