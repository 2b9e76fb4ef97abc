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
from cvretrieval.cli.method_specs import parse_methods
from cvretrieval.cli.networks import parse_scales
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


def test_without_torch_one_line_says_what_to_install(photos, tmp_path):
    program = """
import sys

class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ImportError("No module named 'torch'")

sys.meta_path.insert(0, NoTorch())
from cvretrieval.cli.main import main
main(sys.argv[1:])
"""
    options = ["index", str(photos / "photos"), "--out", str(tmp_path / "a.cvr"), "--method", "gem"]
    outcome = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
    assert outcome.returncode == 2 and len(outcome.stderr.splitlines()) == 1 and not (tmp_path / "a.cvr").exists()
    assert "cvretrieval.deep.GeM needs torch" in outcome.stderr
    assert "pip install 'cvretrieval[torch]'" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "vlad", "--backbone", "resnet18"), "--backbone is about a network, but --method vlad has none"),
        (("--weights", "w.pth"), "--weights is about a network, but --method vlad has none; networks are in gem"),
        (("--method", "gem", "--words", 4), "--words has no meaning for --method gem"),
        (("--method", "rmac", "--no-verify", "--upright"), "--upright is about SIFT, which --method rmac has for"),
    ],
)
def test_options_of_another_method_are_refused(photos, tmp_path, capsys, options, message):
    assert run("index", photos / "photos", "--out", tmp_path / "a.cvr", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "a.cvr").exists()


def test_an_index_made_without_verification_stays_so(photos, tmp_path, capsys):
    path = tmp_path / "a.cvr"
    assert run("index", photos / "photos", "--out", path, "--words", 4, "--no-verify", "-q") == 0
    assert run("search", path, photos / "queries" / "scene 1" / "2.jpg", "--json") == 0
    assert all(hit["n_inliers"] is None for hit in json.loads(capsys.readouterr().out)["results"])
    assert run("index", photos / "photos", "--out", path, "--verify", "--backbone", "resnet18", "-q") == 2
    assert "other settings (no --verify, no --backbone)" in capsys.readouterr().err


def test_shared_options_reach_the_rows_that_know_them():
    shared = {"words": 16, "backbone": "resnet18", "verify": True, "features": 300}
    rows = parse_methods(["vlad", "gem:verify=no", "netvlad:scales=1+0.5", "gem:words=3"], shared)
    assert rows["vlad"] == {"method": "vlad", "words": 16, "verify": True, "features": 300}
    assert rows["gem:verify=no"] == {"method": "gem", "backbone": "resnet18", "verify": False}
    assert rows["netvlad:scales=1+0.5"]["words"] == 16 and rows["netvlad:scales=1+0.5"]["scales"] == "1+0.5"
    with pytest.raises(ValueError, match="--words has no meaning for --method gem"):
        methods.make_retriever(rows["gem:words=3"])
    for text in ("", "1,x", "0", "-1", "1,inf", "1;2"):
        with pytest.raises(ValueError, match="scales are positive numbers"):
            parse_scales(text)
    with pytest.raises(ValueError, match="scales are positive numbers"):
        parse_methods(["gem:scales=big"], {})
