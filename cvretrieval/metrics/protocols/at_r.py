"""Figures of the first R items, with R the number of relevant ones: R-precision and MAP@R."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cvretrieval.metrics.protocols.base import EvaluationProtocol
from cvretrieval.metrics.protocols.truth import QueryTruth, without_query
from cvretrieval.metrics.ranking import JudgedRanking


class _AtR(EvaluationProtocol):
    junk_rule: ClassVar[str] = "junk and the query itself are removed before ranks are counted"

    def depth_for(self, n_relevant: int) -> int | None:
        return n_relevant

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return without_query(truth)


@dataclass(frozen=True)
class RPrecision(_AtR):
    """Share of relevant items among the first R; R is the number of relevant items of the query, without itself.

    Queries without a relevant item are left out.

    References
    ----------
    K. Musgrave, S. Belongie and S.-N. Lim. A metric learning reality check. ECCV 2020.
    """

    @property
    def name(self) -> str:
        return "r_precision"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("R-precision",)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return (judged.n_hits(judged.n_relevant) / judged.n_relevant,)


@dataclass(frozen=True)
class MAPAtR(_AtR):
    """Mean average precision at R: ``1/R Σ_{i ≤ R} P(i) [item i is relevant]``, P(i) the precision of the first i.

    R is the number of relevant items of the query, without itself. Queries without a relevant item are left out.

    References
    ----------
    K. Musgrave, S. Belongie and S.-N. Lim. A metric learning reality check. ECCV 2020.
    """

    @property
    def name(self) -> str:
        return "map@r"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("MAP@R",)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        ranks = judged.positions[: judged.n_hits(judged.n_relevant)] + 1
        return (float(np.sum(np.arange(1, len(ranks) + 1) / ranks)) / judged.n_relevant,)
