"""Blocks of large arrays, and what is learned from them: by threads, or by processes that open the arrays as files.

What learns from descriptors says what a block gives, in a function of a module; who computes it is said here.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvretrieval._npy_file import read_npy
from cvretrieval._parallel import map_blocks, progress_bar, single_threaded
from cvretrieval._workers import ClusterError, Workers, map_parts

Block = TypeVar("Block")

# Smaller arrays travel with the task: a file costs some milliseconds.
_SMALLEST_FILE = 65_536
# Tasks for each process in one pass: enough for unequal ones to even out.
_TASKS_EACH = 4


class Spread(ABC):
    """Who computes the blocks."""

    @abstractmethod
    def each(
        self,
        function: Callable[..., Any],
        blocks: Sequence[Block],
        *arguments: Any,
        description: str = "",
        unit: str = "block",
        verbose: bool | int = False,
    ) -> Generator[Any, None, None]:
        """Yield ``function(block, *arguments)`` for every block, in the order of the blocks.

        The function must be one of a module: it is found by its name in other processes. Arrays among the arguments
        are read-only there.
        """

    @abstractmethod
    def total(self, function: Callable[..., tuple[Any, ...]], blocks: Sequence[Block], *arguments: Any) -> list[Any]:
        """Return the sums of what ``function(block, *arguments)`` gives, place by place of its tuples.

        Sums are taken in the order of the blocks, where processes compute them in groups; bytes are joined.
        """

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array like this one, which goes to whoever computes only once."""
        return array


class Threads(Spread):
    """Threads of this process; their number does not change a bit of what is computed.

    Parameters
    ----------
    n_jobs : int or None
        scikit-learn's convention.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    def each(
        self,
        function: Callable[..., Any],
        blocks: Sequence[Block],
        *arguments: Any,
        description: str = "",
        unit: str = "block",
        verbose: bool | int = False,
    ) -> Generator[Any, None, None]:
        yield from map_blocks(
            lambda block: function(block, *arguments), blocks, n_jobs=self.n_jobs, description=description, unit=unit,
            verbose=verbose,
        )  # fmt: skip

    def total(self, function: Callable[..., tuple[Any, ...]], blocks: Sequence[Block], *arguments: Any) -> list[Any]:
        return _added_up(map_blocks(lambda block: function(block, *arguments), blocks, n_jobs=self.n_jobs))


class Processes(Spread):
    """Other processes, to which arrays go and from which they come through a folder that all see.

    Parameters
    ----------
    workers : Workers
    folder : Path
        Of the caller's own; what lies there afterwards is of no use.
    """

    def __init__(self, workers: Workers, folder: Path) -> None:
        self.workers = workers
        self.folder = folder
        self._kept: dict[int, tuple[NDArray[Any], _ArrayFile]] = {}

    def adopt(self, path: Path) -> NDArray[Any]:
        """Return the array of a file, mapped; as an argument it is known to the processes by its file."""
        file = _ArrayFile(str(path), path.stat().st_size)
        array = file.read()
        self._kept[id(array)] = (array, file)
        return array

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        file = _as_file(array, self.folder)
        return self.adopt(Path(file.path)) if isinstance(file, _ArrayFile) else array

    def each(
        self,
        function: Callable[..., Any],
        blocks: Sequence[Block],
        *arguments: Any,
        description: str = "",
        unit: str = "block",
        verbose: bool | int = False,
    ) -> Generator[Any, None, None]:
        bar = progress_bar(total=len(blocks), description=description, unit=unit, verbose=verbose)
        with closing(bar), closing(self._computed(_each_of, function, blocks, arguments)) as groups:
            for group in groups:
                yield from group
                bar.update(len(group))

    def total(self, function: Callable[..., tuple[Any, ...]], blocks: Sequence[Block], *arguments: Any) -> list[Any]:
        with closing(self._computed(_total_of, function, blocks, arguments)) as groups:
            return _added_up(groups)

    def _computed(
        self, compute: Callable[..., Any], function: Any, blocks: Sequence[Any], arguments: tuple[Any, ...]
    ) -> Generator[Any, None, None]:
        sent = [self._address(argument) for argument in arguments]
        size = -(-len(blocks) // (_TASKS_EACH * self.workers.n_workers))
        work = partial(compute, function, str(self.folder), sent)
        try:
            with closing(map_parts(self.workers, work, blocks, lambda: size)) as parts:
                for _, result in parts:
                    if result is None:
                        raise ClusterError(
                            "Every process that worked on a part of the descriptors died: out of memory, killed, or "
                            "crashed. Nothing was learned; give the workers more memory and run the same again."
                        )
                    yield _fetched(result)
        finally:
            for argument, address in zip(arguments, sent, strict=True):
                if isinstance(address, _ArrayFile) and id(argument) not in self._kept:
                    Path(address.path).unlink(missing_ok=True)

    def _address(self, argument: Any) -> Any:
        if id(argument) in self._kept:
            return self._kept[id(argument)][1]
        return _as_file(argument, self.folder)


@dataclass(frozen=True)
class _ArrayFile:
    path: str
    n_bytes: int

    def read(self) -> NDArray[Any]:
        return read_npy(Path(self.path), self.n_bytes)


def _as_file(value: Any, folder: Path) -> Any:
    """Write a large array, and return where it lies; return anything else."""
    if not isinstance(value, np.ndarray) or value.nbytes < _SMALLEST_FILE:
        return value
    path = folder / f"{secrets.token_hex(8)}.npy"
    np.save(path, np.ascontiguousarray(value), allow_pickle=False)
    return _ArrayFile(str(path), path.stat().st_size)


def _fetched(value: Any) -> Any:
    """Read the arrays that a process has written, and delete their files; also of those in lists and tuples."""
    if isinstance(value, _ArrayFile):
        array = value.read()
        Path(value.path).unlink(missing_ok=True)
        return array
    if isinstance(value, (list, tuple)):
        return type(value)(_fetched(item) for item in value)
    return value


def _written(value: Any, folder: Path) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_written(item, folder) for item in value)
    return _as_file(value, folder)


def _opened(sent: Sequence[Any]) -> list[Any]:
    return [argument.read() if isinstance(argument, _ArrayFile) else argument for argument in sent]


def _each_of(function: Callable[..., Any], folder: str, sent: Sequence[Any], blocks: Sequence[Any]) -> list[Any]:
    arguments = _opened(sent)
    with single_threaded():
        return [_written(function(block, *arguments), Path(folder)) for block in blocks]


def _total_of(function: Callable[..., Any], folder: str, sent: Sequence[Any], blocks: Sequence[Any]) -> list[Any]:
    arguments = _opened(sent)
    with single_threaded():
        total = _added_up(function(block, *arguments) for block in blocks)
    return [_written(item, Path(folder)) for item in total]


def _added_up(parts: Any) -> list[Any]:
    total: list[Any] = []
    for part in parts:
        if not total:
            # A copy where it is mapped: the sums grow in it.
            total = [item if not isinstance(item, np.ndarray) or item.flags.writeable else item.copy() for item in part]
            continue
        for place, item in enumerate(part):
            if isinstance(item, np.ndarray):
                total[place] += item
            else:
                total[place] = total[place] + item
    return total
