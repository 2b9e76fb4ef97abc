"""``{published} PROTOCOL …``: the published figures that the package knows of some protocols, as a table."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cvretrieval.metrics import get_protocols, published_figures


class Published(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        names = self.arguments[0].split()
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for name in names:
            for row in published_figures(get_protocols(name)):
                values = " · ".join(f"{100 * value:.1f}" for value in row.figures.values())
                cells = rows.setdefault((row.method, row.source), {})
                cells[name] = values if list(row.figures) == ["mAP"] else f"{values} ({', '.join(row.figures)})"
        if not rows:
            raise self.error(f"Nothing is published of {', '.join(names)}.")
        body = [[method, *(cells.get(name, "–") for name in names), source] for (method, source), cells in rows.items()]
        return [table(["published, %", *names, "read in"], body)]


def table(head: list[str], body: list[list[str]]) -> nodes.table:
    def line(texts: list[str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", line(head))
    group += nodes.tbody("", *(line(texts) for texts in body))
    return nodes.table("", group)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("published", Published)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
