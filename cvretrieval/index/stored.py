"""What saving means for an index made of immutable segments: a folder that is written once and added to ever after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import StoreError
from cvretrieval.index.index_folder import ArrayFile, ArrayGroup, IndexFolder

Self = TypeVar("Self", bound="StoredIndex")


class StoredSegment(Protocol):
    """A segment as `StoredIndex` sees it: named arrays, and the files of those that lie in its folder."""

    @property
    def files(self) -> Mapping[str, ArrayFile]:
        """Files by the name of the array."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""

    @staticmethod
    def stored(arrays: Mapping[str, NDArray[Any]], files: Mapping[str, ArrayFile]) -> StoredSegment:
        """Return the segment of stored arrays."""


class StoredIndex:
    """An index that can be saved: its classes say what their segments, parameters and facts are."""

    #: Arrays that take long to read, so that opening may leave them unverified.
    _large_arrays: ClassVar[tuple[str, ...]] = ()

    _folder: IndexFolder | None
    #: Arrays that belong to no segment, as they lie in the folder, and their files.
    _shared: Mapping[str, tuple[NDArray[Any], ArrayFile]] = MappingProxyType({})

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys of the vectors that can be found, ascending."""
        keys = np.concatenate([np.empty(0, dtype=np.int64), *(segment.keys for segment in self._segment_list())])
        return np.sort(keys[keys >= 0])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the index to a new folder.

        Its arrays are memory-mapped from there afterwards, and `flush` writes there what changes later.

        Parameters
        ----------
        path : path
            A folder that does not exist, or is empty.

        Returns
        -------
        Path
            The folder, absolute.

        Raises
        ------
        StoreError
            If the folder holds something, or cannot be written.
        """
        folder = IndexFolder.create(path)
        self._commit(folder, is_new=True)
        self._folder = folder
        return folder.path

    def flush(self: Self) -> Self:
        """Write what was added and removed since `save`, `open` or the last `flush`, in one step; return the index.

        Killed at any instant, the folder holds the state before or after it. An index that was never saved has nothing
        to do: what it holds can be searched at once, here as everywhere.

        Raises
        ------
        StoreError
            If the folder cannot be written, or another process has written to it.
        """
        if self._folder is not None:
            self._commit(self._folder, is_new=False)
        return self

    @classmethod
    def open(cls: type[Self], path: str | os.PathLike[str], *, n_jobs: int | None = None, verify: bool = True) -> Self:
        """Open a folder written by `save`.

        Parameters
        ----------
        path : path
            The folder.
        n_jobs : int, optional
            As for the index.
        verify : bool, default=True
            Compare every byte with its checksum, which reads all of it once. False compares the sizes of the large
            arrays only, which are then read when they are needed.

        Raises
        ------
        StoreError
            If it is no index of this class, damaged, or of a newer format.
        """
        folder = IndexFolder(path)
        contents, groups = folder.read_arrays(() if verify else cls._large_arrays)
        found = contents.facts.get("class")
        if found != cls.__name__:
            raise StoreError(f"{folder.path} holds a {found}, not a {cls.__name__}.")
        index = cls._from_facts(contents.facts, groups[0])
        index.set_params(n_jobs=n_jobs)  # type: ignore[attr-defined]
        try:
            index._set_segments(list(zip(groups[1:], contents.groups[1:], strict=True)), contents.facts)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{folder.path} is damaged ({error}). Build the index again.") from error
        index._shared = {name: (array, contents.groups[0][name]) for name, array in groups[0].items()}
        index._folder = folder
        return index

    def _commit(self, folder: IndexFolder, *, is_new: bool) -> None:
        segments = self._segment_list()
        shared, facts = self._to_facts()
        # Arrays that have not changed since they were written.
        known = {name: file for name, (array, file) in self._shared.items() if shared.get(name) is array}
        groups = [ArrayGroup(shared, {} if is_new else known)]
        groups += [ArrayGroup(segment.arrays(), {} if is_new else segment.files) for segment in segments]
        files, *written = folder.write({"class": type(self).__name__, **facts}, groups)
        if not is_new and files == known:
            mapped = shared
        else:
            mapped = folder.map(files)
        self._shared = {name: (mapped[name], file) for name, file in files.items()}
        self._keep_shared(mapped)
        self._replace_segments(
            [
                segment if files == segment.files else segment.stored(folder.map(files), files)
                for segment, files in zip(segments, written, strict=True)
            ]
        )

    # -- what classes say of themselves

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays that belong to no segment, and plain values: parameters and facts."""
        raise NotImplementedError

    def _keep_shared(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Hold the arrays of `_to_facts`, stored; they are written again unless it returns these very ones."""

    @classmethod
    def _from_facts(cls: type[Self], facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> Self:
        """Return an empty index with the parameters of `_to_facts`."""
        raise NotImplementedError

    def _segment_list(self) -> list[Any]:
        raise NotImplementedError

    def _set_segments(
        self, stored: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, ArrayFile]]], facts: Mapping[str, Any]
    ) -> None:
        """Hold segments of stored arrays; ValueError if they do not fit together."""
        raise NotImplementedError

    def _replace_segments(self, segments: list[Any]) -> None:
        """Hold the same segments, stored."""
        raise NotImplementedError


def n_bytes(segments: list[Any]) -> int:
    """Return the size of the arrays of segments."""
    return sum(int(np.asarray(array).nbytes) for segment in segments for array in segment.arrays().values())
