"""The ground truth of one query, as the protocols read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class QueryTruth(Protocol):
    """The ground truth of one query: any object with these two attributes.

    Three more are read where they exist: ``hard``, the part of ``relevant`` that is hard to find; ``own_id``, the id of
    the query itself in the database; and ``panorama_of``, id → panorama of the database images that were cut out of
    panoramas.
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
        Id of the query itself in the database, None if it is not there. The figures at k and at R remove it, `NSScore`
        counts it, the others follow `relevant` and `junk`.
    panorama_of : mapping of id to panorama, default={}
        For database images that were cut out of panoramas; used by `PlaceRecall`. Usually one mapping for all queries.
    """

    relevant: Collection[Any]
    junk: Collection[Any] = ()
    hard: Collection[Any] = ()
    own_id: Any = None
    panorama_of: Mapping[Any, Any] = field(default_factory=dict, compare=False, repr=False)


def own_id(truth: QueryTruth) -> set[Any]:
    """Return the id of the query in the database as a set, empty if it is not there."""
    found = getattr(truth, "own_id", None)
    return set() if found is None else {found}


def without_query(truth: QueryTruth) -> tuple[set[Any], set[Any]]:
    """Return what is relevant and what is junk, the query itself always junk."""
    return set(truth.relevant) - own_id(truth), set(truth.junk) | own_id(truth)
