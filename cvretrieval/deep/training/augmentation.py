"""Images as training sees them: a random part of a square, mirrored or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from cvretrieval.images import ImageReader


class CropReader:
    """Reads images as squares of one size and cuts a random square out of each.

    Parameters
    ----------
    reader : ImageReader
    resize_to : int
        Side in pixels of the square that the whole image becomes, out of proportion.
    crop_to : int
        Side of what is cut out.
    flip : bool
        Mirror every other image, left to right.
    """

    def __init__(self, reader: ImageReader, resize_to: int, crop_to: int, flip: bool) -> None:
        self.reader = FixedSizeReader(reader, resize_to, "squash")
        self.room = resize_to - crop_to
        self.crop_to = crop_to
        self.flip = flip

    def read(self, source: Any, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image (crop_to, crop_to, 3), RGB; what is drawn depends on `rng` alone."""
        top, left = rng.integers(self.room + 1, size=2)
        is_flipped = self.flip and rng.random() < 0.5
        pixels = self.reader.read(source).pixels[top : top + self.crop_to, left : left + self.crop_to]
        return pixels[:, ::-1] if is_flipped else pixels
