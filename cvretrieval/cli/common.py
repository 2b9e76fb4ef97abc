"""Options and printing shared by the commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

IndexArgument = Annotated[
    Path, typer.Argument(help="The index, a folder made by `cvretrieval index`.", metavar="INDEX")
]


def _check_jobs(value: int) -> int:
    if value == 0:
        raise typer.BadParameter("must not be 0; 1 works serially, -1 takes all processors.")
    return value


JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", callback=_check_jobs, help="Threads; -1 takes all processors.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class OnError(str, Enum):
    """What an unreadable image does."""

    skip = "skip"
    raise_ = "raise"


OnErrorOption = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="skip: go on, name the unreadable images at the end and exit with 1; raise: stop at the first.",
    ),
]


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None, align: str = "") -> str:
    """Lay out rows in columns; `align` holds < or > per column."""
    # File names may hold line breaks and escape sequences for the terminal.
    cells = [[_CONTROL.sub(lambda found: repr(found[0])[1:-1], str(value)) for value in row] for row in rows]
    if header is not None:
        cells.insert(0, list(header))
    if not cells:
        return ""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    sides = align.ljust(len(widths), "<")
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Print to standard error: for people, never part of the output proper."""
    print(text, file=sys.stderr)


def check_report(path: Path | None) -> None:
    """Refuse a report that cannot be written before the work is done rather than after."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ValueError(f"The folder {path.parent} for the report does not exist.")


def report_failures(failures: Sequence[tuple[str, str]], what: str = "image") -> None:
    """Name the inputs that failed and end with status 1; return if there are none."""
    if not failures:
        return
    say(f"\n{len(failures)} {what}{'s' if len(failures) > 1 else ''} could not be read:")
    say(table(failures))
    raise typer.Exit(1)


def human_bytes(n_bytes: float) -> str:
    """Return e.g. ``"12.3 MB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def check_found(paths: Iterable[str | Path], found: Sequence[Any]) -> None:
    """Raise a ValueError where the folders and files that were named hold no images, readable or not."""
    if not found:
        named = ", ".join(map(str, paths)) or "nothing"
        raise ValueError(f"No images in {named}, nor in folders below: no file has a suffix such as .jpg or .png.")
