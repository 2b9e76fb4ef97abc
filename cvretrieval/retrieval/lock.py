"""One writer at a time: a lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path

from cvretrieval._validation import StoreError


class WriterLock:
    """Exclusive lock on a file; refuses at once instead of waiting.

    It belongs to the open file, not to its name or contents: however its holder ends, the next one gets it, and a lock
    file that lies about means nothing. On NFS the kernel passes it on to the server.

    Raises
    ------
    StoreError
        If another process, or another object of this one, holds it (the message says who), or if the file system
        knows no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be written ({error.strerror}).") from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() if os.name != "nt" else ""
            os.close(self._descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise StoreError(
                    f"{path.parent} cannot be locked ({error.strerror}), so two writers could not be told apart. Keep "
                    "the index on a file system with locks."
                ) from error
            raise StoreError(
                f"{path.parent} is being written by another process{f' ({holder})' if holder else ''}; "
                "wait until it is done."
            ) from None
        # Only for the message above: a full disk must not keep anyone from removing images.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Let the next writer in; more than once does no harm."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            # A forked child may hold the same open file: closing alone would leave it locked.
            with contextlib.suppress(OSError):
                _unlock(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
