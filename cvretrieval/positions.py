"""Positions of descriptors relative to their image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.local_features import LocalFeatures


def require_geometry(X: LocalFeatures, owner: Any) -> None:
    """Check that positions relative to the image can be computed.

    Raises
    ------
    ValueError
        If keypoints or image sizes are missing, sizes are not positive, or positions are not finite.
    """
    name = type(owner).__name__
    lacks = [what for what, array in (("keypoints", X.keypoints), ("image_sizes", X.image_sizes)) if array is None]
    if X.n_descriptors and lacks:
        raise ValueError(
            f"{name} needs keypoints and image sizes, but X has no {' and no '.join(lacks)}. Give LocalFeatures as an "
            "extractor makes them, or a list of tuples (descriptors, keypoints, (width, height))."
        )
    if X.image_sizes is not None and not (X.image_sizes[X.lengths > 0] > 0).all():
        image = int(np.flatnonzero((X.lengths > 0) & ~(X.image_sizes > 0).all(axis=1))[0])
        width, height = X.image_sizes[image]
        raise ValueError(f"{name} needs positive image sizes. Image {image} has width {width:g} and height {height:g}.")
    if X.keypoints is not None and not np.isfinite(X.keypoints[:, :2]).all():
        row = int(np.flatnonzero(~np.isfinite(X.keypoints[:, :2]).all(axis=1))[0])
        image = int(X.image_index()[row])
        raise ValueError(f"{name} needs finite keypoints. A keypoint of image {image} is NaN or infinite.")


def relative_positions(X: LocalFeatures) -> NDArray[np.float64]:
    """Return (x + ½) / width and (y + ½) / height of each descriptor: 0 and 1 are the edges of its image.

    The centre of the top-left pixel is (0, 0), so an image covers [−½, width − ½) × [−½, height − ½).
    """
    if X.keypoints is None or X.image_sizes is None:
        return np.empty((0, 2))
    return (X.keypoints[:, :2].astype(np.float64) + 0.5) / X.image_sizes[X.image_index()]
