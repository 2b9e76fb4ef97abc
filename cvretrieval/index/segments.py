"""The vectors of an index: segments of rows, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvretrieval.index.index_folder import ArrayFile

S = TypeVar("S", bound="RowSegment")


class RowSegment:
    """Consecutive rows of an index: arrays with one entry per row, named by `_types`.

    Attributes
    ----------
    vectors : ndarray of shape (n_rows, n_columns)
        C-contiguous, read-only.
    keys : ndarray of shape (n_rows,)
        int64; -1 for rows that must not be found.
    is_mapped : bool
        The vectors lie in a file that somebody else keeps.
    files : mapping
        Files of the arrays that lie in the folder of the index.
    """

    _types: ClassVar[dict[str, Any]]

    vectors: NDArray[Any]
    keys: NDArray[np.int64]
    is_mapped: bool
    files: Mapping[str, ArrayFile]

    def __post_init__(self) -> None:
        # Also spares a second compilation of the kernels: numba tells read-only arrays from others.
        self.vectors.setflags(write=False)

    def __len__(self) -> int:
        return len(self.keys)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in self._types}

    @classmethod
    def of(cls: type[S], arrays: Mapping[str, NDArray[Any]], files: Mapping[str, ArrayFile] | None = None) -> S:
        """Return a segment of arrays by name."""
        return cls(**{name: arrays[name] for name in cls._types}, files=files or {})  # type: ignore[call-arg]

    @classmethod
    def empty(cls: type[S], n_columns: int) -> S:
        """Return a segment without rows."""
        shapes = {name: (0, n_columns) if name == "vectors" else (0,) for name in cls._types}
        return cls.of({name: np.empty(shapes[name], dtype=kind) for name, kind in cls._types.items()})

    @classmethod
    def stored(cls: type[S], arrays: Mapping[str, NDArray[Any]], files: Mapping[str, ArrayFile]) -> S:
        """Return a segment of stored arrays; ValueError if they do not fit together."""
        segment = cls.of(arrays, files)
        kinds = [array.dtype for array in segment.arrays().values()]
        lengths = {array.shape[:1] for array in segment.arrays().values()}
        if kinds != list(cls._types.values()) or len(lengths) > 1 or segment.vectors.ndim != 2:
            raise ValueError(f"arrays of {kinds} with lengths {lengths}")
        return segment

    def __getitem__(self: S, rows: Any) -> S:
        return self.of({name: array[rows] for name, array in self.arrays().items()})

    @staticmethod
    def join(parts: list[S]) -> S:
        """Return the rows of all parts, copied into memory; a single part is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        return parts[0].of(
            {name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0].arrays()}
        )


@dataclass(frozen=True, eq=False)
class Segment(RowSegment):
    """Dense vectors: float32, with their norms, float64 of shape (n_rows,)."""

    _types: ClassVar[dict[str, Any]] = {"vectors": np.float32, "keys": np.int64, "norms": np.float64}

    vectors: NDArray[np.float32]
    keys: NDArray[np.int64]
    norms: NDArray[np.float64]
    is_mapped: bool = False
    files: Mapping[str, ArrayFile] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BinarySegment(RowSegment):
    """Binary vectors, 64 bits a column."""

    _types: ClassVar[dict[str, Any]] = {"vectors": np.uint64, "keys": np.int64}

    vectors: NDArray[np.uint64]
    keys: NDArray[np.int64]
    is_mapped: bool = False
    files: Mapping[str, ArrayFile] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CodeSegment(RowSegment):
    """Vectors in product codes, a byte a column."""

    _types: ClassVar[dict[str, Any]] = {"vectors": np.uint8, "keys": np.int64}

    vectors: NDArray[np.uint8]
    keys: NDArray[np.int64]
    is_mapped: bool = False
    files: Mapping[str, ArrayFile] = field(default_factory=dict)


class Segments(Generic[S]):
    """An immutable sequence of segments: what one search sees, whatever is added or removed meanwhile.

    Rows are numbered through all segments.

    Attributes
    ----------
    n_rows, n_live : int
        Number of rows, and of those that can be found.
    largest_key : int
        No key is larger; -1 without any.
    """

    def __init__(self, segments: tuple[S, ...] = (), n_rows: int = 0, n_live: int = 0, largest_key: int = -1):
        self.segments = segments
        self.n_rows = n_rows
        self.n_live = n_live
        self.largest_key = largest_key

    def add(self, new: S) -> Segments[S]:
        """Return these segments and a new one, whose keys are new."""
        n_rows = self.n_rows + len(new)
        n_live = self.n_live + int(np.count_nonzero(new.keys >= 0))
        largest_key = max(self.largest_key, int(new.keys.max()))
        segments = list(self.segments)
        # Small additions in memory are joined with their neighbours of at most the same size, as a binary counter
        # carries: each row is copied a logarithmic number of times, and search meets few segments.
        while segments and not new.is_mapped and not segments[-1].is_mapped and len(segments[-1]) <= len(new):
            new = new.join([segments.pop(), new])
        return Segments((*segments, new), n_rows, n_live, largest_key)

    def remove(self, rows: NDArray[np.int64]) -> Segments[S]:
        """Return these segments with rows, ascending, that cannot be found any more."""
        segments = list(self.segments)
        for number, local in self._by_segment(rows):
            keys = segments[number].keys.copy()
            keys[local] = -1
            files = {name: file for name, file in segments[number].files.items() if name != "keys"}
            segments[number] = replace(segments[number], keys=keys, files=files)  # type: ignore[type-var]
        left: Segments[S] = Segments(tuple(segments), self.n_rows, self.n_live - len(rows), self.largest_key)
        keys, places = self.lookup
        kept = ~np.isin(places, rows, assume_unique=True)
        left.lookup = keys[kept], places[kept]
        return left

    def compact(self) -> Segments[S]:
        """Return one segment with the rows in memory that can be found, and the mapped segments that have any."""
        owned = [s[np.flatnonzero(s.keys >= 0)] for s in self.segments if not s.is_mapped]
        owned = [segment for segment in owned if len(segment)]
        compacted: Segments[S] = Segments()
        for segment in self.segments:
            if segment.is_mapped and (segment.keys >= 0).any():
                compacted = compacted.add(segment)
        return compacted.add(owned[0].join(owned)) if owned else compacted

    @classmethod
    def of(cls, segments: list[S]) -> Segments[S]:
        """Return segments as they are, not joined."""
        keys = [segment.keys for segment in segments if len(segment)]
        return cls(
            tuple(segments),
            sum(len(segment) for segment in segments),
            sum(int(np.count_nonzero(part >= 0)) for part in keys),
            max((int(part.max()) for part in keys), default=-1),
        )

    @cached_property
    def lookup(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The keys that can be found, ascending, and their rows."""
        keys = np.concatenate([np.empty(0, dtype=np.int64), *(segment.keys for segment in self.segments)])
        rows = np.flatnonzero(keys >= 0)
        order = rows[np.argsort(keys[rows], kind="stable")]
        return keys[order], order

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(len(segment) for segment in self.segments)], dtype=np.int64)

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key, -1 for keys that are not there."""
        own, rows = self.lookup
        if not len(own):
            return np.full(len(keys), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(own, keys), len(own) - 1)
        return np.where(own[places] == keys, rows[places], -1)

    def take(self, rows: NDArray[np.int64]) -> S:
        """Return some rows, given in ascending order: a copy, unless they are consecutive."""
        if rows[-1] - rows[0] == len(rows) - 1:
            return self.between(int(rows[0]), int(rows[-1]) + 1)
        parts = [self.segments[number][local] for number, local in self._by_segment(rows)]
        return parts[0].join(parts)

    def between(self, first: int, last: int) -> S:
        """Return the rows from `first` to before `last`: views where they lie in one segment, else a copy."""
        number = int(np.searchsorted(self._starts, first, side="right")) - 1
        parts = []
        while first < last:
            start, stop = int(self._starts[number]), int(self._starts[number + 1])
            if stop > first:
                parts.append(self.segments[number][first - start : min(last, stop) - start])
                first = min(last, stop)
            number += 1
        return parts[0].join(parts)

    def _by_segment(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the number of each segment that holds some of the rows (ascending), and its own numbers for them."""
        bounds = np.searchsorted(rows, self._starts)
        for number in np.flatnonzero(np.diff(bounds)):
            yield int(number), rows[bounds[number] : bounds[number + 1]] - self._starts[number]
