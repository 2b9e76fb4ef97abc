"""One query of a search report: what was asked, what was found, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cvretrieval.plotting.outline import frame_corners
from cvretrieval.plotting.page import count, escape, format_seconds
from cvretrieval.plotting.query_data import hit_outlines, query_image, visible_box
from cvretrieval.plotting.thumbnails import Thumbnail, ThumbnailSheet, picture, polygon

if TYPE_CHECKING:
    from cvretrieval.retrieval.result import Hit, QueryResult

_SEPARATOR = re.compile(r"[/\\]")


def query_state(query: QueryResult) -> str:
    """Return ``"verified"``, ``"unverified"`` (checked, none confirmed), ``"unchecked"`` or ``"empty"``."""
    if not query.hits:
        return "empty"
    if any(hit.verified for hit in query.hits):
        return "verified"
    return "unchecked" if all(hit.n_inliers is None for hit in query.hits) else "unverified"


def short_verdict(query: QueryResult) -> str:
    """Return the verdict in a few words, for the overview."""
    n_verified = sum(hit.verified for hit in query.hits)
    return {
        "verified": f"{n_verified} verified",
        "unverified": "None verified",
        "unchecked": "Not checked",
        "empty": "Nothing found",
    }[query_state(query)]


def short_names(queries: Sequence[QueryResult]) -> list[str]:
    """Return the names of queries without the folder they have in common; a single one keeps its last part."""
    names = [query.query for query in queries]
    n_common = 0
    for folders in zip(*(_SEPARATOR.split(name)[:-1] for name in names), strict=False):
        if len(set(folders)) > 1:
            break
        n_common += 1
    return [_SEPARATOR.split(name, maxsplit=n_common)[-1] if n_common else name for name in names]


def query_section(
    query: QueryResult, name: str, number: int, sheet: ThumbnailSheet, *, n_queries: int, n_hits: int, is_open: bool
) -> str:
    """Return the HTML of one query.

    Parameters
    ----------
    query : QueryResult
    name : str
        How it is called, from `short_names`.
    number : int
        1 for the first; part of the permalinks ``#q1`` and ``#q1h2``.
    sheet : ThumbnailSheet
        Holds the images.
    n_queries : int
        Sections of the report, for the links to the neighbours.
    n_hits : int
        Cards shown at most.
    is_open : bool
        Whether the section is unfolded at first.
    """
    asked = sheet[query_image(query)]
    box = visible_box(query, asked)
    region = ""
    if query.box is not None:
        region = f'<p class="note">Searched for the marked region {escape(", ".join(f"{v:g}" for v in query.box))}.</p>'
    origin = "" if name == query.query else f'<p class="note name">{escape(query.query)}</p>'
    alt = f"Query image {name}" + (", with the searched region marked" if query.box is not None else "")
    marks = polygon(frame_corners(0, 0, box)) if box is not None else ""
    cards = "".join(_card(hit, number, sheet[hit.path], asked, box) for hit in query.hits[:n_hits])
    n_more = len(query.hits) - n_hits
    more = f'<p class="note">{count(n_more, "more image")} of this list left out here.</p>' if n_more > 0 else ""
    heading = f"Query {number}" if n_queries > 1 else "Query"
    return f"""
<details class="query" id="q{number}"{" open" if is_open else ""}>
<summary><h2><span class="number">{heading}</span> <span class="name">{escape(name)}</span></h2>
<span class="mark {query_state(query)}">{escape(short_verdict(query))}</span></summary>
<div class="query-body">
<div class="asked">{picture(asked, alt, marks)}{origin}{region}<p class="note">{escape(_effort(query))}</p></div>
<div class="found"><p class="verdict">{_verdict(query)}</p>
{f'<ol class="cards">{cards}</ol>' if cards else ""}{more}</div>
{_neighbours(number, n_queries)}
</div>
</details>"""


def _neighbours(number: int, n_queries: int) -> str:
    if n_queries < 2:
        return ""
    links = [
        f'<a href="#q{number - 1}">‹ Query {number - 1}</a>' if number > 1 else "",
        '<a href="#queries">All queries</a>',
        f'<a href="#q{number + 1}">Query {number + 1} ›</a>' if number < n_queries else "",
    ]
    return f'<nav class="query-nav" aria-label="Beside query {number}">{"".join(links)}</nav>'


def _card(hit: Hit, number: int, found: Thumbnail, asked: Thumbnail, box: Any) -> str:
    permalink = f"q{number}h{hit.rank}"
    state, words = _judgement(hit)
    inliers = ""
    if hit.n_inliers is not None:
        inliers = f"<span><b>{hit.n_inliers:,}</b> {'inlier' if hit.n_inliers == 1 else 'inliers'}</span>"
    marks = polygon(hit_outlines(hit, found, asked, box)[1])
    alt = f"Indexed image {hit.id}" + (", the object outlined" if marks else "")
    return (
        f'<li class="card {state}"><a id="{permalink}" href="#{permalink}">'
        f'<span class="frame">{picture(found, alt, marks)}</span>'
        f'<span class="line"><span class="rank">{hit.rank}</span><span class="mark {state}">{words}</span></span>'
        f'<span class="line name">{escape(hit.id)}</span>'
        f'<span class="line measures">{inliers}<span title="similarity before verification">'
        f"score {hit.score:.3f}</span></span></a></li>"
    )


def _judgement(hit: Hit) -> tuple[str, str]:
    if hit.verified:
        return "verified", "Verified"
    return ("unchecked", "Similar") if hit.n_inliers is None else ("unverified", "Not verified")


def _verdict(query: QueryResult) -> str:
    """Return the sentence that answers the query, as HTML."""
    state = query_state(query)
    if state == "empty":
        if query.n_features == 0:
            return (
                "<strong>Nothing to search with.</strong> No local features were found in this image: it may be blank, "
                "blurred or very small."
            )
        return "<strong>Nothing found.</strong> The index returned no image for this query."
    n_shown = len(query.hits)
    listed = "the one image" if n_shown == 1 else f"the {n_shown:,} most similar images"
    n_checked = sum(hit.n_inliers is not None for hit in query.hits)
    if state == "unchecked":
        return f"<strong>{listed[4:].capitalize()}.</strong> Geometry was not checked, so none is confirmed."
    if state == "unverified":
        checked = "" if n_checked == n_shown else f", of which the first {n_checked:,} were checked"
        return (
            f"<strong>No match confirmed.</strong> In {listed}{checked}, no part of the query was found in a "
            "consistent position. They are ranked by similarity alone."
        )
    n_verified = sum(hit.verified for hit in query.hits)
    best = next(hit for hit in query.hits if hit.verified)
    support = "" if best.n_inliers is None else f", with {count(best.n_inliers, 'inlier')}"
    rest = "" if n_verified == n_shown else " The others are only similar."
    title = count(n_verified, "verified match", "verified matches")
    where = f'<span class="name">{escape(best.id)}</span>{support}'
    if n_verified > 1:
        where = f"each of them; the best is {where}"
    return f"<strong>{title}.</strong> Something of the query was found in a consistent position in {where}.{rest}"


def _effort(query: QueryResult) -> str:
    parts = [] if query.n_features is None else [count(query.n_features, "local feature")]
    stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in query.timings.items())
    parts.append(format_seconds(query.seconds) + (f" ({stages})" if stages else ""))
    return " · ".join(parts)
