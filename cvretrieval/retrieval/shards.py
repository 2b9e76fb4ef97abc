"""Shards: folders of plain ``.npy`` arrays, written once, memory-mapped ever after."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._durable import TEMPORARY, cannot_write, file_digest, replace_file, sync_folder, write_file
from cvretrieval._npy_file import read_npy, write_npy
from cvretrieval._validation import StoreError
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.durable_folders import clear_abandoned, write_folder
from cvretrieval.retrieval.records import ArrayRecord, ShardRecord
from cvretrieval.retrieval.rows import ROW_ARRAYS, Rows, n_rows, rows_from_arrays, rows_to_arrays

_FEATURE_ARRAYS = ("descriptors", "offsets", "keypoints", "image_sizes")


class ShardError(StoreError):
    """A file of a shard is missing or damaged."""


def shard_folder(root: Path, shard: int) -> Path:
    """Return the folder of a shard."""
    return root / f"{shard:08d}"


@dataclass(frozen=True)
class StagedShard:
    """A shard that has been written whole and has no number yet: the name of its folder, and the record but for it."""

    name: str
    record: ShardRecord


def write_shard(
    root: Path,
    shard: int,
    n_images: int,
    features: LocalFeatures | None,
    vectors: Rows | None,
) -> ShardRecord:
    """Write the arrays of a shard to disk for good; it counts only once the manifest holds the record returned."""
    written: dict[str, ArrayRecord] = {}
    folder = shard_folder(root, shard)
    # The number was never committed, so what lies there was left by a commit that failed.
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder, lambda temporary: written.update(_write_arrays(temporary, features, vectors)))
    return ShardRecord(shard, n_images, 0 if features is None else features.n_descriptors, written)


def stage_shard(root: Path, n_images: int, features: LocalFeatures | None, vectors: Rows | None) -> StagedShard:
    """Write the arrays of a shard under a name of its own, as any number of processes may at once.

    What is never given a number is cleared away by the next writer.
    """
    folder = root / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        folder.mkdir()
        written = _write_arrays(folder, features, vectors)
        sync_folder(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from error
        raise
    n_descriptors = 0 if features is None else features.n_descriptors
    return StagedShard(folder.name, ShardRecord(-1, n_images, n_descriptors, written))


def number_shard(root: Path, staged: StagedShard, shard: int) -> ShardRecord:
    """Give a shard its number; it counts only once the manifest holds the record returned."""
    folder = shard_folder(root, shard)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(root / staged.name, folder)
        sync_folder(root)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return replace(staged.record, shard=shard)


def _write_arrays(folder: Path, features: LocalFeatures | None, vectors: Rows | None) -> dict[str, ArrayRecord]:
    arrays: dict[str, NDArray[Any]] = {}
    if features is not None:
        arrays = {name: getattr(features, name) for name in _FEATURE_ARRAYS if getattr(features, name) is not None}
    if vectors is not None:
        arrays.update(rows_to_arrays(vectors))
    return {
        name: ArrayRecord(*write_file(folder / f"{name}.npy", partial(write_npy, array)))
        for name, array in arrays.items()
    }


def write_vectors(root: Path, shard: int, vectors: Rows) -> dict[str, ArrayRecord]:
    """Add the vectors to a shard that has features only; they count once the manifest holds all records returned."""
    folder = shard_folder(root, shard)
    return {
        name: ArrayRecord(*replace_file(folder / f"{name}.npy", partial(write_npy, array)))
        for name, array in rows_to_arrays(vectors).items()
    }


def clear_leftovers(folder: Path, shards: Container[int]) -> None:
    """Delete what a killed writer left in a store: unfinished files, and shards other than the given ones."""
    root = folder / "shards"
    for child in root.iterdir():
        is_shard = re.fullmatch(r"\d{8,}", child.name)
        if child.name.startswith(TEMPORARY) or (is_shard and int(child.name) not in shards):
            shutil.rmtree(child, ignore_errors=True)
    for child in [*folder.glob(f"{TEMPORARY}*"), *root.glob(f"*/{TEMPORARY}*")]:
        child.unlink(missing_ok=True)
    clear_abandoned(folder)


class Shard:
    """One shard; its arrays are mapped when they are asked for.

    Raises
    ------
    ShardError
        By the properties, if a file is missing or damaged. Missing may mean that another process compacted the index.
    """

    def __init__(self, root: Path, record: ShardRecord) -> None:
        self.folder = shard_folder(root, record.shard)
        self.record = record

    @cached_property
    def features(self) -> LocalFeatures | None:
        """Features of all rows, memory-mapped; None if the extractor has none."""
        if "offsets" not in self.record.arrays:
            return None
        arrays = {name: self._map(name) for name in _FEATURE_ARRAYS if name in self.record.arrays}
        # Read by every access: in memory.
        arrays["offsets"] = np.array(arrays["offsets"])
        try:
            features = LocalFeatures(**arrays)
            if (len(features), features.n_descriptors) != (self.record.n_images, self.record.n_descriptors):
                raise ValueError(f"{len(features)} images with {features.n_descriptors} descriptors")
        except (TypeError, ValueError) as error:
            raise self._damaged("offsets", f"does not fit the other arrays: {error}") from error
        return features

    @cached_property
    def vectors(self) -> Rows | None:
        """Vectors or the like of all rows, memory-mapped; None until the images are encoded."""
        if not self.record.encoded:
            return None
        arrays = {name: self._map(name) for name in ROW_ARRAYS if name in self.record.arrays}
        try:
            rows = rows_from_arrays(arrays)
            if n_rows(rows) != self.record.n_images:
                raise ValueError(f"{n_rows(rows)} images instead of {self.record.n_images}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._damaged(next(iter(arrays)), f"does not fit: {error}") from error
        return rows

    def damage(self) -> list[tuple[Path, str]]:
        """Read all files and return those whose checksum is wrong, with the reason."""
        found = []
        for name, record in self.record.arrays.items():
            path = self.folder / f"{name}.npy"
            try:
                if path.stat().st_size != record.n_bytes:
                    found.append((path, f"has {path.stat().st_size} bytes instead of {record.n_bytes}"))
                elif file_digest(path) != record.digest:
                    found.append((path, "its checksum is wrong"))
            except OSError as error:
                found.append((path, f"cannot be read ({error.strerror})"))
        return found

    def _map(self, name: str) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        try:
            return read_npy(path, self.record.arrays[name].n_bytes)
        except FileNotFoundError as error:
            raise ShardError(f"{path} is missing. {_WAY_OUT}") from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise StoreError(
                    f"{path} cannot be opened ({error.strerror}). `cvretrieval compact` makes fewer and larger files "
                    "of the index; `ulimit -n` says how many a process may open."
                ) from error
            raise ShardError(f"{path} cannot be read ({error.strerror}).") from error
        except (ValueError, TypeError, EOFError) as error:
            raise self._damaged(name, str(error)) from error

    def _damaged(self, name: str, reason: str) -> ShardError:
        return ShardError(f"{self.folder / (name + '.npy')} is damaged ({reason}). {_WAY_OUT}")


_WAY_OUT = (
    "Restore it from a copy, or drop the images in damaged files with `cvretrieval remove INDEX --damaged` and add "
    "them again."
)
