"""The report of a search: one HTML file with the queries, their ranked lists and the matches behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvretrieval.images import ImageReader
from cvretrieval.plotting.page import count, definition_list, escape, format_seconds, render_page, write_page
from cvretrieval.plotting.query_data import query_data, query_image
from cvretrieval.plotting.query_section import query_section, query_state, short_names, short_verdict
from cvretrieval.plotting.thumbnails import ThumbnailSheet, picture

if TYPE_CHECKING:
    from cvretrieval.retrieval.result import QueryResult, SearchResult

#: Bounds that keep the file at a size that can be opened and sent.
MAX_QUERIES = 1000
MAX_CARDS = 5000
MAX_LINES = 200_000

#: With more queries than this they are folded at first, under the overview.
_OPEN_QUERIES = 5

_TOOLS = """
<label>Filter <input type="search" placeholder="name"></label>
<label>Show <select><option value="">all</option><option value="verified">with a verified match</option>
<option value="unverified">with none verified</option><option value="unchecked">not checked</option>
<option value="empty">nothing found</option></select></label>
<button type="button" data-do="unfold">Unfold all</button><button type="button" data-do="fold">Fold all</button>
<output></output>"""


_GLOSSARY = (
    '<p class="note">The score is the similarity of the whole images. Inliers are matching points in one consistent '
    "position, those close together counted once. Verified images come first, by inliers; the others follow by "
    "score.</p>"
)


def write_search_report(
    result: SearchResult,
    path: str | os.PathLike[str],
    *,
    reader: ImageReader | None = None,
    n_jobs: int | None = None,
    verbose: bool | int = False,
) -> Path:
    """Write a search result as one self-contained HTML file.

    Parameters
    ----------
    result : SearchResult
    path : path
        File to write; an old one is replaced in one step.
    reader : ImageReader, optional
        How images are read for display; give the index's own where it is not the default, so that the outlines fit.
    n_jobs : int, optional
        Threads that read the images.
    verbose : bool, default=False
        Show a progress bar on a terminal.

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
    Images that cannot be read any more are shown as a placeholder with the reason. Each distinct image is inlined
    once, reduced to at most 640 pixels and 60 kB; all images together take at most about 12 MB (16 MB as base64): with
    many images each becomes smaller, and from the 2,001st on they are left out. At most 200,000 match lines (but 50 a
    hit), 5,000 hits (but 10 a query) and 1,000 queries are shown; what is left out is said.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from cvretrieval.plotting import write_search_report
    >>> from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
    >>> image = np.zeros((60, 80, 3), dtype=np.uint8)
    >>> result = SearchResult([QueryResult("query", (Hit(1, "a.jpg", None, 0.5),), 0.1, image=image)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_search_report(result, folder + "/report.html").name
    'report.html'
    """
    queries = result.queries[:MAX_QUERIES]
    n_hits = max(10, MAX_CARDS // max(1, len(queries)))
    n_with_lines = sum(hit.matches is not None for query in queries for hit in query.hits[:n_hits])
    n_lines = max(50, MAX_LINES // max(1, n_with_lines))
    sheet = ThumbnailSheet(_sources(queries, n_hits), reader=reader, n_jobs=n_jobs, verbose=verbose)
    names = short_names(queries)
    is_open = len(queries) <= _OPEN_QUERIES
    sections = [
        query_section(query, name, i, sheet, n_queries=len(queries), n_hits=n_hits, is_open=is_open)
        for i, (query, name) in enumerate(zip(queries, names, strict=True), 1)
    ]
    asked = names[0] if len(names) == 1 else count(len(result), "query", "queries")
    page = render_page(
        title=f"Search report: {asked}",
        body="\n".join([_header(result), _overview(result, names, sheet), *sections, _method(result)]),
        sprite=sheet.sprite(),
        data={"queries": [query_data(query, sheet, n_hits=n_hits, n_lines=n_lines) for query in queries]},
        kind="search",
    )
    return write_page(page, path)


def _sources(queries: Sequence[QueryResult], n_hits: int) -> Iterator[Any]:
    """Yield all images, the queries first and then rank by rank: what is left out is the end of the lists."""
    yield from map(query_image, queries)
    for rank in range(max((len(query.hits[:n_hits]) for query in queries), default=0)):
        yield from (query.hits[rank].path for query in queries if rank < len(query.hits[:n_hits]))


def _header(result: SearchResult) -> str:
    states = [query_state(query) for query in result]
    n_images = result.index.get("n_images")
    place = escape(result.index.get("path") or "the index")
    size = f" of {count(n_images, 'image')}" if isinstance(n_images, int) else ""
    sentence = f'{count(len(result), "query", "queries")} searched in <span class="name">{place}</span>{size}.'
    tally = (
        ("verified", "with a verified match"),
        ("unverified", "with no verified match"),
        ("unchecked", "not checked by geometry"),
        ("empty", "with nothing found"),
    )
    # For a single query its own verdict says all.
    marks = "".join(
        f'<li><span class="mark {state}">{states.count(state):,}</span> {words}</li>'
        for state, words in tally
        if state in states and len(states) > 1
    )
    left_out = len(result) - MAX_QUERIES
    note = f'<p class="note">The last {count(left_out, "query", "queries")} left out here.</p>' if left_out > 0 else ""
    return (
        f'<header class="page-header"><h1>Search report</h1><p class="lead">{sentence}</p>'
        f'{f"<ul class=tally>{marks}</ul>" if marks else ""}{note}<p class="jump">{_hint(result)}'
        f'<a href="#method">Method, index and times</a></p></header>{_failures(result)}'
    )


def _hint(result: SearchResult) -> str:
    if not any(query.hits for query in result):
        return ""
    return '<span class="needs-script" hidden>Select an image to see the matches behind it. </span>'


def _failures(result: SearchResult) -> str:
    """Return the queries that could not be read, where the search recorded them."""
    if not result.failures:
        return ""
    rows = {str(name): reason for name, reason in result.failures}
    title = count(len(result.failures), "query could", "queries could")
    return f'<section class="panel warning"><h2>{title} not be read</h2>{definition_list(rows)}</section>'


def _method(result: SearchResult) -> str:
    """Return how and where was searched, and how long it took."""
    panels = []
    if result.method:
        method = {name.replace("_", " "): value for name, value in result.method.items()}
        panels.append(f'<section class="panel code wide"><h2>Method</h2>{definition_list(method)}{_GLOSSARY}</section>')
    facts = {name.replace("n_", "").replace("_", " "): _plain(value) for name, value in result.index.items()}
    if facts:
        panels.append(f'<section class="panel"><h2>Index</h2>{definition_list(facts)}</section>')
    if len(result):
        panels.append(_times(result.queries))
    return f'<div class="panels" id="method">{"".join(panels)}</div>'


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _times(queries: Sequence[QueryResult]) -> str:
    """Return the mean time of each stage as a table with bars."""
    total = sum(query.seconds for query in queries)
    stages: dict[str, float] = {}
    for query in queries:
        for name, seconds in query.timings.items():
            stages[name] = stages.get(name, 0.0) + seconds
    rest = total - sum(stages.values())
    if stages and rest > 0.01 * total:
        stages["other"] = rest
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{format_seconds(seconds / len(queries))}</td>'
        f'<td class="bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * seconds / max(total, 1e-9):.1f}" height="8"/></svg></td></tr>'
        for name, seconds in stages.items()
    )
    mean = (
        f'<tr class="total"><th scope="row">together</th><td>{format_seconds(total / len(queries))}</td><td></td></tr>'
    )
    note = f'<p class="note">{format_seconds(total)} for all {len(queries):,}.</p>' if len(queries) > 1 else ""
    return f'<section class="panel"><h2>Time per query</h2><table class="times">{rows}{mean}</table>{note}</section>'


def _overview(result: SearchResult, names: Sequence[str], sheet: ThumbnailSheet) -> str:
    """Return the table of contents: every query beside its best hit."""
    if not names:
        words = "None of the queries could be read." if result.failures else "No query was given."
        return f'<p class="verdict">{words}</p>'
    if len(names) == 1:
        return ""
    tools = f'<div class="tools" hidden>{_TOOLS}</div>' if len(names) > _OPEN_QUERIES else ""
    named = zip(result.queries[: len(names)], names, strict=True)
    rows = "".join(_overview_row(query, name, i, sheet) for i, (query, name) in enumerate(named, 1))
    return f'<section class="overview"><h2 id="queries">Queries</h2>{tools}<ol class="contents">{rows}</ol></section>'


def _overview_row(query: QueryResult, name: str, number: int, sheet: ThumbnailSheet) -> str:
    state = query_state(query)
    best = query.hits[0] if query.hits else None
    # Their names stand beside them, so the pictures themselves need no text.
    pictures = picture(sheet[query_image(query)], "", css_class="small")
    pictures += picture(sheet[best.path], "", css_class="small") if best else '<span class="small nothing"></span>'
    return (
        f'<li class="{state}"><a href="#q{number}"><span class="pair" aria-hidden="true">{pictures}</span>'
        f'<span class="words"><span class="name asked-name">{number}. {escape(name)}</span>'
        f'<span class="name">{escape(best.id if best else "no image")}</span>'
        f'<span class="mark {state}">{escape(short_verdict(query))}</span></span></a></li>'
    )
