"""The interface in OpenAPI's words: the forms, and the errors."""

from __future__ import annotations

from typing import Any

_DETAIL = {
    "application/json": {
        "schema": {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
    }
}
_MEANING = {
    400: "It cannot be understood.",
    401: "The token is missing.",
    403: "It comes from another site, or asks for another host.",
    404: "There is no such image.",
    413: "The photo has too many bytes.",
    415: "The photo cannot be read.",
    422: "A field has a wrong value.",
    503: "The index cannot be read, or too many searches wait.",
}


def errors(*statuses: int) -> dict[int | str, Any]:
    """Return the descriptions of errors; those that any request may meet are among them."""
    found = sorted({400, 401, 403, *statuses})
    return {status: {"description": _MEANING[status], "content": _DETAIL} for status in found}


ERRORS = errors(404, 413, 415, 422, 503)

_WHAT = {
    "photo": {"type": "string", "format": "binary", "description": "The photo to search with."},
    "query": {"type": "string", "description": "Or the key of one that was sent before."},
    "id": {"type": "string", "description": "Or the id of an indexed image."},
    "box": {
        "type": "string",
        "description": "Search for a region: x1,y1,x2,y2 in pixels (left, top, right, bottom).",
        "example": "100,80,300,240",
    },
}


def _form(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def fields_of(form: dict[str, Any]) -> set[str]:
    """Return the names of the fields of a form."""
    return set(form["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"])


SEARCH_FORM = _form(
    {
        **_WHAT,
        "k": {"type": "integer", "minimum": 1, "maximum": 200, "description": "Length of the ranked list."},
        "verify": {"type": "boolean", "description": "Verify the best candidates by geometry."},
        "expand": {"type": "boolean", "description": "Expand the query by the best results and ask again."},
    },
    [],
)

MATCHES_FORM = _form(
    {**_WHAT, "candidate": {"type": "string", "description": "Id of the image to compare with."}}, ["candidate"]
)
