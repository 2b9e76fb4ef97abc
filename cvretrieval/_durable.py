"""Files that appear whole or not at all, and stay once they are there, even if the power goes.

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

#: What is being written; no finished file begins so.
TEMPORARY = ".tmp-"


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
    # Of two processes that write the same file, one after the other must win, not half of each.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
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
    """Word a failed write of something that appears whole or not at all."""
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend it"
    return StoreError(
        f"{path} cannot be written ({error.strerror or error}). What was there before is kept; {hint} and try again."
    )
