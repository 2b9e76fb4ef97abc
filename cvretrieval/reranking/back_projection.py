"""Moving local features from one image to another by the transform between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def project_keypoints(
    keypoints: NDArray[np.float32], transform: NDArray[np.float64], visible: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return keypoints where a transform moves them.

    Parameters
    ----------
    keypoints : ndarray of shape (n_keypoints, 4)
        x, y, scale, angle; see `LocalFeatures`.
    transform : ndarray of shape (3, 3)
        T, of homogeneous pixel coordinates.
    visible : ndarray of shape (2,)
        x, y of a point that both images show: T tears the plane along a line, and only its side of it is visible.

    Returns
    -------
    ndarray of shape (n_keypoints, 4)
        float32. With J the Jacobian of T at x, y: ``T(x, y)``, ``scale · √|det J|`` and the direction of
        ``J (cos angle, sin angle)``. The angle is in
        [0, 2π). NaN for what T moves to infinity or beyond.
    """
    x, y, scale, angle = keypoints.astype(np.float64).T
    rows = transform @ np.stack([x, y, np.ones_like(x)])
    depth = rows[2] * (transform[2] @ np.append(visible, 1.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moved = rows[:2] / rows[2]
        # ∂(u/w) = (∂u − (u/w) ∂w) / w
        jacobian = (transform[:2, :2, None] - moved[:, None] * transform[2, :2, None]) / rows[2]
        determinant = jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0]
        direction = jacobian[:, 0] * np.cos(angle) + jacobian[:, 1] * np.sin(angle)
        turned = np.arctan2(direction[1], direction[0]) % (2 * np.pi)
        result = np.stack([*moved, scale * np.sqrt(np.abs(determinant)), turned], axis=1)
    result[(depth <= 0) | ~np.isfinite(result).all(axis=1)] = np.nan
    with np.errstate(over="ignore"):
        return result.astype(np.float32)
