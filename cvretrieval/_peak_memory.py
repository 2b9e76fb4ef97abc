"""Watching how much memory the process holds while something runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_STATM = Path("/proc/self/statm")

# Vectors and codebooks live for longer than this; what is gone sooner is rarely what fills a machine.
_SECONDS = 0.02


class PeakMemory:
    """Largest resident memory of the process inside a ``with`` block, sampled fifty times a second.

    Attributes
    ----------
    n_bytes : int or None
        None where the system does not say (anywhere but on Linux).
    """

    def __init__(self) -> None:
        self.n_bytes: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if resident_memory() is not None:
            self._sample()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._sample()

    def _sample(self) -> None:
        now = resident_memory()
        if now is not None:
            self.n_bytes = now if self.n_bytes is None else max(self.n_bytes, now)


def resident_memory() -> int | None:
    """Return the bytes of physical memory the process holds; None where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError, AttributeError):
        return None
