"""Images in batches of one size, read by threads while the network works on the batch before."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_ahead
from cvretrieval.images import ImageReader

# Images of all sizes that wait for others of their size, in batches: 150 MB at 1024 pixels and 16 images a batch.
_WAITING_BATCHES = 4


class ImageBatch(NamedTuple):
    """Images of one size.

    Attributes
    ----------
    indices : list of int
        Which of the images they are.
    pixels : ndarray of shape (n_images, height, width, 3)
        uint8, RGB.
    """

    indices: list[int]
    pixels: NDArray[np.uint8]


def limited_reader(reader: ImageReader | None, image_size: int | None) -> ImageReader:
    """Return the reader, or the default one, with the longest side that is asked for; None keeps its own."""
    reader = ImageReader() if reader is None else copy.copy(reader)
    if image_size is not None:
        reader.max_size = image_size
    return reader


def image_batches(
    images: Sequence[Any], reader: ImageReader, batch_size: int, n_workers: int | None
) -> Iterator[ImageBatch]:
    """Yield all images, at most `batch_size` of one size at once; none is distorted or padded.

    A batch is given out when it is full, or when so many images are waiting for others of their size that the largest
    of the batches must go.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    n_waiting = 0

    def read(source: Any) -> NDArray[np.uint8]:
        return reader.read(source, color="rgb").pixels

    sources = (images[i] for i in range(len(images)))
    with closing(map_ahead(read, sources, n_workers=n_workers)) as found:
        for index, pixels in enumerate(found):
            group = waiting.setdefault(pixels.shape, [])
            group.append((index, pixels))
            n_waiting += 1
            if len(group) == batch_size:
                size = pixels.shape
            elif n_waiting >= _WAITING_BATCHES * batch_size:
                size = max(waiting, key=lambda key: len(waiting[key]))
            else:
                continue
            n_waiting -= len(waiting[size])
            yield _stack(waiting.pop(size))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, NDArray[np.uint8]]]) -> ImageBatch:
    return ImageBatch([index for index, _ in group], np.stack([pixels for _, pixels in group]))
