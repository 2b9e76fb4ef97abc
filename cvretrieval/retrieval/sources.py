"""From what users give (folders, files, arrays) to images with ids, and which of them are new."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvretrieval._validation import ImageReadError
from cvretrieval.images import describe_source, find_images
from cvretrieval.remote_files import absolute, find_urls, is_folder, is_url, stamp_urls


@dataclass(frozen=True, eq=False)
class Source:
    """One image to be indexed.

    Attributes
    ----------
    id : str
        Its name in the index.
    image : object
        What the reader reads.
    path : str or None
        Absolute path, for files, or URL.
    size, mtime_ns : int
        Of the file, to recognise an unchanged one (of a URL a number that stands for its version); 0 for other images.
    known : bool
        Whether the index holds an image of this id, to be replaced.
    """

    id: str
    image: Any
    path: str | None = None
    size: int = 0
    mtime_ns: int = 0
    known: bool = False


@dataclass
class Plan:
    """What an `add` has to do."""

    sources: list[Source] = field(default_factory=list)
    n_unchanged: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def expand_images(X: Any, ids: Sequence[str] | None) -> tuple[list[tuple[str | None, Any, str]], list[tuple[str, str]]]:
    """List the images of `X` as (id or None, image, name of the folder it was found under), and what failed.

    Folders are searched; their images are named by their path within the folder, files given by themselves by their
    path as given, and all that URLs name by their URL.
    """
    given = [X] if isinstance(X, (str, os.PathLike)) else list(X)
    if ids is not None:
        ids = [str(name) for name in ids]
        if len(ids) != len(given):
            raise ValueError(f"There are {len(given)} images, but {len(ids)} ids.")
        twice = {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else set()
        if twice:
            raise ValueError(f"ids must be unique. Given twice: {', '.join(sorted(twice)[:5])}.")
    images: list[tuple[str | None, Any, str]] = []
    problems: list[ImageReadError] = []
    for i, image in enumerate(given):
        if isinstance(image, str) and is_url(image):
            if not is_folder(image):
                images.append((ids[i] if ids is not None else image, image, ""))
                continue
            if ids is not None:
                raise ValueError(f"ids name single images, but {image} is a folder.")
            try:
                images += [(url, url, "") for url in find_urls(image)]
            except ImageReadError as problem:
                problems.append(problem)
        elif isinstance(image, (str, os.PathLike)) and os.path.isdir(image):
            if ids is not None:
                raise ValueError(f"ids name single images, but {os.fspath(image)} is a folder.")
            root = Path(image)
            found = find_images(root, problems.append)
            images += [(file.relative_to(root).as_posix(), file, Path(os.path.realpath(root)).name) for file in found]
        elif isinstance(image, (str, os.PathLike)):
            path = Path(image)
            folder = Path(os.path.realpath(path)).parent.name  # unlike Path.resolve, it takes loops of links
            images.append((ids[i] if ids is not None else path.as_posix(), image, folder))
        else:
            images.append((ids[i] if ids is not None else None, image, ""))
    return images, [(problem.source, problem.reason) for problem in problems]


def plan(X: Any, ids: Sequence[str] | None, records: Iterable[Any]) -> Plan:
    """Decide which images are new, which have changed and which can be skipped.

    Parameters
    ----------
    X : path of a folder or file, or sequence of paths, arrays, …
    ids : sequence of str, optional
        One id per image; without it files are named by their paths and other images are numbered.
    records : iterable of ImageRecord
        What the index holds, failed images included.

    Notes
    -----
    A file is known by its absolute path, or its URL. If its name is taken by another file that still exists, it is
    named ``folder/name`` instead, then ``folder/name (2)`` and so on; so two folders with equal names inside can be
    indexed together, and a folder that was moved keeps its ids. Files that failed before are tried again.
    """
    images, failures = expand_images(X, ids)
    result = Plan(failures=failures)
    by_id = {record.id: record for record in records}
    by_path = {record.path: record for record in by_id.values() if record.path is not None}
    taken: dict[str, str | None] = {name: record.path for name, record in by_id.items()}
    urls = list(dict.fromkeys(image for _, image, _ in images if is_url(image)))
    stamps = dict(zip(urls, stamp_urls(urls), strict=True))
    seen: set[str] = set()
    n_numbered = len(by_id)
    for name, image, folder in images:
        if not isinstance(image, (str, os.PathLike)):
            if name is None:
                n_numbered += 1
                while f"image-{n_numbered:06d}" in taken:
                    n_numbered += 1
                name = f"image-{n_numbered:06d}"  # noqa: PLW2901
            if name in taken:
                raise ValueError(f"{name!r} ({describe_source(image)}) is in the index already; remove it first.")
            taken[name] = None
            result.sources.append(Source(name, image))
            continue
        path = absolute(image)
        if path in seen:
            continue
        seen.add(path)
        size, mtime_ns = stamps[path] if path in stamps else _stamp(path)
        record = by_path.get(path)
        if record is not None and (ids is None or record.id == name):
            if record.status != "failed" and (record.size, record.mtime_ns) == (size, mtime_ns):
                result.n_unchanged += 1
                continue
            result.sources.append(Source(record.id, image, path, size, mtime_ns, known=True))
            continue
        name = _free_name(str(name), folder, path, taken) if ids is None else str(name)  # noqa: PLW2901
        taken[name] = path
        result.sources.append(Source(name, image, path, size, mtime_ns, known=name in by_id))
    return result


def _free_name(name: str, folder: str, path: str, taken: Mapping[str, str | None]) -> str:
    def is_free(candidate: str) -> bool:
        holder = taken.get(candidate)
        # A holder that is gone was moved or deleted: the new file takes its place.
        is_gone = holder is not None and not is_url(holder) and not os.path.lexists(holder)
        return candidate not in taken or holder == path or is_gone

    candidate, n = name, 1
    while not is_free(candidate):
        candidate = f"{folder}/{name}" if n == 1 and folder else f"{folder}/{name} ({n})".lstrip("/")
        n += 1
    return candidate


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0  # reading it will say why
    return status.st_size, status.st_mtime_ns
