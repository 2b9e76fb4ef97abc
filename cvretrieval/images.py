"""Reading images: the one policy for orientation, transparency, bit depth, colour, size and damaged files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._validation import ImageReadError, check_choice, check_number, describe_array
from cvretrieval.image_decoding import (
    Box,
    ImageRegion,
    as_read_error,
    describe_source,
    open_image,
    orientation_of,
    to_upright,
)
from cvretrieval.image_files import IMAGE_SUFFIXES, collect_images, find_images

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageReader",
    "ImageRegion",
    "ReadImage",
    "check_images",
    "collect_images",
    "describe_source",
    "find_images",
]

#: Above this Pillow warns of a decompression bomb by itself.
DEFAULT_MAX_PIXELS = 89_478_485


@dataclass(frozen=True, eq=False)
class ReadImage:
    """Pixels ready for feature extraction, and the way back to the original image.

    Attributes
    ----------
    pixels : ndarray of shape (height, width) or (height, width, 3)
        uint8, grey or RGB, possibly cropped and reduced.
    width, height : int
        Size of the original image in pixels, after its orientation was applied.
    scale : tuple of float
        Original pixels per pixel of `pixels`, in x and y.
    origin : tuple of float
        Left and top edge of the crop in the original image.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    scale: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)

    def to_original(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Map x, y columns from `pixels` to the original image; pixel centres are at integers in both."""
        # The edge of pixel 0 is at -0.5: scaling happens about the edge, not about the centre.
        return (np.asarray(xy, dtype=np.float64) + 0.5) * self.scale + self.origin - 0.5


class ImageReader(BaseEstimator):
    """Reads images under one stated policy; its parameters are stored with every index.

    Parameters
    ----------
    exif : {"apply", "ignore"}, default="apply"
        Whether the orientation recorded by the camera is applied. All coordinates refer to the image as it is then.
    background : tuple of 3 int, default=(255, 255, 255)
        RGB colour under transparent pixels.
    max_size : int or None, default=1024
        Longest side in pixels: larger images are reduced (never enlarged). Coordinates are always given in pixels of
        the original image.
    max_pixels : int or None, default=89478485
        Images with more pixels are refused from their header, before anything is decoded. Pillow refuses twice the
        default by itself.

    Notes
    -----
    8-bit grey and colour, palette, CMYK and transparent images are converted to RGB (or grey by ITU-R BT.601 luma);
    16-bit images are divided by 257; of an animation the first frame is taken. Arrays are (height, width),
    (height, width, 3) RGB or (height, width, 4) RGBA: uint8, uint16 (divided by 257), bool, or floats in [0, 1]
    (times 255).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ImageReader
    >>> image = ImageReader(max_size=100).read(np.zeros((200, 400, 3), dtype=np.uint8))
    >>> image.pixels.shape, image.width, image.height
    ((50, 100), 400, 200)
    """

    def __init__(
        self,
        *,
        exif: str = "apply",
        background: tuple[int, int, int] = (255, 255, 255),
        max_size: int | None = 1024,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.exif = exif
        self.background = background
        self.max_size = max_size
        self.max_pixels = max_pixels

    def read(self, source: Any, *, color: str = "grey", box: Box | None = None) -> ReadImage:
        """Read one image.

        Parameters
        ----------
        source : str, PathLike, binary file object, PIL image, ndarray or ImageRegion
            The image; a string may be a URL, of any protocol that fsspec has a driver for (extra ``remote``). A file
            object is read from where it stands and, if it can be, set back there.
        color : {"grey", "rgb"}, default="grey"
            Channels of the result.
        box : tuple of 4 floats, optional
            Region x1, y1, x2, y2 (left, top, right, bottom edges) in pixels of the original image; parts outside the
            image are cut off.

        Returns
        -------
        ReadImage

        Raises
        ------
        ImageReadError
            If the image cannot be read; the message names it and says why.
        TypeError
            If `source` is none of the accepted types.
        """
        self._check_parameters(color)
        if isinstance(source, ImageRegion):
            source, box = source
        name = describe_source(source)
        _check_box(box)
        with as_read_error(name), open_image(source) as image:
            orientation, width, height = self._opened(name, image)
            region = _clip_box(name, box, width, height)
            target = self._target_size(region[2] - region[0], region[3] - region[1])
            if image.format == "JPEG":
                # The decoder reduces by powers of two for a fraction of the cost, and hands out luma as it is stored.
                size = target if orientation < 5 else target[::-1]
                image.draft("L" if color == "grey" else "RGB", size if box is None else image.size)
            image.load()
            pixels = to_upright(image, orientation, self.background, "L" if color == "grey" else "RGB")
            if box is not None:
                pixels = pixels.crop(region)
            if pixels.size != target:
                from PIL.Image import Resampling

                pixels = pixels.resize(target, Resampling.LANCZOS, reducing_gap=3.0)
            scale = ((region[2] - region[0]) / target[0], (region[3] - region[1]) / target[1])
            origin = (float(region[0]), float(region[1]))
            return ReadImage(np.array(pixels, dtype=np.uint8), width, height, scale, origin)

    def read_size(self, source: Any) -> tuple[int, int]:
        """Return width and height of the original image as `read` tells them, from its header alone.

        Parameters
        ----------
        source : str, PathLike, binary file object, PIL image, ndarray or ImageRegion

        Returns
        -------
        tuple of int

        Raises
        ------
        ImageReadError, TypeError
            As `read` does; damaged pixels are not noticed.
        """
        self._check_parameters("grey")
        if isinstance(source, ImageRegion):
            source = source.source
        name = describe_source(source)
        with as_read_error(name), open_image(source) as image:
            return self._opened(name, image)[1:]

    def _opened(self, name: str, image: Any) -> tuple[int, int, int]:
        """Return orientation, and width and height once it is applied, of an image that may be read."""
        self._check_size(name, image)
        orientation = orientation_of(image) if self.exif == "apply" else 1
        width, height = image.size if orientation < 5 else image.size[::-1]
        return orientation, width, height

    def _check_parameters(self, color: str) -> None:
        check_choice(self, "exif", self.exif, ("apply", "ignore"))
        check_choice(self, "color", color, ("grey", "rgb"))
        check_number(self, "max_size", self.max_size, low=1, integer=True, optional=True)
        check_number(self, "max_pixels", self.max_pixels, low=1, integer=True, optional=True)
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"The 'background' parameter must be three values in [0, 255]. Got {self.background!r}.")

    def _check_size(self, name: str, image: Any) -> None:
        width, height = image.size
        if width == 0 or height == 0:
            raise ImageReadError(name, f"has no pixels ({width} x {height})")
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise ImageReadError(
                name,
                f"has {width} x {height} pixels, more than max_pixels={self.max_pixels}; raise it to read the image",
            )

    def _target_size(self, width: int, height: int) -> tuple[int, int]:
        longest = max(width, height)
        if self.max_size is None or longest <= self.max_size:
            return width, height
        ratio = self.max_size / longest
        return max(1, round(width * ratio)), max(1, round(height * ratio))


def check_images(X: Any, *, estimator: Any) -> Sequence[Any]:
    """Validate the input of a stage that takes images: the one door for sequences of them.

    Parameters
    ----------
    X : sequence of paths, arrays, PIL images, file objects or ImageRegion
        Arrays may be stacked as (n_images, height, width) or (n_images, height, width, channels).
    estimator : object
        The caller, named in messages.

    Raises
    ------
    TypeError, ValueError
        For a single image where a sequence is expected, and for things that are no sequence.
    """
    name = type(estimator).__name__
    single = isinstance(X, (str, bytes, os.PathLike, ImageRegion)) or hasattr(X, "read") or hasattr(X, "getbands")
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUST":
        single = X.ndim == 2 or (X.ndim == 3 and X.shape[2] in (3, 4))
        if not single and X.ndim not in (3, 4):
            raise ValueError(f"{name} expects a sequence of images. Got {describe_array(X)} instead.")
    if single:
        raise TypeError(f"{name} expects a sequence of images, not a single one. Wrap it in a list: [image].")
    if hasattr(X, "__len__") and hasattr(X, "__getitem__") and not isinstance(X, dict):
        return X.tolist() if hasattr(X, "tolist") and not isinstance(X, np.ndarray) else X
    if isinstance(X, Iterable) and not isinstance(X, dict):
        return list(X)
    raise TypeError(f"{name} expects a sequence of images (paths, arrays, …). Got {type(X).__name__} instead.")


def _check_box(box: Box | None) -> None:
    if box is None:
        return
    if len(box) != 4 or not all(np.isfinite(value) for value in box):
        raise ValueError(f"box must be four finite numbers x1, y1, x2, y2. Got {box!r} instead.")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"box must have x1 < x2 and y1 < y2 (left, top, right, bottom). Got {box!r} instead.")


def _clip_box(name: str, box: Box | None, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixel rectangle of a region, clipped to the image."""
    if box is None:
        return 0, 0, width, height
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if left >= right or top >= bottom:
        raise ImageReadError(name, f"has {width} x {height} pixels; the box {tuple(box)} lies outside of them")
    return left, top, right, bottom
