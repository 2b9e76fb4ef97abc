"""The manifest: which images an index holds, where their rows lie; one SQLite file, one transaction per change."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cvretrieval._validation import StoreError
from cvretrieval.retrieval.records import ArrayRecord, ImageRecord, ShardRecord, Snapshot

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value);
INSERT INTO facts VALUES ('generation', 0), ('model', NULL);
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY AUTOINCREMENT, n_images INTEGER NOT NULL, n_descriptors INTEGER NOT NULL
);
CREATE TABLE arrays (
    shard INTEGER NOT NULL, name TEXT NOT NULL, n_bytes INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (shard, name)
);
CREATE TABLE images (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, path BLOB, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, n_features INTEGER NOT NULL, shard INTEGER, row INTEGER
);
CREATE UNIQUE INDEX images_of_shard ON images (shard, row);
"""

_COLUMNS = "key, id, path, size, mtime_ns, status, reason, width, height, n_features, shard, row"

#: What SQLite says → what it means here.
_REASONS = {
    "full": "cannot be written, for the disk is full. What was committed is kept; free some space and try again",
    "I/O": "cannot be read or written: the disk is full, failing, or gone",
    "locking protocol": "cannot be locked: its file system has no file locks",
    "locked": "is busy: another process has been writing for 30 seconds; try again",
    "readonly": "cannot be written; check its permissions",
    "unable to open": "cannot be opened; check its permissions and those of its folder",
}

Result = TypeVar("Result")


class Manifest:
    """Thin layer over SQLite; the rollback journal keeps it readable on read-only media.

    Names are kept as bytes: file names may hold bytes that are no text.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self._writable = writable
        self._private: tempfile.TemporaryDirectory[str] | None = None
        # Searches may run in several threads; a transaction belongs to one of them.
        self._thread_lock = threading.RLock()
        if not path.is_file():
            raise StoreError(f"{path} is missing. Restore it from a copy or index the photos again.")
        self._connection = self._connect(path)
        try:
            self._read(self._prepare)
            self._check_schema()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path) -> None:
        """Write an empty manifest."""
        with _as_store_error(path), contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()
        if self._private is not None:
            self._private.cleanup()

    def generation(self) -> int:
        """Return a number that grows with every commit."""
        return int(self._read(lambda: self._fact("generation")))

    def snapshot(self) -> Snapshot:
        """Read everything in one transaction."""
        return self._read(self._snapshot)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the body at once, or nothing of it."""
        with self._thread_lock, _as_store_error(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'generation'")
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    # -- inside a transaction

    def next_shard(self) -> int:
        """Return the number of the next shard; numbers are never used twice."""
        with self._thread_lock, _as_store_error(self.path):
            return self._next("shards")

    def add_shard(self, shard: ShardRecord) -> None:
        self._connection.execute(
            "INSERT INTO shards VALUES (?, ?, ?)", (shard.shard, shard.n_images, shard.n_descriptors)
        )
        self.add_arrays(shard.shard, shard.arrays)

    def add_arrays(self, shard: int, arrays: Mapping[str, ArrayRecord]) -> None:
        self._connection.executemany(
            "INSERT INTO arrays VALUES (?, ?, ?, ?)",
            [(shard, name, array.n_bytes, array.digest) for name, array in arrays.items()],
        )

    def remove_shards(self, shards: Sequence[int]) -> None:
        for table in ("shards", "arrays"):
            self._connection.executemany(f"DELETE FROM {table} WHERE shard = ?", [(shard,) for shard in shards])

    def set_model(self, digest: bytes) -> None:
        self._connection.execute("UPDATE facts SET value = ? WHERE name = 'model'", (digest,))

    def add_images(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Insert images of new ids; return them with their keys."""
        first = self._next("images")
        records = [record._replace(key=first + i) for i, record in enumerate(records)]
        self._connection.executemany(
            f"INSERT INTO images ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    record.key, _to_bytes(record.id), None if record.path is None else _to_bytes(record.path),
                    record.size, record.mtime_ns, record.status, _to_text(record.reason),
                    record.width, record.height, record.n_features, record.shard, record.row,
                )
                for record in records
            ],
        )  # fmt: skip
        return records

    def set_reasons(self, records: Iterable[ImageRecord]) -> None:
        self._connection.executemany(
            "UPDATE images SET reason = ? WHERE key = ?", [(_to_text(record.reason), record.key) for record in records]
        )

    def move_images(self, records: Iterable[ImageRecord]) -> None:
        self._connection.executemany(
            "UPDATE images SET shard = ?, row = ? WHERE key = ?",
            [(record.shard, record.row, record.key) for record in records],
        )

    def remove_images(self, keys: Iterable[int]) -> None:
        self._connection.executemany("DELETE FROM images WHERE key = ?", [(key,) for key in keys])

    # -- as a whole

    def backup(self, target: Path) -> None:
        """Copy the committed state to another file."""

        def copy() -> None:
            with _as_store_error(target), contextlib.closing(sqlite3.connect(target)) as connection:
                self._connection.backup(connection)

        self._read(copy)

    def damage(self) -> str:
        """Let SQLite read every page; return what it complains about, or nothing."""
        rows = self._read(lambda: self._connection.execute("PRAGMA integrity_check").fetchall())
        return "" if rows == [("ok",)] else "; ".join(str(row[0]) for row in rows[:3])

    # -- inside

    def _connect(self, path: Path) -> sqlite3.Connection:
        # "rw" for readers, too: only so can they undo the unfinished commit of a killed writer. SQLite falls back to
        # reading alone where nothing may be written.
        uri = f"{path.resolve().as_uri()}?mode=rw"
        with _as_store_error(self.path):
            # Autocommit: transactions are begun and ended above, where they are meant.
            return sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        # EXTRA also syncs the folder once the journal is gone. Otherwise a commit might be undone after a loss of power
        # when compaction has deleted the old shards already.
        self._connection.execute("PRAGMA synchronous = EXTRA")
        # What a crafted file could do from inside is turned off, beyond the check of the schema.
        self._connection.execute("PRAGMA trusted_schema = OFF")
        if not self._writable:
            self._connection.execute("PRAGMA query_only = ON")

    def _read(self, read: Callable[[], Result]) -> Result:
        """Run a read; on media where the unfinished commit of a killed writer cannot be undone, read from a copy."""
        with self._thread_lock, _as_store_error(self.path):
            try:
                return read()
            except sqlite3.OperationalError as error:
                if "readonly" not in str(error) or self._private is not None:
                    raise
            self._connection.close()
            self._private = tempfile.TemporaryDirectory(prefix="cvretrieval-")
            copy = Path(self._private.name, self.path.name)
            for suffix in ("", "-journal"):
                shutil.copyfile(f"{self.path}{suffix}", f"{copy}{suffix}")
            self._connection = self._connect(copy)
            self._prepare()
            return read()

    def _snapshot(self) -> Snapshot:
        query = self._connection.execute
        query("BEGIN")
        try:
            generation, model = int(self._fact("generation")), self._fact("model")
            rows = query(f"SELECT {_COLUMNS} FROM images ORDER BY key").fetchall()
            shard_rows = query("SELECT shard, n_images, n_descriptors FROM shards ORDER BY shard").fetchall()
            array_rows = query("SELECT shard, name, n_bytes, digest FROM arrays").fetchall()
        finally:
            query("COMMIT")
        arrays: dict[int, dict[str, ArrayRecord]] = {}
        for shard, name, n_bytes, digest in array_rows:
            arrays.setdefault(shard, {})[name] = ArrayRecord(n_bytes, digest)
        shards = [ShardRecord(row[0], row[1], row[2], arrays.get(row[0], {})) for row in shard_rows]
        n_images = {shard.shard: shard.n_images for shard in shards}
        try:
            images = [_to_record(row) for row in rows]
            for record in images:
                if record.status != "failed" and not 0 <= record.row < n_images[record.shard]:  # type: ignore[operator, index]
                    raise ValueError(f"image {record.key} lies in row {record.row} of shard {record.shard}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"its rows contradict each other: {error}") from error
        return Snapshot(generation, model, images, shards)

    def _fact(self, name: str) -> Any:
        rows = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchall()
        if len(rows) != 1:
            raise self._damaged(f"it does not say its {name}")
        return rows[0][0]

    def _next(self, table: str) -> int:
        rows = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
        return 1 + (int(rows[0][0]) if rows else 0)

    def _check_schema(self) -> None:
        """Refuse a file with other tables, or with views and triggers, which would run when it is used."""
        if self._read(lambda: _schema_of(self._connection)) != _expected_schema():
            raise self._damaged("its tables are not those of an index")

    def _damaged(self, reason: str) -> StoreError:
        return _damaged(self.path, reason)


@contextlib.contextmanager
def _as_store_error(path: Path) -> Iterator[None]:
    """Turn what SQLite says into what it means for the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        for part, reason in _REASONS.items():
            if part in str(error):
                raise StoreError(f"{path} {reason} (SQLite: {error}).") from error
        raise _damaged(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path} is damaged ({reason}). Restore it from a copy or index the photos again.")


def _schema_of(connection: sqlite3.Connection) -> set[tuple[str, str, str | None]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall())


@functools.cache
def _expected_schema() -> set[tuple[str, str, str | None]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _schema_of(connection)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _to_record(row: tuple[Any, ...]) -> ImageRecord:
    key, name, path, size, mtime_ns, status, reason, width, height, n_features, shard, place = row
    return ImageRecord._make((
        name.decode("utf-8", "surrogateescape"),
        None if path is None else path.decode("utf-8", "surrogateescape"),
        size, mtime_ns, status, reason, width, height, n_features, key, shard, place,
    ))  # fmt: skip
