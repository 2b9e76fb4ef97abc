"""The store on disk: one folder per index, crash-safe, memory-mapped, never unpickled.

``index.json``          format version, the stages as JSON, versions of the libraries it was built with
``model.safetensors``   what the encoder learned (arrays, and its plain values in the header); written once
``manifest.sqlite``     the images: id, file, status, and the shard and row of their features and vector; the shards,
                        and the size and BLAKE2b digest of every file of theirs and of the model
``shards/00000001/``    ``descriptors.npy``, ``keypoints.npy``, ``offsets.npy``, ``image_sizes.npy``; ``vectors.npy``,
                        or ``vector_*.npy`` for sparse vectors and visual words (see `rows`)
``engine/``             what the index engine made of the vectors, if that takes long; a copy, which may be deleted
                        (see `engine`)
``lock``                held by the writer; it means nothing when nobody holds it

A writer finishes a file, syncs it and its folder, then commits what it means to the manifest in one transaction: killed
at any instant it leaves the last committed state. What the manifest does not name does not exist, and is cleared away
by the next writer. Files that it names are never changed; vectors are added to a shard as a new file. Removing an
image deletes its manifest row; `Store.compact` rewrites the shards that hold rows of nobody, and deletes the old ones
once that is committed. One writer at a time, any number of readers, each on a consistent snapshot: one that finds a
file compacted away is told to take a new snapshot.

Opening a file compares its size with the manifest, `Store.check` compares every byte.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import StoreError
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval import committing, compaction, copying, integrity, inventory
from cvretrieval.retrieval.description import read_description, write_description
from cvretrieval.retrieval.durable_folders import build_store
from cvretrieval.retrieval.integrity import Damage
from cvretrieval.retrieval.lock import WriterLock
from cvretrieval.retrieval.manifest import Manifest
from cvretrieval.retrieval.model_file import MODEL_FILE, read_model_file, write_model_file
from cvretrieval.retrieval.records import ArrayRecord, Change, ImageRecord, ShardRecord, Snapshot, StaleSnapshotError
from cvretrieval.retrieval.rows import Rows, join_rows
from cvretrieval.retrieval.shards import (
    Shard,
    ShardError,
    StagedShard,
    clear_leftovers,
    number_shard,
    write_shard,
    write_vectors,
)

# A mapped array may hold a file open, and a process may open some thousand.
_OPEN_SHARDS = 100


class Store:
    """An open index folder; see the module for its layout.

    Use `create` for a new one and `open` for an existing one, both as context managers.

    Attributes
    ----------
    path : Path
        Its folder, absolute.
    config : dict
        What was given to `create`.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = Path(os.path.abspath(path))
        self.config: dict[str, Any] = read_description(self.path)["config"]
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._thread_lock = threading.Lock()
        self._lock = WriterLock(self.path / "lock") if writable else None
        try:
            self._manifest = Manifest(self.path / "manifest.sqlite", writable=writable)
        except BaseException:
            self._release()
            raise
        try:
            self._load()
            if writable:
                clear_leftovers(self.path, self._snapshot.shards)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> Store:
        """Make an empty store and open it for writing.

        Parameters
        ----------
        path : path
            Must not exist, or be an empty folder; its parent must exist.
        config : mapping
            What the caller wants to find again; JSON.

        Raises
        ------
        StoreError
            If it exists, or cannot be written.
        """

        def fill(folder: Path) -> None:
            (folder / "shards").mkdir()
            write_description(folder, config)
            Manifest.create(folder / "manifest.sqlite")

        build_store(Path(path), fill)
        return cls(Path(path), writable=True)

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: str = "r") -> Store:
        """Open an existing store for reading (``"r"``) or writing (``"w"``).

        Raises
        ------
        StoreError
            If it is no store, damaged, of a newer format, or (for writing) being written by another process.
        """
        if mode not in ("r", "w"):
            raise ValueError(f"mode must be 'r' or 'w'. Got {mode!r} instead.")
        return cls(Path(path), writable=mode == "w")

    def close(self) -> None:
        """Release files and, for a writer, the lock."""
        self._shards.clear()
        self._manifest.close()
        self._release()

    def __del__(self) -> None:
        # A writer that was forgotten must not lock out the next one.
        with contextlib.suppress(AttributeError):  # of a store that could not be opened
            self.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- what is in it

    @property
    def generation(self) -> int:
        """Number of commits up to the snapshot that is read."""
        return self._snapshot.generation

    @property
    def model(self) -> bytes | None:
        """Digest of what the encoder learned; None before it has."""
        return self._snapshot.model

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def snapshot(self) -> Snapshot:
        """The committed state that is read; `reload` takes another one."""
        return self._snapshot

    def records(self) -> list[ImageRecord]:
        """Return all images in the order they were added, failed ones included."""
        return list(self._snapshot.images.values())

    def find(self, name: str) -> ImageRecord | None:
        """Return the image of an id, if there is one."""
        return self._snapshot.find(name)

    def shard_records(self) -> list[ShardRecord]:
        """Return all shards in the order they were written."""
        return list(self._snapshot.shards.values())

    def pending_shards(self) -> list[ShardRecord]:
        """Return the shards whose images have no vectors yet."""
        return [shard for shard in self.shard_records() if not shard.encoded]

    def failures(self) -> list[tuple[str, str]]:
        """Return path (or id) and reason of every image that could not be read."""
        return [(record.path or record.id, record.reason) for record in self.records() if record.reason]

    def reload(self) -> bool:
        """Take a new snapshot if a writer has committed since the last one; return whether it has."""
        if self._manifest.generation() == self.generation:
            return False
        self._load()
        return True

    def info(self) -> dict[str, Any]:
        """Return counts, bytes, format and versions."""
        return inventory.take(self)

    def check(self, *, verbose: bool | int = False) -> list[Damage]:
        """Read every byte of the store and return the files that are damaged."""
        return integrity.find_damage(self, self._manifest, verbose=verbose)

    def read_model(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return what `write_model` wrote, or None."""
        return None if self.model is None else read_model_file(self.path, self.model)

    def features(self, keys: Sequence[int]) -> LocalFeatures:
        """Gather the stored features of images, in the order of `keys`; only their rows are read.

        Raises
        ------
        StaleSnapshotError
            If another process has compacted them away.
        """
        places = map(self._place, keys)
        return LocalFeatures.from_images([tuple(self.shard_features(shard)[row]) for shard, row in places])

    def shard_features(self, number: int) -> LocalFeatures:
        """Return the memory-mapped features of all rows of a shard, removed ones included."""
        features = self._read(number, "features")
        if features is None:
            raise StoreError(f"{self.path} holds no local features.")
        return features

    def vectors(self, keys: Sequence[int]) -> Rows:
        """Gather the vectors or the like of images, at least one, in the order of `keys`.

        Raises
        ------
        StaleSnapshotError
            If another process has compacted them away.
        """
        return join_rows([self._read(shard, "vectors")[row : row + 1] for shard, row in map(self._place, keys)])

    def vector_keys(self) -> NDArray[np.int64]:
        """Return the keys of the images that can be found, ascending."""
        snapshot = self._snapshot
        found = (
            record.key
            for record in snapshot.images.values()
            if record.status == "ok" and snapshot.shards[record.place[0]].encoded
        )
        return np.sort(np.fromiter(found, dtype=np.int64))

    def vector_segments(self, keys: Any = None) -> Iterator[tuple[NDArray[np.int64], Rows]]:
        """Yield keys and memory-mapped rows, shard by shard; the key of a row that must not be found is -1.

        `keys` leaves out the shards that hold none of them.
        """
        snapshot = self._snapshot
        wanted = None if keys is None else set(map(int, keys))
        places: dict[int, list[tuple[int, int]]] = {}
        for record in snapshot.images.values():
            if record.status == "ok" and (wanted is None or record.key in wanted):
                shard, row = record.place
                places.setdefault(shard, []).append((row, record.key))
        for shard_record in snapshot.shards.values():
            if shard_record.encoded and shard_record.shard in places:
                own = np.full(shard_record.n_images, -1, dtype=np.int64)
                rows, found = np.array(places[shard_record.shard]).T
                own[rows] = found
                yield own, self._read(shard_record.shard, "vectors")

    def open_shard(self, number: int) -> Shard:
        """Return a shard; some hundred at most stay mapped."""
        with self._thread_lock:
            if number not in self._shards:
                self._shards[number] = Shard(self.path / "shards", self._snapshot.shards[number])
            self._shards.move_to_end(number)
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
            return self._shards[number]

    def forget_shards(self, numbers: Sequence[int]) -> None:
        """Let go of the files of shards."""
        with self._thread_lock:
            for number in numbers:
                self._shards.pop(number, None)

    # -- changing it

    def write_shard(self, records: Sequence[ImageRecord], features: LocalFeatures | None, vectors: Rows | None) -> None:
        """Commit images: one shard and its manifest rows, at once.

        Parameters
        ----------
        records : sequence of ImageRecord
            Without keys and places; images of the same id are replaced. Failed ones have no row in the arrays; where
            the store holds an image of that id, it stays and is given the reason.
        features : LocalFeatures or None
            One entry for each image that did not fail, in order; None if the extractor has none.
        vectors : ndarray, CSR array or VisualWords, optional
            A row for each of the same; None if the encoder is not learned yet.
        """
        self._check_writable()
        n_rows = committing.check_rows(records, {"features": features, "vectors": vectors})
        shard = None
        if n_rows:
            shard = write_shard(self.path / "shards", self._manifest.next_shard(), n_rows, features, vectors)
        committing.commit(self._manifest, self._snapshot, records, shard)

    def adopt_shard(self, records: Sequence[ImageRecord], staged: StagedShard | None) -> None:
        """Commit images whose arrays another process has written with `stage_shard`; else as `write_shard`."""
        self._check_writable()
        n_rows = committing.check_rows(records, {})
        if n_rows != (0 if staged is None else staged.record.n_images):
            raise ValueError(f"There are {n_rows} readable images, but another number of rows: {staged!r}.")
        shard = None
        if staged is not None:
            shard = number_shard(self.path / "shards", staged, self._manifest.next_shard())
        committing.commit(self._manifest, self._snapshot, records, shard)

    def write_vectors(self, shard: ShardRecord, vectors: Rows) -> None:
        """Commit the vectors of a shard that has features only."""
        self._check_writable()
        if vectors.shape[0] != shard.n_images:
            raise ValueError(f"The shard has {shard.n_images} images. Got {vectors.shape[0]} vectors.")
        self.adopt_vectors(shard, write_vectors(self.path / "shards", shard.shard, vectors))

    def adopt_vectors(self, shard: ShardRecord, written: Mapping[str, ArrayRecord]) -> None:
        """Commit the vectors of a shard that another process has written beside its features."""
        self._check_writable()
        with self._manifest.transaction():
            self._manifest.add_arrays(shard.shard, written)
        self._snapshot.apply(Change(), replace(shard, arrays={**shard.arrays, **written}))
        self.forget_shards([shard.shard])

    def write_model(self, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Commit what the encoder learned: arrays, and plain values as JSON; once, for vectors depend on it."""
        self._check_writable()
        if self.model is not None:
            raise StoreError(f"{self.model_path} exists already.")
        digest = write_model_file(self.path, arrays, meta)
        with self._manifest.transaction():
            self._manifest.set_model(digest)
        self._load()

    def remove(self, names: Sequence[str]) -> None:
        """Remove images, all or none.

        Parameters
        ----------
        names : sequence of str
            Ids, or paths of the files.

        Raises
        ------
        KeyError
            Naming those that are not in the store.
        """
        self._check_writable()
        keys = committing.find_all(self._snapshot, names)
        with self._manifest.transaction():
            self._manifest.remove_images(keys)
        self._load()

    def compact(self, *, verbose: bool | int = False) -> None:
        """Rewrite shards without their removed rows, and small ones together."""
        self._check_writable()
        try:
            compaction.compact(self, self._manifest, verbose=verbose)
        finally:
            self._load()

    def copy(self, path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> Path:
        """Copy the committed state to a new folder, with its `config` or another, and return the path."""
        return copying.copy_store(self, self._manifest, path, config)

    # -- inside

    def _load(self) -> None:
        self._snapshot = self._manifest.snapshot()
        with self._thread_lock:
            # A shard that was given vectors meanwhile is opened anew.
            for number in [n for n, shard in self._shards.items() if shard.record != self._snapshot.shards.get(n)]:
                del self._shards[number]

    def _place(self, key: int) -> tuple[int, int]:
        if int(key) not in self._snapshot.images:
            raise StaleSnapshotError(f"Image {key} was removed by another process.")
        return self._snapshot.images[int(key)].place

    def _read(self, number: int, what: str) -> Any:
        """Return the features or vectors of a shard; tell one that was compacted away from a damaged one."""
        try:
            return getattr(self.open_shard(number), what)
        except (ShardError, KeyError) as error:
            if self._manifest.generation() != self.generation:
                raise StaleSnapshotError(f"Shard {number} was compacted away by another process.") from error
            raise

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path} is open for reading; open it with mode='w'.")
