"""The documents say what there is: every public name in the reference, every page found, every link led somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvretrieval
from cvretrieval.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "auto_examples" not in path.parts)
DEEP_ROOMS = ("backbones", "descriptors", "explanation", "layers", "localization", "losses", "training")


def assigned(path: Path, name: str) -> object:
    """Value of a constant of a module that is not imported: torch may be missing."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} assigns no {name}")


def names_of_room(package: Path, room: str, shown_above: dict[str, str]) -> set[str]:
    """Public names of a room that are not those of the package, too."""
    names = assigned(package / room / "__init__.py", "__all__")
    return {name for name in names if shown_above.get(name) != room}


def public_names() -> set[str]:
    package = ROOT / "cvretrieval"
    names = {f"cvretrieval.{name}" for name in cvretrieval._PUBLIC}
    for room in (*cvretrieval._ROOMS, "serve"):
        if room != "deep":
            names |= {f"cvretrieval.{room}.{name}" for name in names_of_room(package, room, cvretrieval._PUBLIC)}
    deep = assigned(package / "deep" / "__init__.py", "_PUBLIC")
    names |= {f"cvretrieval.deep.{name}" for name in deep}
    for room in DEEP_ROOMS:
        names |= {f"cvretrieval.deep.{room}.{name}" for name in names_of_room(package / "deep", room, deep)}
    return names


def test_every_public_name_stands_in_the_reference_once():
    shown = Counter()
    for page in sorted((DOCS / "api").glob("*.md")):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.removeprefix(".. currentmodule:: ")
            elif re.fullmatch(r"   [A-Za-z_][\w.]*", line):
                shown[f"{module}.{line.strip()}"] += 1
    assert not [name for name, count in shown.items() if count > 1], "stands there twice"
    assert not public_names() - set(shown), "missing in docs/api"
    assert not set(shown) - public_names(), "not public, or shown under another name"


def test_every_room_of_deep_that_is_public_is_looked_at():
    assert set(assigned(ROOT / "cvretrieval" / "deep" / "__init__.py", "_ROOMS")) <= set(DEEP_ROOMS)


def test_every_page_is_in_one_table_of_contents():
    listed = Counter()
    for page in PAGES:
        for entries in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for entry in entries.splitlines():
                if entry and not entry.startswith(":"):
                    name = re.sub(r".*<(.*)>", r"\1", entry).strip()
                    listed[(page.parent / name).resolve().relative_to(DOCS).as_posix()] += 1
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES} - {"index"}
    assert not pages - set(listed), "in no toctree"
    assert set(listed) - pages == {"auto_examples/index"}, "in a toctree, but no page"
    assert not [name for name, count in listed.items() if count > 1], "in two toctrees"


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("benchmarks/*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^(`{3,})(?!\{include\}).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        target = link.split("#")[0]
        if not target or re.match(r"[a-z]+:", target) or re.search("auto_examples/|generated/", target):
            continue  # an address; a heading of this page; a page that the build makes, which checks links to it
        assert (page.parent / target).exists(), f"{link} leads nowhere"


def blocks_of_python(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def run_block(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "a page of docs", "exec"), names)
    return names


def test_the_feature_the_encoder_and_the_index_of_the_page_for_contributors_work(rng):
    feature, encoder, index, _ = blocks_of_python("contributing/adding.md")
    images = rng.integers(0, 256, (5, 60, 80), dtype=np.uint8).repeat(3, 1).repeat(3, 2)
    images[2] = 7
    corners = run_block(feature)["CornerSIFT"](max_features=40).fit_transform(list(images))
    assert corners.lengths[2] == 0 and corners.lengths[0] > 10 and corners.keypoints[:, 2].max() == 4
    vectors = run_block(encoder)["WordPresence"](n_words=6, random_state=0).fit_transform(corners)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1, 1], rtol=1e-6)
    rows, queries = rng.normal(size=(50, 7)).astype(np.float32), rng.normal(size=(3, 7)).astype(np.float32)
    engine = run_block(index)["CityBlockIndex"]().add(np.arange(50), rows).remove([4])
    distances = np.abs(rows[None].astype(float) - queries[:, None]).sum(axis=2)
    distances[:, 4] = np.inf
    np.testing.assert_array_equal(engine.search(queries, 5)[0], np.argsort(distances, axis=1)[:, :5])


def test_getting_started_works_as_written(tmp_path, monkeypatch, capsys):
    """Every command and every line of Python of the page, in order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "getting_started.md").read_text(encoding="utf-8")
    promised = re.findall(r"^ +\d  [\d.]+ +\d+  ✓  (.*)$", text, re.M)
    names: dict[str, object] = {}
    n_commands = 0
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S):
        if language == "python":
            exec(compile(block, "getting_started.md", "exec"), names)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            n_commands += 1
            if program == "python":
                exec(arguments[1], {})
                continue
            assert program == "cvretrieval"
            with pytest.raises(SystemExit) as end:
                main(arguments)
            assert not end.value.code, f"{line}\n{capsys.readouterr().err}"
    printed = capsys.readouterr().out
    assert len(promised) == 3 and n_commands >= 6
    assert promised == re.findall(r"^ +\d  [\d.]+ +\d+  ✓  (.*)$", printed, re.M)[:3]
    assert "bow:words=200" in printed and (tmp_path / "report.html").stat().st_size > 10_000
    assert [hit.id for hit in names["result"][0].hits] == promised
