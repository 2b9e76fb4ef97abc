"""Images through the network and a function of its maps, scale by scale, in batches that fit into memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cvretrieval._validation import ImageReadError
from cvretrieval.deep.inference.batches import ImageSource, image_batches
from cvretrieval.deep.inference.devices import is_out_of_memory, precision
from cvretrieval.deep.inference.network import PROBE_SIZE, PreparedNetwork, evaluating
from cvretrieval.images import ReadImage, describe_source

Pooled = TypeVar("Pooled")


class Batch(NamedTuple):
    """What was made of the maps of some images.

    Attributes
    ----------
    indices : list of int
        Which of the images they are.
    by_scale : list
        The results at each scale.
    images : list of ReadImage
        The images as they were read.
    """

    indices: list[int]
    by_scale: list[Any]
    images: list[ReadImage]


class _TooSmall(Exception):
    pass


def run_images(
    images: Sequence[Any],
    network: PreparedNetwork,
    function: Callable[[Tensor], Any],
    *,
    reader: ImageSource,
    scales: Sequence[float] = (1.0,),
    dtype: str = "float32",
    batch_size: int = 16,
    n_workers: int | None = None,
    around: Callable[[Tensor], AbstractContextManager[Any]] | None = None,
) -> Iterator[Batch]:
    """Yield ``function(map)`` of all images, batches of images in the order in which they are complete.

    Parameters
    ----------
    images : sequence
        As `ImageReader` reads them.
    network : PreparedNetwork
    function : callable
        From a feature map (B, C, H, W), float32, to anything; runs without gradients.
    reader : ImageReader, or what reads as it does
    scales : sequence of float
        Factors that the images, as they were read, are resized by.
    dtype : str
        What the network computes in.
    batch_size : int
        Images of one size that are computed at once; halved, with a warning, where memory does not suffice.
    n_workers : int or None
        Threads that read images meanwhile.
    around : callable, optional
        Returns, for the images (B, 3, H, W) that the network is about to be given, the context that it runs in.

    Raises
    ------
    ImageReadError
        For an image that cannot be read, or is too small for the network.
    MemoryError
        If memory does not suffice for a single image.
    """
    limit = batch_size
    with closing(image_batches(images, reader, batch_size, n_workers)) as batches:  # type: ignore[type-var]
        for indices, pixels, read in batches:
            start = 0
            while start < len(indices):
                part = slice(start, start + limit)
                height, width = pixels.shape[1:3]
                try:
                    by_scale = _run(network, pixels[part], function, scales, dtype, around or nullcontext)
                except _TooSmall as error:
                    raise ImageReadError(
                        describe_source(images[indices[start]]),
                        f"has {width} x {height} pixels as it was read, which the network cannot take ({error})",
                    ) from error
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    n_images = len(indices[part])
                    if n_images == 1:
                        raise MemoryError(
                            f"There is not memory enough on {network.device} for one image of {width} x {height} "
                            "pixels. Lower image_size or the largest of scales, or use dtype='bfloat16'."
                        ) from error
                    limit = max(1, n_images // 2)
                else:
                    yield Batch(indices[part], by_scale, read[part])
                    start = part.stop
                    continue
                # Outside of the handler, which holds on to the tensors of the failed attempt.
                if network.device.type == "cuda":
                    torch.cuda.empty_cache()
                warnings.warn(
                    f"There is not memory enough on {network.device} for {n_images} images of {width} x {height} "
                    f"pixels at once; going on with batch_size={limit}.",
                    stacklevel=2,
                )


def _run(
    network: PreparedNetwork,
    pixels: NDArray[np.uint8],
    function: Callable[[Tensor], Any],
    scales: Sequence[float],
    dtype: str,
    around: Callable[[Tensor], AbstractContextManager[Any]],
) -> list[Any]:
    device = network.device
    results = []
    with torch.inference_mode(), evaluating(network.network):
        stacked = torch.from_numpy(pixels)
        if device.type == "cuda":
            stacked = stacked.pin_memory().to(device, non_blocking=True)
        images = stacked.to(device).permute(0, 3, 1, 2).to(torch.float32) / 255.0
        for scale in scales:
            resized = images if scale == 1 else _resize(images, scale)
            try:
                with around(resized):
                    with precision(device, dtype):
                        found = network.network(resized)
                    found = found.to(torch.float32)
            except RuntimeError as error:
                # A larger image was taken when the network was tried out.
                if not is_out_of_memory(error) and min(resized.shape[2:]) < PROBE_SIZE:
                    raise _TooSmall(f"{resized.shape[3]} x {resized.shape[2]} at scale {scale:g}: {error}") from error
                raise
            results.append(function(found))
    return results


def _resize(images: Tensor, scale: float) -> Tensor:
    height, width = (max(1, int(side * scale)) for side in images.shape[2:])
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
