"""Rectangles of a feature map in pixels of the original image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.deep.local.map_geometry import AxisGeometry, MapGeometry
from cvretrieval.images import ReadImage


def region_in_original(
    box: Sequence[int], geometry: MapGeometry, size: tuple[int, int], image: ReadImage, *, clip: bool = True
) -> NDArray[Any]:
    """Return the outer borders of a rectangle of a map: x1, y1, x2, y2, pixel centres at integers.

    Parameters
    ----------
    box : sequence of int
        The first pixel of the map and the one past the last: x1, y1, x2, y2.
    geometry : MapGeometry
        Where the pixels of the map lie in the image that the network was given.
    size : tuple of int
        Height and width of that image.
    image : ReadImage
        What it was read from, if necessary resized.
    clip : bool, default=True
        Keep within what was read.
    """
    x1, y1, x2, y2 = box
    height, width = size
    corners = np.array([(_border(geometry.x, x), _border(geometry.y, y)) for x, y in ((x1, y1), (x2, y2))])
    if clip:
        corners = corners.clip(-0.5, (width - 0.5, height - 0.5))
    # From the image that the network was given to the one that was read: about the edge of pixel 0.
    read_height, read_width = image.pixels.shape[:2]
    corners = (corners + 0.5) * (read_width / width, read_height / height) - 0.5
    original: NDArray[Any] = image.to_original(corners).reshape(4)
    return original


def _border(axis: AxisGeometry, cell: int) -> float:
    """Return where the cell begins: half a step before the centre of what it sees."""
    return axis.start + (cell - 0.5) * axis.step
