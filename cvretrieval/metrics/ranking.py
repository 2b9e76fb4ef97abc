"""Figures of one ranked list: average precision in two conventions, precision at k, recall at k."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_choice, check_number, describe_array

CONVENTIONS = ("trapezoid", "finite_sum")


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """A ranked list compared with the ground truth, junk removed: all that any figure needs.

    Attributes
    ----------
    positions : ndarray of shape (n_found,)
        int64, increasing: 0-based ranks of the relevant items that the list holds.
    n_relevant : int
        Relevant items in the ground truth, found or not.
    n_ranked : int
        Length of the list without junk.
    """

    positions: NDArray[np.int64]
    n_relevant: int
    n_ranked: int

    def average_precision(self, convention: str = "trapezoid") -> float:
        """See `average_precision`."""
        check_choice("average_precision", "convention", convention, CONVENTIONS)
        if self.n_relevant == 0:
            return float("nan")
        ranks = self.positions.astype(np.float64)
        n_before = np.arange(len(ranks), dtype=np.float64)
        precisions = (n_before + 1.0) / (ranks + 1.0)
        if convention == "trapezoid":
            # At rank 0 nothing has been seen yet; the curve starts at recall 0, precision 1.
            left = np.divide(n_before, ranks, out=np.ones_like(ranks), where=ranks > 0)
            precisions = (left + precisions) / 2.0
        return float(precisions.sum() / self.n_relevant)

    def n_hits(self, k: int) -> int:
        """Return the number of relevant items among the first k."""
        return int(np.searchsorted(self.positions, k))


def judge_ranking(
    ranking: Sequence[Any] | NDArray[Any], relevant: Iterable[Any], junk: Iterable[Any] = ()
) -> JudgedRanking:
    """Compare a ranked list with the ground truth.

    Parameters
    ----------
    ranking : array-like of shape (n_ranked,)
        Ids, integers or strings, best first, each at most once. It may be cut off anywhere: a relevant item that it
        does not hold counts as not found.
    relevant : collection of ids
        What should be found.
    junk : collection of ids, default=()
        Items removed from the list before ranks are counted: finding them is neither right nor wrong.

    Returns
    -------
    JudgedRanking

    Examples
    --------
    >>> from cvretrieval.metrics import judge_ranking
    >>> judge_ranking(["b", "j", "a", "c"], relevant={"b", "c", "z"}, junk={"j"})
    JudgedRanking(positions=array([0, 2]), n_relevant=3, n_ranked=3)
    """
    ids = _as_ids("ranking", ranking)
    wanted = _as_ids("relevant", relevant)
    ignored = _as_ids("junk", junk)
    for name, other in (("relevant", wanted), ("junk", ignored)):
        if len(ids) and len(other) and (ids.dtype.kind in "iu") != (other.dtype.kind in "iu"):
            raise TypeError(
                f"'ranking' is {describe_array(ids)} but '{name}' is {describe_array(other)}; ids must be of one kind."
            )
    wanted_set, ignored_set = set(wanted.tolist()), set(ignored.tolist())
    both = wanted_set & ignored_set
    if both:
        raise ValueError(f"{_examples(both)} both relevant and junk; an item must be one or the other.")
    listed = ids.tolist()
    if len(set(listed)) != len(listed):
        values, counts = np.unique(ids, return_counts=True)
        raise ValueError(f"{_examples(values[counts > 1].tolist())} more than once in the ranking; ids must be unique.")
    if len(ignored):
        ids = ids[~_is_member(ids, ignored, ignored_set)]
    positions = np.flatnonzero(_is_member(ids, wanted, wanted_set)).astype(np.int64)
    return JudgedRanking(positions, len(wanted_set), len(ids))


def average_precision(
    ranking: Sequence[Any] | NDArray[Any],
    relevant: Iterable[Any],
    junk: Iterable[Any] = (),
    *,
    convention: str = "trapezoid",
) -> float:
    """Area under the precision-recall curve of one ranked list.

    Parameters
    ----------
    ranking : array-like of shape (n_ranked,)
        Ids, best first; may be cut off.
    relevant : collection of ids
    junk : collection of ids, default=()
        Removed from the list before ranks are counted.
    convention : {"trapezoid", "finite_sum"}, default="trapezoid"
        How the area is summed; results of the two are not comparable.

    Returns
    -------
    float
        In [0, 1]; NaN without relevant items, where it is undefined.

    Notes
    -----
    With R relevant items, the i-th of those found (i = 0, 1, …) at 0-based rank r_i, junk not counted:

    * ``"finite_sum"``: ``1/R Σ_i (i + 1) / (r_i + 1)``, the precision at each relevant item;
    * ``"trapezoid"``: ``1/R Σ_i [i / r_i + (i + 1) / (r_i + 1)] / 2``, where the first term is 1 for r_i = 0: the
      curve starts at recall 0, precision 1. It never exceeds the finite sum.

    Relevant items that the list does not hold add nothing. scikit-learn's ``average_precision_score`` is the finite
    sum with ties shared.

    References
    ----------
    J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman. Object retrieval with large vocabularies and fast spatial
    matching. CVPR 2007: the trapezoid of the Oxford and Paris buildings, also of Holidays and the revisited sets.

    Examples
    --------
    >>> from cvretrieval.metrics import average_precision
    >>> round(average_precision([7, 1, 8, 2, 3, 9], relevant={7, 8, 9}), 6)
    0.677778
    >>> round(average_precision([7, 1, 8, 2, 3, 9], relevant={7, 8, 9}, convention="finite_sum"), 6)
    0.722222
    """
    return judge_ranking(ranking, relevant, junk).average_precision(convention)


def mean_average_precision(
    rankings: Iterable[Sequence[Any]],
    relevant: Iterable[Iterable[Any]],
    junk: Iterable[Iterable[Any]] | None = None,
    *,
    convention: str = "trapezoid",
) -> float:
    """Mean of `average_precision` over the queries that have relevant items.

    Parameters
    ----------
    rankings, relevant, junk : iterables with one entry per query
        See `average_precision`; `junk` may be None.
    convention : {"trapezoid", "finite_sum"}, default="trapezoid"

    Examples
    --------
    >>> from cvretrieval.metrics import mean_average_precision
    >>> mean_average_precision([[1, 2], [2, 1]], [{1}, {1}])
    0.625
    """
    lists, wanted = list(rankings), list(relevant)
    ignored: list[Any] = [()] * len(lists) if junk is None else list(junk)
    if not len(lists) == len(wanted) == len(ignored):
        raise ValueError(
            f"rankings, relevant and junk have {len(lists)}, {len(wanted)} and {len(ignored)} entries; "
            "give one per query."
        )
    queries = zip(lists, wanted, ignored, strict=True)
    values = np.array([average_precision(*query, convention=convention) for query in queries])
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError(f"None of the {len(lists)} queries has a relevant item: the mean is undefined.")
    return float(values.mean())


def precision_at_k(
    ranking: Sequence[Any] | NDArray[Any], relevant: Iterable[Any], k: int, junk: Iterable[Any] = ()
) -> float:
    """Share of relevant items among the first k, junk removed; always divided by k, also where the list is shorter.

    Examples
    --------
    >>> from cvretrieval.metrics import precision_at_k
    >>> precision_at_k(["a", "x", "b", "y"], relevant={"a", "b"}, k=4)
    0.5
    """
    check_number("precision_at_k", "k", k, low=1, integer=True)
    return judge_ranking(ranking, relevant, junk).n_hits(k) / k


def recall_at_k(
    ranking: Sequence[Any] | NDArray[Any], relevant: Iterable[Any], k: int, junk: Iterable[Any] = ()
) -> float:
    """1 if any of the first k items is relevant, else 0: the R@k of metric learning and place recognition.

    The share of all relevant items that were found, which other fields call recall, is a different figure.

    Examples
    --------
    >>> from cvretrieval.metrics import recall_at_k
    >>> recall_at_k(["x", "a", "b"], relevant={"a", "b"}, k=1), recall_at_k(["x", "a", "b"], relevant={"a", "b"}, k=2)
    (0.0, 1.0)
    """
    check_number("recall_at_k", "k", k, low=1, integer=True)
    return float(judge_ranking(ranking, relevant, junk).n_hits(k) > 0)


def _as_ids(name: str, values: Any) -> NDArray[Any]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"'{name}' must be a collection of ids. Got the single string {values!r}; wrap it in a list.")
    array = values if isinstance(values, np.ndarray) else np.asarray(list(values))
    if array.ndim != 1:
        raise ValueError(f"'{name}' must be one-dimensional, one id per entry. Got {describe_array(array)} instead.")
    right_type = array.dtype.kind in "iuU" or (array.dtype.kind == "O" and all(isinstance(item, str) for item in array))
    if len(array) and not right_type:
        raise TypeError(f"'{name}' must hold ids, integers or strings. Got {describe_array(array)} instead.")
    return array


def _is_member(ids: NDArray[Any], members: NDArray[Any], member_set: set[Any]) -> NDArray[np.bool_]:
    if not len(members) or not len(ids):
        return np.zeros(len(ids), dtype=bool)
    if ids.dtype.kind in "iu":
        return np.isin(ids, members)
    # Sorting strings costs far more than hashing them.
    return np.fromiter((item in member_set for item in ids.tolist()), dtype=bool, count=len(ids))


def _examples(ids: Iterable[Any]) -> str:
    names = sorted(map(str, ids))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"
