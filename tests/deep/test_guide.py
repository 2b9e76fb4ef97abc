"""The snippets of the user guide that need torch."""

from __future__ import annotations

import pytest

from tests.guide_snippets import GUIDE, needs_torch, run_snippets

PAGES = [page for page in GUIDE if needs_torch(page)]


def test_pages_with_torch_are_found():
    assert {"cnn", "training"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_guide_snippets_run(page):
    assert run_snippets(page) > 0
