"""Links to documents beside `docs/` lead to the pages that include them."""

from __future__ import annotations

from sphinx.application import Sphinx

#: link in a file of `docs/` → the page that includes what it means
PAGES = {
    "](../benchmarks/": "](benchmarks/",
    "](../CONTRIBUTING.md": "](contributing/index.md",
    "](../CHANGELOG.md": "](changelog.md",
}


def follow(app: Sphinx, name: str, source: list[str]) -> None:
    up = "../" * name.count("/")
    for link, page in PAGES.items():
        source[0] = source[0].replace(f"]({up}{link[2:]}", f"]({up}{page[2:]}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", follow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
