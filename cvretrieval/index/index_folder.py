"""Indexes on disk: a folder of arrays, and one small file that names them.

``index.json``        class and parameters of the index, and the files of its arrays, group by group, with the size and
                      BLAKE2b digest of each; with a digest of itself
``00000007-keys.npy`` an array in NumPy's format, written once, memory-mapped ever after

Arrays are on disk before ``index.json`` names them, and that is replaced in one step: killed at any instant, a writer
leaves the last committed state. What ``index.json`` does not name does not exist, and goes with the next commit. One
process at a time may write; a second one is refused when it commits. Any number may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._durable import TEMPORARY, file_digest, replace_file
from cvretrieval._npy_file import read_npy, write_npy
from cvretrieval._validation import StoreError
from cvretrieval._version import __version__

#: Version of the format; a folder of a newer one is refused.
FORMAT = 1

_KIND = "cvretrieval vectors"
_DESCRIPTION = "index.json"
# A reader meets a commit once at most; more often than this, something else is wrong.
_ATTEMPTS = 10


@dataclass(frozen=True)
class ArrayFile:
    """One array on disk: name, size in bytes and digest of its file."""

    name: str
    n_bytes: int
    digest: str


@dataclass(frozen=True)
class ArrayGroup:
    """Arrays that belong together, and the files of those that lie in the folder already."""

    arrays: Mapping[str, NDArray[Any]]
    files: Mapping[str, ArrayFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What a folder holds: facts about the index, the number of the commit, and the files of its groups."""

    facts: dict[str, Any]
    commit: int
    groups: tuple[dict[str, ArrayFile], ...]


class IndexFolder:
    """A folder that holds an index, as one writer or reader sees it.

    Attributes
    ----------
    path : Path
        Absolute.
    commit : int
        Number of the last commit seen.
    """

    def __init__(self, path: str | os.PathLike[str], commit: int = 0) -> None:
        self.path = Path(os.path.abspath(path))
        self.commit = commit

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> IndexFolder:
        """Make a new folder.

        Raises
        ------
        StoreError
            If it exists and is not empty, or cannot be made.
        """
        folder = cls(path)
        try:
            folder.path.mkdir(exist_ok=True)
            if any(folder.path.iterdir()):
                raise StoreError(f"{folder.path} exists already and is not empty. Choose a new folder for the index.")
        except OSError as error:
            raise StoreError(f"The folder {folder.path} cannot be made ({error.strerror or error}).") from error
        return folder

    def write(self, facts: Mapping[str, Any], groups: Sequence[ArrayGroup]) -> list[dict[str, ArrayFile]]:
        """Commit a new state and return the files of its groups; arrays that are in the folder are not written again.

        Raises
        ------
        StoreError
            If the folder cannot be written, or another process has written to it. What was committed stays.
        """
        number = 0
        if self.commit:
            contents = self.read()
            if contents.commit != self.commit:
                raise StoreError(
                    f"{self.path} was written to by another process meanwhile. Open it again to see what it holds now."
                )
            number = max(
                (int(file.name.partition("-")[0]) for group in contents.groups for file in group.values()), default=0
            )
        written: list[dict[str, ArrayFile]] = []
        for group in groups:
            number += 1
            files = {}
            for name, array in group.arrays.items():
                files[name] = group.files.get(name) or self._write_array(f"{number:08d}-{name}.npy", array)
            written.append(files)
        description = {
            "kind": _KIND,
            "format": FORMAT,
            "versions": {"cvretrieval": __version__, "numpy": np.__version__},
            "facts": dict(facts),
            "commit": self.commit + 1,
            "groups": [
                {name: [file.name, file.n_bytes, file.digest] for name, file in files.items()} for files in written
            ],
        }
        data = json.dumps({**description, "digest": _digest(description)}, indent=1).encode()
        replace_file(self.path / _DESCRIPTION, lambda file: file.write(data))
        self.commit += 1
        self._clear({file.name for files in written for file in files.values()})
        return written

    def read(self) -> Contents:
        """Return what the folder holds.

        Raises
        ------
        StoreError
            If it is no index, damaged, or of a newer format.
        """
        path = self.path / _DESCRIPTION
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            if description["kind"] != _KIND:
                raise ValueError("another kind of file")
            if description["format"] > FORMAT:
                raise StoreError(
                    f"{self.path} has format {description['format']}, but this cvretrieval ({__version__}) reads "
                    f"formats up to {FORMAT}; upgrade it with: pip install -U cvretrieval"
                )
            if description.pop("digest") != _digest(description):
                raise ValueError("its checksum is wrong")
            groups = tuple({name: ArrayFile(*file) for name, file in files.items()} for files in description["groups"])
            return Contents(description["facts"], int(description["commit"]), groups)
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} does not exist or is no index of vectors: it has no {path.name}.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged ({error}). {_WAY_OUT}") from error

    def read_arrays(self, unverified: Sequence[str] = ()) -> tuple[Contents, list[dict[str, NDArray[Any]]]]:
        """Return the contents and the arrays, group by group: compared with their digests, large ones memory-mapped.

        `unverified` names arrays of which only the size is compared, for they take long to read.

        Raises
        ------
        StoreError
            If a file is missing or damaged.
        """
        for attempt in range(_ATTEMPTS):
            contents = self.read()
            try:
                arrays = [
                    {name: self._read_array(file, name not in unverified) for name, file in files.items()}
                    for files in contents.groups
                ]
            except FileNotFoundError as error:
                # Another process may have committed since, and deleted what it does not need any more.
                if attempt < _ATTEMPTS - 1 and self.read().commit != contents.commit:
                    continue
                raise StoreError(f"{error.filename} is missing. {_WAY_OUT}") from error
            self.commit = contents.commit
            return contents, arrays
        raise StoreError(f"{self.path} is being written to all the time; try again.")

    def map(self, files: Mapping[str, ArrayFile]) -> dict[str, NDArray[Any]]:
        """Return the arrays of files that were just written."""
        return {name: self._read_array(file, verify=False) for name, file in files.items()}

    def _write_array(self, name: str, array: NDArray[Any]) -> ArrayFile:
        n_bytes, digest = replace_file(self.path / name, partial(write_npy, array))
        return ArrayFile(name, n_bytes, digest.hex())

    def _read_array(self, file: ArrayFile, verify: bool) -> NDArray[Any]:
        path = self.path / file.name
        try:
            array = read_npy(path, file.n_bytes)
            if verify and file_digest(path).hex() != file.digest:
                raise ValueError("its checksum is wrong")
            return array
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise StoreError(f"{path} is damaged ({error}). {_WAY_OUT}") from error

    def _clear(self, named: set[str]) -> None:
        """Delete what is not named any more; readers that have it mapped keep it."""
        for child in self.path.iterdir():
            is_array = re.fullmatch(r"\d{8,}-\w+\.npy", child.name) is not None
            if child.name.startswith(TEMPORARY) or (is_array and child.name not in named):
                # Where a mapped file cannot be deleted, it goes with a later commit.
                with contextlib.suppress(OSError):
                    child.unlink()


def _digest(description: Mapping[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


_WAY_OUT = "Restore it from a copy, or build the index again."
