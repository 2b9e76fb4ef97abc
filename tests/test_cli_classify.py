"""``cvretrieval classify``: train, predict, evaluate, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cvretrieval.cli.main import main
from cvretrieval.recognition import load_classifier

METHODS = ["bow", "bow-pyramid", "vlad", "naive-bayes", "gmm"]


def run(*arguments) -> int:
    """Exit status of one command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def draw(kind, rng, width=200, height=150):
    """A noisy picture of lines across, lines down, or a chequered board, nowhere the same."""
    y, x = np.mgrid[:height, :width]
    period = rng.uniform(14, 22)
    across, down = (np.sin(2 * np.pi * (axis / period + rng.random())) for axis in (y, x))
    wave = (across, down, across * down)[kind]
    return np.clip(128 + 90 * np.sign(wave) + rng.normal(0, 12, wave.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three kinds of pictures, six of each: four to train on, two to test."""
    root = tmp_path_factory.mktemp("classify")
    rng = np.random.default_rng(0)
    for kind in range(3):
        for view in range(6):
            path = root / ("train" if view < 4 else "test") / f"scene {kind}" / f"{view}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(kind, rng)).save(path)
    return root


@pytest.fixture(scope="module")
def model(photos):
    path = photos / "model.cvc"
    assert run("classify", "train", photos / "train", "--out", path, "-m", "bow", "--words", 30, "-q", "-j", 1) == 0
    return path


@pytest.fixture
def folder(photos, tmp_path):
    """A copy of the training images that a test may spoil."""
    shutil.copytree(photos / "train", tmp_path / "train")
    return tmp_path / "train"


def test_help_of_everything(capsys):
    for command in ([], ["train"], ["predict"], ["evaluate"]):
        assert run("classify", *command, "--help") == 0
        assert len(capsys.readouterr().out) > 200


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_its_file_predicts_the_same_again(method, photos, tmp_path, capsys):
    path = tmp_path / "model.cvc"
    words = 4 if method in ("gmm", "vlad") else 20
    options = ["-m", method, "--words", words, "-j", 1]
    assert run("classify", "train", photos / "train", "--out", path, *options) == 0
    assert f"3 classes, 12 images, {method}" in capsys.readouterr().err
    assert run("classify", "evaluate", path, photos / "test", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["accuracy"] >= 5 / 6 and value["n_images"] == 6
    line, facts = load_classifier(path)
    again = tmp_path / "again.cvc"
    assert run("classify", "train", photos / "train", "--out", again, *options, "-q") == 0
    test = sorted((photos / "test").rglob("*.png"))
    np.testing.assert_array_equal(load_classifier(again)[0].predict_proba(test), line.predict_proba(test))
    assert facts["method"] == method and facts["n_images_per_class"] == {f"scene {i}": 4 for i in range(3)}


def test_predict_prints_class_and_confidence(model, photos, capsys):
    one = photos / "test" / "scene 1" / "4.png"
    assert run("classify", "predict", model, one) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["class", "confidence", "image"]
    assert row.startswith("scene 1") and row.endswith(str(one))
    assert run("classify", "predict", model, photos / "test", "--json") == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(values) == 6
    line, _ = load_classifier(model)
    for value in values:
        expected = line.predict_proba([value["image"]])[0]
        np.testing.assert_allclose(list(value["probabilities"].values()), expected, atol=2e-6)
        assert list(value["probabilities"]) == line.classes_.tolist()
        assert value["class"] == max(value["probabilities"], key=value["probabilities"].get)
        assert value["confidence"] == pytest.approx(expected.max(), abs=2e-6) and value["n_features"] > 0


def test_unseen_sizes_and_blank_images_have_a_finite_row(model, photos, tmp_path, capsys):
    photo = Image.open(photos / "test" / "scene 0" / "4.png")
    for name, size in (("wide", (700, 60)), ("small", (20, 20)), ("dot", (1, 1)), ("large", (1500, 1100))):
        photo.resize(size).save(tmp_path / f"{name}.png")
    Image.new("L", (100, 80), 128).save(tmp_path / "blank.png")
    assert run("classify", "predict", model, tmp_path, "--json") == 0
    values = {os.path.basename(v["image"]): v for v in map(json.loads, capsys.readouterr().out.splitlines())}
    assert len(values) == 5 and values["dot.png"]["n_features"] == 0
    for value in values.values():
        shares = list(value["probabilities"].values())
        assert np.isfinite(shares).all() and sum(shares) == pytest.approx(1, abs=1e-5)
    assert run("classify", "predict", model, tmp_path / "dot.png") == 0
    assert "no features in it" in capsys.readouterr().out


def test_evaluate_figures_are_those_of_the_predictions(model, photos, tmp_path, capsys):
    assert run("classify", "evaluate", model, photos / "test", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    line, _ = load_classifier(model)
    files = sorted((photos / "test").rglob("*.png"))
    true = np.array([file.parent.name for file in files])
    predicted = line.predict(files)
    assert value["accuracy"] == pytest.approx((predicted == true).mean())
    for name, accuracy in value["class_accuracy"].items():
        assert accuracy == pytest.approx((predicted[true == name] == name).mean())
    assert value["mean_class_accuracy"] == pytest.approx(np.mean(list(value["class_accuracy"].values())))
    assert np.sum(value["confusion"]) == 6 and np.trace(value["confusion"]) == (predicted == true).sum()
    assert value["method"]["extractor"].startswith("DenseSIFT(")
    report = tmp_path / "report.html"
    assert run("classify", "evaluate", model, photos / "test", "--report", report) == 0
    output = capsys.readouterr()
    assert "mean of the classes" in output.out and f"report: {report}" in output.err
    assert 'class="confusion"' in report.read_text()


def test_a_part_of_the_classes_can_be_evaluated_but_no_unknown_one(model, photos, tmp_path, capsys):
    shutil.copytree(photos / "test" / "scene 2", tmp_path / "some" / "scene 2")
    assert run("classify", "evaluate", model, tmp_path / "some", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["class_accuracy"]) == ["scene 2"]
    shutil.copytree(photos / "test" / "scene 2", tmp_path / "some" / "dungeon")
    assert run("classify", "evaluate", model, tmp_path / "some") == 2
    error = capsys.readouterr().err
    assert "was not trained on the class dungeon" in error and "it knows scene 0, scene 1, scene 2" in error


def test_unreadable_images_are_named_and_the_status_is_one(folder, tmp_path, capsys):
    (folder / "scene 1" / "text.jpg").write_text("no image")
    (folder / "scene 2" / "empty.png").touch()
    out = tmp_path / "m.cvc"
    options = ["-m", "naive-bayes", "--words", 10, "-j", 1]
    assert run("classify", "train", folder, "--out", out, *options) == 1
    error = capsys.readouterr().err
    assert "2 images could not be read" in error and "text.jpg" in error and "is empty" in error
    assert load_classifier(out)[1]["n_images"] == 12
    assert run("classify", "evaluate", out, folder, "--json", "--report", tmp_path / "r.html") == 1
    assert json.loads(capsys.readouterr().out)["n_images"] == 12
    assert "2 images could not be read" in (tmp_path / "r.html").read_text()
    assert run("classify", "predict", out, folder / "scene 1", tmp_path / "none.jpg", "--json") == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 4 and "none.jpg" in output.err and "text.jpg" in output.err
    other = tmp_path / "n.cvc"
    assert run("classify", "train", folder, "--out", other, *options, "--on-error", "raise") == 1
    assert "could not" not in capsys.readouterr().err and not other.exists()
    for command in (["evaluate", out, folder], ["predict", out, folder]):
        assert run("classify", *command, "--on-error", "raise") == 1
        assert "error:" in capsys.readouterr().err


def test_a_class_of_which_nothing_can_be_read(folder, tmp_path, capsys):
    for file in (folder / "scene 1").iterdir():
        file.write_text("no image")
    assert run("classify", "train", folder, "--out", tmp_path / "m.cvc", "-j", 1) == 2
    assert "No image of scene 1 could be read" in capsys.readouterr().err


def test_a_class_of_one_image_and_images_without_features(folder, tmp_path, capsys):
    for file in list((folder / "scene 1").iterdir())[1:]:
        file.unlink()
    Image.new("L", (1, 1)).save(folder / "scene 2" / "dot.png")
    out = tmp_path / "m.cvc"
    assert run("classify", "train", folder, "--out", out, "-m", "bow", "--words", 10, "-j", 1) == 0
    error = capsys.readouterr().err
    assert "only one image of scene 1" in error and "1 images without any feature" in error
    assert run("classify", "evaluate", out, folder, "--json") == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["accuracy"])


def test_a_class_without_any_feature_is_named_by_the_mixtures(folder, tmp_path, capsys):
    for file in (folder / "scene 1").iterdir():
        Image.new("L", (1, 1)).save(file)
    assert run("classify", "train", folder, "--out", tmp_path / "m.cvc", "-m", "gmm", "--words", 2, "-j", 1) == 2
    assert "no image of class 'scene 1' has any descriptor" in capsys.readouterr().err
    assert run("classify", "train", folder, "--out", tmp_path / "m.cvc", "-m", "bow", "--words", 9, "-j", 1) == 0


def test_no_image_with_features_at_all(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "dots" / name).mkdir(parents=True)
        Image.new("L", (1, 1)).save(tmp_path / "dots" / name / "dot.png")
    for method in METHODS:
        assert run("classify", "train", tmp_path / "dots", "--out", tmp_path / "m.cvc", "-m", method, "-j", 1) == 2
        error = capsys.readouterr().err
        assert "none of the images" in error or "no descriptors" in error
    assert not (tmp_path / "m.cvc").exists()


def spoil_empty_class(folder):
    (folder / "void").mkdir()
    return "class folders without images: void"


def spoil_beside(folder):
    shutil.copy(folder / "scene 0" / "0.png", folder / "stray.jpg")
    return "stray.jpg lies beside the class folders"


def spoil_single_class(folder):
    for name in ("scene 0", "scene 1"):
        shutil.rmtree(folder / name)
    return "1 class folder; at least 2 are needed"


def spoil_no_class(folder):
    for name in list(folder.iterdir()):
        shutil.rmtree(name)
    return "0 class folders"


def spoil_missing(folder):
    shutil.rmtree(folder)
    return "does not exist"


@pytest.mark.parametrize("spoil", [spoil_empty_class, spoil_beside, spoil_single_class, spoil_no_class, spoil_missing])
def test_folders_that_cannot_be_learned_from(spoil, folder, tmp_path, capsys):
    message = spoil(folder)
    assert run("classify", "train", folder, "--out", tmp_path / "m.cvc") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "m.cvc").exists()


def test_wrong_use(model, photos, tmp_path, capsys):
    cases = {
        ("train", photos / "train", "--out", tmp_path): "is a folder; give the model a file name",
        ("train", photos / "train", "--out", tmp_path / "no" / "m.cvc"): "no does not exist; give the model",
        ("predict", tmp_path / "none.cvc", photos / "test"): "none.cvc does not exist. Make a model with",
        ("predict", tmp_path, photos / "test"): "is a folder, not a model",
        ("predict", model, tmp_path): "No images in",
        ("evaluate", model, photos / "test", "--report", tmp_path / "no" / "r.html"): "r.html",
    }
    for arguments, message in cases.items():
        assert run("classify", *arguments) == 2
        assert message in capsys.readouterr().err
    assert run("classify", "train", photos / "train", "--out", tmp_path / "m.cvc", "-m", "magic") == 2


def test_an_interrupted_write_leaves_the_old_model(model, photos, tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.cvc"
    shutil.copy(model, path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert run("classify", "train", photos / "train", "--out", path, "-m", "naive-bayes", "--words", 9, "-j", 1) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
