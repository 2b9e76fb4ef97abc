"""Matched keypoints of two images, ready for the kernels, and when they agree with a transform."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.places import count_cells, count_places
from cvretrieval._kernels.transform_fitting import weigh_inliers

# As in COLMAP.
_CELLS = 32


@dataclass(frozen=True)
class Agreement:
    """When a correspondence agrees with a transform.

    Attributes
    ----------
    tolerance_a, tolerance_b : float
        Largest error in pixels of the first and of the second image.
    max_log_scale : float
        Largest difference of ln(σ′/σ) from the local scale of the transform.
    min_cos : float
        Smallest cosine of the difference of θ′ − θ from the local rotation of the transform.
    """

    tolerance_a: float
    tolerance_b: float
    max_log_scale: float
    min_cos: float


class Correspondences:
    """Matched keypoints of two images, ready for the kernels.

    Parameters
    ----------
    a, b : ndarray of shape (n_matches, 4)
        x, y, scale, angle in the first and in the second image.
    """

    def __init__(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        points = np.concatenate([a[:, :2], b[:, :2]], axis=1, dtype=np.float64).T.copy()
        # Centred, so that float32 keeps hundredths of a pixel in large images.
        means = points.sum(axis=1) / max(1, len(a))
        self._mean_a, self._mean_b = means[:2], means[2:]
        self.pairs = (points - means[:, None]).astype(np.float32)
        tiny = np.finfo(np.float32).tiny
        self.log_scale = np.log(np.maximum(b[:, 2], tiny) / np.maximum(a[:, 2], tiny)).astype(np.float32)
        turn = b[:, 3] - a[:, 3]
        self.cos_turn, self.sin_turn = np.cos(turn), np.sin(turn)

    def __len__(self) -> int:
        return len(self.log_scale)

    def take(self, rows: NDArray[np.int64]) -> Correspondences:
        """Return some of the correspondences, in the same centred coordinates."""
        part = copy(self)
        part.pairs = np.ascontiguousarray(self.pairs[:, rows])
        part.log_scale, part.cos_turn, part.sin_turn = self.log_scale[rows], self.cos_turn[rows], self.sin_turn[rows]
        return part

    def weigh_inliers(
        self, transform: NDArray[np.float64], agreement: Agreement, widening: float, weights: NDArray[np.float64]
    ) -> int:
        """Weigh what a transform (of centred coordinates) explains; return the number."""
        return int(
            weigh_inliers(
                self.pairs, self.log_scale, self.cos_turn, self.sin_turn, transform,
                widening * agreement.tolerance_a, widening * agreement.tolerance_b,
                agreement.max_log_scale, agreement.min_cos, weights,
            )
        )  # fmt: skip

    def count_places(self, weights: NDArray[np.float64], apart_a: float, apart_b: float) -> int:
        """Return the number of explained correspondences at places further apart than that, in pixels."""
        return int(count_places(self.pairs, weights, apart_a, apart_b))

    def to_original(self, transform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a transform of centred coordinates as one of pixel coordinates."""
        to_centred, from_centred = np.eye(3), np.eye(3)
        to_centred[:2, 2] = -self._mean_a
        from_centred[:2, 2] = self._mean_b
        full = from_centred @ transform @ to_centred
        return full / full[2, 2] if abs(full[2, 2]) > 1e-12 else full

    def count_cells(self, weights: NDArray[np.float64]) -> int:
        """Return the number of effective inliers: cells of 32 × 32 over the explained places of the first image."""
        return int(count_cells(self.pairs, weights, _CELLS))

    def to_centred(self, transform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a transform of pixel coordinates as one of centred coordinates."""
        from_centred, to_centred = np.eye(3), np.eye(3)
        from_centred[:2, 2], to_centred[:2, 2] = self._mean_a, -self._mean_b
        return np.asarray(to_centred @ transform @ from_centred, dtype=np.float64)

    def to_original_fundamental(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a fundamental matrix of centred coordinates as one of pixel coordinates, of unit Frobenius norm."""
        to_a, to_b = np.eye(3), np.eye(3)
        to_a[:2, 2], to_b[:2, 2] = -self._mean_a, -self._mean_b
        full = to_b.T @ matrix @ to_a
        full /= np.linalg.norm(full)
        # Its sign means nothing; one of the two is chosen.
        return np.asarray(full * np.sign(full.flat[np.abs(full).argmax()]), dtype=np.float64)
