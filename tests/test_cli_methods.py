"""Every method of the command line, from photos to a search by another process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from cvretrieval import ImageRetriever, InvertedIndex
from cvretrieval.cli import method as methods
from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("methods")
    scenes = make_scenes(n_scenes=4, n_views=3, image_size=(320, 240), random_state=5)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / ("queries" if view == 2 else "photos") / f"scene {label}" / f"{view}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    return root


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


@pytest.mark.parametrize(
    ("method", "words", "metric"),
    [("vlad", 4, "cosine"), ("bow", 60, "cosine"), ("bow", 61, "cosine"), ("fisher", 4, "cosine"),
     ("hamming", 60, "hamming_embedding"), ("asmk", 60, "asmk")],
)  # fmt: skip
def test_index_add_search_info_compact(photos, tmp_path, capsys, monkeypatch, method, words, metric):
    monkeypatch.setattr(methods, "_DENSE_WORDS", 60)
    path, query = tmp_path / "a.cvr", photos / "queries" / "scene 1" / "2.jpg"
    options = ("--method", method, "--words", words, "--features", 200, "-q")
    assert run("index", photos / "photos", "--out", path, *options) == 0
    uses_words = method in ("hamming", "asmk") or words == 61
    with ImageRetriever.load(path) as retriever:
        assert isinstance(retriever.index, InvertedIndex) == uses_words == (path / "engine").is_dir()
    program = [sys.executable, "-m", "cvretrieval", "search", str(path), str(query), "-k", "3", "--json"]
    output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert json.loads(output)["results"][0]["id"].startswith("scene 1")
    assert run("add", path, photos / "queries", "-q") == 0
    assert run("remove", path, "scene 1/0.jpg", "-q") == 0
    assert run("compact", path, "-q") == 0
    capsys.readouterr()
    assert run("search", path, query, "-k", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["id"] == "scene 1/2.jpg"
    assert run("info", path, "--json", "--check") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["method"]["metric"] == metric and ("index" in facts["method"]) == uses_words
    assert (facts["n_bytes_engine"] > 0) == uses_words and facts["damages"] == []
    # The same again goes on; another method is refused.
    assert run("index", photos / "photos", "--out", path, *options) == 0
    other = "asmk" if method != "asmk" else "hamming"
    assert run("index", photos / "photos", "--out", path, "--method", other, "-q") == 2
    assert f"--method {method}" in capsys.readouterr().err


def test_vectors_are_what_whitening_and_rerankers_need(photos, tmp_path, capsys):
    path = tmp_path / "a.cvr"
    assert run("index", photos / "photos", "--out", path, "--method", "asmk", "--pca", 4) == 2
    assert "--pca whitens vectors, but --method asmk compares visual words" in capsys.readouterr().err
    assert not path.exists()
    assert run("index", photos / "photos", "--out", path, "--method", "asmk", "--words", 50, "-q") == 0
    assert run("search", path, photos / "queries" / "scene 1" / "2.jpg", "--rerank", "aqe") == 2
    assert "InvertedIndex, which holds visual words" in capsys.readouterr().err


def test_large_bags_of_words_are_whitened_as_vectors():
    retriever = methods.make_retriever({"method": "bow", "words": 50_000, "pca": 4})
    assert retriever.index is None and retriever.encoder.steps[0][1].max_samples == 32 * 50_000
    assert isinstance(methods.make_retriever({"method": "bow", "words": 50_000}).index, InvertedIndex)
