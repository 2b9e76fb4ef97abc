"""One image with the maps that its descriptor is pooled from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.local.map_frame import region_in_original
from cvretrieval.deep.local.map_geometry import GeometryTracer, MapGeometry
from cvretrieval.images import ReadImage
from cvretrieval.postprocessing import LearnedWhitening, PCAWhitening


class ScaledMap(NamedTuple):
    """The feature map of an image at one scale.

    Attributes
    ----------
    x : Tensor of shape (1, C, H, W)
    geometry : MapGeometry
        Where its pixels lie in the image that the network was given.
    size : tuple of int
        Height and width of that image.
    image : ReadImage
        What it was made of.
    """

    x: Tensor
    geometry: MapGeometry
    size: tuple[int, int]
    image: ReadImage

    def boxes(self, boxes: Any) -> NDArray[np.float64]:
        """Return rectangles of the map, rows of x1, y1, x2, y2, in original pixels."""
        rows = [region_in_original(box, self.geometry, self.size, self.image) for box in boxes]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 4)

    def frame(self) -> NDArray[np.float64]:
        """Return the borders of the whole map in original pixels: x1, y1, x2, y2; they may lie outside."""
        whole = (0, 0, int(self.x.shape[3]), int(self.x.shape[2]))
        return region_in_original(whole, self.geometry, self.size, self.image, clip=False)


def scaled_maps(estimator: MapDescriptor, image: Any) -> list[ScaledMap]:
    """Run the network on one image; return its map at each scale."""
    estimator.prepare()
    tracer = GeometryTracer()
    (batch,) = estimator._run([image], lambda x: (x, tracer.geometry(x), tracer.image_size), around=tracer.watch)
    # Copies made outside of inference mode may be differentiated.
    return [ScaledMap(x.clone(), geometry, size, batch.images[0]) for x, geometry, size in batch.by_scale]


def split_descriptor(estimator: Any, kind: type[MapDescriptor] = MapDescriptor) -> tuple[MapDescriptor, nn.Module]:
    """Return the descriptor of an estimator and the whitening after it, as a layer.

    Raises
    ------
    TypeError
        If it is neither a descriptor of `kind` nor a pipeline of one and whitenings.
    """
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    if not steps or not isinstance(steps[0], kind):
        wanted = "pooled from a feature map, such as GeM" if kind is MapDescriptor else kind.__name__
        raise TypeError(f"A descriptor {wanted} is needed. Got {type(steps[0]).__name__ if steps else 'nothing'}.")
    for step in steps[1:]:
        if not isinstance(step, (PCAWhitening, LearnedWhitening)):
            raise TypeError(
                f"After a descriptor, PCAWhitening and LearnedWhitening can be explained. Got {type(step).__name__}."
            )
    device = steps[0].prepare()._prepare().device
    whitenings = [layers.Whitening(step, norm=step.norm == "l2").to(device) for step in steps[1:]]
    return steps[0], nn.Sequential(*whitenings)
