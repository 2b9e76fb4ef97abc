"""UKBench's N-S score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cvretrieval._validation import check_number
from cvretrieval.metrics.protocols.base import EvaluationProtocol
from cvretrieval.metrics.protocols.truth import QueryTruth, own_id
from cvretrieval.metrics.ranking import JudgedRanking


@dataclass(frozen=True)
class NSScore(EvaluationProtocol):
    """UKBench's N-S score: members of the query's group among the first n, the query itself included.

    Parameters
    ----------
    n : int, default=4
        Size of the groups, the highest score.

    References
    ----------
    D. Nistér and H. Stewénius. Scalable recognition with a vocabulary tree. CVPR 2006.
    """

    n: int = 4
    junk_rule: ClassVar[str] = "junk is removed before ranks are counted; the query itself counts as a hit"

    def __post_init__(self) -> None:
        check_number(self, "n", self.n, low=1, integer=True)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return self.n

    @property
    def name(self) -> str:
        return f"ns@{self.n}"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("N-S",)

    @property
    def labels(self) -> tuple[str, ...]:
        return (f"N-S (max {self.n})",)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return set(truth.relevant) | own_id(truth), set(truth.junk) - own_id(truth)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return (float(judged.n_hits(self.n)),)
