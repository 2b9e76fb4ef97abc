"""What each region of R-MAC contributes to the similarity of two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.rmac import RMAC
from cvretrieval.deep.explanation.described import scaled_maps, split_descriptor
from cvretrieval.deep.layers.region_grid import rmac_regions


@dataclass(frozen=True, eq=False)
class RegionShares:
    """The regions of an image, and how much of its similarity to another one is theirs.

    Attributes
    ----------
    similarity : float
        Cosine of the two descriptors.
    boxes : ndarray of shape (n_regions, 4)
        float64, x1, y1, x2, y2 in original pixels, pixel centres at integers.
    shares : ndarray of shape (n_regions,)
        float32; their sum is the similarity.
    """

    similarity: float
    boxes: NDArray[np.float64]
    shares: NDArray[np.float32]


def explain_regions(estimator: RMAC, query: Any, image: Any) -> RegionShares:
    """Return what each region of `image` contributes to its similarity to `query`.

    Parameters
    ----------
    estimator : RMAC
        With ``norm="l2"``; fitted if it whitens the regions.
    query, image : path, array, PIL image, file object or ImageRegion

    Returns
    -------
    RegionShares
        The regions of all scales, scale by scale, in the order of `rmac_regions`; the whole map last, if included.

    Raises
    ------
    TypeError
        For other estimators; of pipelines, `explain_similarity` explains the whitened descriptor.
    ImageReadError
        If an image cannot be read, or is too small for the network.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import RMAC, Backbone, explain_regions
    >>> a, b = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    >>> found = explain_regions(RMAC(Backbone("resnet18", weights=None, layer="layer2")), a, b)
    >>> found.boxes.shape, bool(np.isclose(found.shares.sum(), found.similarity, atol=1e-5))
    ((20, 4), True)
    """
    descriptor, _ = split_descriptor(estimator, RMAC)
    if descriptor is not estimator or descriptor.norm != "l2":
        raise TypeError("explain_regions needs an RMAC by itself, with norm='l2'.")
    pooling = cast(layers.RMAC, descriptor._pooling(descriptor._prepare()))
    wanted = torch.as_tensor(descriptor.transform([query])[0])
    boxes, rows, norms = [], [], []
    with torch.inference_mode():
        for scaled in scaled_maps(descriptor, image):
            height, width = scaled.x.shape[2:]
            own = [(x, y, x + side, y + side) for _, y, x, side in rmac_regions(height, width, descriptor.levels)]
            if descriptor.include_global:
                own.append((0, 0, width, height))
            vectors = F.normalize(pooling.whitening(pooling.regions(scaled.x)), dim=2)[0]
            boxes.append(scaled.boxes(own))
            norms.append(vectors.sum(0).norm().clamp(min=1e-12))
            rows.append(vectors / norms[-1])
        # The mean over the scales is normalised once more.
        mean = torch.stack([vectors.sum(0) for vectors in rows]).mean(0)
        total = mean.norm().clamp(min=1e-12) * len(rows)
        shares = (torch.cat(rows) @ wanted.to(mean.device) / total).cpu().numpy()
    return RegionShares(float(shares.sum(dtype=np.float64)), np.concatenate(boxes), shares)
