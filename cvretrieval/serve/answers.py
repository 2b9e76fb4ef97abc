"""Answers as JSON: as in ``cvretrieval search --json``, and what a page needs besides."""

from __future__ import annotations

import json
from typing import Any

from cvretrieval.retrieval import Hit, QueryResult
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.serve.collection import Asked, Collection, as_lists


def image_answer(record: ImageRecord) -> dict[str, Any]:
    """Return one image of the collection."""
    return {
        "id": record.id,
        "width": record.width,
        "height": record.height,
        "n_features": record.n_features,
        "status": record.status,
    }


def query_answer(asked: Asked, size: tuple[int, int], result: QueryResult) -> dict[str, Any]:
    """Return what was searched with."""
    upload, record = asked.upload, asked.record
    return {
        "key": None if upload is None else upload.key,
        "id": None if record is None else record.id,
        "name": upload.name if upload is not None else "" if record is None else record.id,
        "width": size[0],
        "height": size[1],
        "n_features": result.n_features,
        "box": None if asked.box is None else list(asked.box),
    }


def search_answer(
    collection: Collection,
    asked: Asked,
    size: tuple[int, int],
    result: QueryResult,
    hits: list[Hit],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return a ranked list."""
    results = []
    for rank, hit in enumerate(hits, start=1):
        record = collection.retriever._store.find(hit.id)
        width, height = (0, 0) if record is None else (record.width, record.height)
        found = {**hit.to_dict(), "rank": rank, "width": width, "height": height}
        del found["path"]  # where the photos lie is nobody's business
        results.append(found)
    is_checked = any(hit.n_inliers is not None for hit in hits)
    return {
        "query": query_answer(asked, size, result),
        "results": results,
        "n_verified": sum(hit.verified for hit in hits) if is_checked else None,
        "seconds": round(result.seconds, 4),
        "timings": {name: round(seconds, 4) for name, seconds in result.timings.items()},
        "settings": settings,
    }


def matches_answer(
    asked: Asked,
    size: tuple[int, int],
    candidate: ImageRecord,
    result: QueryResult,
    hit: Hit | None,
    maps: Any,
) -> dict[str, Any]:
    """Return how a query and one image match."""
    matches = None if hit is None else hit.matches
    return {
        "kind": "heat" if maps is not None else "none" if matches is None else "matches",
        "query": query_answer(asked, size, result),
        "candidate": {"id": candidate.id, "width": candidate.width, "height": candidate.height},
        "verified": hit is not None and hit.verified,
        "n_inliers": None if hit is None else hit.n_inliers,
        "transform": None if hit is None or hit.transform is None else hit.transform.tolist(),
        "outline": None if hit is None else as_lists(hit.outline, 1),
        "matches": as_lists(matches, 1) or [],
        "similarity": None if maps is None else round(float(maps.similarity), 6),
        "maps": None
        if maps is None
        else {
            "query": {"values": as_lists(maps.a, 6), "frame": as_lists(maps.frame_a, 1)},
            "candidate": {"values": as_lists(maps.b, 6), "frame": as_lists(maps.frame_b, 1)},
        },
    }


def json_response(value: Any, status: int = 200, headers: Any = None) -> Any:
    """Return a value as JSON that no cache keeps."""
    from starlette.responses import Response

    # ASCII: ids that are not valid UTF-8 travel as escapes.
    body = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(body, status, all_headers, media_type="application/json")


def jpeg_response(data: bytes) -> Any:
    """Return a picture, which the browser may keep for some minutes."""
    from starlette.responses import Response

    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})
