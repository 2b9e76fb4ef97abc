"""Methods side by side on a labelled set: figures, costs, the table, the page, and the command."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageReader, ImageRetriever
from cvretrieval._peak_memory import PeakMemory, resident_memory
from cvretrieval.cli.main import main
from cvretrieval.datasets import Query, RetrievalDataset, load_dataset, make_scenes
from cvretrieval.metrics import evaluate_rankings, get_protocol, get_protocols, published_figures
from cvretrieval.metrics.published import _TABLE
from cvretrieval.plotting import write_evaluation_report
from cvretrieval.retrieval import compare_methods, evaluate_method
from tests.reports import Report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three scenes, two views each, and an image without features."""
    root = tmp_path_factory.mktemp("labelled")
    scenes = make_scenes(n_scenes=3, n_views=2, random_state=2)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / f"<b>scene {label}" / f"{view}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (root / "blank").mkdir()
    for i in range(2):
        Image.new("L", (64, 64), 128).save(root / "blank" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


@pytest.fixture(scope="module")
def comparison(dataset):
    methods = {
        "VLAD <8>": ImageRetriever(encoder=VLAD(8, random_state=0)),
        "VLAD 2": ImageRetriever(encoder=VLAD(2, random_state=0)),
    }
    return compare_methods(methods, dataset, ["oxford", "recall@1"])


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def test_figures_are_those_of_the_rankings_and_costs_are_stated(comparison, dataset):
    for method in comparison.methods.values():
        expected = evaluate_rankings(dataset.ground_truth, method.rankings, ["oxford", "recall@1"])
        assert method.result.figures == expected.figures
        assert method.rankings["blank/0.png"] == []
        assert set(method.rankings) == set(dataset.query_ids)
        assert method.seconds_per_query == pytest.approx(sum(method.timings.values()))
        assert {"features", "search"} <= set(method.timings)
        assert 0 < method.bytes_per_image < method.stored_bytes_per_image and method.seconds_per_image > 0
    sizes = [method.bytes_per_image for method in comparison.methods.values()]
    assert 3 < sizes[0] / sizes[1] < 4.5  # of 8 words and of 2, with the headers of the files


def test_table_has_one_row_a_method_and_says_what_was_measured(comparison):
    header, *rows = comparison.rows()
    assert header == ("method", "mAP (Oxford trapezoid)", "R@1", "s/query", "B/image", "stored B/image", "peak MB")
    assert [row[0] for row in rows] == ["VLAD <8>", "VLAD 2"]
    assert "in brackets" not in str(comparison)
    assert json.loads(json.dumps(comparison.to_dict()))["methods"]["VLAD 2"]["n_queries"] == 8


def test_published_rows_stand_beside_and_belong_to_known_protocols():
    for row in _TABLE:
        assert set(row.figures) <= set(get_protocol(row.protocol).figure_names), row
        assert all(0 < value <= 1 for value in row.figures.values()), row
        assert row.source and row.method
    assert len({(row.method, row.protocol, row.source) for row in _TABLE}) == len(_TABLE)
    assert published_figures(get_protocols(["oxford", "recall@1"])) == []
    assert {row.protocol for row in published_figures([get_protocol("cub200-cropped@1")])} == {"cub200-cropped"}


def test_published_rows_of_a_benchmark_are_in_the_table(folder, comparison):
    benchmark = compare_methods(
        {"VLAD": ImageRetriever(encoder=VLAD(2, random_state=0))}, load_dataset(folder), ["cub200@1,2"]
    )
    rows = benchmark.rows()
    assert rows[0][1:3] == ("R@1 (CUB-200-2011)", "R@2 (CUB-200-2011)")
    assert [row[:3] for row in rows[2:]] == [("(CGD, ResNet-50, MG (port))", "0.6600", "–")]
    assert "in brackets: published, not measured here (README of leftthomas/CGD)" in str(benchmark)
    assert benchmark.to_dict()["published"][0]["figures"] == {"R@1 (CUB-200-2011)": 0.66}


def test_protocols_decide_how_images_are_read_and_cut(dataset, monkeypatch):
    first, other = dataset.queries[1], dataset.queries[2]
    queries = (Query(first.id, first.path, first.relevant, box=(0, 0, 30, 30)), other)
    cut = RetrievalDataset("cut", dataset.database, queries, "made")
    asked = []
    search = ImageRetriever.search
    monkeypatch.setattr(
        ImageRetriever, "search", lambda self, X, k, boxes: asked.append(boxes) or search(self, X, k, boxes=boxes)
    )
    for name in ("oxford5k", "oxford5k-full", "oxford"):
        extractor = SIFT(root=True, reader=ImageReader(max_size=640))
        retriever = ImageRetriever(extractor=extractor, encoder=VLAD(2, random_state=0))
        evaluate_method(retriever, cut, [name])
        assert retriever.extractor.reader.exif == ("apply" if name == "oxford" else "ignore")
        assert retriever.extractor.reader.max_size == 640
    assert asked == [[(0, 0, 30, 30), None], None, [(0, 0, 30, 30), None]]
    with pytest.raises(ValueError, match=r"oxford5k \(crop: box\).*oxford5k-full \(crop: full\)"):
        evaluate_method(ImageRetriever(), cut, ["oxford5k", "oxford5k-full"])
    with pytest.raises(ValueError, match="no method"):
        compare_methods({}, dataset)


def test_page_shows_table_and_lists_and_trusts_no_name(comparison, tmp_path):
    page = Report(write_evaluation_report(comparison, tmp_path / "r.html"))
    assert "VLAD <8>" in page.text and "<b>scene 0/0.jpg" in page.text
    assert "Nothing found." in page.text and "Framed in green: relevant" in page.text and "Protocol oxford" in page.text
    marks = [attributes.get("class") for name, attributes in page.elements if name == "li"]
    n_hits = sum(len(ranking) for method in comparison.methods.values() for ranking in method.rankings.values())
    assert len(marks) == n_hits and set(marks) <= {"relevant", "junk", "other"}
    n_relevant = sum(
        name in query.relevant
        for method in comparison.methods.values()
        for query in comparison.dataset.queries
        for name in method.rankings[query.id]
    )
    assert marks.count("relevant") == n_relevant > 0
    with pytest.raises(FileNotFoundError):
        comparison.to_html(tmp_path / "no" / "r.html")


def test_command_prints_one_table(folder, capsys, tmp_path):
    specs = ["vlad:words=4,verify=no", "bow:words=20,verify=no,rerank=aqe", "fisher:words=2,pca=3,verify=no"]
    options = [part for spec in specs for part in ("--method", spec)]
    assert run("evaluate", folder, "-p", "recall@1", *options, "-q", "--report", tmp_path / "r.html") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["method", "R@1"] and [line.split()[0] for line in lines[1:4]] == specs
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert run("evaluate", folder, "-p", "recall@1", "-m", "vlad:words=2", "--json", "-q") == 0
    value = json.loads(capsys.readouterr().out)
    assert list(value["methods"]) == ["vlad:words=2"] and value["protocols"] == ["recall@1"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "no method 'nothing'"),
        ("vlad:words", "'words' in --method vlad:words is no option. Known: words="),
        ("vlad:words=0", "a whole number of at least 1"),
        ("vlad:size=3", "'size=3' in --method vlad:size=3 is no option"),
        ("vlad:verify=maybe", "yes or no is needed"),
        ("vlad:rerank=aqe+magic", "no reranker 'magic'"),
    ],
)
def test_command_says_what_is_wrong_with_a_method(folder, capsys, spec, message):
    assert run("evaluate", folder, "-m", spec, "-q") == 2
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named_once(folder, capsys, tmp_path):
    for scene in sorted(folder.iterdir()):
        shutil.copytree(scene, tmp_path / "set" / scene.name)
    (tmp_path / "set" / "blank" / "broken.jpg").write_bytes(b"nothing")
    specs = ["vlad:words=2,verify=no", "fisher:words=2,verify=no"]
    assert run("evaluate", tmp_path / "set", "-p", "recall@1", "-q", *(p for s in specs for p in ("-m", s))) == 1
    error = capsys.readouterr().err
    assert error.count("broken.jpg") == 1 and "1 image could not be read" in error


def test_command_refuses_a_method_twice_and_a_report_nowhere(folder, capsys, tmp_path):
    assert run("evaluate", folder, "-m", "vlad", "-m", "vlad") == 2
    assert "may be given once" in capsys.readouterr().err
    assert run("evaluate", folder, "--report", tmp_path / "no" / "r.html") == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.skipif(resident_memory() is None, reason="the system does not say how much memory a process holds")
def test_peak_of_memory_is_seen_after_it_is_gone():
    with PeakMemory() as memory:
        before = resident_memory()
        held = bytearray(b"x" * 200_000_000)
        time.sleep(0.2)  # several samples
        del held
    assert memory.n_bytes >= before + 150_000_000
