"""What all loaders of public sets share: finding files, counting them, and saying what is missing and where it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvretrieval._validation import check_flag
from cvretrieval.datasets.dataset import Box, Query, RetrievalDataset
from cvretrieval.images import find_images

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class PublicSet:
    """A public set of images: its name, its official layout, and where it is to be had.

    Attributes
    ----------
    title : str
        Its name in messages and beside figures.
    layout : str
        What its folder must hold, a phrase that ends with a full stop.
    where : str
        Address of the page or the files, ending likewise.
    """

    title: str
    layout: str
    where: str

    def error(self, problem: str) -> ValueError:
        """Return an error that says what is wrong, what the layout is, and where the data is to be had."""
        return ValueError(f"{problem} {self.title} is laid out as {self.layout} Get it from {self.where}")

    def root(self, path: Folder) -> Path:
        """Return the folder of the set, which must exist."""
        root = Path(path)
        if not root.is_dir():
            raise self.error(f"{root} is not a folder." if root.exists() else f"{root} does not exist.")
        return root

    def folder(self, root: Path, *names: str) -> Path:
        """Return the first of some sub-folders that exists; ``"."`` is the folder itself."""
        return self._first(root, names, Path.is_dir, "folder")

    def file(self, root: Path, *names: str) -> Path:
        """Return the first of some files that exists."""
        return self._first(root, names, Path.is_file, "file")

    def _first(self, root: Path, names: Iterable[str], exists: object, kind: str) -> Path:
        for name in names:
            found = root / name
            if exists(found):  # type: ignore[operator]
                return found
        shown = [name for name in names if name != "."]
        raise self.error(f"{root} has no {kind} {' or '.join(shown)}.")

    def images(self, folder: Path) -> list[Path]:
        """List the images under a folder, of which there must be some."""
        files = find_images(folder)
        if not files:
            raise self.error(f"{folder} has no images.")
        return files

    def check_count(self, what: str, found: int, expected: int, *, complete: bool) -> None:
        """Check a number of things, unless a part of the set is asked for."""
        if complete and found != expected:
            missing = f"{expected - found:,} are missing" if found < expected else f"{found - expected:,} are too many"
            raise self.error(
                f"{self.title} has {expected:,} {what}, but {found:,} were found: {missing} "
                "(complete=False loads what there is)."
            )

    def present(self, files: Mapping[str, Path], *, complete: bool) -> dict[str, Path]:
        """Return the listed files that exist; if the set is to be complete, all must."""
        there = {name: file for name, file in files.items() if file.is_file()}
        if complete and len(there) < len(files):
            missing = [file for name, file in files.items() if name not in there]
            raise self.error(
                f"{missing[0]} is missing" + (f", and {len(missing) - 1:,} other images" if missing[1:] else "") + " "
                "(complete=False loads what there is)."
            )
        return there


@dataclass(frozen=True)
class Labels:
    """What a loader has read, before it is checked against what the set should have.

    Attributes
    ----------
    database : mapping of str to Path
        Existing files.
    queries : sequence of Query
        Of complete ground truth: it may name images that are not in `database`.
    n_database, n_queries : int or None
        What the complete set has; None: not known.
    """

    database: Mapping[str, Path]
    queries: list[Query]
    form: str
    protocols: tuple[str, ...]
    n_database: int | None = None
    n_queries: int | None = None
    boxes: Mapping[str, Box] = field(default_factory=dict)


def make_dataset(public: PublicSet, labels: Labels, *, complete: bool) -> RetrievalDataset:
    """Check what was read and make the data set of it.

    If the set is to be complete, all counts must be right and all images named must be there. If not, what is missing
    is left out of the database, the queries and the ground truth, and the name says that it is a part.
    """
    check_flag(public.title, "complete", complete)
    database, queries = labels.database, labels.queries
    named = {name for query in queries for name in query.relevant | query.junk}
    absent = named - database.keys()
    if complete and absent:
        raise public.error(
            f"The ground truth of {public.title} names {min(absent)!r}"
            + (f" and {len(absent) - 1:,} other images" if len(absent) > 1 else "")
            + ", which are not there (complete=False loads what there is)."
        )
    for what, found, expected in (
        ("database images", len(database), labels.n_database),
        ("queries", len(queries), labels.n_queries),
    ):
        if expected is not None:
            public.check_count(what, found, expected, complete=complete)
    name = public.title if complete else f"{public.title}, {len(database):,} images"
    if absent:
        queries = [_without(query, absent) for query in queries]
    if not complete:
        queries = [query for query in queries if query.path.is_file()]
    if not database or not queries:
        raise public.error(f"There are {len(database)} database images and {len(queries)} queries.")
    boxes = {image_id: box for image_id, box in labels.boxes.items() if image_id in database}
    return RetrievalDataset(name, database, tuple(queries), labels.form, labels.protocols, boxes)


def _without(query: Query, absent: set[str]) -> Query:
    own_id = None if query.own_id in absent else query.own_id
    return replace(
        query, relevant=query.relevant - absent, junk=query.junk - absent, hard=query.hard - absent, own_id=own_id
    )


def label_queries(
    queries: Mapping[str, Path],
    labels: Mapping[str, object],
    database: Iterable[str],
    boxes: Mapping[str, Box] | None = None,
) -> list[Query]:
    """Make queries for images with class labels: relevant are the images of the database with the same label.

    Parameters
    ----------
    queries : mapping of str to Path
        Id → file. A query that is in the database is its own junk.
    labels : mapping of str to label
        Of queries and database.
    database : iterable of str
    boxes : mapping of str to box, optional
    """
    members: dict[object, set[str]] = {}
    in_database = set()
    for image_id in database:
        members.setdefault(labels[image_id], set()).add(image_id)
        in_database.add(image_id)
    # Members of a class share one set; the query itself is taken out of a copy.
    frozen = {label: frozenset(ids) for label, ids in members.items()}
    found = []
    for query_id, path in queries.items():
        relevant = frozen.get(labels[query_id], frozenset())
        box = None if boxes is None else boxes.get(query_id)
        if query_id in in_database:
            own = frozenset({query_id})
            found.append(Query(query_id, path, relevant - own, own, own_id=query_id, box=box))
        else:
            found.append(Query(query_id, path, relevant, box=box))
    return found


def beside(root: Path, *names: str) -> Path | None:
    """Return the first of some folders that lies in a folder or beside it, where distractors are usually kept."""
    for name in names:
        for parent in (root, root.absolute().parent):
            if (parent / name).is_dir():
                return parent / name
    return None
