"""What a search by faiss sees: rows, the structure over them, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.index.faiss_structure import Structure
from cvretrieval.index.faiss_tuning import Measured
from cvretrieval.index.ranking import Ranked
from cvretrieval.index.segments import Segments


@dataclass(frozen=True, eq=False)
class FaissState:
    """What a search sees: rows, the structure over the first of them, and what was measured."""

    segments: Segments[Any]
    structure: Structure | None = None
    measured: tuple[Measured, ...] = ()
    n_measured: int = 0

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """The keys of all rows."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(each.keys for each in self.segments.segments)])

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """Which vectors of the structure were not removed; None for all."""
        mask = self.keys[self.structure.rows] >= 0 if self.structure is not None else np.empty(0, dtype=bool)
        return None if mask.all() else mask

    @cached_property
    def longest(self) -> float:
        """The largest norm."""
        norms = [each.norms for each in self.segments.segments if hasattr(each, "norms")]
        return max((float(own.max(initial=0)) for own in norms), default=0.0)

    @cached_property
    def covered(self) -> NDArray[np.int64]:
        """The rows that can be found among those that the structure has seen, ascending."""
        rows = np.sort(self.segments.lookup[1])
        return rows[: np.searchsorted(rows, 0 if self.structure is None else self.structure.n_rows)]


def scores_of_others(ranked: Ranked, own: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Return the scores of ranked lists without the queries themselves, one fewer."""
    keys, scores = ranked
    if own is None:
        return scores[:, :-1]
    order = np.argsort(keys == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(scores, order, axis=1)
