"""Tables in text files, with columns separated by white space, as most public sets bring them."""

from __future__ import annotations

from pathlib import Path

from cvretrieval.datasets.benchmarks.public_set import PublicSet


def read_table(public: PublicSet, file: Path, n_columns: int, *, n_header: int = 0) -> list[list[str]]:
    """Read the rows below a header; every row must have its columns."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise public.error(f"{file} is not text ({error}).") from error
    rows = []
    for number, line in enumerate(lines[n_header:], start=n_header + 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != n_columns:
            raise public.error(f"{file}, line {number}: {line!r} has {len(fields)} columns, not {n_columns}.")
        rows.append(fields)
    return rows
