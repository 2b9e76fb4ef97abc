"""Figures of a whole set of queries: means, per-query values, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_number
from cvretrieval.metrics.protocols import EvaluationProtocol, QueryTruth, get_protocols
from cvretrieval.metrics.ranking import JudgedRanking


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation found; `str` of it is a table, never a figure without the name of its protocol.

    Attributes
    ----------
    protocols : tuple of str
        Names of the protocols, as `get_protocol` takes them.
    figures : dict of str to float
        Label → mean over the queries evaluated, in the order of the protocols.
    per_query : dict of str to dict
        Label → query → value; queries left out are missing.
    n_queries : int
        Queries in the ground truth.
    skipped : dict of str to dict
        Name of the protocol → query → why it was left out of the means.
    list_lengths : tuple of int
        Shortest and longest ranking, junk included.
    n_truncated : int
        Queries whose figures may be lowered because the ranking does not reach all relevant items; what is missing
        counts as not found.
    n_database : int or None
        Size of the database, if it was given.
    rules : dict of str to dict
        Name of the protocol → what it fixes, in words; see `EvaluationProtocol.rules`.
    """

    protocols: tuple[str, ...]
    figures: dict[str, float]
    per_query: dict[str, dict[Any, float]]
    n_queries: int
    skipped: dict[str, dict[Any, str]]
    list_lengths: tuple[int, int]
    n_truncated: int
    n_database: int | None = None
    rules: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside the figures: queries left out, lists cut off."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        for protocol, queries in self.skipped.items():
            reasons = sorted(set(queries.values()))
            for reason in reasons:
                names = [str(query) for query, why in queries.items() if why == reason]
                shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                yield f"{protocol}: {len(names)} of {self.n_queries} queries left out ({reason}): {shown}"
        if self.n_truncated:
            shortest, longest = self.list_lengths
            lengths = f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
            database = "" if self.n_database is None else f", {self.n_database:,} images in the database"
            yield (
                f"rankings are cut off (length {lengths}{database}): {self.n_truncated} of {self.n_queries} do not "
                "hold all relevant items, and what is missing counts as not found"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold, per-query values included."""
        return {
            "protocols": list(self.protocols),
            "rules": {name: dict(rules) for name, rules in self.rules.items()},
            "figures": dict(self.figures),
            "n_queries": self.n_queries,
            "n_evaluated": {label: len(values) for label, values in self.per_query.items()},
            "n_database": self.n_database,
            "n_truncated": self.n_truncated,
            "list_lengths": list(self.list_lengths),
            "notes": list(self.notes),
            "skipped": {name: {str(q): why for q, why in queries.items()} for name, queries in self.skipped.items()},
            "per_query": {label: {str(q): value for q, value in v.items()} for label, v in self.per_query.items()},
        }

    def __str__(self) -> str:
        width = max(map(len, self.figures))
        lines = [
            f"{label:<{width}}  {value:.4f}  over {len(self.per_query[label])} queries"
            for label, value in self.figures.items()
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def evaluate_rankings(
    ground_truth: Mapping[Any, QueryTruth],
    rankings: Mapping[Any, Sequence[Any]] | Sequence[Sequence[Any]] | NDArray[Any],
    protocol: str | EvaluationProtocol | Sequence[str | EvaluationProtocol] = "oxford",
    *,
    n_database: int | None = None,
) -> EvaluationResult:
    """Evaluate the ranked lists of a set of queries.

    Parameters
    ----------
    ground_truth : mapping of query id to QueryTruth
        E.g. ``dataset.ground_truth`` or ``{query: Relevance(relevant={...}, junk={...})}``.
    rankings : mapping of query id to ranked ids, or sequence of them in the order of `ground_truth`
        Best first. A list may be cut off anywhere, or empty where a query failed: what it does not hold counts as not
        found, and the result says so.
    protocol : str, EvaluationProtocol or a sequence of them, default="oxford"
        See `get_protocols`.
    n_database : int, optional
        Size of the database, stated in the result.

    Returns
    -------
    EvaluationResult

    Examples
    --------
    >>> from cvretrieval.metrics import Relevance, evaluate_rankings
    >>> truth = {"q1": Relevance({"a", "b"}), "q2": Relevance({"c"}, junk={"d"})}
    >>> print(evaluate_rankings(truth, {"q1": ["a", "c", "b"], "q2": ["d", "c"]}, ["oxford", "recall@1"]))
    mAP (Oxford trapezoid)  0.8958  over 2 queries
    R@1                     1.0000  over 2 queries
    """
    check_number("evaluate_rankings", "n_database", n_database, low=1, integer=True, optional=True)
    protocols = get_protocols(protocol)
    if not protocols or not ground_truth:
        raise ValueError(f"Nothing to evaluate: {len(ground_truth)} queries, {len(protocols)} protocols.")
    lists = _align(ground_truth, rankings)
    labels = [label for protocol in protocols for label in protocol.labels]
    if len(set(labels)) < len(labels):
        raise ValueError(f"The protocols {[protocol.name for protocol in protocols]} compute the same figure twice.")
    per_query: dict[str, dict[Any, float]] = {label: {} for label in labels}
    skipped: dict[str, dict[Any, str]] = {}
    truncated = set()
    for query, truth in ground_truth.items():
        for rule in protocols:
            judged = _judge(rule, query, truth, lists[query])
            if judged.n_relevant == 0 and rule.without_relevant:
                skipped.setdefault(rule.name, {})[query] = rule.without_relevant
                continue
            for label, value in zip(rule.labels, rule.figures(judged), strict=True):
                per_query[label][query] = value
            depth = rule.depth_for(judged.n_relevant)
            reaches_depth = depth is not None and judged.n_ranked >= depth
            if len(judged.positions) < judged.n_relevant and not reaches_depth:
                truncated.add(query)
    for rule in protocols:
        if len(skipped.get(rule.name, ())) == len(ground_truth):
            raise ValueError(
                f"None of the {len(ground_truth)} queries has a relevant item under the protocol {rule.name!r}: "
                "its figures are undefined."
            )
    lengths = [len(ranking) for ranking in lists.values()]
    return EvaluationResult(
        protocols=tuple(protocol.name for protocol in protocols),
        figures={label: float(np.mean(list(values.values()))) for label, values in per_query.items()},
        per_query=per_query,
        n_queries=len(ground_truth),
        skipped=skipped,
        list_lengths=(min(lengths), max(lengths)),
        n_truncated=len(truncated),
        n_database=n_database,
        rules={rule.name: rule.rules for rule in protocols},
    )


def _align(ground_truth: Mapping[Any, QueryTruth], rankings: Any) -> dict[Any, Sequence[Any]]:
    if isinstance(rankings, Mapping):
        missing = [query for query in ground_truth if query not in rankings]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ground_truth)} queries have no ranking, {missing[0]!r} among them; give an "
                "empty list for a query that failed: it counts as nothing found."
            )
        return {query: rankings[query] for query in ground_truth}
    if len(rankings) != len(ground_truth):
        raise ValueError(f"Got {len(rankings)} rankings for {len(ground_truth)} queries; give one per query, in order.")
    return dict(zip(ground_truth, rankings, strict=True))


def _judge(rule: EvaluationProtocol, query: Any, truth: QueryTruth, ranking: Sequence[Any]) -> JudgedRanking:
    try:
        return rule.judge(truth, ranking)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Query {query!r}: {error}") from error
