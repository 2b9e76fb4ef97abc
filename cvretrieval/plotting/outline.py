"""Where the common object lies in both images, and what a transform does, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.plotting.lines import finite_rows
from cvretrieval.retrieval.outline import Box, frame_corners, project_outline, usable_transform

#: With fewer points none is told to be a stray.
_N_TRIMMED = 12


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
