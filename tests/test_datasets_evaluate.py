"""From a benchmark's folder to its figures: by `evaluate_retriever` and by the command line."""

from __future__ import annotations

import json

import pytest

from cvretrieval import SIFT, VLAD, ImageRetriever
from cvretrieval.datasets import load_cub200, load_dataset, make_scenes
from cvretrieval.metrics import get_protocol
from cvretrieval.retrieval.evaluation import evaluate_retriever
from tests.official_layouts import write
from tests.test_cli import run


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_scenes=4, n_views=3, image_size=(320, 240), difficulty=0.2, random_state=0)


def retriever():
    return ImageRetriever(extractor=SIFT(root=True), encoder=VLAD(8, random_state=0), n_jobs=1)


def save(pixels, file):
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)


@pytest.fixture(scope="module")
def cub(scenes, tmp_path_factory):
    """Scenes as birds; the boxes hold the left half of each picture."""
    root = tmp_path_factory.mktemp("cub")
    names = [f"{101 + label}.Scene/{name}.jpg" for label, name in zip(scenes.labels, scenes.names, strict=True)]
    for name, image in zip(names, scenes.images, strict=True):
        save(image, root / "images" / name)
    write(root / "images.txt", "".join(f"{i + 1} {name}\n" for i, name in enumerate(names)))
    write(root / "image_class_labels.txt", "".join(f"{i + 1} {101 + k}\n" for i, k in enumerate(scenes.labels)))
    write(root / "bounding_boxes.txt", "".join(f"{i + 1} 0.0 0.0 160.0 240.0\n" for i in range(len(names))))
    return root


def test_boxes_cut_queries_and_database(cub):
    """An image in the database is the same as the query with the same box: its vector has the score 1."""
    protocol = get_protocol("cub200-cropped@1")
    dataset = load_dataset(cub, protocol, complete=False)
    with retriever() as cropped:
        result = evaluate_retriever(cropped, dataset, [protocol])
        found = cropped.search(dataset.query_paths, k=1, boxes=[query.box for query in dataset.queries])
        assert [ids[0] for ids in found.ids] == dataset.database_ids
        assert all(query.hits[0].score == pytest.approx(1, abs=1e-5) for query in found)
        whole = cropped.search(dataset.query_paths, k=1)
        assert any(query.hits[0].score < 0.99 for query in whole)
    assert list(result.figures) == ["R@1 (CUB-200-2011, cropped)"]
    with retriever() as full:
        evaluate_retriever(full, load_cub200(cub, complete=False), ["cub200@1"])
        assert all(q.hits[0].score == pytest.approx(1, abs=1e-5) for q in full.search(dataset.query_paths, k=1))


def test_command(cub, capsys):
    arguments = ["evaluate", str(cub), "--protocol", "cub200@1,2", "--words", "8", "--no-verify", "-q"]
    assert run(*arguments) == 2
    assert "has 5,924 database images, but 12 were found" in capsys.readouterr().err
    assert run(*arguments, "--partial", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert "CUB-200-2011, 12 images" in report["dataset"]
    assert "R@1 (CUB-200-2011)" in json.dumps(report)
    assert run("evaluate", cub, "--protocol", "copydays", "-q") == 2
    assert "These protocols are for different data (copydays:strong, copydays:jpeg3" in capsys.readouterr().err


@pytest.mark.real_data
def test_real_ukbench(data_dir, capsys):
    arguments = ["evaluate", str(data_dir / "ukbench_56"), "--protocol", "ukbench", "--partial", "--words", "16"]
    assert run(*arguments, "--no-verify", "-q", "--json") == 0
    (figures,) = [m["figures"] for m in json.loads(capsys.readouterr().out)["methods"].values()]
    assert 2.5 < figures["N-S (UKB, max 4)"] <= 4
