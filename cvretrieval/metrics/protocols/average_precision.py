"""Mean average precision over the ground truth as it is written."""

from __future__ import annotations

from dataclasses import dataclass

from cvretrieval._validation import check_choice
from cvretrieval.metrics.protocols.base import EvaluationProtocol
from cvretrieval.metrics.ranking import CONVENTIONS, JudgedRanking


@dataclass(frozen=True)
class AveragePrecision(EvaluationProtocol):
    """Mean average precision over the ground truth as it is written; the query counts as the ground truth says.

    Parameters
    ----------
    convention : {"trapezoid", "finite_sum"}, default="trapezoid"
        See `average_precision`. The trapezoid is the convention of the Oxford and Paris buildings, of Holidays and of
        Copydays.
    """

    convention: str = "trapezoid"

    def __post_init__(self) -> None:
        check_choice(self, "convention", self.convention, CONVENTIONS)

    @property
    def name(self) -> str:
        return "oxford" if self.convention == "trapezoid" else "finite_sum"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("mAP",)

    @property
    def labels(self) -> tuple[str, ...]:
        return ("mAP (Oxford trapezoid)",) if self.convention == "trapezoid" else ("mAP (finite sum)",)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return (judged.average_precision(self.convention),)
