"""Ground truth in a CSV file: query, relevant, junk, hard, box."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cvretrieval.datasets.dataset import Box, Query, RetrievalDataset
from cvretrieval.datasets.folders import folder_name, images_by_id

COLUMNS = ("query", "relevant", "junk", "hard", "box")

#: Sub-folders of these names hold the database when there is one of them.
DATABASE_NAMES = ("database", "reference", "references")


@dataclass
class _Entry:
    """What the rows of one query have said so far; each name with its line."""

    lists: dict[str, dict[str, int]] = field(default_factory=lambda: {"relevant": {}, "junk": {}, "hard": {}})
    box: tuple[Box, int] | None = None


def csv_ground_truth(
    csv_path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    database: str | None = None,
) -> RetrievalDataset:
    """Load a data set whose ground truth is a CSV file.

    Parameters
    ----------
    csv_path : path
        UTF-8 with a header line; columns in any order:

        - ``query`` (required): the query image;
        - ``relevant`` (required): what should be found;
        - ``junk``: what counts neither way;
        - ``hard``: relevant images that are hard to find; they need not be repeated under ``relevant``;
        - ``box``: region of the query, ``"x1,y1,x2,y2"`` in pixels, quoted because of its commas.

        Images are named by POSIX paths relative to `root`. Several are separated by ``;``, or given in several rows of
        the same query, which add up; a name must not be given twice.
    root : path, optional
        Folder of the images; by default the folder of the CSV file.
    database : str, optional
        Sub-folder of `root` whose images are searched. By default the one named ``database``, ``reference`` or
        ``references`` if there is one, else all images under `root`, queries included.

    Returns
    -------
    RetrievalDataset
        A query that is in the database and not listed as relevant to itself is its own junk.

    Raises
    ------
    ValueError
        Naming the line: for unknown files, names given twice, images both relevant and junk, malformed boxes.

    Examples
    --------
    ``ground_truth.csv``::

        query,relevant,junk,box
        queries/1.jpg,database/a.jpg;database/b.jpg,database/c.jpg,"10,20,300,400"
        queries/2.jpg,database/d.jpg,,
        queries/2.jpg,database/e.jpg,,
    """
    source = Path(csv_path)
    folder = source.parent if root is None else Path(root)
    files = images_by_id(folder, folder)
    searched = {image_id: files[image_id] for image_id in _select_database(folder, files, database)}
    reader = _Reader(source, files, searched)
    entries: dict[str, _Entry] = {}
    for line, row in reader.rows():
        reader.add(entries, line, row)
    if not entries:
        raise ValueError(f"{source} has no queries below its header line.")
    queries = tuple(_make_query(name, entry, files, searched) for name, entry in entries.items())
    return RetrievalDataset(folder_name(folder), searched, queries, "csv", ("oxford", "recall@1,5,10"))


@dataclass
class _Reader:
    source: Path
    files: dict[str, Path]
    searched: dict[str, Path]

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        with open(self.source, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            try:
                header = [name.strip().lower() for name in next(lines, [])]
                self._check_header(header)
                for values in lines:
                    if not any(value.strip() for value in values):
                        continue
                    if len(values) > len(header):
                        raise self.error(
                            lines.line_num,
                            f"has {len(values)} fields, the header {len(header)}; quote fields with commas",
                        )
                    yield lines.line_num, {name: value.strip() for name, value in zip(header, values, strict=False)}
            except (csv.Error, UnicodeDecodeError) as error:
                raise self.error(lines.line_num + isinstance(error, UnicodeDecodeError), str(error)) from error

    def _check_header(self, header: list[str]) -> None:
        unknown = [name for name in header if name not in COLUMNS]
        missing = [name for name in ("query", "relevant") if name not in header]
        if unknown or missing or len(set(header)) < len(header):
            raise ValueError(
                f"The header of {self.source} is {','.join(header)!r}; it must hold query and relevant, and may hold "
                "junk, hard and box, each once."
            )

    def add(self, entries: dict[str, _Entry], line: int, row: dict[str, str]) -> None:
        query = self._check_name(line, "query", row.get("query", ""), self.files)
        entry = entries.setdefault(query, _Entry())
        for column, names in entry.lists.items():
            for value in filter(None, (part.strip() for part in row.get(column, "").split(";"))):
                name = self._check_name(line, column, value, self.searched)
                if name in names:
                    raise self.error(
                        line, f"{column} {name!r} of query {query!r} was given in line {names[name]} already"
                    )
                names[name] = line
        both = entry.lists["junk"].keys() & (entry.lists["relevant"].keys() | entry.lists["hard"].keys())
        if both:
            raise self.error(line, f"{min(both)!r} is both relevant and junk for query {query!r}")
        if row.get("box"):
            box = self._parse_box(line, row["box"])
            if entry.box is not None and entry.box[0] != box:
                raise self.error(line, f"query {query!r} has another box than in line {entry.box[1]}")
            entry.box = (box, line)

    def _check_name(self, line: int, column: str, value: str, known: dict[str, Path]) -> str:
        if not value:
            raise self.error(line, f"the {column} is missing")
        name = str(PurePosixPath(value))
        if name in known:
            return name
        if name in self.files:
            raise self.error(line, f"{column} {value!r} is an image but not one of the database")
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise self.error(line, f"{column} {value!r} is not an image of the data set{hint}")

    def _parse_box(self, line: int, text: str) -> Box:
        try:
            x1, y1, x2, y2 = (float(part) for part in text.split(","))
        except ValueError as error:
            raise self.error(line, f"the box is {text!r}, not four numbers x1,y1,x2,y2") from error
        if not (x1 < x2 and y1 < y2):
            raise self.error(line, f"the box {text!r} is empty: x1 < x2 and y1 < y2 must hold")
        return x1, y1, x2, y2

    def error(self, line: int, reason: str) -> ValueError:
        return ValueError(f"{self.source}, line {line}: {reason}.")


def database_folder(root: Path) -> Path | None:
    """Return the sub-folder that is named like a database, if there is one."""
    found = [child for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in DATABASE_NAMES]
    if len(found) > 1:
        raise ValueError(f"{root} has {' and '.join(child.name for child in found)}: which one is the database?")
    return found[0] if found else None


def _select_database(root: Path, files: dict[str, Path], name: str | None) -> list[str]:
    if name is None:
        folder = database_folder(root)
        if folder is None:
            return list(files)
        name = folder.name
    prefix = f"{PurePosixPath(name)}/"
    selected = [image_id for image_id in files if image_id.startswith(prefix)]
    if not selected:
        raise ValueError(f"There are no images in {root / name}, which should hold the database.")
    return selected


def _make_query(name: str, entry: _Entry, files: dict[str, Path], searched: dict[str, Path]) -> Query:
    hard = frozenset(entry.lists["hard"])
    relevant = frozenset(entry.lists["relevant"]) | hard
    own_id = name if name in searched else None
    junk = frozenset(entry.lists["junk"])
    if own_id is not None and own_id not in relevant:
        junk |= {own_id}
    return Query(name, files[name], relevant, junk, hard, own_id, entry.box[0] if entry.box else None)
