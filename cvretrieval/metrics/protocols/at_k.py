"""Figures of the first k items: recall and precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cvretrieval.metrics.protocols.base import EvaluationProtocol, check_ks, join
from cvretrieval.metrics.protocols.truth import QueryTruth, without_query
from cvretrieval.metrics.ranking import JudgedRanking


class _AtK(EvaluationProtocol):
    ks: tuple[int, ...]
    junk_rule: ClassVar[str] = "junk and the query itself are removed before ranks are counted"
    _letter: ClassVar[str]
    _word: ClassVar[str]

    def __post_init__(self) -> None:
        check_ks(self, self.ks)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return max(self.ks)

    @property
    def name(self) -> str:
        return f"{self._word}@{join(self.ks)}"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return tuple(f"{self._letter}@{k}" for k in self.ks)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return without_query(truth)


@dataclass(frozen=True)
class RecallAtK(_AtK):
    """Share of queries with any relevant item among the first k; the query itself is always removed.

    A query without relevant items counts 0, as is usual in metric learning: it stays in the denominator.

    Parameters
    ----------
    ks : tuple of int, default=(1, 2, 4, 8)

    References
    ----------
    H. O. Song, Y. Xiang, S. Jegelka and S. Savarese. Deep metric learning via lifted structured feature embedding.
    CVPR 2016.
    """

    ks: tuple[int, ...] = (1, 2, 4, 8)
    without_relevant: ClassVar[str | None] = None
    _letter: ClassVar[str] = "R"
    _word: ClassVar[str] = "recall"

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return tuple(float(judged.n_hits(k) > 0) for k in self.ks)


@dataclass(frozen=True)
class PrecisionAtK(_AtK):
    """Share of relevant items among the first k, always divided by k; the query itself is always removed.

    Parameters
    ----------
    ks : tuple of int, default=(1, 5, 10)
    """

    ks: tuple[int, ...] = (1, 5, 10)
    _letter: ClassVar[str] = "P"
    _word: ClassVar[str] = "precision"

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return tuple(judged.n_hits(k) / k for k in self.ks)
