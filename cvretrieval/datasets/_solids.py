"""Painted surfaces in space: flat prints and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Art is painted this many times larger than the reference image, so that close views stay sharp.
ART_SCALE = 2


@dataclass(frozen=True)
class Face:
    """A painted rectangle in space; lengths are pixels of the reference image.

    Attributes
    ----------
    art : ndarray of shape (height * ART_SCALE, width * ART_SCALE, 4)
        uint8 RGBA; black where it is transparent.
    corner : tuple of 3 floats
        Where the top-left corner of the art is; x right, y down, z away from the camera, origin in the middle of the
        front.
    right, down : tuple of 3 floats
        Unit vectors along the rows and columns of the art.
    """

    art: NDArray[np.uint8]
    corner: tuple[float, float, float]
    right: tuple[float, float, float] = (1.0, 0.0, 0.0)
    down: tuple[float, float, float] = (0.0, 1.0, 0.0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the reference image."""
        return self.art.shape[1] // ART_SCALE, self.art.shape[0] // ART_SCALE


@dataclass(frozen=True)
class PaintedObject:
    """An object: its front first, then other faces; `kind` names it."""

    kind: str
    faces: tuple[Face, ...]

    @property
    def front(self) -> Face:
        return self.faces[0]


def flat_object(kind: str, image: Image.Image) -> PaintedObject:
    """Return a print without thickness; lengths of the image are ART_SCALE times those of the reference."""
    width, height = image.width // ART_SCALE, image.height // ART_SCALE
    art = np.asarray(image.convert("RGBA"))
    return PaintedObject(kind, (Face(art, (-width / 2, -height / 2, 0.0)),))


def block_object(
    kind: str, front: Image.Image, sides: tuple[Image.Image, Image.Image], top: Image.Image, depth: int
) -> PaintedObject:
    """Return a box seen from the front: front, left and right side, top; `depth` in pixels of the art."""
    x, y, z = front.width / ART_SCALE / 2, front.height / ART_SCALE / 2, float(depth // ART_SCALE)
    arts = [np.asarray(image.convert("RGBA")) for image in (front, *sides, top)]
    return PaintedObject(
        kind,
        (
            Face(arts[0], (-x, -y, 0.0)),
            Face(arts[1], (-x, -y, z), right=(0.0, 0.0, -1.0)),
            Face(arts[2], (x, -y, 0.0), right=(0.0, 0.0, 1.0)),
            Face(arts[3], (-x, -y, z), down=(0.0, 0.0, -1.0)),
        ),
    )


def reference_image(painted: PaintedObject) -> NDArray[np.uint8]:
    """Return the front of an object at reference size, uint8 RGB, rounded corners on light grey."""
    art = Image.fromarray(painted.front.art)
    ground = Image.new("RGB", art.size, (228, 228, 226))
    ground.paste(art, (0, 0), art)
    return np.array(ground.reduce(ART_SCALE))
