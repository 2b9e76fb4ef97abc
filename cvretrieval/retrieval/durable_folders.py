"""Folders that appear whole or not at all, and the place of a new store."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cvretrieval._durable import TEMPORARY, cannot_write, sync_folder
from cvretrieval._validation import StoreError
from cvretrieval.retrieval.lock import WriterLock

_UNFINISHED_FOLDER = ".cvretrieval-"


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
    clear_abandoned(path.parent)
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


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder that is deleted afterwards, whatever is in it; those of killed processes are, too.

    Raises
    ------
    StoreError
        If `parent` cannot be written.
    """
    clear_abandoned(parent)
    folder = parent / f"{_UNFINISHED_FOLDER}{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise cannot_write(folder, error) from error
    lock = WriterLock(folder / "lock")
    try:
        yield folder
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise cannot_write(folder, error) from error
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned(parent: Path) -> None:
    """Delete unfinished stores whose builder is gone."""
    with contextlib.suppress(OSError):
        for folder in parent.glob(_UNFINISHED_FOLDER + "*"):
            # Without a lock file it is being made this moment, or empty.
            if (folder / "lock").is_file():
                with contextlib.suppress(StoreError):
                    lock = WriterLock(folder / "lock")
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()
