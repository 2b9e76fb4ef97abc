"""The store on disk: one folder per index, crash-safe, memory-mapped, never unpickled.

``index.json``          format version, the stages as JSON, versions of the libraries it was built with
``model.safetensors``   what the encoder learned (arrays, and its plain values in the header)
``manifest.sqlite``     the images: id, file, status, and the shard and row of their features and vector
``shards/00000001/``    ``descriptors.npy``, ``keypoints.npy``, ``offsets.npy``, ``image_sizes.npy``, ``vectors.npy``

A writer finishes a shard, syncs it, then commits its rows to the manifest in one transaction: killed at any instant it
leaves the last committed state. What no manifest names is cleared away by the next writer. Removing an image deletes
its manifest row; `Store.compact` rewrites the shards without the rows that are gone. One writer at a time, any number
of readers, each on a consistent snapshot.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import StoreError
from cvretrieval._version import __version__
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval import compaction
from cvretrieval.retrieval.lock import WriterLock
from cvretrieval.retrieval.manifest import ImageRecord, Manifest, ShardRecord
from cvretrieval.retrieval.shards import Shard, replace_file, shard_folder, sync_folder, write_shard, write_vectors

#: Version of the format; a store of a newer one is refused.
FORMAT = 1

_LIBRARIES = ("numpy", "scikit-learn", "opencv-contrib-python", "numba", "pillow")


class Store:
    """An open index folder; see the module for its layout.

    Use `create` for a new one and `open` for an existing one, both as context managers.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        description = _read_description(path)
        self.config: dict[str, Any] = description["config"]
        self._lock = WriterLock(path / "lock") if writable else None
        try:
            self._manifest = Manifest(path / "manifest.sqlite", writable=writable)
            self._shards: dict[int, Shard] = {}
            self._load()
            if writable:
                self._clear_leftovers()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> Store:
        """Make an empty store and open it for writing.

        Parameters
        ----------
        path : path
            Must not exist; its parent must.
        config : mapping
            What the caller wants to find again; JSON.

        Raises
        ------
        StoreError
            If it exists, or cannot be written.
        """
        path = Path(path)

        def fill(folder: Path) -> None:
            (folder / "shards").mkdir()
            description = {"format": FORMAT, "versions": _versions(), "config": dict(config)}
            (folder / "index.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
            Manifest.create(folder / "manifest.sqlite")

        _build_folder(path, fill)
        return cls(path, writable=True)

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
        self._shards = {}
        self._manifest.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- what is in it

    def records(self) -> list[ImageRecord]:
        """Return all images in the order they were added, failed ones included."""
        return list(self._records.values())

    def failures(self) -> list[tuple[str, str]]:
        """Return path (or id) and reason of every image that could not be read."""
        return [(record.path or record.id, record.reason) for record in self.records() if record.status == "failed"]

    def reload(self) -> bool:
        """Take a new snapshot if a writer has committed since the last one; return whether it has."""
        if self._manifest.generation() == self.generation:
            return False
        self._load()
        return True

    def info(self) -> dict[str, Any]:
        """Return counts, bytes, format and versions."""
        description = _read_description(self.path)
        held = [record for record in self._records.values() if record.shard is not None]
        sizes: dict[str, int] = {"descriptors": 0, "keypoints": 0, "vectors": 0}
        for file in self.path.rglob("*.npy"):
            if file.stem in sizes:
                sizes[file.stem] += file.stat().st_size
        return {
            "path": str(self.path),
            "n_images": len(held),
            "n_empty": sum(record.status == "empty" for record in held),
            "n_failed": len(self._records) - len(held),
            "n_removed": sum(shard.n_images for shard in self._shard_records.values()) - len(held),
            "n_features": sum(record.n_features for record in held),
            "n_shards": len(self._shard_records),
            "n_bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            **{f"n_bytes_{name}": size for name, size in sizes.items()},
            "format": description["format"],
            "versions": description["versions"],
        }

    def read_model(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return what `write_model` wrote, or None."""
        from safetensors import SafetensorError, safe_open

        path = self.path / "model.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                return arrays, json.loads(file.metadata()["meta"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged ({error}). Restore it from a copy or index the photos again."
            ) from error

    def features(self, keys: Sequence[int]) -> LocalFeatures:
        """Gather the stored features of images, in the order of `keys`; only their rows are read."""
        parts = []
        for record in [self._records[int(key)] for key in keys]:
            if record.shard is None:
                raise KeyError(f"{record.id!r} could not be read and has no features.")
            features = self._shard(record).features
            if features is None:
                raise KeyError(f"{self.path} holds no local features.")
            parts.append(features[_row(self._records[record.key])])
        return LocalFeatures.from_images([tuple(part) for part in parts])

    def shard_features(self, shard: ShardRecord) -> LocalFeatures:
        """Return the memory-mapped features of all rows of a shard, removed ones included."""
        features = self._open_shard(shard.shard).features
        if features is None:
            raise StoreError(f"{shard_folder(self.path / 'shards', shard.shard)} holds no local features.")
        return features

    def vector_segments(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield keys and memory-mapped vectors, shard by shard; the key of a row that must not be found is -1."""
        places: dict[int, list[tuple[int, int]]] = {}
        for record in self._records.values():
            if record.status == "ok" and record.shard is not None:
                places.setdefault(record.shard, []).append((_row(record), record.key))
        for number, shard in sorted(self._shard_records.items()):
            if not shard.encoded or number not in places:
                continue
            vectors = self._open_shard(number).vectors
            if vectors is None:
                continue
            keys = np.full(shard.n_images, -1, dtype=np.int64)
            rows, found = np.array(places[number]).T
            keys[rows] = found
            yield keys, vectors

    def pending_shards(self) -> list[ShardRecord]:
        """Return the shards whose images have no vectors yet."""
        return [shard for _, shard in sorted(self._shard_records.items()) if not shard.encoded]

    # -- changing it

    def write_shard(
        self, records: Sequence[ImageRecord], features: LocalFeatures | None, vectors: NDArray[np.float32] | None
    ) -> None:
        """Commit images: one shard and its manifest rows, at once.

        Parameters
        ----------
        records : sequence of ImageRecord
            Without keys and places; images of the same id are replaced. Failed ones have no row in the arrays.
        features : LocalFeatures or None
            One entry for each image that did not fail, in order; None if the extractor has none.
        vectors : ndarray of shape (n_images, n_features), optional
            None if the encoder is not learned yet.
        """
        self._check_writable()
        n_rows = sum(record.status != "failed" for record in records)
        for name, array in (("features", features), ("vectors", vectors)):
            if array is not None and len(array) != n_rows:
                raise ValueError(f"There are {n_rows} readable images, but {name} of {len(array)}.")
        if not n_rows:
            with self._manifest.transaction():
                self._manifest.put_images(records)
            self._load()
            return
        shard = ShardRecord(
            self._manifest.next_shard(), n_rows, 0 if features is None else features.n_descriptors, vectors is not None
        )
        write_shard(self.path / "shards", shard.shard, features, vectors)
        row = iter(range(n_rows))
        placed = [
            record if record.status == "failed" else _placed(record, shard.shard, next(row)) for record in records
        ]
        with self._manifest.transaction():
            self._manifest.add_shard(shard)
            self._manifest.put_images(placed)
        self._load()

    def write_vectors(self, shard: ShardRecord, vectors: NDArray[np.float32]) -> None:
        """Commit the vectors of a shard that has features only."""
        self._check_writable()
        if len(vectors) != shard.n_images:
            raise ValueError(f"The shard has {shard.n_images} images. Got {len(vectors)} vectors.")
        write_vectors(self.path / "shards", shard.shard, vectors)
        with self._manifest.transaction():
            self._manifest.set_encoded(shard.shard)
        self._shards.pop(shard.shard, None)
        self._load()

    def write_model(self, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Write what the encoder learned: arrays, and plain values as JSON."""
        from safetensors.numpy import save

        self._check_writable()
        data = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata={"meta": json.dumps(meta)})

        def write(path: Path) -> None:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        replace_file(self.path / "model.safetensors", write)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove images, all or none.

        Raises
        ------
        KeyError
            Naming the ids that are not in the store.
        """
        self._check_writable()
        by_id = {record.id: record.key for record in self._records.values()}
        missing = [name for name in ids if name not in by_id]
        if missing:
            more = ", …" if len(missing) > 5 else ""
            raise KeyError(f"Not in the index: {', '.join(map(repr, missing[:5]))}{more}. Nothing was removed.")
        with self._manifest.transaction():
            self._manifest.remove_images(by_id[name] for name in ids)
        self._load()

    def compact(self, *, verbose: bool | int = False) -> None:
        """Rewrite the shards without removed rows, and small ones together; the old ones go after the commit."""
        self._check_writable()
        compaction.compact(self, self._manifest, verbose=verbose)
        self._shards = {}
        self._load()
        self._clear_leftovers()

    def copy(self, path: str | os.PathLike[str]) -> Path:
        """Copy the committed state to a new folder and return its path."""
        path = Path(path)

        def fill(folder: Path) -> None:
            (folder / "shards").mkdir()
            for name in ("index.json", "model.safetensors"):
                if (self.path / name).exists():
                    shutil.copyfile(self.path / name, folder / name)
            self._manifest.backup(folder / "manifest.sqlite")
            manifest = Manifest(folder / "manifest.sqlite", writable=False)
            try:
                numbers = list(manifest.snapshot()[2])
            finally:
                manifest.close()
            for number in numbers:
                shutil.copytree(shard_folder(self.path / "shards", number), shard_folder(folder / "shards", number))

        _build_folder(path, fill)
        return path

    # -- inside

    def _load(self) -> None:
        self.generation, self._records, self._shard_records = self._manifest.snapshot()
        self._shards = {number: shard for number, shard in self._shards.items() if number in self._shard_records}

    def _open_shard(self, number: int) -> Shard:
        if number not in self._shards:
            self._shards[number] = Shard(self.path / "shards", self._shard_records[number])
        return self._shards[number]

    def _shard(self, record: ImageRecord) -> Shard:
        """Open the shard of an image; if it was compacted away meanwhile, look again where the image lies now."""
        try:
            return self._open_shard(_number(record))
        except FileNotFoundError as error:
            if not self.reload():
                raise StoreError(
                    f"{error.args[0]} is missing. Restore it from a copy or index the photos again."
                ) from error
            if record.key not in self._records:
                raise KeyError(f"{record.id!r} was removed by another process.") from error
            return self._open_shard(_number(self._records[record.key]))

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path} is open for reading; open it with mode='w'.")

    def _clear_leftovers(self) -> None:
        """Delete what a killed writer left behind: nothing the manifest names."""
        named = {shard_folder(self.path / "shards", number).name for number in self._shard_records}
        for child in (self.path / "shards").iterdir():
            if child.name not in named:
                shutil.rmtree(child, ignore_errors=True)
        for child in [*self.path.glob(".tmp-*"), *self.path.glob("shards/*/.tmp-*")]:
            child.unlink(missing_ok=True)


def _placed(record: ImageRecord, shard: int, row: int) -> ImageRecord:
    return ImageRecord(**{**vars(record), "shard": shard, "row": row})


def _row(record: ImageRecord) -> int:
    return -1 if record.row is None else record.row


def _number(record: ImageRecord) -> int:
    return -1 if record.shard is None else record.shard


def _build_folder(path: Path, fill: Any) -> None:
    """Fill a folder beside its final place and move it there, so that it exists whole or not at all."""
    if path.exists() or path.is_symlink():
        raise StoreError(f"{path} exists already.")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir()
        fill(temporary)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"{path} cannot be written ({error.strerror or error}).") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _read_description(path: Path) -> dict[str, Any]:
    file = path / "index.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        found = int(description["format"])
        if not isinstance(description["config"], dict):
            raise ValueError("'config' is no object")
    except FileNotFoundError:
        what = "is not an index (it has no index.json)" if path.exists() else "does not exist"
        raise StoreError(f"{path} {what}. Make one with: cvretrieval index PHOTOS --out {path}") from None
    except NotADirectoryError:
        raise StoreError(f"{path} is a file, not the folder of an index.") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged ({error}). Restore it from a copy or index the photos again.") from error
    if found > FORMAT:
        raise StoreError(
            f"{path} has format {found}, but this cvretrieval ({__version__}) reads formats up to {FORMAT}; "
            "upgrade it with: pip install -U cvretrieval"
        )
    return dict(description)


def _versions() -> dict[str, str]:
    versions = {"cvretrieval": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
