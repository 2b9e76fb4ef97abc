"""How hard a structure must search for a wanted recall: measured against exact search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval.index.faiss_structure import Effort, Structure

#: Lengths of ranked lists that effort is measured for.
DEPTHS = (10, 100, 1000)

#: Queries that recall is measured with, at most.
N_MEASURED = 256

# Standard errors by which the share must be above the wanted one, so that it is for other queries, too (95 %).
_MARGIN = 1.645

#: Candidates for each vector wanted that are tried, by structure: those in codes are ranked anew.
_FACTORS = {"ivf_sq": (2, 4), "ivf_pq": (2, 4, 8, 16, 32)}

# Numbers that reading a candidate at random costs as much as, beside those read in a row.
_PER_CANDIDATE = 4

#: scores (n_queries, depth), best first, of a search with some effort
Measure = Callable[[Effort, int], NDArray[np.float32]]


class Measured(NamedTuple):
    """Lists of up to `depth` vectors take this effort; then so much of the best ones is found."""

    depth: int
    effort: Effort
    recall: float


def tune(structure: Structure, recall: float, truth: NDArray[np.float32], measure: Measure) -> tuple[Measured, ...]:
    """Choose the least effort for each depth that reaches a recall.

    Parameters
    ----------
    structure : Structure
    recall : float
    truth : ndarray of shape (n_queries, n)
        Scores of the best vectors, −inf behind the end; depths beyond n are left out.
    measure : callable
        Returns the scores that are found, for an effort and a depth.

    Notes
    -----
    Recall is the share of the best `depth` scores that are reached: of equally good vectors, each counts.
    """
    chosen: list[Measured] = []
    factors = _FACTORS.get(structure.name, (1,))
    least = 1
    for depth in DEPTHS:
        if depth > truth.shape[1]:
            break
        found = [_fewest(structure, factor, least, depth, recall, truth, measure) for factor in factors]
        reached = [each for each in found if each[1]]
        if reached:
            best = min((each[0] for each in reached), key=lambda each: _cost(structure, each))
        else:
            best = max((each[0] for each in found), key=lambda each: each.recall)
        chosen.append(best)
        # Longer lists need at least as many probes, and about as many candidates for each vector.
        least, factors = best.effort.n_probes, (best.effort.factor,)
    return tuple(chosen)


def effort_for(measured: tuple[Measured, ...], depth: float) -> Effort | None:
    """Return the effort for lists of some length; None if none was measured for such long ones."""
    return next((each.effort for each in measured if each.depth >= depth), None)


def share_found(scores: NDArray[np.float32], truth: NDArray[np.float32], depth: int) -> tuple[float, float]:
    """Return the share of the best that are found, and its standard error times the margin."""
    last = truth[:, depth - 1 : depth]
    n_wanted = np.isfinite(truth[:, :depth]).sum(axis=1)
    # Where fewer than `depth` can be found, everything that was found counts; where nothing can be, nothing is missed.
    hits = ((scores[:, :depth] >= last) & np.isfinite(scores[:, :depth])).sum(axis=1)
    shares = np.where(n_wanted > 0, np.minimum(hits / np.maximum(n_wanted, 1), 1), 1.0)
    return float(shares.mean()), float(_MARGIN * shares.std() / np.sqrt(len(shares)))


def _fewest(
    structure: Structure,
    factor: int,
    least: int,
    depth: int,
    recall: float,
    truth: NDArray[np.float32],
    measure: Measure,
) -> tuple[Measured, bool]:
    """Return the fewest probes that reach the recall with so many candidates, by bisection; or the most there are."""
    ladder = list(_ladder(max(least, depth if structure.name == "hnsw" else 1), structure.most_probes))

    def run(place: int) -> tuple[Measured, bool]:
        effort = Effort(ladder[place], factor)
        share, error = share_found(measure(effort, depth), truth, depth)
        return Measured(depth, effort, share), share - error >= recall

    low, high = 0, len(ladder) - 1
    # Most structures need few probes, and many cost much: from below, in growing steps.
    step, best = 1, None
    while best is None:
        place = min(low + step - 1, high)
        tried = run(place)
        if tried[1]:
            best, high = tried, place
        elif place == high:
            return tried
        else:
            low, step = place + 1, 2 * step
    while low < high:
        middle = (low + high) // 2
        tried = run(middle)
        if tried[1]:
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def _ladder(least: int, most: int) -> Iterator[int]:
    """Yield numbers of probes, each some 20 % more than the last."""
    n_probes = min(least, most)
    while n_probes < most:
        yield n_probes
        n_probes = max(n_probes + 1, int(n_probes * 1.2))
    yield most


def _cost(structure: Structure, measured: Measured) -> float:
    """Return about how many numbers a query reads."""
    if not structure.name.startswith("ivf"):
        return float(measured.effort.n_probes)
    code: Any = structure.index.code_size / 4
    listed = measured.effort.n_probes * len(structure.rows) / structure.index.nlist
    return float(listed * code + measured.depth * measured.effort.factor * structure.index.d * _PER_CANDIDATE)
