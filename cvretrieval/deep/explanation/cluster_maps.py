"""Which centre of NetVLAD each place of an image belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.netvlad import NetVLAD
from cvretrieval.deep.explanation.described import scaled_maps, split_descriptor


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """The centres that the pixels of a feature map belong to.

    Attributes
    ----------
    clusters : ndarray of shape (height, width)
        int64, the centre with the largest share in each pixel of the map.
    shares : ndarray of shape (n_clusters, height, width)
        float32, the shares of all centres; they sum to 1 in each pixel.
    frame : ndarray of shape (4,)
        Where the map lies: x1, y1, x2, y2 of its outer borders in original pixels, pixel centres at integers.
    """

    clusters: NDArray[np.int64]
    shares: NDArray[np.float32]
    frame: NDArray[np.float64]


def cluster_map(estimator: Any, image: Any) -> ClusterMap:
    """Return which centre each place of an image belongs to, at the first of the estimator's scales.

    Parameters
    ----------
    estimator : NetVLAD, or pipeline
        A fitted one, or a pipeline that begins with it.
    image : path, array, PIL image, file object or ImageRegion

    Raises
    ------
    TypeError
        For other estimators.
    ImageReadError
        If the image cannot be read, or is too small for the network.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, NetVLAD, cluster_map
    >>> images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    >>> netvlad = NetVLAD(Backbone("resnet18", weights=None, layer="layer2"), n_clusters=3, random_state=0).fit(images)
    >>> cluster_map(netvlad, images[0]).clusters.shape
    (8, 12)
    """
    descriptor, _ = split_descriptor(estimator, NetVLAD)
    layer = cast(layers.NetVLAD, descriptor._pooling(descriptor._prepare()))
    scaled = scaled_maps(descriptor, image)[0]
    with torch.inference_mode():
        shares = layer.assign(scaled.x)[0].cpu().numpy()
    return ClusterMap(shares.argmax(0), shares, scaled.frame())
