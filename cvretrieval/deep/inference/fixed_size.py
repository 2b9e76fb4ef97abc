"""Images of one size, for networks with fully connected layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cvretrieval.images import ImageReader, ReadImage

#: How an image becomes a square.
RESIZINGS = ("squash", "crop")


class FixedSizeReader:
    """Reads images and makes squares of them.

    Parameters
    ----------
    reader : ImageReader
    size : int
        Side of the square in pixels; smaller images are enlarged.
    resize : {"squash", "crop"}
        "squash" resizes both sides, whatever their ratio; "crop" cuts out the square in the middle first.
    """

    def __init__(self, reader: ImageReader, size: int, resize: str) -> None:
        self.reader = reader
        self.size = size
        self.resize = resize

    def read(self, source: Any, *, color: str = "rgb") -> ReadImage:
        """Read one image."""
        from PIL import Image

        found = self.reader.read(source, color=color)
        height, width = found.pixels.shape[:2]
        side = min(height, width)
        cut = ((width - side) / 2, (height - side) / 2) if self.resize == "crop" else (0.0, 0.0)
        box = (cut[0], cut[1], width - cut[0], height - cut[1])
        # As networks are trained: bilinear, and averaged where it gets smaller.
        pixels = Image.fromarray(found.pixels).resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        x, y = found.scale
        return dataclasses.replace(
            found,
            pixels=np.array(pixels, dtype=np.uint8),
            scale=(x * (box[2] - box[0]) / self.size, y * (box[3] - box[1]) / self.size),
            origin=(found.origin[0] + x * cut[0], found.origin[1] + y * cut[1]),
        )
