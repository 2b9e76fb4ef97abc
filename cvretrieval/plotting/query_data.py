"""What a report's script needs to know of a query, and where the object lies in its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cvretrieval.plotting.lines import pack_matches, pack_points
from cvretrieval.plotting.outline import frame_corners, motion_facts, object_outlines, usable_transform
from cvretrieval.plotting.page import printable
from cvretrieval.plotting.thumbnails import Thumbnail, ThumbnailSheet

if TYPE_CHECKING:
    from cvretrieval.retrieval.result import Hit, QueryResult


def query_image(query: QueryResult) -> Any:
    """Return what the query can be read from again."""
    return query.image if query.image is not None else query.query


def hit_outlines(hit: Hit, found: Thumbnail, asked: Thumbnail, box: Any) -> tuple[Any, Any]:
    """Return the outlines of the object in the query and in a hit, None where there is none to draw."""
    if not hit.verified:
        return None, None
    sizes = (asked.width, asked.height), (found.width, found.height)
    return object_outlines(hit.matches, hit.transform, *sizes, box)


def visible_box(query: QueryResult, asked: Thumbnail) -> Any:
    """Return the region that was searched for, cut off at the edges of the image."""
    if query.box is None or not asked.jpeg:
        return query.box
    return tuple(np.clip(query.box, 0, (asked.width, asked.height) * 2).tolist())


def query_data(query: QueryResult, sheet: ThumbnailSheet, *, n_hits: int, n_lines: int) -> dict[str, Any]:
    """Return what the script needs to draw the matches of a query, ready for JSON."""
    asked = sheet[query_image(query)]
    box = visible_box(query, asked)
    return {
        "name": printable(query.query),
        "image": image_data(asked),
        "box": None if box is None else pack_points(frame_corners(0, 0, box)),
        "hits": [_hit_data(hit, sheet[hit.path], asked, box, n_lines) for hit in query.hits[:n_hits]],
    }


def image_data(thumbnail: Thumbnail) -> dict[str, Any]:
    """Return the size and the element of an image, or why there is none."""
    if not thumbnail.jpeg:
        return {"reason": thumbnail.reason}
    return {"key": thumbnail.key, "width": thumbnail.width, "height": thumbnail.height}


def _hit_data(hit: Hit, found: Thumbnail, asked: Thumbnail, box: Any, n_lines: int) -> dict[str, Any]:
    # The transform of a pair that was not accepted means nothing.
    transform = usable_transform(hit.transform) if hit.verified else None
    outlines = hit_outlines(hit, found, asked, box)
    return {
        "rank": int(hit.rank),
        "id": printable(hit.id),
        "n_inliers": None if hit.n_inliers is None else int(hit.n_inliers),
        "facts": _facts(hit, transform, asked),
        "transform": None if transform is None else transform.tolist(),
        "image": image_data(found),
        "asked": pack_points(outlines[0]),
        "found": pack_points(outlines[1]),
        "n_matches": 0 if hit.matches is None else len(hit.matches),
        "matches": pack_matches(hit.matches, n_lines),
    }


def _facts(hit: Hit, transform: Any, asked: Thumbnail) -> dict[str, str]:
    inliers = "not checked" if hit.n_inliers is None else f"{hit.n_inliers:,}"
    if hit.matches is not None and hit.n_inliers not in (None, len(hit.matches)):
        inliers += f", from {len(hit.matches):,} matching points"
    moved = motion_facts(transform, asked.width, asked.height) if asked.jpeg else {}
    return {"inliers": inliers, "score": f"{hit.score:.3f}", **moved}
