"""Shards: folders of plain ``.npy`` arrays, written once, memory-mapped ever after."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import StoreError
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.manifest import ShardRecord

_FEATURE_ARRAYS = ("descriptors", "keypoints", "offsets", "image_sizes")


def shard_folder(root: Path, shard: int) -> Path:
    """Return the folder of a shard."""
    return root / f"{shard:08d}"


def write_shard(root: Path, shard: int, features: LocalFeatures | None, vectors: NDArray[np.float32] | None) -> None:
    """Write the arrays of a shard to disk for good; it counts only once the manifest names it."""
    temporary = root / f".tmp-{shard:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        if features is not None:
            for name in _FEATURE_ARRAYS:
                array = getattr(features, name)
                if array is not None:
                    write_array(temporary / f"{name}.npy", array)
        if vectors is not None:
            write_array(temporary / "vectors.npy", vectors)
        sync_folder(temporary)
        os.replace(temporary, shard_folder(root, shard))
        sync_folder(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(
            f"{root} cannot be written ({error.strerror or error}). What was committed is kept; "
            "mend it and run the command again."
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_vectors(root: Path, shard: int, vectors: NDArray[np.float32]) -> None:
    """Add the vectors to a shard that has features only."""
    replace_file(shard_folder(root, shard) / "vectors.npy", lambda path: write_array(path, vectors))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array and make sure it is on disk."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, write: Any) -> None:
    """Write a file beside its final place and move it there at once."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}). What was committed is kept; "
            "mend it and run the command again."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Shard:
    """One shard, opened lazily.

    Attributes
    ----------
    features : LocalFeatures or None
        Memory-mapped.
    vectors : ndarray of shape (n_images, n_features) or None
        Memory-mapped; None until the images are encoded.

    Raises
    ------
    FileNotFoundError
        If the folder is gone: another process compacted the index.
    StoreError
        If a file is damaged.
    """

    def __init__(self, root: Path, record: ShardRecord) -> None:
        self.folder = shard_folder(root, record.shard)
        self.record = record
        if not self.folder.is_dir():
            raise FileNotFoundError(self.folder)
        self.features = self._open_features()
        self.vectors: NDArray[np.float32] | None = None
        if record.encoded:
            self.vectors = self._open("vectors", 2, record.n_images)
            if self.vectors is None:
                raise self._damaged("vectors", "is missing")

    def _open_features(self) -> LocalFeatures | None:
        offsets = self._open("offsets", 1, self.record.n_images + 1)
        if offsets is None:
            if self.record.n_descriptors:
                raise self._damaged("offsets", "is missing")
            return None
        descriptors = self._open("descriptors", 2, self.record.n_descriptors)
        if descriptors is None:
            raise self._damaged("descriptors", "is missing")
        keypoints = self._open("keypoints", 2, self.record.n_descriptors)
        sizes = self._open("image_sizes", 2, self.record.n_images)
        try:
            return LocalFeatures(descriptors, np.array(offsets), keypoints, sizes)
        except ValueError as error:
            raise self._damaged("offsets", f"does not fit the other arrays: {error}") from error

    def _open(self, name: str, ndim: int, n_rows: int) -> NDArray[Any] | None:
        path = self.folder / f"{name}.npy"
        if not path.exists():
            return None
        try:
            # An empty array cannot be mapped.
            empty = n_rows == 0
            array = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise self._damaged(name, str(error)) from error
        if array.ndim != ndim or len(array) != n_rows:
            raise self._damaged(name, f"has shape {array.shape}, expected {n_rows} rows")
        # A plain view: numpy's memmap class would travel on into every slice and result.
        return array.view(np.ndarray)

    def _damaged(self, name: str, reason: str) -> StoreError:
        return StoreError(
            f"{self.folder / (name + '.npy')} is damaged ({reason}). Restore it from a copy or index the photos again."
        )
