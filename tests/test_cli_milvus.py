"""The command line with vectors in Milvus: made there, searched, moved away and back."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from cvretrieval import ImageRetriever, InvertedIndex, MilvusIndex
from cvretrieval.cli import method as methods
from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes
from tests.milvus_lite import HAS_MILVUS

pytestmark = pytest.mark.skipif(not HAS_MILVUS, reason="needs pymilvus and milvus-lite")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    scenes = make_scenes(n_scenes=4, n_views=3, image_size=(240, 180), random_state=5)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / ("queries" if view == 2 else "photos") / f"{label}-{view}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    return root


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


@pytest.fixture
def ranking(photos, capsys):
    def ask(path):
        capsys.readouterr()
        assert run("search", path, photos / "queries", "-k", 8, "--json", "--no-verify") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [[(hit["id"], hit["score"]) for hit in line["results"]] for line in lines]

    return ask


def test_index_search_and_export_there_and_back(photos, tmp_path, capsys, ranking):
    path, uri = tmp_path / "a.cvr", tmp_path / "milvus.db"
    options = ("--words", 4, "--features", 150, "-q")
    assert run("index", photos / "photos", "--out", path, "--index", "milvus", "--uri", uri, *options) == 0
    found = ranking(path)
    assert [row[0][0][0] for row in found] == ["0", "1", "2", "3"] and len(found[0]) == 8
    # The same command goes on; another place is refused.
    again = ("index", photos / "photos", "--out", path, "--index")
    assert run(*again, "milvus", "--uri", uri, "-q") == 0
    assert run(*again, "milvus", "--uri", tmp_path / "other.db", "-q") == 2
    assert f"(--uri {uri})" in capsys.readouterr().err
    assert run(*again, "folder", "-q") == 2
    assert "(--index milvus)" in capsys.readouterr().err
    assert run("info", path, "--json") == 0
    assert f"uri='{uri}'" in json.loads(capsys.readouterr().out)["method"]["index"].replace(" ", "")

    # There and back, in place and as a copy.
    copied = tmp_path / "copy.cvr"
    assert run("export", path, "--to", "folder", "--out", copied, "-q") == 0
    assert ranking(copied) == found == ranking(path)
    assert ImageRetriever.load(copied).index is None
    assert run("export", copied, "--to", "milvus", "--uri", uri, "--collection", "again", "--structure", "hnsw") == 0
    assert "the vectors of 8 images are in" in capsys.readouterr().err
    assert ranking(copied) == found
    assert run("export", copied, "--to", "folder", "--drop", "-q") == 0
    assert ranking(copied) == found
    assert run("export", copied, "--to", "milvus", "--uri", uri, "--collection", "again", "-q") == 0  # it was dropped
    assert run("remove", copied, "0-0.jpg", "-q") == 0
    assert "0-0.jpg" not in [name for row in ranking(copied) for name, _ in row]
    assert ranking(path) == found


def test_long_bags_of_words_are_in_a_sparse_collection(photos, tmp_path, ranking, monkeypatch):
    monkeypatch.setattr(methods, "_DENSE_WORDS", 60)
    path, uri = tmp_path / "a.cvr", tmp_path / "milvus.db"
    options = ("--method", "bow", "--words", 80, "--features", 150, "-q")
    assert run("index", photos / "photos", "--out", path, "--index", "milvus", "--uri", uri, *options) == 0
    found = ranking(path)
    assert [row[0][0][0] for row in found] == ["0", "1", "2", "3"]
    assert ImageRetriever.load(path).index.structure == "sparse"
    assert run("export", path, "--to", "folder", "-q") == 0
    assert ranking(path) == found
    with ImageRetriever.load(path) as retriever:
        assert isinstance(retriever.index, InvertedIndex)
    MilvusIndex(uri).close()


def test_what_has_no_meaning_is_refused_before_anything_is_made(photos, tmp_path, capsys):
    path = tmp_path / "a.cvr"
    for options, reason in (
        (("--index", "milvus"), "Milvus needs --uri"),
        (("--uri", "x.db"), "--uri is about Milvus"),
        (("--index", "milvus", "--uri", "photos"), "a local path that ends in .db"),
        (("--index", "milvus", "--uri", "x.db", "--method", "asmk"), "Milvus has no engine that compares as"),
        (("--index", "milvus", "--uri", "http://a:b@host"), "must not hold credentials"),
    ):
        assert run("index", photos / "photos", "--out", path, *options) == 2
        assert reason in capsys.readouterr().err
        assert not path.exists()
    assert run("index", photos / "photos", "--out", path, "--method", "hamming", "--words", 20, "-q") == 0
    assert run("export", path, "--to", "milvus", "--uri", "x.db") == 2
    assert "Milvus has no engine that compares as InvertedIndex" in capsys.readouterr().err
    assert run("export", path, "--to", "folder") == 2
    assert "are in its folder already" in capsys.readouterr().err
