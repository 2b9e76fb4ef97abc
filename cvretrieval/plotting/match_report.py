"""The report of one comparison: do these two images show the same thing, and why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval.images import ImageReader, describe_source
from cvretrieval.plotting.lines import pack_matches, pack_points
from cvretrieval.plotting.outline import motion_facts, object_outlines, usable_transform
from cvretrieval.plotting.page import count, definition_list, escape, format_seconds, printable, render_page, write_page
from cvretrieval.plotting.query_data import image_data
from cvretrieval.plotting.thumbnails import Thumbnail, ThumbnailSheet, picture, polygon

MAX_LINES = 20_000


def write_match_report(
    image_a: Any,
    image_b: Any,
    path: str | os.PathLike[str],
    *,
    name_a: str | None = None,
    name_b: str | None = None,
    n_features: tuple[int, int] | None = None,
    n_inliers: int | None = None,
    n_matches: int | None = None,
    matches: Any = None,
    transform: Any = None,
    fundamental: Any = None,
    accepted: bool = False,
    reason: str | None = None,
    method: Mapping[str, str] | None = None,
    seconds: float | None = None,
    reader: ImageReader | None = None,
) -> Path:
    """Write the comparison of two images as one self-contained HTML file.

    Parameters
    ----------
    image_a, image_b : path, array or PIL image
        The query and the candidate.
    path : path
        File to write; an old one is replaced in one step.
    name_a, name_b : str, optional
        How the images are called; by default their paths.
    n_features : (int, int), optional
        Local features of each image.
    n_inliers : int, optional
        As the verifier counts them; by default the number of `matches`.
    n_matches : int, optional
        Tentative matches, before geometry.
    matches : array-like of shape (n, 4), optional
        Consistent matches x, y in `image_a` and x, y in `image_b`, in pixels of the originals.
    transform : array-like of shape (3, 3), optional
        Maps homogeneous pixels of `image_a` to those of `image_b`.
    fundamental : array-like of shape (3, 3), optional
        The fundamental matrix that was found in place of a transform.
    accepted : bool, default=False
        The verdict of the verifier.
    reason : str, optional
        Why it was not accepted.
    method : mapping of str to str, optional
        Stage → its estimator and parameters.
    seconds : float, optional
        Time of the comparison.
    reader : ImageReader, optional
        How the images are read for display.

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
    The images are reduced to at most 1,280 pixels and 400 kB each. An image that cannot be read is shown as a
    placeholder with the reason.
    """
    name_a = describe_source(image_a) if name_a is None else name_a
    name_b = describe_source(image_b) if name_b is None else name_b
    sheet = ThumbnailSheet(
        [image_a, image_b], reader=reader, max_size=1280, max_bytes=800_000, max_bytes_each=400_000
    )  # fmt: skip
    first, second = sheet[image_a], sheet[image_b]
    matrix = usable_transform(transform)
    n_drawn = 0 if matches is None else len(matches)
    n_inliers = n_drawn if n_inliers is None else n_inliers
    sizes = (first.width, first.height), (second.width, second.height)
    asked, found = object_outlines(matches, matrix, *sizes) if accepted else (None, None)
    hit = {
        "rank": 1,
        "id": printable(name_b),
        "n_inliers": n_inliers,
        "facts": {},
        "transform": None if matrix is None else matrix.tolist(),
        "image": image_data(second),
        "asked": pack_points(asked),
        "found": pack_points(found),
        "n_matches": n_drawn,
        "matches": pack_matches(matches, MAX_LINES),
    }
    if accepted:
        state, words = "verified", f"These two show the same thing, by {count(n_inliers, 'inlier')}."
    else:
        state, words = "unverified", f"Not confirmed: {(reason or 'the matches do not agree').rstrip('.')}."
    facts = {
        "features": None if n_features is None else f"{n_features[0]:,} and {n_features[1]:,}",
        "tentative matches": None if n_matches is None else f"{n_matches:,}",
        "consistent matches": f"{n_drawn:,}" + (f" ({n_drawn / n_matches:.0%})" if n_matches else ""),
        "inliers": f"{n_inliers:,}" + ("" if n_inliers == n_drawn else ", places counted once"),
        "time": None if seconds is None else format_seconds(seconds),
    }
    body = f"""
<header class="page-header"><h1>Match report</h1>
<p class="lead"><span class="name">{escape(name_a)}</span> and <span class="name">{escape(name_b)}</span></p>
<p class="verdict"><span class="mark {state}">{"Verified" if accepted else "Not verified"}</span>
<strong>{escape(words)}</strong></p></header>
<div id="match" class="match">{_still_pair(first, second, name_a, name_b, (asked, found))}</div>
<div class="panels">
<section class="panel"><h2>Evidence</h2>{definition_list(_known(facts))}</section>
{_transform_panel(matrix, first, accepted) if fundamental is None else _fundamental_panel(fundamental)}
{f'<section class="panel code wide"><h2>Method</h2>{definition_list(method)}</section>' if method else ""}
</div>"""
    page = render_page(
        title=f"Match report: {name_a} and {name_b}",
        body=body,
        sprite=sheet.sprite(),
        data={"queries": [{"name": printable(name_a), "image": image_data(first), "box": None, "hits": [hit]}]},
        kind="match",
    )
    return write_page(page, path)


def _still_pair(first: Thumbnail, second: Thumbnail, name_a: str, name_b: str, outlines: tuple[Any, Any]) -> str:
    """Return the two images as they are shown where no script runs."""
    pictures = picture(first, name_a, polygon(outlines[0])) + picture(second, name_b, polygon(outlines[1]))
    return f'<div class="still">{pictures}</div>'


def _transform_panel(matrix: Any, first: Thumbnail, accepted: bool) -> str:
    if matrix is None:
        return '<section class="panel"><h2>Transform</h2><p>None was found.</p></section>'
    facts = motion_facts(matrix, first.width, first.height) if first.jpeg else {}
    return (
        f'<section class="panel"><h2>{"Transform" if accepted else "Rejected transform"}</h2>'
        f'<table class="matrix" aria-label="Matrix from the first image to the second">{_rows(matrix)}</table>'
        f'{definition_list(facts)}<p class="note">Maps pixels of the first image to the second; read off at the '
        "centre of the first.</p></section>"
    )


def _fundamental_panel(matrix: Any) -> str:
    return (
        '<section class="panel"><h2>Fundamental matrix</h2>'
        f'<table class="matrix" aria-label="Fundamental matrix">{_rows(matrix)}</table>'
        '<p class="note">The scene is not flat: a pixel of the first image lies on a line in the second, F times it. '
        "That says where the cameras were, not where the object is, so only matched points are outlined.</p></section>"
    )


def _rows(matrix: Any) -> str:
    return "".join(f"<tr>{''.join(f'<td>{value:.5g}</td>' for value in row)}</tr>" for row in np.asarray(matrix))


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
