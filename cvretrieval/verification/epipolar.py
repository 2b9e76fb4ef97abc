"""From matches to a fundamental matrix, or to a homography where the matches determine no more."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.epipolar_inliers import search_plane_and_parallax, search_seven_point, weigh_epipolar
from cvretrieval._kernels.fundamental_fitting import fit_fundamental
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.estimation import estimate_transform
from cvretrieval.verification.hypotheses import single_correspondence

FUNDAMENTAL = "fundamental"

# A line is a weak constraint: one random match in fifty lies near its epipolar line. So a match counts only if the
# similarity it implies holds, with the wide tolerance, for two others as well: one random match in some hundred.
_SUPPORT = 3

# Two matches off the plane determine the epipole; the others are the evidence that it is one.
_MIN_OFF_PLANE = 6

_N_SAMPLES = 600
# What the plane and its parallax explain of the trusted matches makes samples of seven superfluous.
_ENOUGH = 0.9
_WIDENING = (2.0, 1.5, 1.0, 1.0, 1.0)


def estimate_fundamental(
    correspondences: Correspondences, agreement: Agreement, n_hypotheses: int, hypotheses: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], str] | None:
    """Find the epipolar geometry that explains most correspondences; if a plane explains as many, its homography.

    Parameters
    ----------
    correspondences : Correspondences
    agreement : Agreement
        Tolerances of the distance from epipolar lines; scales and turns must agree with those of neighbours.
    n_hypotheses, hypotheses
        Of the plane, as for `estimate_transform`.

    Returns
    -------
    (matrix, weights, model) or None
        As of `estimate_transform`; the model is "fundamental" with F in pixel coordinates, or a transform of the plane.

    Notes
    -----
    Two searches compete, and the results are optimised locally: the dominant plane and its parallax (what DEGENSAC
    adds to RANSAC), and samples of seven matches, those that most others support first (PROSAC).
    """
    planar = estimate_transform(correspondences, agreement, "homography", n_hypotheses, hypotheses)
    if planar is None:
        return None
    support = single_correspondence(correspondences, agreement).scores
    trusted = np.argsort(-support, kind="stable")[: np.count_nonzero(support >= _SUPPORT)]
    off_plane = np.flatnonzero(planar[1][trusted] == 0)
    if len(trusted) < 8 or len(off_plane) < _MIN_OFF_PLANE:
        return planar
    part = correspondences.take(trusted)
    found = _search(part, correspondences.to_centred(planar[0]), off_plane, agreement)
    if found is None:
        return planar
    fundamental, weights = found
    explained = np.zeros(len(correspondences))
    explained[trusted] = weights
    tolerances = agreement.tolerance_a, agreement.tolerance_b
    beyond = np.where(planar[1] == 0, explained, 0.0)
    if correspondences.count_places(beyond, *tolerances) < _MIN_OFF_PLANE:
        return planar
    if correspondences.count_places(explained, *tolerances) <= correspondences.count_places(planar[1], *tolerances):
        return planar
    return correspondences.to_original_fundamental(fundamental), explained, FUNDAMENTAL


def _search(
    part: Correspondences, homography: NDArray[np.float64], off_plane: NDArray[np.int64], agreement: Agreement
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the best fundamental matrix of centred coordinates, and the weights of what it explains."""
    tolerances = agreement.tolerance_a, agreement.tolerance_b
    count, weights = 0, np.zeros(len(part))
    fundamental, other = np.empty((3, 3)), np.empty((3, 3))
    if search_plane_and_parallax(part.pairs, homography, off_plane, _draws(), *tolerances, fundamental) > 0:
        count, weights = _optimise(part, fundamental, agreement)
    if count < _ENOUGH * len(part) and search_seven_point(part.pairs, _draws(), *tolerances, other) > 0:
        other_count, other_weights = _optimise(part, other, agreement)
        if other_count > count:
            count, weights, fundamental = other_count, other_weights, other
    return (fundamental, weights) if count >= 8 else None


def _optimise(
    part: Correspondences, fundamental: NDArray[np.float64], agreement: Agreement
) -> tuple[int, NDArray[np.float64]]:
    """Fit F to what it explains, narrowing the tolerance, in place; return what it explains with support in the end."""
    weights = np.empty(len(part))
    for widening in _WIDENING:
        tolerances = widening * agreement.tolerance_a, widening * agreement.tolerance_b
        weigh_epipolar(part.pairs, fundamental, *tolerances, weights)
        fit_fundamental(part.pairs, weights, fundamental)
    weigh_epipolar(part.pairs, fundamental, agreement.tolerance_a, agreement.tolerance_b, weights)
    rows = np.flatnonzero(weights > 0)
    supported = single_correspondence(part.take(rows), agreement).scores >= _SUPPORT
    weights[rows[~supported]] = 0.0
    return int(supported.sum()), weights


@cache
def _draws() -> NDArray[np.int64]:
    """Return the random numbers of all samples: the same ones for every pair, so that results repeat."""
    draws = np.random.RandomState(0).randint(0, 2**31, (_N_SAMPLES, 7), dtype=np.int64)
    draws.setflags(write=False)
    return draws
