"""Small JPEGs of photos, upright, the latest of them remembered."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from cvretrieval.images import ImageReader

_REMEMBERED_BYTES = 64_000_000
_QUALITY = 82


class Pictures:
    """Makes and remembers them.

    Parameters
    ----------
    reader : ImageReader
        The policy of the index, so that what is seen is what was indexed.
    most_bytes : int
        Of all that are remembered.
    """

    def __init__(self, reader: ImageReader, most_bytes: int = _REMEMBERED_BYTES) -> None:
        self.reader = reader
        self.most_bytes = most_bytes
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def jpeg(self, identity: Hashable, source: Any, size: int) -> bytes:
        """Return a photo reduced to a longest side of at most `size` pixels.

        Parameters
        ----------
        identity : hashable
            Tells it, and its contents, from others.
        source : image
        size : int

        Raises
        ------
        ImageReadError
        """
        key = (identity, size)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        data = self._make(source, size)
        with self._lock:
            if key not in self._held:
                self._held[key] = data
                self._n_bytes += len(data)
            while self._n_bytes > self.most_bytes:
                self._n_bytes -= len(self._held.popitem(last=False)[1])
        return data

    def _make(self, source: Any, size: int) -> bytes:
        from PIL import Image
        from sklearn.base import clone

        read = clone(self.reader).set_params(max_size=size).read(source, color="rgb")
        file = io.BytesIO()
        Image.fromarray(read.pixels).save(file, "JPEG", quality=_QUALITY, progressive=True)
        return file.getvalue()
