"""Runs the Python snippets of the user guide's pages."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

GUIDE = sorted((Path(__file__).resolve().parents[1] / "docs" / "guide").glob("*.md"))


def snippets(page: Path) -> list[str]:
    """Return the ``python`` blocks of a page that are sessions."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in blocks if block.startswith(">>>")]


def needs_torch(page: Path) -> bool:
    return any("torch" in block or "cvretrieval.deep" in block for block in snippets(page))


def run_snippets(page: Path) -> int:
    """Run a page's snippets in order, as one session; return how many lines ran."""
    session = doctest.DocTestParser().get_doctest("".join(snippets(page)), {}, page.stem, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(session)
    assert not runner.failures, f"{page.name}: see the output"
    return runner.tries
