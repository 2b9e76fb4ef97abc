"""The report of near-duplicates: one HTML file with the groups, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvretrieval.images import ImageReader
from cvretrieval.plotting.page import count, escape, render_page, write_page
from cvretrieval.plotting.thumbnails import ThumbnailSheet, picture

if TYPE_CHECKING:
    from cvretrieval.retrieval.duplicates import DuplicateGroup, DuplicatePair

#: Groups that are shown, the largest first, and images of each.
MAX_GROUPS = 300
MAX_IMAGES = 24

# Pairs that are listed under each group, the surest first.
_PAIRS = 10


def write_duplicates_report(
    groups: Sequence[DuplicateGroup],
    path: str | os.PathLike[str],
    *,
    n_images: int | None = None,
    reader: ImageReader | None = None,
    n_jobs: int | None = None,
) -> Path:
    """Write groups of near-duplicates as one self-contained HTML file.

    Parameters
    ----------
    groups : sequence of DuplicateGroup
        From `cvretrieval.retrieval.find_duplicates`.
    path : path
        File to write; an old one is replaced in one step.
    n_images : int, optional
        How many images were compared.
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
    The first 300 groups are shown, with the first 24 images of each, as thumbnails of at most 320 pixels.
    """
    shown = groups[:MAX_GROUPS]
    sheet = ThumbnailSheet(
        (image for group in shown for image in group.paths[:MAX_IMAGES]), reader=reader, max_size=320,
        max_bytes_each=25_000, n_jobs=n_jobs,
    )  # fmt: skip
    page = render_page(
        title=f"Near-duplicates: {count(len(groups), 'group')}",
        body="\n".join([_header(groups, n_images), *(_section(group, i, sheet) for i, group in enumerate(shown, 1))]),
        sprite=sheet.sprite(),
        data={"queries": []},
        kind="duplicates",
    )
    return write_page(page, path)


def _header(groups: Sequence[DuplicateGroup], n_images: int | None) -> str:
    n_members = sum(len(group.ids) for group in groups)
    among = "" if n_images is None else f" among {count(n_images, 'image')}"
    left_out = len(groups) - MAX_GROUPS
    note = f'<p class="note">The {count(left_out, "smallest group")} left out here.</p>' if left_out > 0 else ""
    return (
        '<header class="page-header"><h1>Near-duplicates</h1><p class="lead">'
        f"{count(len(groups), 'group')} of {count(n_members, 'image')}{among}.</p>"
        '<p class="note">The percentage is the share of the features, of the image with fewer, that agree in what they '
        f"look like and where they are. Nothing was changed or deleted.</p>{note}</header>"
    )


def _section(group: DuplicateGroup, number: int, sheet: ThumbnailSheet) -> str:
    cards = "".join(
        f'<li class="mistake"><span class="frame">{picture(sheet[path], name)}</span>'
        f'<p class="line name">{escape(name)}</p></li>'
        for name, path in list(zip(group.ids, group.paths, strict=True))[:MAX_IMAGES]
    )
    more = len(group.ids) - MAX_IMAGES
    note = f'<p class="note">… and {count(more, "more image")}.</p>' if more > 0 else ""
    pairs = "".join(f'<li class="note name">{_pair(pair)}</li>' for pair in group.pairs[:_PAIRS])
    return (
        f'<section class="panel mistakes"><h2>Group {number}: {count(len(group.ids), "image")}</h2>'
        f'<ol class="cards">{cards}</ol>{note}<ul>{pairs}</ul></section>'
    )


def _pair(pair: DuplicatePair) -> str:
    how = "identical files" if pair.identical else f"{100 * pair.share:.0f} %, {count(pair.n_inliers, 'inlier')}"
    return f"{escape(pair.a)} – {escape(pair.b)}: {how}"
