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
        where there is none, and for the fundamental matrix, which maps points to lines. It is given for rejected pairs,
        too, if one was found.
    model : str
        What was found: ``"translation_scale"``, ``"similarity"``, ``"upright_affine"``, ``"affine"``, ``"homography"``
        or ``"fundamental"``. Simpler than asked for where the matches do not determine more.
    reason : str
        Why the pair was rejected; empty if it was accepted.
    n_effective_inliers : int
        Cells of a grid of 32 × 32 over the explained matches in the first image that hold one: matches that crowd in
        one place count less (Schönberger et al. 2016).
    fundamental : ndarray of shape (3, 3) or None
        F with ``x_b @ F @ x_a == 0`` for homogeneous pixels of the same point in the first (`x_a`) and the second
        image, of rank 2 and unit Frobenius norm. None for all other models.
    ranked_by : {"inliers", "effective_inliers"}
        What `score` is.
    """

    n_inliers: int
    matches: NDArray[np.int64]
    inliers: NDArray[np.bool_]
    transform: NDArray[np.float64] | None = None
    model: str = ""
    reason: str = ""
    n_effective_inliers: int = 0
    fundamental: NDArray[np.float64] | None = None
    ranked_by: str = "inliers"

    @property
    def score(self) -> int:
        """The number that ranks verified images: `n_inliers` or `n_effective_inliers`."""
        return self.n_effective_inliers if self.ranked_by == "effective_inliers" else self.n_inliers

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
