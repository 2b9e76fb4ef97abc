"""From matches to a transform of the plane: hypotheses, then local optimisation of the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.transform_fitting import (
    AFFINE,
    HOMOGRAPHY,
    SIMILARITY,
    TRANSLATION_SCALE,
    UPRIGHT_AFFINE,
    fit_transform,
)
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.hypotheses import HYPOTHESES, WIDE

#: Name → number of unknowns.
MODELS = {
    "translation_scale": TRANSLATION_SCALE,
    "similarity": SIMILARITY,
    "upright_affine": UPRIGHT_AFFINE,
    "affine": AFFINE,
    "homography": HOMOGRAPHY,
}

_UPRIGHT = (TRANSLATION_SCALE, UPRIGHT_AFFINE)

# Tolerances of growing from a hypothesis, relative to the final one.
_GROWING = (WIDE, 2.0, 1.0)

# Few matches under strong perspective are lost when the tolerance narrows that fast; a homography collects them slowly.
# Only where it is needed, and where the support is more than chance: it costs more than all the rest.
_GROWING_SLOWLY = (4.0, 4.0, 3.0, 3.0, 2.0, 2.0, 1.5, 1.5, 1.0, 1.0)
_PROMISING = 5

# The final tolerance accepts keypoints that are badly localised; the best of them place the transform.
_SHARPENING = (0.7, 0.5, 0.5)

# Steps of refinement at the final tolerance; the set of inliers rarely changes after the second.
_STEPS = 4


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A transform of centred coordinates and what it explains."""

    count: int
    transform: NDArray[np.float64]
    weights: NDArray[np.float64]
    n_unknowns: int


def estimate_transform(
    correspondences: Correspondences,
    agreement: Agreement,
    model: str,
    n_hypotheses: int,
    hypotheses: str = "single_correspondence",
) -> tuple[NDArray[np.float64], NDArray[np.float64], str] | None:
    """Find the transform that explains most correspondences.

    Parameters
    ----------
    correspondences : Correspondences
    agreement : Agreement
    model : str
        A key of `MODELS`.
    n_hypotheses : int
        So many of the best hypotheses are refined.
    hypotheses : {"single_correspondence", "vote_and_verify"}

    Returns
    -------
    (transform, weights, model) or None
        The transform in pixel coordinates, the weight of each correspondence (0 where it is not explained), and what
        kind of transform it is.
    """
    n_unknowns = MODELS[model]
    made = HYPOTHESES[hypotheses](correspondences, agreement, upright=n_unknowns in _UPRIGHT)
    best: _Estimate | None = None
    explained = np.zeros(len(correspondences), dtype=bool)
    for k in np.argsort(-made.scores, kind="stable"):
        score = made.scores[k]
        # Refinement rarely more than doubles what a hypothesis explains with the wide tolerance.
        if n_hypotheses == 0 or (best is not None and 2 * score <= best.count):
            break
        if explained[made.seeds[k]]:
            continue  # it would lead to an earlier result again
        n_hypotheses -= 1
        found = _grow(correspondences, made.transform_of(int(k)), agreement, min(n_unknowns, AFFINE))
        if n_unknowns == HOMOGRAPHY and score >= _PROMISING and 2 * found.count < len(correspondences):
            found = _grow_slowly(correspondences, found, agreement)
        explained |= found.weights > 0
        if best is None or found.count > best.count:
            best = found
    if best is None or best.count == 0:
        return None
    best = _polish(correspondences, best, agreement, best.n_unknowns)
    if n_unknowns > best.n_unknowns:
        # The richer model looks at the surroundings again: it may explain what the poorer one could not.
        richer = _polish(correspondences, best, agreement, n_unknowns, widening=2.0)
        if richer.n_unknowns == n_unknowns and richer.count >= best.count:
            best = richer
    best = _sharpen(correspondences, best, agreement)
    name = next(name for name, unknowns in MODELS.items() if unknowns == best.n_unknowns)
    return correspondences.to_original(best.transform), best.weights, name


def _grow(
    correspondences: Correspondences, transform: NDArray[np.float64], agreement: Agreement, n_unknowns: int
) -> _Estimate:
    """Fit the linear model to the surroundings of a hypothesis, narrowing the tolerance."""
    weights = np.zeros(len(correspondences))
    reached = TRANSLATION_SCALE if n_unknowns in _UPRIGHT else SIMILARITY
    for widening in _GROWING:
        correspondences.weigh_inliers(transform, agreement, widening, weights)
        if fit_transform(correspondences.pairs, weights, n_unknowns, transform):
            reached = n_unknowns
    count = correspondences.weigh_inliers(transform, agreement, 1.0, weights)
    return _Estimate(count, transform, weights, reached)


def _grow_slowly(correspondences: Correspondences, start: _Estimate, agreement: Agreement) -> _Estimate:
    """Fit homographies to the surroundings, narrowing the tolerance by and by; return `start` if it explains more."""
    transform, weights = start.transform.copy(), start.weights.copy()
    for widening in _GROWING_SLOWLY:
        correspondences.weigh_inliers(transform, agreement, widening, weights)
        if not fit_transform(correspondences.pairs, weights, HOMOGRAPHY, transform):
            return start
    count = correspondences.weigh_inliers(transform, agreement, 1.0, weights)
    return _Estimate(count, transform, weights, HOMOGRAPHY) if count > start.count else start


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


def _sharpen(correspondences: Correspondences, start: _Estimate, agreement: Agreement) -> _Estimate:
    """Fit the model to what it explains best, unless it loses what it explained."""
    transform, weights = start.transform.copy(), start.weights.copy()
    for widening in _SHARPENING:
        count = correspondences.weigh_inliers(transform, agreement, widening, weights)
        # Twice the fewest points that determine the model.
        if count < max(start.n_unknowns, start.count // 2):
            return start
        if not fit_transform(correspondences.pairs, weights, start.n_unknowns, transform):
            return start
    count = correspondences.weigh_inliers(transform, agreement, 1.0, weights)
    return _Estimate(count, transform, weights, start.n_unknowns) if count >= 0.95 * start.count else start
