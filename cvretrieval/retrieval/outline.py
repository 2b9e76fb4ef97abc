"""Where the query lies in a result: the frame of it, or of a region, moved by a transform and clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.local_features import ImageFeatures
from cvretrieval.verification import Verification

Box = tuple[float, float, float, float]

# Square pixels; less is a query that the transform folds to a line.
_MIN_AREA = 1.0


def query_outline(
    result: Verification | None, query: ImageFeatures | None, found: ImageFeatures | None, box: Box | None = None
) -> NDArray[np.float64] | None:
    """Return the outline of a query, or of the region that was asked for, in the image that it was found in.

    Parameters
    ----------
    result : Verification or None
        Of the query and the image.
    query, found : ImageFeatures or None
        What was verified; their image sizes are needed.
    box : tuple of 4 floats, optional
        Region x1, y1, x2, y2 of the query; what lies outside of the query does not count.

    Returns
    -------
    ndarray of shape (n_corners, 2) or None
        Convex polygon in pixels of the image, cut off at its edges. None where there is nothing to draw: the pair was
        rejected, the model is a fundamental matrix, sizes are unknown, or the outline has no area in the image.
    """
    if not result or result.transform is None or query is None or found is None:
        return None
    if query.image_size is None or found.image_size is None or min(*query.image_size, *found.image_size) <= 0:
        return None
    (width_a, height_a), (width_b, height_b) = query.image_size, found.image_size
    if box is not None:
        x1, y1, x2, y2 = np.clip(box, 0, (width_a, height_a) * 2)
        box = (float(x1), float(y1), float(x2), float(y2))
    corners = frame_corners(width_a, height_a, box)
    polygon = project_outline(result.transform, corners, width_b, height_b, margin=0.0)
    return None if polygon is None or _area(polygon) < _MIN_AREA else polygon


def frame_corners(width: float, height: float, box: Box | None = None) -> NDArray[np.float64]:
    """Return the corners of an image, or of a region of it, in pixel coordinates.

    Pixel centres lie at integers, so the left edge of the image is at -0.5; a box is given by its edges.
    """
    x1, y1, x2, y2 = box if box is not None else (0.0, 0.0, float(width), float(height))
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64) - 0.5


def usable_transform(transform: Any) -> NDArray[np.float64] | None:
    """Return a finite, invertible 3 x 3 matrix, or None for anything else."""
    if transform is None:
        return None
    matrix = np.asarray(transform, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        return None
    return matrix


def project_outline(
    transform: Any, corners: NDArray[np.float64], width: float, height: float, margin: float = 1.0
) -> NDArray[np.float64] | None:
    """Map a polygon into another image and cut off what lies far outside of it.

    Parameters
    ----------
    transform : array-like of shape (3, 3) or None
    corners : ndarray of shape (n_corners, 2)
        Convex polygon in pixels of the query.
    width, height : float
        Size of the other image.
    margin : float, default=1.0
        How far around the image the polygon is kept, as a multiple of its size; 0 cuts at its edges.

    Returns
    -------
    ndarray of shape (n, 2) or None
        None if the transform is unusable or nothing of the polygon comes near the image.

    Notes
    -----
    A homography may send part of the frame to infinity and round to the other side. The polygon is therefore clipped
    (Sutherland and Hodgman) in homogeneous coordinates, before the division, to the image enlarged by the margin: by
    default by its own size on every side, so that the cuts stay out of sight.
    """
    matrix = usable_transform(transform)
    if matrix is None:
        return None
    # The sign of a homography is free: make the middle of the polygon lie in front.
    if matrix[2] @ np.append(corners.mean(axis=0), 1.0) < 0:
        matrix = -matrix
    polygon = np.column_stack([corners, np.ones(len(corners))]) @ matrix.T
    low_x, high_x = -margin * width - 0.5, (1.0 + margin) * width - 0.5
    low_y, high_y = -margin * height - 0.5, (1.0 + margin) * height - 0.5
    # Each row n keeps the points with n · (x, y, w) >= 0.
    planes = np.array(
        [[0, 0, 1], [1, 0, -low_x], [-1, 0, high_x], [0, 1, -low_y], [0, -1, high_y]],
        dtype=np.float64,
    )
    offsets = np.array([1e-9 * np.abs(polygon[:, 2]).max(), 0, 0, 0, 0])
    for plane, offset in zip(planes, offsets, strict=True):
        polygon = _clip(polygon, polygon @ plane - offset)
        if len(polygon) < 3:
            return None
    return np.asarray(polygon[:, :2] / polygon[:, 2:], dtype=np.float64)


def _clip(polygon: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep the part of a polygon where the linear function with values `inside` at its corners is not negative."""
    kept = []
    for i, (point, value) in enumerate(zip(polygon, inside, strict=True)):
        previous, previous_value = polygon[i - 1], inside[i - 1]
        if (value >= 0) != (previous_value >= 0):
            kept.append(previous + (point - previous) * (previous_value / (previous_value - value)))
        if value >= 0:
            kept.append(point)
    return np.array(kept).reshape(-1, 3)


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = (polygon - polygon.mean(axis=0)).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
