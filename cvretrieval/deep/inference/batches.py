"""Images in batches of one size, read by threads while the network works on the batch before."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_ahead
from cvretrieval.images import ImageReader, ReadImage

# Images of all sizes that wait for others of their size, in batches: 150 MB at 1024 pixels and 16 images a batch.
_WAITING_BATCHES = 4


class ImageSource(Protocol):
    """What images are read by: an `ImageReader`, or something that goes on from what it read."""

    def read(self, source: Any, *, color: str = ...) -> ReadImage:
        """Read one image."""


class ImageBatch(NamedTuple):
    """Images of one size.

    Attributes
    ----------
    indices : list of int
        Which of the images they are.
    pixels : ndarray of shape (n_images, height, width, 3)
        uint8, RGB.
    images : list of ReadImage
        What each of them was read from; their pixels are those above.
    """

    indices: list[int]
    pixels: NDArray[np.uint8]
    images: list[ReadImage]


def limited_reader(reader: ImageReader | None, image_size: int | None) -> ImageReader:
    """Return the reader, or the default one, with the longest side that is asked for; None keeps its own."""
    reader = ImageReader() if reader is None else copy.copy(reader)
    if image_size is not None:
        reader.max_size = image_size
    return reader


def image_batches(
    images: Sequence[Any], reader: ImageSource, batch_size: int, n_workers: int | None
) -> Iterator[ImageBatch]:
    """Yield all images, at most `batch_size` of one size at once; none is distorted or padded.

    A batch is given out when it is full, or when so many images are waiting for others of their size that the largest
    of the batches must go.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, ReadImage]]] = {}
    n_waiting = 0

    def read(source: Any) -> ReadImage:
        return reader.read(source, color="rgb")

    sources = (images[i] for i in range(len(images)))
    with closing(map_ahead(read, sources, n_workers=n_workers)) as found:
        for index, image in enumerate(found):
            group = waiting.setdefault(image.pixels.shape, [])
            group.append((index, image))
            n_waiting += 1
            if len(group) == batch_size:
                size = image.pixels.shape
            elif n_waiting >= _WAITING_BATCHES * batch_size:
                size = max(waiting, key=lambda key: len(waiting[key]))
            else:
                continue
            n_waiting -= len(waiting[size])
            yield _stack(waiting.pop(size))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, ReadImage]]) -> ImageBatch:
    pixels = np.stack([image.pixels for _, image in group])
    images = [dataclasses.replace(image, pixels=own) for (_, image), own in zip(group, pixels, strict=True)]
    return ImageBatch([index for index, _ in group], pixels, images)
