"""Evaluation protocols: what counts as relevant, what is junk, and the name that stands beside every figure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from cvretrieval._validation import check_choice, check_number
from cvretrieval.metrics.ranking import CONVENTIONS, JudgedRanking, judge_ranking


class QueryTruth(Protocol):
    """The ground truth of one query: any object with these two attributes.

    Two more are read where they exist: ``hard``, the part of ``relevant`` that is hard to find, and ``own_id``, the id
    of the query itself in the database.
    """

    @property
    def relevant(self) -> Collection[Any]:
        """Ids that should be found."""

    @property
    def junk(self) -> Collection[Any]:
        """Ids that count neither way."""


@dataclass(frozen=True)
class Relevance:
    """Ground truth of one query, for data that is not a `RetrievalDataset`.

    Parameters
    ----------
    relevant : collection of ids
        What should be found.
    junk : collection of ids, default=()
        What counts neither way.
    hard : collection of ids, default=()
        The part of `relevant` that is hard to find; used by `Revisited`.
    own_id : id or None, default=None
        Id of the query itself in the database, None if it is not there. `RecallAtK` and `PrecisionAtK` remove it,
        `NSScore` counts it, the others follow `relevant` and `junk`.
    """

    relevant: Collection[Any]
    junk: Collection[Any] = ()
    hard: Collection[Any] = ()
    own_id: Any = None


class EvaluationProtocol:
    """Base of the protocols: `select` says what is relevant, `figures` what is computed from a judged list."""

    #: Figures look no deeper than this into a list; None: the whole list matters.
    depth: int | None = None
    #: Why a query without relevant items is left out; None: it is scored.
    without_relevant: ClassVar[str | None] = "no relevant item"

    @property
    def name(self) -> str:
        """The name that `get_protocol` understands."""
        raise NotImplementedError(f"{type(self).__name__} must define name.")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the figures, one for each value of `figures`."""
        raise NotImplementedError(f"{type(self).__name__} must define labels.")

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        """Return what is relevant and what is junk."""
        return set(truth.relevant), set(truth.junk)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        """Return one value per label."""
        raise NotImplementedError(f"{type(self).__name__} must define figures.")

    def judge(self, truth: QueryTruth, ranking: Sequence[Any]) -> JudgedRanking:
        """Compare the ranking of one query with its ground truth as this protocol sees it."""
        relevant, junk = self.select(truth)
        return judge_ranking(ranking, relevant, junk)


@dataclass(frozen=True)
class AveragePrecision(EvaluationProtocol):
    """Mean average precision over the ground truth as it is written; the query counts as the ground truth says.

    Parameters
    ----------
    convention : {"trapezoid", "finite_sum"}, default="trapezoid"
        See `average_precision`. The trapezoid is the protocol of the Oxford and Paris buildings and of Holidays.
    """

    convention: str = "trapezoid"

    def __post_init__(self) -> None:
        check_choice(self, "convention", self.convention, CONVENTIONS)

    @property
    def name(self) -> str:
        return "oxford" if self.convention == "trapezoid" else "finite_sum"

    @property
    def labels(self) -> tuple[str, ...]:
        return ("mAP (Oxford trapezoid)",) if self.convention == "trapezoid" else ("mAP (finite sum)",)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return (judged.average_precision(self.convention),)


@dataclass(frozen=True)
class RecallAtK(EvaluationProtocol):
    """Share of queries with any relevant item among the first k; the query itself is always removed.

    A query without relevant items counts 0, as is usual in metric learning: it stays in the denominator.

    Parameters
    ----------
    ks : tuple of int, default=(1, 2, 4, 8)
    """

    ks: tuple[int, ...] = (1, 2, 4, 8)
    without_relevant: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        _check_ks(self, self.ks)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return max(self.ks)

    @property
    def name(self) -> str:
        return f"recall@{_join(self.ks)}"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"R@{k}" for k in self.ks)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return _without_query(truth)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return tuple(float(judged.n_hits(k) > 0) for k in self.ks)


@dataclass(frozen=True)
class PrecisionAtK(EvaluationProtocol):
    """Share of relevant items among the first k, always divided by k; the query itself is always removed.

    Parameters
    ----------
    ks : tuple of int, default=(1, 5, 10)
    """

    ks: tuple[int, ...] = (1, 5, 10)

    def __post_init__(self) -> None:
        _check_ks(self, self.ks)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return max(self.ks)

    @property
    def name(self) -> str:
        return f"precision@{_join(self.ks)}"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"P@{k}" for k in self.ks)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return _without_query(truth)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return tuple(judged.n_hits(k) / k for k in self.ks)


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

    def __post_init__(self) -> None:
        check_number(self, "n", self.n, low=1, integer=True)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return self.n

    @property
    def name(self) -> str:
        return f"ns@{self.n}"

    @property
    def labels(self) -> tuple[str, ...]:
        return (f"N-S (max {self.n})",)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return set(truth.relevant) | _own(truth), set(truth.junk) - _own(truth)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return (float(judged.n_hits(self.n)),)


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

    def __post_init__(self) -> None:
        check_choice(self, "difficulty", self.difficulty, ("easy", "medium", "hard"))
        _check_ks(self, self.ks)

    @property
    def name(self) -> str:
        return f"revisited-{self.difficulty}"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{figure} (revisited {self.difficulty})" for figure in ("mAP", *(f"mP@{k}" for k in self.ks)))

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


#: name → what it is, for the help text of the command line.
PROTOCOL_NAMES = {
    "oxford": "mAP, trapezoid, as of the Oxford and Paris buildings and Holidays",
    "finite_sum": "mAP, sum of the precisions at each relevant item",
    "recall@1,2,4,8": "R@k: any relevant item among the first k, query excluded; any list of k",
    "precision@1,5,10": "P@k: share of relevant items among the first k, query excluded; any list of k",
    "ns": "N-S score of UKBench, query included; ns@3 for groups of 3",
    "revisited-easy": "mAP and mP@k, hard items are junk",
    "revisited-medium": "mAP and mP@k, easy and hard items are relevant",
    "revisited-hard": "mAP and mP@k, easy items are junk",
}


def get_protocol(name: str | EvaluationProtocol) -> EvaluationProtocol:
    """Return the protocol of a name: one of `PROTOCOL_NAMES`, with other k or n after the ``@`` where one is taken.

    Examples
    --------
    >>> from cvretrieval.metrics import get_protocol
    >>> get_protocol("recall@1,10")
    RecallAtK(ks=(1, 10))
    >>> get_protocol("oxford").labels
    ('mAP (Oxford trapezoid)',)
    """
    if isinstance(name, EvaluationProtocol):
        return name
    if not isinstance(name, str):
        raise TypeError(f"A protocol is a name or an EvaluationProtocol. Got {type(name).__name__} instead.")
    match = re.fullmatch(r"(oxford|finite_sum|recall|precision|ns|revisited-(?:easy|medium|hard))(?:@([\d,]+))?", name)
    numbers = tuple(int(part) for part in (match[2] or "").split(",") if part) if match else ()
    if match and not (match[2] and not numbers):
        kind = match[1]
        if kind in ("oxford", "finite_sum") and not numbers:
            return AveragePrecision("trapezoid" if kind == "oxford" else "finite_sum")
        if kind == "ns" and len(numbers) <= 1:
            return NSScore(*numbers)
        if kind in ("recall", "precision"):
            protocol = RecallAtK if kind == "recall" else PrecisionAtK
            return protocol(numbers) if numbers else protocol()
        if kind.startswith("revisited-"):
            difficulty = kind.partition("-")[2]
            return Revisited(difficulty, numbers) if numbers else Revisited(difficulty)
    raise ValueError(f"There is no protocol {name!r}. Known: {', '.join(PROTOCOL_NAMES)}.")


def _own(truth: QueryTruth) -> set[Any]:
    own_id = getattr(truth, "own_id", None)
    return set() if own_id is None else {own_id}


def _without_query(truth: QueryTruth) -> tuple[set[Any], set[Any]]:
    return set(truth.relevant) - _own(truth), set(truth.junk) | _own(truth)


def _check_ks(protocol: EvaluationProtocol, ks: tuple[int, ...]) -> None:
    if not isinstance(ks, tuple) or not ks or len(set(ks)) < len(ks):
        raise ValueError(f"The 'ks' parameter of {type(protocol).__name__} must be a tuple of distinct k. Got {ks!r}.")
    for k in ks:
        check_number(protocol, "ks", k, low=1, integer=True)


def _join(ks: tuple[int, ...]) -> str:
    return ",".join(map(str, ks))
