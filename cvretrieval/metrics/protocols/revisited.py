"""The difficulties of revisited Oxford and Paris."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cvretrieval._validation import check_choice
from cvretrieval.metrics.protocols.base import EvaluationProtocol, check_ks
from cvretrieval.metrics.protocols.truth import QueryTruth
from cvretrieval.metrics.ranking import JudgedRanking

DIFFICULTIES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Revisited(EvaluationProtocol):
    """Revisited Oxford and Paris: mean average precision (trapezoid) and mean precision at k for one difficulty.

    Parameters
    ----------
    difficulty : {"easy", "medium", "hard"}, default="medium"
        easy: hard items are junk. medium: easy and hard items are relevant. hard: easy items are junk.
    ks : tuple of int, default=(1, 5, 10)

    Notes
    -----
    The precision at k looks no deeper than the last relevant item: with the 1-based ranks r of the relevant items
    found, k' = min(k, max r), and mP@k is the share of relevant items among the first k'. Queries without a relevant
    item at this difficulty are left out.

    References
    ----------
    F. Radenović, A. Iscen, G. Tolias, Y. Avrithis and O. Chum. Revisiting Oxford and Paris. CVPR 2018.
    """

    difficulty: str = "medium"
    ks: tuple[int, ...] = (1, 5, 10)
    convention = "trapezoid"

    def __post_init__(self) -> None:
        check_choice(self, "difficulty", self.difficulty, DIFFICULTIES)
        check_ks(self, self.ks)

    @property
    def junk_rule(self) -> str:  # type: ignore[override]
        also = {"easy": "hard items are junk too; ", "medium": "", "hard": "easy items are junk too; "}
        return f"{also[self.difficulty]}junk is removed before ranks are counted"

    @property
    def name(self) -> str:
        return f"revisited-{self.difficulty}"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("mAP", *(f"mP@{k}" for k in self.ks))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{figure} (revisited {self.difficulty})" for figure in self.figure_names)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        relevant, junk, hard = set(truth.relevant), set(truth.junk), set(getattr(truth, "hard", ()))
        if not hard <= relevant:
            raise ValueError("'hard' holds ids that are not in 'relevant'; it must be a part of it.")
        if self.difficulty == "medium":
            return relevant, junk
        kept = hard if self.difficulty == "hard" else relevant - hard
        return kept, junk | (relevant - kept)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        last = int(judged.positions[-1]) + 1 if len(judged.positions) else 1
        precisions = (judged.n_hits(min(k, last)) / min(k, last) for k in self.ks)
        return (judged.average_precision("trapezoid"), *precisions)
