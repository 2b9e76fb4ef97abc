"""The images of a report: each distinct one read, reduced and inlined once, within a fixed number of bytes."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from cvretrieval._parallel import map_blocks
from cvretrieval._validation import ImageReadError
from cvretrieval.images import ImageReader
from cvretrieval.plotting.page import escape
from cvretrieval.remote_files import absolute

#: Longest side and JPEG quality, from the best to the least; the first that fits is taken.
_LADDER = (
    (1280, 85),
    (1280, 75),
    (960, 75),
    (640, 82),
    (640, 70),
    (480, 72),
    (400, 70),
    (320, 70),
    (240, 65),
    (160, 60),
)
_BLOCK_SIZE = 8


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One image as it is shown, or why it is not.

    Attributes
    ----------
    key : str
        Id of its element in the page.
    width, height : int
        Size of the original; 0 if it cannot be shown.
    jpeg : bytes
    reason : str
        Why it cannot be shown, empty if it can.
    """

    key: str
    width: int = 0
    height: int = 0
    jpeg: bytes = b""
    reason: str = ""


class ThumbnailSheet:
    """The distinct images of a report.

    Parameters
    ----------
    sources : iterable
        Paths, arrays, PIL images, or None for an image that is not known; the most important first.
    reader : ImageReader, optional
        Policy for orientation and transparency: that of the index, so that coordinates agree.
    max_size : int, default=640
        Longest side in pixels.
    max_bytes : int, default=12_000_000
        Of all images together, before base64 adds a third.
    max_bytes_each : int, default=60_000
    max_images : int, default=2000
        Further images are left out, and said to be.
    n_jobs, verbose
        As everywhere.
    """

    def __init__(
        self,
        sources: Iterable[Any],
        *,
        reader: ImageReader | None = None,
        max_size: int = 640,
        max_bytes: int = 12_000_000,
        max_bytes_each: int = 60_000,
        max_images: int = 2000,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        distinct = {_identity(source): source for source in sources if source is not None}
        self._sources = list(distinct.values())  # kept alive: arrays are told apart by their address
        shown = self._sources[:max_images]
        share = min(max_bytes_each, max_bytes // max(1, len(shown)))
        reducing = clone(reader if reader is not None else ImageReader()).set_params(max_size=max_size)
        blocks = [shown[i : i + _BLOCK_SIZE] for i in range(0, len(shown), _BLOCK_SIZE)]
        weights = [len(block) for block in blocks]

        def make(block: Sequence[Any]) -> list[tuple[int, int, bytes, str]]:
            return [_reduce(source, reducing, max_size, share) for source in block]

        results = map_blocks(make, blocks, n_jobs=n_jobs, weights=weights, description="thumbnails", verbose=verbose)
        made = [thumbnail for block in results for thumbnail in block]
        made += [(0, 0, b"", "left out to keep this file small")] * (len(self._sources) - len(shown))
        self._thumbnails = {
            identity: Thumbnail(f"i{i}", *facts) for i, (identity, facts) in enumerate(zip(distinct, made, strict=True))
        }

    def __getitem__(self, source: Any) -> Thumbnail:
        if source is None:
            return Thumbnail("", reason="no file is recorded for it")
        return self._thumbnails[_identity(source)]

    def __len__(self) -> int:
        return len(self._thumbnails)

    def sprite(self) -> str:
        """Return SVG elements to be drawn with ``<use>``, in pixel coordinates of the original images."""
        # Pixel centres are at integers, so the picture begins at -0.5.
        return "\n".join(
            f'<image id="{t.key}" x="-0.5" y="-0.5" width="{t.width}" height="{t.height}" preserveAspectRatio="none" '
            f'href="data:image/jpeg;base64,{base64.b64encode(t.jpeg).decode("ascii")}"/>'
            for t in self._thumbnails.values()
            if t.jpeg
        )


def picture(thumbnail: Thumbnail, alt: str, marks: str = "", css_class: str = "picture") -> str:
    """Return an image of the sheet as an SVG element with marks drawn over it, or a placeholder with the reason.

    An empty `alt` hides it from screen readers.
    """
    reason = "" if thumbnail.jpeg else f"Cannot be shown: {thumbnail.reason}"
    label = f'role="img" aria-label="{escape(f"{alt}. {reason}" if reason else alt)}"' if alt else 'aria-hidden="true"'
    if reason:
        return f'<span class="{css_class} missing" {label}><span aria-hidden="true">{escape(reason)}</span></span>'
    return (
        f'<svg class="{css_class}" {label} width="{thumbnail.width}" height="{thumbnail.height}" '
        f'viewBox="-0.5 -0.5 {thumbnail.width} {thumbnail.height}"><use href="#{thumbnail.key}"/>{marks}</svg>'
    )


def polygon(points: NDArray[np.float64] | None) -> str:
    """Return a polygon that shows on light and on dark pictures alike."""
    if points is None:
        return ""
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<g class="outline"><polygon class="halo" points="{text}"/><polygon points="{text}"/></g>'


def _identity(source: Any) -> Hashable:
    if isinstance(source, (str, os.PathLike)):
        return "file", absolute(source)
    return "object", id(source)


def _reduce(source: Any, reader: ImageReader, max_size: int, max_bytes: int) -> tuple[int, int, bytes, str]:
    """Return width, height, JPEG and reason."""
    try:
        if hasattr(source, "seek") and hasattr(source, "read") and not hasattr(source, "getexif"):
            source.seek(0)  # the search has read the stream to its end
        image = reader.read(source, color="rgb")
        return image.width, image.height, _encode(image.pixels, max_size, max_bytes), ""
    except ImageReadError as error:
        return 0, 0, b"", error.reason
    except (OSError, TypeError, ValueError) as error:
        return 0, 0, b"", f"is not an image that can be read ({error})"


def _encode(pixels: NDArray[np.uint8], max_size: int, max_bytes: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    data = b""
    for side, quality in [rung for rung in _LADDER if rung[0] <= max_size] or _LADDER[-1:]:
        if side < max(image.size):
            ratio = side / max(image.size)
            size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        data = buffer.getvalue()
        if len(data) <= max_bytes:
            break
    return data
