"""Classifiers as files: same predictions, nothing executed, damage and newer formats refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from cvretrieval import (
    VLAD,
    BagOfWords,
    ClassConditionalGMM,
    HomogeneousKernelMap,
    LocalFeatures,
    PCAWhitening,
    PowerNormalizer,
    SpatialPyramid,
    StoreError,
)
from cvretrieval.recognition import load_classifier, save_classifier, stage_names

BOW = BagOfWords(5, norm=None, random_state=0)
LINES = {
    "bow-svm": make_pipeline(BOW, Normalizer("l1"), HomogeneousKernelMap("chi2"), LinearSVC()),
    "bow-logistic": make_pipeline(BOW, PowerNormalizer(), StandardScaler(), LogisticRegression(C=10)),
    "bayes": make_pipeline(BOW, MultinomialNB()),
    "pyramid": make_pipeline(SpatialPyramid(BOW, levels=2), MaxAbsScaler(), LogisticRegression()),
    "vlad-pca": make_pipeline(VLAD(3, random_state=0), PCAWhitening(4), PCA(3), LinearSVC(C=0.1)),
    "gmm": make_pipeline(ClassConditionalGMM(2, random_state=0)),
    "gmm-alone": ClassConditionalGMM(2, random_state=0),
}


@pytest.fixture
def data(rng):
    labels = np.array(["wald", "küste", "straße"])[np.arange(18) % 3]
    images = [(rng.normal(i % 3, 1, (20, 6)), rng.uniform(0, 60, (20, 4)), (64, 64)) for i in range(18)]
    return LocalFeatures.from_images(images), labels


@pytest.fixture
def saved(data, tmp_path):
    return save_classifier(LINES["bow-logistic"].fit(*data), tmp_path / "model.cvc", facts={"n": 3})


@pytest.mark.parametrize("line", list(LINES.values()), ids=list(LINES))
@pytest.mark.parametrize("kind", ["strings", "integers", "two classes"])
def test_predictions_are_the_same_bit_by_bit(line, kind, data, tmp_path):
    X, y = data
    if kind != "strings":
        y = np.arange(18) % 3 * 7 if kind == "integers" else np.where(y == "wald", "ja", "nein")
    line.fit(X, y)
    path = save_classifier(line, str(tmp_path / "model.cvc"), facts={"a": [1, "b"]})
    restored, facts = load_classifier(path)
    assert facts == {"a": [1, "b"]} and type(restored) is type(line)
    assert restored.classes_.tolist() == line.classes_.tolist()
    assert restored.predict(X).tolist() == line.predict(X).tolist()
    name = "predict_proba" if hasattr(line, "predict_proba") else "decision_function"
    np.testing.assert_array_equal(getattr(restored, name)(X), getattr(line, name)(X))
    assert list(stage_names(restored).values()) == list(stage_names(line).values())


def header_of(path):
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def write(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_there_is_no_pickle_in_it(saved):
    header, body = header_of(saved)
    assert header["__metadata__"]["format"] == "1" and b"sklearn" not in body and b"\x80\x04" not in body[:2]
    assert "pickle" not in saved.read_bytes().decode("latin-1")


def test_a_newer_format_is_refused(saved):
    header, body = header_of(saved)
    header["__metadata__"]["format"] = "7"
    write(saved, header, body)
    with pytest.raises(StoreError, match="has format 7, but this cvretrieval .* reads formats up to 1; upgrade"):
        load_classifier(saved)


def test_every_flipped_byte_of_a_sample_is_noticed(saved, rng):
    whole = saved.read_bytes()
    for place in rng.choice(len(whole), 150, replace=False):
        broken = bytearray(whole)
        broken[place] ^= 0x15
        saved.write_bytes(bytes(broken))
        with pytest.raises(StoreError, match=str(saved)):
            load_classifier(saved)


@pytest.mark.parametrize("length", [0, 5, 8, 300, -1])
def test_cut_files_are_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(StoreError, match="damaged"):
        load_classifier(saved)


def test_other_files_are_refused(tmp_path, saved):
    from safetensors.numpy import save_file

    other = tmp_path / "other.safetensors"
    save_file({"a": np.ones(3)}, other)
    with pytest.raises(StoreError, match="is no model of cvretrieval"):
        load_classifier(other)
    text = tmp_path / "text.cvc"
    text.write_text("not a model at all, but text")
    with pytest.raises(StoreError, match="damaged or no model"):
        load_classifier(text)
    with pytest.raises(StoreError, match="does not exist"):
        load_classifier(tmp_path / "none.cvc")
    with pytest.raises(StoreError, match="is a folder"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("config", {"class": "Popen", "params": {}}),
        ("config", {"class": "os.system", "params": {"command": "true"}}),
        ("config", {"class": "ImageRetriever", "params": {"wrong": 1}}),
        ("config", {"class": "LogisticRegression", "params": {}}),
        ("state", {"values": {"predict": 1}}),
        ("state", {"values": {"__class__": 1}}),
        ("state", {"arrays": {"coef_": "nothing"}}),
        ("facts", [1]),
    ],
)
def test_crafted_headers_name_nothing_but_estimators_and_what_they_learned(part, change, saved):
    from cvretrieval._array_file import digest_of

    header, body = header_of(saved)
    metadata = header["__metadata__"]
    metadata[part] = json.dumps(change)
    write(saved, header, body)
    from safetensors import safe_open

    with safe_open(saved, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata["digest"] = digest_of(arrays, metadata)  # as an attacker would
    write(saved, header, body)
    with pytest.raises(StoreError, match="is damaged"):
        load_classifier(saved)


def test_what_cannot_be_stored_is_named(data, tmp_path):
    X, y = data
    path = tmp_path / "model.cvc"
    for last, name in ((SVC(), "SVC"), (CalibratedClassifierCV(LinearSVC(), cv=2), "CalibratedClassifierCV")):
        line = make_pipeline(BOW, last).fit(X, y)
        with pytest.raises(TypeError, match=f"{name} cannot be stored"):
            save_classifier(line, path)
    line = make_pipeline(BOW, MultinomialNB()).fit(X, y == "wald")
    with pytest.raises(ValueError, match="strings or integers. Got an array of bool"):
        save_classifier(line, path)
    line.fit(X, y)
    with pytest.raises(ValueError, match="does not exist; give the model a file name"):
        save_classifier(line, tmp_path / "no" / "model.cvc")
    with pytest.raises(ValueError, match="is a folder"):
        save_classifier(line, tmp_path)
    assert not path.exists()
