"""The report of an evaluation: one HTML file with the table of the methods and the ranked lists of every query."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvretrieval.datasets import Query
from cvretrieval.images import ImageReader
from cvretrieval.plotting.page import count, definition_list, escape, render_page, write_page
from cvretrieval.plotting.thumbnails import ThumbnailSheet, picture

if TYPE_CHECKING:
    from cvretrieval.retrieval.comparison import MethodComparison
    from cvretrieval.retrieval.evaluation import MethodEvaluation

#: Queries that are shown, those the first method finds hardest first.
MAX_QUERIES = 200

#: Places of each list that are shown.
MAX_HITS = 12

_LEGEND = (
    '<p class="note legend">Framed in green: relevant. Dashed and pale: counts neither way, such as the query itself. '
    "Each line is the beginning of a method's list, best first.</p>"
)

# More queries than this are folded at first.
_OPEN_QUERIES = 10


def write_evaluation_report(
    comparison: MethodComparison,
    path: str | os.PathLike[str],
    *,
    reader: ImageReader | None = None,
    n_jobs: int | None = None,
) -> Path:
    """Write methods, their figures and the ranked list of every query as one self-contained HTML file.

    Parameters
    ----------
    comparison : MethodComparison
        From `cvretrieval.retrieval.compare_methods`.
    path : path
        File to write; an old one is replaced in one step.
    reader : ImageReader, optional
        How images are read for display.
    n_jobs : int, optional
        Threads that read the images.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.

    Notes
    -----
    The 200 queries with the lowest first figure of the first method are shown, with the first 12 places of each
    method's list, as thumbnails of at most 160 pixels.
    """
    queries = _hardest_first(comparison)
    shown = queries[:MAX_QUERIES]
    sheet = ThumbnailSheet(_sources(comparison, shown), reader=reader, max_size=160, max_bytes_each=8_000,
                           max_images=4000, n_jobs=n_jobs)  # fmt: skip
    is_open = len(shown) <= _OPEN_QUERIES
    sections = "\n".join(_section(comparison, query, sheet, is_open) for query in shown)
    left_out = (
        f'<p class="note">The {count(len(queries) - len(shown), "easiest query", "easiest queries")} left out here.</p>'
        if len(shown) < len(queries)
        else ""
    )
    body = "\n".join(
        [
            _header(comparison),
            f'<section class="panel"><h2>Methods</h2>{_table(comparison)}{_notes(comparison)}</section>',
            f'<h2 id="queries">Queries, the hardest first</h2>{_LEGEND}{left_out}{sections}',
            f'<div class="panels" id="method">{_stages(comparison)}{_rules(comparison)}</div>',
        ]
    )
    page = render_page(
        title=f"Evaluation report: {comparison.dataset.name}",
        body=body,
        sprite=sheet.sprite(),
        data={"queries": []},
        kind="evaluation",
    )
    return write_page(page, path)


def _hardest_first(comparison: MethodComparison) -> list[Query]:
    first = next(iter(comparison.methods.values())).result.per_query[comparison.labels[0]]
    # Queries that the protocol leaves out have no figure: last.
    return sorted(comparison.dataset.queries, key=lambda query: first.get(query.id, float("inf")))


def _sources(comparison: MethodComparison, queries: Sequence[Query]) -> Iterator[Path]:
    """Yield all images, the queries first and then place by place: what is left out is the end of the lists."""
    yield from (query.path for query in queries)
    for place in range(MAX_HITS):
        for query in queries:
            for method in comparison.methods.values():
                ranking = method.rankings[query.id]
                if place < len(ranking):
                    yield comparison.dataset.database[ranking[place]]


def _header(comparison: MethodComparison) -> str:
    names = ", ".join(protocol.name for protocol in comparison.protocols)
    return (
        '<header class="page-header"><h1>Evaluation report</h1><p class="lead"><span class="name">'
        f"{escape(comparison.dataset)}</span>. Protocol: {escape(names)}.</p>"
        '<p class="jump"><a href="#queries">Queries</a> <a href="#method">Methods and rules</a></p></header>'
    )


def _table(comparison: MethodComparison) -> str:
    """Return the table of the methods, published rows set off."""
    header, *rows = comparison.rows()
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = []
    for i, (name, *cells) in enumerate(rows):
        published = i >= len(comparison.methods)
        figures = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        kind = ' class="published"' if published else ""
        lines.append(f'<tr{kind}><th scope="row"><span class="name">{escape(name)}</span></th>{figures}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Methods and figures"><table class="times methods">'
        f"<tr>{head}</tr>{''.join(lines)}</table></div>"
    )


def _notes(comparison: MethodComparison) -> str:
    notes = [note for method in comparison.methods.values() for note in method.result.notes]
    has_published = len(comparison.rows()) > 1 + len(comparison.methods)
    if has_published:
        sources = "; ".join(dict.fromkeys(row.source for row in comparison.published))
        notes.append(f"In brackets: published, not measured here ({sources}).")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in dict.fromkeys(notes))


def _section(comparison: MethodComparison, query: Query, sheet: ThumbnailSheet, is_open: bool) -> str:
    label = comparison.labels[0]
    values = [
        f'<span class="note">{escape(name)} {_figure(method, label, query)}</span>'
        for name, method in comparison.methods.items()
    ]
    strips = "".join(
        f'<div class="strip-head"><b class="name">{escape(name)}</b> '
        f'<span class="note">{_figures(method, query)}</span></div>{_strip(comparison, method, query, sheet)}'
        for name, method in comparison.methods.items()
    )
    return (
        f'<details class="query"{" open" if is_open else ""}><summary><h2 class="name">{escape(query.id)}</h2>'
        f"{''.join(values)}</summary>"
        f'<div class="query-body"><div class="asked">{picture(sheet[query.path], f"query {query.id}")}'
        f'<p class="note">{count(len(query.relevant), "relevant image")}</p></div>'
        f'<div class="found">{strips}</div></div></details>'
    )


def _figure(method: MethodEvaluation, label: str, query: Query) -> str:
    value = method.result.per_query[label].get(query.id)
    return "–" if value is None else f"{value:.3f}"


def _figures(method: MethodEvaluation, query: Query) -> str:
    return escape(", ".join(f"{label} {_figure(method, label, query)}" for label in method.result.figures))


def _strip(comparison: MethodComparison, method: MethodEvaluation, query: Query, sheet: ThumbnailSheet) -> str:
    """Return the first places of a list, each marked by what the ground truth says of it."""
    ranking = method.rankings[query.id]
    if not ranking:
        return '<p class="note">Nothing found.</p>'
    cards = []
    for rank, name in enumerate(ranking[:MAX_HITS], 1):
        kind = "relevant" if name in query.relevant else "junk" if name in query.junk else "other"
        shown = picture(sheet[comparison.dataset.database[name]], f"rank {rank}, {kind}: {name}", css_class="small")
        cards.append(f'<li class="{kind}" title="{escape(f"{rank}: {name} ({kind})")}">{shown}</li>')
    return f'<ol class="strip">{"".join(cards)}</ol>'


def _stages(comparison: MethodComparison) -> str:
    return "".join(
        f'<section class="panel code wide"><h2 class="name">{escape(name)}</h2>'
        f"{definition_list(method.stages)}</section>"
        for name, method in comparison.methods.items()
    )


def _rules(comparison: MethodComparison) -> str:
    return "".join(
        f'<section class="panel"><h2>Protocol {escape(protocol.name)}</h2>{definition_list(protocol.rules)}</section>'
        for protocol in comparison.protocols
    )
