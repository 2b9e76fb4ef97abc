"""What the geometric verification of a pair of images says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Verification:
    """Outcome of verifying one pair of images: true if they show the same thing, else false with a reason.

    Attributes
    ----------
    n_inliers : int
        Matches that the transform explains, places counted once.
    matches : ndarray of shape (n_matches, 2)
        int64 rows of the first and of the second image's features: the one-to-one matches that were looked at.
    inliers : ndarray of shape (n_matches,)
        bool, the matches among them that the transform explains.
    transform : ndarray of shape (3, 3) or None
        Maps homogeneous pixel coordinates of the first image to those of the second; its last element is 1. None
        where there is none. It is given for rejected pairs, too, if one was found.
    model : str
        ``"similarity"``, ``"affine"`` or ``"homography"``: what `transform` is. Simpler than asked for where the
        matches do not determine more.
    reason : str
        Why the pair was rejected; empty if it was accepted.
    """

    n_inliers: int
    matches: NDArray[np.int64]
    inliers: NDArray[np.bool_]
    transform: NDArray[np.float64] | None = None
    model: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason

    def inlier_coordinates(self, a: Any, b: Any) -> NDArray[np.float32]:
        """Return x, y in the first and x, y in the second image of every inlier, in original pixels.

        Parameters
        ----------
        a, b : ImageFeatures
            The features that were verified.

        Returns
        -------
        ndarray of shape (n, 4)
        """
        rows = self.matches[self.inliers]
        return np.hstack([a.keypoints[rows[:, 0], :2], b.keypoints[rows[:, 1], :2]])


def rejected(reason: str, matches: NDArray[np.int64] | None = None) -> Verification:
    """Return the outcome for a pair without a transform."""
    if matches is None:
        matches = np.empty((0, 2), dtype=np.int64)
    return Verification(0, matches, np.zeros(len(matches), dtype=bool), reason=reason)
