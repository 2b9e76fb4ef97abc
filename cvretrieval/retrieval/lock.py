"""One writer at a time: a lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from cvretrieval._validation import StoreError


class WriterLock:
    """Exclusive lock on a file; refuses at once instead of waiting.

    Raises
    ------
    StoreError
        If another process, or another object of this one, holds it; the message says who.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be written ({error.strerror}).") from error
        try:
            _lock(self._descriptor)
        except OSError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() if os.name != "nt" else ""
            os.close(self._descriptor)
            raise StoreError(
                f"{path.parent} is being written by another process{f' ({holder})' if holder else ''}; "
                "wait until it is done."
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


if os.name == "nt":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
