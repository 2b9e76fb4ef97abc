"""Photos that were sent to be searched with: kept in memory alone, the latest of them, under what they hash to."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

#: Bytes of all photos that are remembered.
_REMEMBERED_BYTES = 256_000_000


@dataclass(frozen=True, eq=False)
class Upload:
    """One photo, undecoded.

    Attributes
    ----------
    key : str
        By which it can be asked for again.
    name : str
        What its sender called it; text, never a path.
    data : bytes
    """

    key: str
    name: str
    data: bytes

    def open(self) -> io.BytesIO:
        """Return it as a file."""
        return io.BytesIO(self.data)


class Uploads:
    """The latest photos that were sent.

    Parameters
    ----------
    most_bytes : int
        When there are more, those that were not asked for longest are forgotten.
    """

    def __init__(self, most_bytes: int = _REMEMBERED_BYTES) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[str, Upload] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def keep(self, name: str, data: bytes) -> Upload:
        """Remember a photo."""
        key = hashlib.sha256(data).hexdigest()[:32]
        with self._lock:
            old = self._held.pop(key, None)
            self._n_bytes += len(data) - (0 if old is None else len(old.data))
            self._held[key] = Upload(key, name, data)
            while self._n_bytes > self.most_bytes and len(self._held) > 1:
                self._n_bytes -= len(self._held.popitem(last=False)[1].data)
            return self._held[key]

    def find(self, key: str) -> Upload | None:
        """Return a photo, if it is still remembered."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)
