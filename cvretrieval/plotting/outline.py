"""Where the common object lies in both images, and what a transform does, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.plotting.lines import finite_rows

Box = tuple[float, float, float, float]

#: With fewer points none is told to be a stray.
_N_TRIMMED = 12


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
    transform: Any, corners: NDArray[np.float64], width: float, height: float
) -> NDArray[np.float64] | None:
    """Map a polygon into another image and cut off what lies far outside of it.

    Parameters
    ----------
    transform : array-like of shape (3, 3) or None
    corners : ndarray of shape (n_corners, 2)
        Convex polygon in pixels of the query.
    width, height : float
        Size of the other image.

    Returns
    -------
    ndarray of shape (n, 2) or None
        None if the transform is unusable or nothing of the polygon comes near the image.

    Notes
    -----
    A homography may send part of the frame to infinity and round to the other side. The polygon is therefore clipped
    (Sutherland and Hodgman) in homogeneous coordinates, before the division, to the image enlarged by its own size on
    every side: the cuts stay out of sight.
    """
    matrix = usable_transform(transform)
    if matrix is None:
        return None
    # The sign of a homography is free: make the middle of the polygon lie in front.
    if matrix[2] @ np.append(corners.mean(axis=0), 1.0) < 0:
        matrix = -matrix
    polygon = np.column_stack([corners, np.ones(len(corners))]) @ matrix.T
    low_x, high_x, low_y, high_y = -width, 2.0 * width, -height, 2.0 * height
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


def matched_outline(points: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the convex hull of matched points, a little enlarged: where the common object is.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)

    Returns
    -------
    ndarray of shape (n_corners, 2) or None
        None if the points enclose no area.

    Notes
    -----
    A few matches may lie on other things that happen to fit the transform. Left out are points whose third neighbour is
    more than five times farther than is usual, and farther than points usually are from the middle. Features reach
    around their centres, hence the enlargement by 4 %.
    """
    from scipy.spatial import ConvexHull, QhullError, cKDTree

    if len(points) >= _N_TRIMMED:
        gaps = cKDTree(points).query(points, k=4)[0][:, -1]
        reach = np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1))
        points = points[gaps <= max(5 * np.median(gaps), reach, 1.0)]
    if len(points) < 3:
        return None
    try:
        corners = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line, or one point many times
        return None
    centre = corners.mean(axis=0)
    return np.asarray(centre + 1.04 * (corners - centre), dtype=np.float64)


def object_outlines(
    matches: Any, transform: Any, size_a: tuple[int, int], size_b: tuple[int, int], box: Box | None = None
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return where the common object lies in the query and in the other image.

    Parameters
    ----------
    matches : array-like of shape (n_matches, 4) or None
        Inliers x, y in the query and x, y in the other image.
    transform : array-like of shape (3, 3) or None
        Maps homogeneous pixels of the query to those of the other image.
    size_a, size_b : (int, int)
        Width and height of both; 0 where it is not known.
    box : tuple of 4 floats, optional
        The region of the query that was asked for.

    Returns
    -------
    asked, found : ndarray of shape (n, 2) or None
        The region asked for and its projection, if there is one; else the outlines of the matched points; else, without
        matches, the frame of the query and its projection.
    """
    rows = finite_rows(matches)
    if box is None and len(rows) >= 3:
        asked, found = matched_outline(rows[:, :2]), matched_outline(rows[:, 2:])
    elif box is None and 0 in size_a:
        return None, None
    else:
        asked = frame_corners(*size_a, box)
        found = project_outline(transform, asked, *size_b)
    return None if 0 in size_a else asked, None if 0 in size_b else found


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


@dataclass(frozen=True)
class Motion:
    """What a transform does around the centre of the query.

    Attributes
    ----------
    scale : float
        Enlargement, the square root of the change of area.
    rotation_deg : float
        Clockwise as seen (y points down).
    translation : tuple of float
        Movement of the centre of the query, in pixels.
    stretch : float
        Longest over shortest axis of the ellipse that a circle becomes; 1 for a similarity.
    mirrored : bool
        Whether left and right are exchanged.
    """

    scale: float
    rotation_deg: float
    translation: tuple[float, float]
    stretch: float
    mirrored: bool


def describe_motion(transform: Any, width: float, height: float) -> Motion | None:
    """Decompose the derivative of a transform at the centre of the query; None if it is unusable there.

    Notes
    -----
    With the derivative J = U diag(s) Vᵀ: scale is sqrt(s1 s2), stretch s1 / s2, and the rotation that of the nearest
    rotation matrix (the polar decomposition), which for a similarity is its own.
    """
    matrix = usable_transform(transform)
    if matrix is None:
        return None
    centre = np.array([(width - 1) / 2, (height - 1) / 2, 1.0])
    x, y, w = matrix @ centre
    if abs(w) < 1e-12:
        return None
    image = np.array([x, y]) / w
    derivative = (matrix[:2, :2] - np.outer(image, matrix[2, :2])) / w
    long, short = np.linalg.svd(derivative, compute_uv=False)
    if short < 1e-12:
        return None
    mirrored = bool(np.linalg.det(derivative) < 0)
    turning = derivative @ np.diag([-1.0, 1.0]) if mirrored else derivative
    rotation = np.arctan2(turning[1, 0] - turning[0, 1], turning[0, 0] + turning[1, 1])
    shift = image - centre[:2]
    return Motion(
        scale=float(np.sqrt(long * short)),
        rotation_deg=float(np.degrees(rotation)),
        translation=(float(shift[0]), float(shift[1])),
        stretch=float(long / short),
        mirrored=mirrored,
    )


def motion_facts(transform: Any, width: float, height: float) -> dict[str, str]:
    """Return what a transform does in words, e.g. ``{"scale": "× 0.5", "rotation": "90.0° clockwise"}``."""
    motion = describe_motion(transform, width, height)
    if motion is None:
        return {}
    turn = "clockwise" if motion.rotation_deg >= 0 else "anticlockwise"
    right, down = motion.translation
    facts = {
        "scale": f"× {motion.scale:.3g}",
        "rotation": f"{abs(motion.rotation_deg):.1f}° {turn}",
        "centre moves": f"{abs(right):.0f} px {'right' if right >= 0 else 'left'}, "
        f"{abs(down):.0f} px {'down' if down >= 0 else 'up'}",
    }
    if motion.stretch > 1.005:
        facts["stretch"] = f"× {motion.stretch:.3g} along one axis"
    if motion.mirrored:
        facts["mirrored"] = "yes"
    return facts
