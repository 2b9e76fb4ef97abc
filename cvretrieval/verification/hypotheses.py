"""Similarity transforms that may explain many correspondences: one of each, or those that most vote for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.similarity_hypotheses import score_frames, score_similarities, similarity_of_pair
from cvretrieval._kernels.similarity_votes import vote_similarities
from cvretrieval.verification.correspondences import Agreement, Correspondences

# A similarity approximates the view of a plane only around its correspondence: hypotheses collect the surroundings
# with a wide tolerance, and the refined models narrow it down.
WIDE = 4.0

# Cells of the vote that are verified.
_N_CELLS = 64


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Similarities, each with its support among the correspondences.

    Attributes
    ----------
    scores : ndarray of shape (n_hypotheses,)
        How many correspondences agree.
    seeds : ndarray of shape (n_hypotheses,)
        A correspondence that implies each, or nearly so.
    transform_of : callable
        Number of a hypothesis → its (3, 3) matrix of centred coordinates.
    """

    scores: NDArray[np.int32]
    seeds: NDArray[np.int64]
    transform_of: Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class _Voters:
    """The correspondences that may make hypotheses, and the frames they make them of."""

    rows: NDArray[np.int64] | None
    pairs: NDArray[np.float32]
    log_scale: NDArray[np.float32]
    cos_turn: NDArray[np.float32]
    sin_turn: NDArray[np.float32]


def _voters(correspondences: Correspondences, agreement: Agreement, upright: bool) -> _Voters:
    """Return all correspondences, or for upright models those that turn by little, as if they did not turn at all."""
    c = correspondences
    if not upright:
        return _Voters(None, c.pairs, c.log_scale, c.cos_turn, c.sin_turn)
    rows = np.flatnonzero(c.cos_turn >= np.float32(agreement.min_cos))
    still = np.ones(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
    return _Voters(rows, np.ascontiguousarray(c.pairs[:, rows]), c.log_scale[rows], *still)


def _tolerances(agreement: Agreement) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    return (
        np.float32(WIDE * agreement.tolerance_a), np.float32(WIDE * agreement.tolerance_b),
        np.float32(agreement.max_log_scale), np.float32(agreement.min_cos),
    )  # fmt: skip


def single_correspondence(
    correspondences: Correspondences, agreement: Agreement, *, upright: bool = False
) -> Hypotheses:
    """Return the similarity that each correspondence implies by its two keypoints, scored by all (Philbin et al. 2007).

    Parameters
    ----------
    correspondences : Correspondences
    agreement : Agreement
        The tolerance is widened by `WIDE`.
    upright : bool, default=False
        Ignore how keypoints turn, but for those that turn too much: they make no hypothesis and support none.
    """
    voters = _voters(correspondences, agreement, upright)
    scores = np.empty(len(voters.log_scale), dtype=np.int32)
    frames = voters.pairs, voters.log_scale, voters.cos_turn, voters.sin_turn
    score_similarities(*frames, *_tolerances(agreement), scores)

    def transform_of(k: int) -> NDArray[np.float64]:
        transform = np.empty((3, 3))
        similarity_of_pair(*frames, k, transform)
        return transform

    seeds = np.arange(len(scores)) if voters.rows is None else voters.rows
    return Hypotheses(scores, seeds, transform_of)


def vote_and_verify(correspondences: Correspondences, agreement: Agreement, *, upright: bool = False) -> Hypotheses:
    """Return the similarities of the cells with most votes, scored by all correspondences (Schönberger et al. 2016).

    The cost grows with n log n, that of `single_correspondence` with n².

    Parameters
    ----------
    correspondences, agreement, upright
        As for `single_correspondence`.
    """
    voters = _voters(correspondences, agreement, upright)
    frames = np.empty((_N_CELLS, 4), dtype=np.float32)
    seeds = np.empty(_N_CELLS, dtype=np.int64)
    # Twice as far as any point: views that share a corner only send the middle of one out of the other.
    extent = 2.0 * float(np.abs(correspondences.pairs[2:]).max(initial=1.0))
    n = vote_similarities(voters.pairs, voters.log_scale, voters.cos_turn, voters.sin_turn, extent, frames, seeds)
    frames, seeds = frames[:n], seeds[:n]
    scores = np.empty(n, dtype=np.int32)
    score_frames(
        voters.pairs, voters.log_scale, voters.cos_turn, voters.sin_turn, frames, *_tolerances(agreement), scores
    )

    def transform_of(k: int) -> NDArray[np.float64]:
        a, b, x, y = frames[k].astype(np.float64)
        return np.array([[a, -b, x], [b, a, y], [0.0, 0.0, 1.0]])

    return Hypotheses(scores, seeds if voters.rows is None else voters.rows[seeds], transform_of)


#: Name → how hypotheses are made.
HYPOTHESES = {"single_correspondence": single_correspondence, "vote_and_verify": vote_and_verify}
