"""The index engine of a store: built from the rows of its shards, kept beside them, brought up to date when asked.

What an engine holds follows from the manifest and the shards, so the folder ``engine/`` is only there to save time. A
row never changes under its key; so an engine is brought up to date, however old it is, by removing the keys that the
manifest does not have any more and adding those it does not have yet. A folder that is damaged, or of another store, is
built anew; where it cannot be written, the engine is in memory only.

``DenseIndex`` reads the vectors of the shards where they lie, and has no folder. ``MilvusIndex`` keeps its vectors in
Milvus, where all processes change the same ones; the folder says which of them it has. There a reader may add what is
missing, but removes nothing: others may have read a later state of the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from cvretrieval._durable import copy_file, replace_file, sync_folder
from cvretrieval._state import from_config, to_config
from cvretrieval._validation import StoreError
from cvretrieval.index import DenseIndex
from cvretrieval.retrieval.inventory import ENGINE_FOLDER
from cvretrieval.retrieval.inventory import n_bytes as bytes_of_folder
from cvretrieval.retrieval.lock import WriterLock
from cvretrieval.retrieval.moving import is_elsewhere
from cvretrieval.retrieval.rows import Rows, join_rows, size_of

if TYPE_CHECKING:
    from cvretrieval.retrieval.records import ImageRecord
    from cvretrieval.retrieval.store import Store

# Rows that are added at once: their bytes, at least.
_BATCH_BYTES = 2**27
# Engines that learn do so from the first rows, so that there should be many.
_LEARNED_BYTES = 2**30
# A folder up to this size is compared with its checksums whenever it is opened, a larger one by `Engine.check` only:
# that reads all of it. Its small arrays, and the sizes of all files, always are.
_VERIFIED_BYTES = 2**26
# A reader writes what it has added to the engine if that would take long to do again.
_WRITTEN_SHARE = 0.01
_WRITTEN_ROWS = 256
# Parameters that say how an engine searches, not what it holds.
_SEARCH_PARAMETERS = {
    "InvertedIndex": ("idf", "sigma", "max_distance", "burstiness", "alpha", "threshold"),
    "PQIndex": ("metric",),
    "MilvusIndex": ("ef", "n_probe"),
}
# Images that are remembered to recognise the store; see `_Source`.
_REMEMBERED = 16

_SOURCE = "source.json"


class Engine:
    """The engine of one open store; searches may run in several threads."""

    def __init__(self) -> None:
        self._thread_lock = threading.Lock()
        self._state: tuple[int, Any, Any] | None = None

    def current(self, store: Store, template: Any, n_jobs: int | None) -> Any:
        """Return the engine as of the snapshot of the store.

        Parameters
        ----------
        store : Store
        template : VectorIndex
            The engine as it is configured, without vectors.
        n_jobs : int, optional
            Threads of the engine.

        Raises
        ------
        StaleSnapshotError
            If another process has compacted away what the snapshot names.
        """
        with self._thread_lock:
            generation = store.generation
            if self._state is None or self._state[0] != generation or not _same_engine(self._state[1], template):
                index = self._up_to_date(store, template, n_jobs, by_writer=False)
                self._state = generation, clone(template), index
            return self._state[2]

    def write(self, store: Store, template: Any, n_jobs: int | None, *, compact: bool = False) -> None:
        """Bring the folder up to date with what was just committed; where that fails, searches do so in memory."""
        if _maps_shards(template):
            return
        with self._thread_lock:
            index = self._up_to_date(store, template, n_jobs, by_writer=True, compact=compact)
            self._state = store.generation, clone(template), index

    def close(self, *, is_temporary: bool) -> None:
        """Let go of a connection; of a temporary store nothing stays elsewhere."""
        with self._thread_lock:
            index: Any = None if self._state is None else self._state[2]
            self._state = None
        if is_elsewhere(index):
            with contextlib.suppress(StoreError):
                if is_temporary:
                    index.drop()
            index.close()

    def copy(self, store: Store, target: Path) -> None:
        """Copy the folder to a copy of the store; where that fails, it is built anew there."""
        folder, copied = store.path / ENGINE_FOLDER, target / ENGINE_FOLDER
        with self._thread_lock, _locked(store) as is_locked:
            if not is_locked or not folder.exists():
                return
            try:
                copied.mkdir()
                for file in sorted(folder.iterdir(), key=lambda file: file.name == _SOURCE):
                    copy_file(file, copied / file.name)
                sync_folder(copied)
            except OSError:
                shutil.rmtree(copied, ignore_errors=True)

    def clear(self, store: Store) -> None:
        """Delete the folder, of an engine that the store no longer has."""
        with self._thread_lock, _locked(store) as is_locked:
            self._state = None
            if is_locked:
                shutil.rmtree(store.path / ENGINE_FOLDER, ignore_errors=True)

    def check(self, store: Store, template: Any) -> None:
        """Compare every byte of the folder with its checksums; a damaged one is deleted, to be built anew."""
        folder = store.path / ENGINE_FOLDER
        if _maps_shards(template) or not folder.exists():
            return
        try:
            type(template).open(folder)
        except StoreError:
            self.clear(store)

    def _up_to_date(
        self, store: Store, template: Any, n_jobs: int | None, *, by_writer: bool, compact: bool = False
    ) -> Any:
        if _maps_shards(template):
            index = _empty(template, n_jobs)
            for keys, rows in store.vector_segments():
                index.add(keys, rows)
            return index
        wanted = store.vector_keys()
        stored = _open(store, template, n_jobs)
        index = min((i for i in (stored, self._known(template)) if i is not None), default=None,
                    key=lambda i: len(np.setxor1d(i.keys, wanted, assume_unique=True)))  # fmt: skip
        if index is None:
            index = _empty(template, n_jobs)
        n_gone, n_new = _update(index, store, wanted)
        if compact:
            index.compact()
        is_late = n_gone + n_new > (0 if by_writer else max(_WRITTEN_ROWS, _WRITTEN_SHARE * len(index)))
        if not by_writer and n_gone and is_elsewhere(index):
            return index
        if len(index) and (stored is None or is_late or compact) and _is_configured(store, template):
            _write(store, index, template, is_new=stored is None)
        return index

    def _known(self, template: Any) -> Any:
        """Return the engine of an earlier snapshot, if it is the same but for the images."""
        return self._state[2] if self._state is not None and _same_engine(self._state[1], template) else None


def check_rows(template: Any, rows: Rows) -> None:
    """Refuse rows that the engine would refuse; ValueError says why.

    Engines that learn from what is added first are asked later: a few rows would not do.
    """
    if is_elsewhere(template):
        template.check_vectors(rows)
    elif template.exact:
        clone(template).add(np.arange(rows.shape[0]), rows)


def _maps_shards(template: Any) -> bool:
    return isinstance(template, DenseIndex)


def _is_configured(store: Store, template: Any) -> bool:
    """Whether an engine is what the store was made with, up to parameters of searching; others stay in memory."""
    config = store.config.get("index")
    return config is not None and _structure(from_config(config)) == _structure(template)


def _empty(template: Any, n_jobs: int | None) -> Any:
    return clone(template).set_params(n_jobs=n_jobs)


def _open(store: Store, template: Any, n_jobs: int | None) -> Any:
    """Return the engine in the folder, which may be behind the manifest; None if it is of no use."""
    folder = store.path / ENGINE_FOLDER
    try:
        if not _Source.read(folder).fits(store, template):
            return None
        # Elsewhere, all keys would be read; a look at their number finds what has been lost.
        verify = bytes_of_folder(folder) <= _VERIFIED_BYTES and not is_elsewhere(template)
        index = type(template).open(folder, n_jobs=n_jobs, verify=verify)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
        return None
    free = _SEARCH_PARAMETERS.get(type(template).__name__, ())
    return index.set_params(**{name: getattr(template, name) for name in free})


def _write(store: Store, index: Any, template: Any, *, is_new: bool) -> None:
    folder = store.path / ENGINE_FOLDER
    # Whatever fails here, the engine in memory is as good.
    with contextlib.suppress(StoreError, OSError), _locked(store) as is_locked:
        if not is_locked:
            return
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
            index.save(folder)
        else:
            index.flush()
        _Source.of(store, index.keys, template).write(folder)


class _Source:
    """By which images a folder is known to be made of a store: the newest ones, as the manifest describes them.

    Keys are used once, but a store that was restored from an older copy uses some of them again, for other images. Of
    two histories that part, the newest common key names another image in each.
    """

    def __init__(self, model: str, engine: str, images: dict[int, str]) -> None:
        self._model = model
        self._engine = engine
        self._images = images

    @classmethod
    def of(cls, store: Store, keys: NDArray[np.int64], template: Any) -> _Source:
        known = store.snapshot.images
        images = {key: _describe(known[key]) for key in keys[-_REMEMBERED:].tolist() if key in known}
        return cls((store.model or b"").hex(), _structure(template), images)

    @classmethod
    def read(cls, folder: Path) -> _Source:
        content = json.loads((folder / _SOURCE).read_text(encoding="utf-8"))
        images = {int(key): str(image) for key, image in content["images"].items()}
        return cls(str(content["model"]), str(content["engine"]), images)

    def write(self, folder: Path) -> None:
        data = json.dumps({"model": self._model, "engine": self._engine, "images": self._images}).encode()
        replace_file(folder / _SOURCE, lambda file: file.write(data))

    def fits(self, store: Store, template: Any) -> bool:
        """Whether engine and model are those, a remembered image is in the store still, and all that are the same."""
        if self._model != (store.model or b"").hex() or self._engine != _structure(template):
            return False
        images = store.snapshot.images
        known = {key: images[key] for key in self._images if key in images}
        return bool(known) and all(self._images[key] == _describe(record) for key, record in known.items())


def _describe(record: ImageRecord) -> str:
    text = repr((record.id, record.path, record.size, record.mtime_ns, record.n_features))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _structure(index: Any) -> str:
    """Describe what an engine holds its vectors by: class and parameters, but for those of searching."""
    free = (*_SEARCH_PARAMETERS.get(type(index).__name__, ()), "n_jobs")
    config = to_config(clone(index).set_params(**dict.fromkeys(free)))
    return json.dumps(config, sort_keys=True)


def _same_engine(one: Any, other: Any) -> bool:
    """Whether two engines without vectors are configured alike."""
    if type(one) is not type(other):
        return False
    a, b = one.get_params(deep=False), other.get_params(deep=False)
    return all(
        np.array_equal(a[name], b[name]) if isinstance(a[name], np.ndarray) else repr(a[name]) == repr(b[name])
        for name in a
    )


def _update(index: Any, store: Store, wanted: NDArray[np.int64]) -> tuple[int, int]:
    """Remove and add what the manifest has removed and added since; return how many images these were."""
    held = index.keys
    gone = np.setdiff1d(held, wanted, assume_unique=True)
    new = np.setdiff1d(wanted, held, assume_unique=True)
    if len(gone):
        index.remove(gone)
    for keys, rows in _batches(store, new, _BATCH_BYTES if index.exact else _LEARNED_BYTES):
        index.add(keys, rows)
    return len(gone), len(new)


def _batches(store: Store, new: NDArray[np.int64], batch_bytes: int) -> Iterator[tuple[NDArray[np.int64], Rows]]:
    if not len(new):
        return
    keys: list[NDArray[np.int64]] = []
    parts: list[Rows] = []
    n_bytes = 0
    for own, rows in store.vector_segments(new):
        live = np.flatnonzero(own >= 0)
        keys.append(own[live])
        parts.append(rows if len(live) == len(own) else rows[live])
        n_bytes += size_of(parts[-1])
        if n_bytes >= batch_bytes:
            yield np.concatenate(keys), join_rows(parts)
            keys, parts, n_bytes = [], [], 0
    if keys:
        yield np.concatenate(keys), join_rows(parts)


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[bool]:
    """Hold the lock of the folder, or say that somebody else does, or that it cannot be locked."""
    try:
        lock = WriterLock(store.path / "engine.lock")
    except StoreError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
