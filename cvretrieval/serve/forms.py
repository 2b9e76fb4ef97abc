"""Multipart forms, read into memory within a limit: nothing that is sent ever reaches a disk."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Container, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cvretrieval.serve.problems import Problem

#: Bytes of a form besides its photo.
_REST = 100_000


async def read_form(request: Any, most_bytes: int, known: Container[str]) -> dict[str, Any]:
    """Return the fields of a form, of those that are `known`: str, or (name, bytes) of files.

    Raises
    ------
    Problem
    """
    from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

    class InMemory(MultiPartParser):
        # The names of two generations of Starlette.
        spool_max_size = max_file_size = most_bytes + _REST

    too_large = Problem(413, f"A photo may have {most_bytes / 1e6:.0f} MB at most.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes + _REST:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes + _REST:
            raise too_large

    async def once() -> AsyncGenerator[bytes, None]:
        yield bytes(body)
        yield b""

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise Problem(400, "Send a form: multipart/form-data, as `curl -F photo=@query.jpg` does.")
    parser = InMemory if kind == "multipart/form-data" else FormParser
    try:
        form = await parser(request.headers, once()).parse()
    except (MultiPartException, ValueError, KeyError, UnicodeDecodeError) as error:
        raise Problem(400, f"The form cannot be read ({getattr(error, 'message', error)}).") from error
    fields: dict[str, Any] = {}
    async with _closing(form):
        for name, value in form.multi_items():
            if name not in known:
                raise Problem(422, f"There is no field {name!r}.")
            if name in fields:
                raise Problem(400, f"The field {name!r} was sent twice.")
            fields[name] = value if isinstance(value, str) else (value.filename or "photo", await value.read())
    if any(isinstance(value, tuple) and len(value[1]) > most_bytes for value in fields.values()):
        raise too_large
    return fields


@asynccontextmanager
async def _closing(form: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await form.close()


def text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is text; None if it is not there, or empty."""
    value = fields.get(name)
    if isinstance(value, tuple):
        raise Problem(400, f"The field {name!r} is text, not a file.")
    return value or None


def whole_number(fields: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """Return a field that is a number in a range."""
    value = text(fields, name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise Problem(422, f"The field {name!r} is a number from {low} to {high}. Got {value!r}.")
    return number


def flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return a field that is true or false."""
    value = text(fields, name)
    if value is None:
        return default
    if value.lower() not in ("true", "false", "1", "0", "on", "off"):
        raise Problem(422, f"The field {name!r} is true or false. Got {value!r}.")
    return value.lower() in ("true", "1", "on")


def region(fields: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return the field ``box``: x1,y1,x2,y2."""
    value = text(fields, "box")
    if value is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in value.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not (all(map(math.isfinite, (x1, y1, x2, y2))) and x1 < x2 and y1 < y2):
        raise Problem(422, f"The field 'box' is x1,y1,x2,y2 in pixels: left, top, right, bottom. Got {value!r}.")
    return x1, y1, x2, y2
