"""From matches to a transform: hypotheses of single correspondences, then refinement of the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.places import count_places
from cvretrieval._kernels.similarity_hypotheses import score_similarities, similarity_of_pair
from cvretrieval._kernels.transform_fitting import (
    AFFINE,
    HOMOGRAPHY,
    SIMILARITY,
    fit_transform,
    weigh_inliers,
)

#: Name → number of unknowns, in the order of refinement.
MODELS = {"similarity": SIMILARITY, "affine": AFFINE, "homography": HOMOGRAPHY}

# A similarity approximates the view of a plane only around its correspondence: hypotheses collect the surroundings
# with a wide tolerance, and the refined models narrow it down.
_WIDE = (4.0, 2.0, 1.0)

# Steps of refinement at the final tolerance; the set of inliers rarely changes after the second.
_STEPS = 4


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
        # Centred, so that float32 keeps hundredths of a pixel in large images.
        self._mean_a = a[:, :2].mean(axis=0, dtype=np.float64)
        self._mean_b = b[:, :2].mean(axis=0, dtype=np.float64)
        self.pairs = np.empty((4, len(a)), dtype=np.float32)
        self.pairs[:2] = (a[:, :2] - self._mean_a).T
        self.pairs[2:] = (b[:, :2] - self._mean_b).T
        tiny = np.finfo(np.float32).tiny
        self.log_scale = np.log(np.maximum(b[:, 2], tiny) / np.maximum(a[:, 2], tiny)).astype(np.float32)
        turn = b[:, 3] - a[:, 3]
        self.cos_turn, self.sin_turn = np.cos(turn), np.sin(turn)

    def __len__(self) -> int:
        return len(self.log_scale)

    def score_similarities(self, agreement: Agreement) -> NDArray[np.int32]:
        """Return for each correspondence how many agree with the similarity it implies."""
        scores = np.empty(len(self), dtype=np.int32)
        score_similarities(
            self.pairs, self.log_scale, self.cos_turn, self.sin_turn,
            np.float32(_WIDE[0] * agreement.tolerance_a), np.float32(_WIDE[0] * agreement.tolerance_b),
            np.float32(agreement.max_log_scale), np.float32(agreement.min_cos), scores,
        )  # fmt: skip
        return scores

    def similarity(self, i: int) -> NDArray[np.float64]:
        """Return the similarity that one correspondence implies, in centred coordinates."""
        transform = np.empty((3, 3))
        similarity_of_pair(self.pairs, self.log_scale, self.cos_turn, self.sin_turn, i, transform)
        return transform

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


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A transform of centred coordinates and what it explains."""

    count: int
    transform: NDArray[np.float64]
    weights: NDArray[np.float64]
    n_unknowns: int


def estimate_transform(
    correspondences: Correspondences, agreement: Agreement, model: str, n_hypotheses: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], str] | None:
    """Find the transform that explains most correspondences.

    Parameters
    ----------
    correspondences : Correspondences
    agreement : Agreement
    model : {"similarity", "affine", "homography"}
    n_hypotheses : int
        So many of the best hypotheses are refined.

    Returns
    -------
    (transform, weights, model) or None
        The transform in pixel coordinates, the weight of each correspondence (0 where it is not explained), and what
        kind of transform it is.
    """
    scores = correspondences.score_similarities(agreement)
    best: _Estimate | None = None
    explained = np.zeros(len(correspondences), dtype=bool)
    for i in np.argsort(-scores, kind="stable"):
        # Refinement rarely more than doubles what a hypothesis explains with the wide tolerance.
        if n_hypotheses == 0 or (best is not None and 2 * scores[i] <= best.count):
            break
        if explained[i]:
            continue  # it would lead to an earlier result again
        n_hypotheses -= 1
        found = _grow(correspondences, correspondences.similarity(int(i)), agreement, min(MODELS[model], AFFINE))
        explained |= found.weights > 0
        if best is None or found.count > best.count:
            best = found
    if best is None or best.count == 0:
        return None
    best = _polish(correspondences, best, agreement, best.n_unknowns)
    if MODELS[model] > best.n_unknowns:
        # The richer model looks at the surroundings again: it may explain what the poorer one could not.
        richer = _polish(correspondences, best, agreement, MODELS[model], widening=2.0)
        if richer.n_unknowns == MODELS[model] and richer.count >= best.count:
            best = richer
    name = next(name for name, unknowns in MODELS.items() if unknowns == best.n_unknowns)
    return correspondences.to_original(best.transform), best.weights, name


def _grow(
    correspondences: Correspondences, transform: NDArray[np.float64], agreement: Agreement, n_unknowns: int
) -> _Estimate:
    """Fit the linear model to the surroundings of a hypothesis, narrowing the tolerance."""
    weights = np.zeros(len(correspondences))
    reached = SIMILARITY
    for widening in _WIDE:
        correspondences.weigh_inliers(transform, agreement, widening, weights)
        if fit_transform(correspondences.pairs, weights, n_unknowns, transform):
            reached = n_unknowns
    count = correspondences.weigh_inliers(transform, agreement, 1.0, weights)
    return _Estimate(count, transform, weights, reached)


def _polish(
    correspondences: Correspondences, start: _Estimate, agreement: Agreement, n_unknowns: int, widening: float = 1.0
) -> _Estimate:
    """Fit a model to what is explained and look again, while that explains more; return `start` if it never does."""
    best = start
    transform, weights = start.transform.copy(), start.weights.copy()
    if widening > 1.0:
        correspondences.weigh_inliers(transform, agreement, widening, weights)
    for step in range(_STEPS):
        if not fit_transform(correspondences.pairs, weights, n_unknowns, transform):
            break
        count = correspondences.weigh_inliers(transform, agreement, 1.0, weights)
        if count >= best.count or (step == 0 and n_unknowns > best.n_unknowns):
            best = _Estimate(count, transform.copy(), weights.copy(), n_unknowns)
        elif step:
            break
    return best
