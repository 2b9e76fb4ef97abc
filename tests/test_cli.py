"""The command line as a user meets it: real processes for the exit status, the rest in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes

COMMANDS = [
    "index", "search", "add", "remove", "info", "compact", "export", "verify", "evaluate", "duplicates", "serve",
    "doctor",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four scenes, three views each; the last view of every scene is a query."""
    root = tmp_path_factory.mktemp("cli")
    scenes = make_scenes(n_scenes=4, n_views=3, random_state=5)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / ("queries" if view == 2 else "photos") / f"scene {label}" / f"{view}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    return root


@pytest.fixture(scope="module")
def index(photos):
    path = photos / "photos.cvr"
    assert run("index", photos / "photos", "--out", path, "--words", 8, "--features", 500, "-q") == 0
    return path


def run(*arguments) -> int:
    """Exit status of one command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def test_help_of_everything(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command in text
        assert run(command, "--help") == 0
        words = " ".join(capsys.readouterr().out.split())
        assert len(words) > 200 and (command in ("classify", "train") or f"Example: cvretrieval {command}" in words)


def test_index_search_report(index, photos, capsys, tmp_path):
    query = photos / "queries" / "scene 1" / "2.jpg"
    assert run("search", index, query, "-k", 3, "--report", tmp_path / "r.html") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0].startswith(str(query)) and "rank" in lines[1] and len(lines[2:5]) == 3
    assert lines[2].split()[0] == "1" and "scene 1/" in lines[2] and "✓" in lines[2]
    assert str(tmp_path / "r.html") in output.err and (tmp_path / "r.html").stat().st_size > 10_000


def test_the_package_itself_is_the_command():
    run_module = subprocess.run([sys.executable, "-m", "cvretrieval", "search"], capture_output=True, text=True)
    assert run_module.returncode == 2 and "Missing argument" in run_module.stderr


def test_search_json_is_one_object_a_line(index, photos, capsys):
    assert run("search", index, photos / "queries", "-k", 2, "--json") == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(values) == 4
    for value in values:
        assert set(value) == {"query", "results", "seconds"}
        assert [hit["rank"] for hit in value["results"]] == [1, 2]
        assert Path(value["results"][0]["id"]).parent.name == Path(value["query"]).parent.name
        assert isinstance(value["results"][0]["n_inliers"], int) and os.path.exists(value["results"][0]["path"])


def test_search_options(index, photos, capsys):
    query = photos / "queries" / "scene 2" / "2.jpg"
    assert run("search", index, query, "--json", "--no-verify") == 0
    assert all(hit["n_inliers"] is None for hit in json.loads(capsys.readouterr().out)["results"])
    assert run("search", index, query, "--json", "--n-verify", 1) == 0
    assert sum(hit["n_inliers"] is not None for hit in json.loads(capsys.readouterr().out)["results"]) == 1
    assert run("search", index, query, "--json", "--box", "100,100,500,400") == 0
    assert json.loads(capsys.readouterr().out)["box"] == [100, 100, 500, 400]
    assert run("search", index, "--id", "scene 0/1.jpg", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["query"] == "scene 0/1.jpg" and "scene 0/1.jpg" not in [hit["id"] for hit in value["results"]]


def test_index_again_skips_and_catches_up(index, photos, capsys):
    assert run("index", photos / "photos", "--out", index) == 0
    assert "0 added, 0 replaced, 8 unchanged, 8 in all" in capsys.readouterr().err
    assert run("index", photos / "photos", "--out", index, "--words", 16) == 2
    assert "--words 8" in capsys.readouterr().err


def test_add_info_remove_compact(index, photos, capsys, tmp_path):
    copy = tmp_path / "copy.cvr"
    from cvretrieval import ImageRetriever

    with ImageRetriever.load(index) as retriever:
        retriever.save(copy)
    assert run("add", copy, photos / "queries") == 0
    assert "4 added" in capsys.readouterr().err
    assert run("info", copy, "--json", "--names") == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["ids"]) == 12 and facts["method"]["extractor"].startswith("SIFT(")
    assert run("info", copy) == 0
    assert "SIFT(" in capsys.readouterr().out
    assert run("remove", copy, "scene 0/0.jpg", "nothing.jpg") == 2
    assert "nothing.jpg" in capsys.readouterr().err
    assert run("remove", copy, "scene 0/0.jpg", "scene 0/2.jpg") == 0
    assert "removed 2, 10 left" in capsys.readouterr().err
    assert run("compact", copy) == 0
    assert "→" in capsys.readouterr().err


def test_unreadable_inputs_are_named_and_the_status_is_one(photos, capsys, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.open(photos / "photos" / "scene 0" / "0.jpg").save(folder / "good.png")
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()
    out = tmp_path / "m.cvr"
    assert run("index", folder, "--out", out, "--words", 4) == 1
    text = capsys.readouterr().err
    assert "2 images could not be read" in text and "text.jpg" in text and "is empty" in text and "1 added" in text
    assert run("info", out) == 0
    assert "text.jpg" in capsys.readouterr().out
    assert run("search", out, folder / "good.png", folder / "text.jpg", "--json") == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1 and "1 query could not be read" in output.err
    assert run("index", folder, "--out", tmp_path / "n.cvr", "--on-error", "raise") == 1
    assert "empty.png: is empty" in capsys.readouterr().err


def test_verify(photos, capsys, tmp_path):
    a, b, c = (photos / "photos" / name for name in ("scene 0/0.jpg", "scene 0/1.jpg", "scene 3/0.jpg"))
    assert run("verify", a, b, "--report", tmp_path / "match.html") == 0
    output = capsys.readouterr().out
    assert output.startswith("the same thing") and "inliers of" in output
    assert (tmp_path / "match.html").stat().st_size > 5_000
    assert run("verify", a, b, "--json", "--model", "similarity") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["same"] and np.shape(value["transform"]) == (3, 3)
    assert run("verify", a, c, "--json") == 0
    assert not json.loads(capsys.readouterr().out)["same"]
    assert run("verify", a, tmp_path / "none.jpg") == 1
    assert "none.jpg: does not exist" in capsys.readouterr().err


def test_evaluate(photos, capsys):
    assert run("evaluate", photos / "photos", "--protocol", "recall@1", "--words", 8, "-q") == 0
    output = capsys.readouterr().out
    assert "R@1" in output
    assert run("evaluate", photos / "photos", "--protocol", "oxford", "--no-verify", "--json", "--words", 8, "-q") == 0
    value = json.loads(capsys.readouterr().out)["methods"]["vlad"]
    assert set(value["figures"]) == {"mAP (Oxford trapezoid)"} and value["n_queries"] == 8
    assert run("evaluate", photos / "photos", "--protocol", "map") == 2
    assert "no protocol 'map'" in capsys.readouterr().err


def test_doctor(capsys):
    assert run("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["problems"] == [] and facts["versions"]["numpy"] == np.__version__
    assert run("doctor") == 0
    assert "everything fits together" in capsys.readouterr().out


def test_doctor_finds_two_opencv_wheels(monkeypatch, capsys):
    from cvretrieval.cli import doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "4.10" if name.startswith("opencv-python") else real(name))
    assert run("doctor", "--no-kernels") == 1
    assert "overwrite each other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "none.cvr", "a.jpg"], "none.cvr"),
        (["search", "{index}"], "Give photos"),
        (["search", "{index}", "none.jpg", "--id", "x"], "Give photos"),
        (["search", "{index}", "--id", "x"], "'x'"),
        (["search", "{index}", "{query}", "--box", "1,2,3"], "--box needs four numbers"),
        (["search", "{index}", "{query}", "--box", "9,9,1,1"], "x1 < x2"),
        (["search", "{index}", "{query}", "-k", "0"], "-k"),
        (["search", "{index}", "{query}", "--report", "/none/r.html"], "/none"),
        (["index", "{empty}", "--out", "x.cvr"], "No images in"),
        (["index", "{query}", "--out", "/none/x.cvr"], "/none"),
        (["index", "{query}", "--out", "{query}"], "index"),
        (["index", "{query}", "--out", "x.cvr", "-j", "0"], "must not be 0"),
        (["verify", "{query}", "{query}", "--report", "/none/r.html"], "/none"),
        (["frobnicate"], "frobnicate"),
        (["index", "--bogus"], "--bogus"),
        (["remove", "{index}"], "NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_said_in_one_line_with_status_two(
    arguments, message, index, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    names = {"index": index, "query": photos / "queries" / "scene 0" / "2.jpg", "empty": empty}
    assert run(*[argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "x.cvr").exists()


def test_names_that_are_no_text(photos, tmp_path):
    """Bytes that no encoding knows survive indexing, searching and JSON."""
    folder = tmp_path / "odd"
    folder.mkdir()
    source = (photos / "photos" / "scene 0" / "0.jpg").read_bytes()
    name = os.fsencode(folder) + b"/caf\xe9 \xff.jpg"
    Path(os.fsdecode(name)).write_bytes(source)
    program = [sys.executable, "-m", "cvretrieval.cli"]
    made = subprocess.run([*program, "index", folder, "--out", tmp_path / "o.cvr", "--words", "4"], capture_output=True)
    assert made.returncode == 0, made.stderr
    found = subprocess.run([*program, "search", tmp_path / "o.cvr", name, "--json"], capture_output=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["results"][0]["id"] == os.fsdecode(b"caf\xe9 \xff.jpg")
    plain = subprocess.run([*program, "info", tmp_path / "o.cvr", "--names"], capture_output=True)
    assert b"caf\xe9 \xff.jpg" in plain.stdout


def test_output_into_a_closed_pipe(index, photos):
    program = f'"{sys.executable}" -m cvretrieval.cli search "{index}" "{photos / "queries"}" --json'
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {program} | head -c 10"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_installed_program_and_version():
    program = Path(sys.executable).with_name("cvretrieval")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    from cvretrieval import __version__

    assert done.stdout.strip() == f"cvretrieval {__version__}"


def test_warnings_are_one_line(photos, tmp_path):
    program = [sys.executable, "-m", "cvretrieval.cli"]
    photo = photos / "photos" / "scene 0" / "0.jpg"
    many = [*program, "index", photo, "--out", tmp_path / "w.cvr", "--features", "20", "--words", "50", "-q"]
    done = subprocess.run(many, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("warning: ") and "n_words=50" in done.stderr
