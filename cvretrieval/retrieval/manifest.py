"""The manifest: which images an index holds, where their rows lie; one SQLite file, one transaction per change."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvretrieval._validation import StoreError

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO facts VALUES ('generation', 0);
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY AUTOINCREMENT, n_images INTEGER NOT NULL, n_descriptors INTEGER NOT NULL,
    encoded INTEGER NOT NULL
);
CREATE TABLE images (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, path BLOB, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, n_features INTEGER NOT NULL, shard INTEGER, row INTEGER
);
CREATE INDEX images_of_shard ON images (shard, row);
"""

_COLUMNS = "key, id, path, size, mtime_ns, status, reason, width, height, n_features, shard, row"


@dataclass(frozen=True)
class ImageRecord:
    """One image of an index.

    Attributes
    ----------
    id : str
        Its name, unique.
    path : str or None
        Absolute path of the file; None for images that were no files.
    size, mtime_ns : int
        Of the file when it was read, to tell whether it changed.
    status : {"ok", "empty", "failed"}
        "empty": no features, never found. "failed": could not be read, see `reason`.
    reason : str
        Why a failed image could not be read.
    width, height : int
        Pixels of the original image; 0 if unknown.
    n_features : int
        Number of its local features.
    key : int
        Number given by the store, never used twice; -1 before.
    shard, row : int or None
        Where its features and vector lie; None for failed images.
    """

    id: str
    path: str | None = None
    size: int = 0
    mtime_ns: int = 0
    status: str = "ok"
    reason: str = ""
    width: int = 0
    height: int = 0
    n_features: int = 0
    key: int = -1
    shard: int | None = None
    row: int | None = None


@dataclass(frozen=True)
class ShardRecord:
    """One shard: its number, its rows, and whether its images have vectors."""

    shard: int
    n_images: int
    n_descriptors: int
    encoded: bool


class Manifest:
    """Thin layer over SQLite; the rollback journal keeps it readable on read-only media.

    Names are kept as bytes: file names may hold bytes that are no text.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        mode = "rw" if writable else "ro"
        with self._as_store_error():
            uri = f"{path.resolve().as_uri()}?mode={mode}"
            # Autocommit: transactions are begun and ended below, where they are meant.
            self._connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = FULL")

    @classmethod
    def create(cls, path: Path) -> None:
        """Write an empty manifest."""
        connection = sqlite3.connect(path)
        try:
            connection.executescript(_SCHEMA)
            connection.commit()
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()

    def generation(self) -> int:
        """Return a number that grows with every commit."""
        with self._as_store_error():
            return int(self._connection.execute("SELECT value FROM facts WHERE name = 'generation'").fetchone()[0])

    def snapshot(self) -> tuple[int, dict[int, ImageRecord], dict[int, ShardRecord]]:
        """Read everything in one transaction: generation, images by key, shards by number."""
        with self._as_store_error():
            self._connection.execute("BEGIN")
            try:
                generation = self.generation()
                rows = self._connection.execute(f"SELECT {_COLUMNS} FROM images ORDER BY key").fetchall()
                shards = self._connection.execute(
                    "SELECT shard, n_images, n_descriptors, encoded FROM shards"
                ).fetchall()
            finally:
                self._connection.execute("COMMIT")
        records = {row[0]: _to_record(row) for row in rows}
        return generation, records, {row[0]: ShardRecord(row[0], row[1], row[2], bool(row[3])) for row in shards}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the body at once, or nothing of it."""
        with self._as_store_error():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'generation'")
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def next_shard(self) -> int:
        """Return the number of the next shard; numbers are never used twice."""
        with self._as_store_error():
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'shards'").fetchone()
        return 1 + (int(row[0]) if row else 0)

    def add_shard(self, shard: ShardRecord) -> None:
        self._connection.execute(
            "INSERT INTO shards VALUES (?, ?, ?, ?)", (shard.shard, shard.n_images, shard.n_descriptors, shard.encoded)
        )

    def set_encoded(self, shard: int) -> None:
        self._connection.execute("UPDATE shards SET encoded = 1 WHERE shard = ?", (shard,))

    def remove_shards(self, shards: Iterable[int]) -> None:
        self._connection.executemany("DELETE FROM shards WHERE shard = ?", [(shard,) for shard in shards])

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """Insert images; one of the same id is replaced."""
        self._connection.executemany("DELETE FROM images WHERE id = ?", [(_to_bytes(record.id),) for record in records])
        self._connection.executemany(
            f"INSERT INTO images ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    _to_bytes(record.id), None if record.path is None else _to_bytes(record.path), record.size,
                    record.mtime_ns, record.status, record.reason.encode("utf-8", "backslashreplace").decode(),
                    record.width, record.height, record.n_features, record.shard, record.row,
                )
                for record in records
            ],
        )  # fmt: skip

    def move_images(self, places: Iterable[tuple[int, int, int]]) -> None:
        """Give images (shard, row, key) new places."""
        self._connection.executemany("UPDATE images SET shard = ?, row = ? WHERE key = ?", places)

    def remove_images(self, keys: Iterable[int]) -> None:
        self._connection.executemany("DELETE FROM images WHERE key = ?", [(key,) for key in keys])

    def backup(self, target: Path) -> None:
        """Copy the committed state to another file."""
        with self._as_store_error(), contextlib.closing(sqlite3.connect(target)) as copy:
            self._connection.backup(copy)

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text or "I/O" in text:
                reason = f"cannot be written ({text}); free some space and run the command again"
            elif "locked" in text:
                reason = "is busy: another process has been writing for 30 seconds; try again"
            elif "readonly" in text or "unable to open" in text:
                reason = f"cannot be opened ({text}); check that it exists and its permissions"
            else:
                reason = f"is damaged ({text}); restore it from a copy or index the photos again"
            raise StoreError(f"{self.path} {reason}.") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path} is damaged ({error}); restore it from a copy or index the photos again."
            ) from error


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_record(row: tuple) -> ImageRecord:  # type: ignore[type-arg]
    key, name, path, *rest = row
    size, mtime_ns, status, reason, width, height, n_features, shard, place = rest
    return ImageRecord(
        name.decode("utf-8", "surrogateescape"),
        None if path is None else path.decode("utf-8", "surrogateescape"),
        size, mtime_ns, status, reason, width, height, n_features, key, shard, place,
    )  # fmt: skip
