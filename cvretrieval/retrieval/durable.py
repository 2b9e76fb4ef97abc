"""Files and folders that appear whole or not at all, and stay once they are there, even if the power goes.

A rename is atomic, but says nothing about the disk: contents are synced before it, the folder that holds the name
after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cvretrieval._validation import StoreError
from cvretrieval.retrieval.lock import WriterLock

#: What is being written; no committed name begins so.
TEMPORARY = ".tmp-"
_UNFINISHED_FOLDER = ".cvretrieval-"


class HashingFile:
    """A binary file to write to that keeps size and BLAKE2b digest (16 bytes) of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.blake2b(digest_size=16)
        self.n_bytes = 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.n_bytes += memoryview(data).nbytes
        return self._file.write(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def file_digest(path: Path) -> bytes:
    """Return the digest that `HashingFile` keeps, of a file on disk."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.digest()


def write_file(path: Path, write: Callable[[HashingFile], object]) -> tuple[int, bytes]:
    """Write one file, make sure it is on disk, and return its size and digest."""
    with path.open("wb") as file:
        hashing = HashingFile(file)
        write(hashing)
        file.flush()
        os.fsync(file.fileno())
    return hashing.n_bytes, hashing.digest()


def replace_file(path: Path, write: Callable[[HashingFile], object]) -> tuple[int, bytes]:
    """Write a file beside its final place and move it there at once; return its size and digest."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        written = write_file(temporary, write)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise
    return written


def copy_file(source: Path, target: Path) -> None:
    """Copy one file and make sure the copy is on disk."""
    with source.open("rb") as file:
        write_file(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 22))  # type: ignore[misc]


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a flat folder beside its final place and move it there at once; `fill` syncs the files."""
    temporary = path.with_name(TEMPORARY + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        fill(temporary)
        sync_folder(temporary)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def build_store(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill the folder of a new store beside its final place and move it there at once.

    The place may be an empty folder. What a killed builder left beside it is cleared away: its lock is free.

    Raises
    ------
    StoreError
        If the place is taken, or cannot be written.
    """
    path = Path(os.path.realpath(path))
    if os.path.lexists(path) and not is_empty_folder(path):
        raise StoreError(f"{path} exists already.")
    _clear_abandoned(path.parent)
    temporary = path.with_name(_UNFINISHED_FOLDER + secrets.token_hex(4))
    try:
        temporary.mkdir()
        lock = WriterLock(temporary / "lock")
        try:
            fill(temporary)
            for folder, _, _ in os.walk(temporary):
                sync_folder(Path(folder))
            if os.name == "nt":  # there a folder with an open file cannot be moved
                lock.release()
            if path.is_dir():
                path.rmdir()
            os.rename(temporary, path)
        finally:
            lock.release()
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise StoreError(f"{path} exists already.") from error
        if isinstance(error, OSError):
            raise StoreError(f"{path} cannot be written ({error.strerror or error}).") from error
        raise


def is_empty_folder(path: Path) -> bool:
    """Whether a path is a folder with nothing in it."""
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the names are then as durable as they ever get there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> StoreError:
    """Word a failed write inside a store."""
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend it"
    return StoreError(
        f"{path} cannot be written ({error.strerror or error}). What was committed is kept; {hint} and run the command "
        "again."
    )


def _clear_abandoned(parent: Path) -> None:
    """Delete unfinished stores whose builder is gone."""
    with contextlib.suppress(OSError):
        for folder in parent.glob(_UNFINISHED_FOLDER + "*"):
            # Without a lock file it is being made this moment, or empty.
            if (folder / "lock").is_file():
                with contextlib.suppress(StoreError):
                    lock = WriterLock(folder / "lock")
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()
