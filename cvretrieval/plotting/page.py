"""The shell of a report: one HTML file that asks nothing of the network and trusts nothing that is written into it."""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from cvretrieval._version import __version__

# Lone surrogates (names that are not valid UTF-8) cannot be written, control characters are not allowed in HTML, and
# bidirectional overrides make a name look like another.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def printable(text: Any) -> str:
    """Return text in which every character that cannot be shown, or that misleads, is a replacement character."""
    return _UNPRINTABLE.sub("\ufffd", str(text))


def escape(text: Any) -> str:
    """Make any text safe in HTML content and in quoted attributes."""
    return html.escape(printable(text), quote=True)


def embed_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in; strings survive exactly."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def format_seconds(seconds: float) -> str:
    """Return e.g. ``"0.4 ms"``, ``"120 ms"``, ``"1.24 s"``."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return e.g. ``"1 image"``, ``"1,200 images"``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def definition_list(facts: Mapping[str, Any]) -> str:
    """Return names and values as an HTML description list."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def render_page(*, title: str, body: str, sprite: str, data: Any, kind: str) -> str:
    """Fill the page template with escaped fragments.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        HTML of the main part, escaped by its author.
    sprite : str
        SVG definitions of the images, from `ThumbnailSheet`.
    data : object
        What the script needs, embedded as JSON.
    kind : {"search", "match", "classification", "evaluation", "duplicates", "training"}
        Tells the style and the script which report it is.
    """
    style, script = _asset("look.css") + _asset("report.css"), _asset("report.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    written = datetime.now().astimezone()
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        policy=escape(policy),
        style=style,
        script=script,
        body=body,
        sprite=sprite,
        data=embed_json(data),
        kind=escape(kind),
        version=escape(__version__),
        written=escape(f"{written:%d %B %Y, %H:%M}").lstrip("0"),
        written_iso=escape(written.isoformat(timespec="seconds")),
    )


def write_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page so that readers see the old file or the new one, never half of one.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If it cannot be written; an old report is kept as it was.
    """
    given = Path(path)
    target = given.resolve()  # a link stays a link
    data = text.encode("utf-8", errors="replace")
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "is a folder; give the report a file name such as report.html", str(given)
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"cannot be written: the folder {str(given.parent)!r} does not exist", str(given)
        )
    if target.exists() and not target.is_file():
        target.write_bytes(data)  # a pipe or /dev/null must not be replaced by a file
        return given
    temporary = target.with_name(f".cvretrieval-{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return given


def _asset(name: str) -> str:
    return (resources.files("cvretrieval.plotting") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
