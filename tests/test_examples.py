"""The form of the gallery's examples, which `make docs` runs, and the snippets of the guide, which run here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.guide_snippets import GUIDE, needs_torch, run_snippets

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("plot_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_the_form_of_the_gallery(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    title, underline, *_ = ast.get_docstring(ast.parse(text)).splitlines()
    assert title and underline == "=" * len(title)
    assert text.count("# %%\n") >= 2, "nothing is told between the code"
    assert "plt.show()" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_needs_no_network(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    code = ast.unparse(ast.Module([node for node in tree.body[1:] if not isinstance(node, ast.Import)], []))
    assert not re.search(r"https?://|fetch_|urlopen|deep\.\w+\(['\"]|Backbone\(['\"]|pretrained", code)
    assert re.search(r"make_scenes\(", code), "its pictures are from elsewhere"


def test_gallery_has_an_order():
    source = (GUIDE[0].parents[1] / "_ext" / "gallery_order.py").read_text(encoding="utf-8")
    order = next(node.value for node in ast.parse(source).body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(order)) == [path.stem.removeprefix("plot_") for path in EXAMPLES]


def test_every_page_of_the_guide_shows_something_that_runs():
    without = {page.stem for page in GUIDE if "\n>>> " not in page.read_text(encoding="utf-8")}
    assert without == {"index"}


@pytest.mark.parametrize(
    "page", [page for page in GUIDE if page.stem != "index" and not needs_torch(page)], ids=lambda page: page.stem
)
def test_guide_snippets_run(page):
    assert run_snippets(page) > 0


def test_guide_shows_pictures_that_examples_draw():
    drawn = {path.stem for path in EXAMPLES}
    for page in GUIDE:
        named = re.findall(
            r"auto_examples/(?:images/sphx_glr_)?(plot_\w+?)(?:_\d{3}\.png|\.rst)", page.read_text("utf-8")
        )
        assert set(named) <= drawn, page.stem
