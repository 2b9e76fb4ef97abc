"""Approximate search by faiss's structures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._optional import import_optional
from cvretrieval._validation import StoreError, check_choice, check_number
from cvretrieval.index.binary_rows import BinaryRows
from cvretrieval.index.checks import check_keys
from cvretrieval.index.dense_rows import METRICS, DenseRows
from cvretrieval.index.faiss_search import CandidateSearch
from cvretrieval.index.faiss_state import FaissState, scores_of_others
from cvretrieval.index.faiss_structure import BINARY, DENSE, LEAST_FOR_PQ, Effort, Structure
from cvretrieval.index.faiss_tuning import DEPTHS, N_MEASURED, Measured, effort_for, tune
from cvretrieval.index.ranking import Ranked, distinct, merge, rank
from cvretrieval.index.row_index import Queries, RowIndex, Rows
from cvretrieval.index.segments import Segments

_DENSE_ROWS, _BINARY_ROWS = DenseRows(), BinaryRows()

# "auto": from so many vectors on, a quarter of a byte for each dimension instead of one.
_MANY = 5_000_000
# The structure is added to when there are more new vectors than this share, or a quarter of `n_train`. They are
# searched exhaustively meanwhile, and adding to it copies it.
_TAIL = 1 / 128
# It is built anew when there are so many times the vectors it was learned from, and measured anew at twice.
_GROWTH = 4
# Up to so many allowed vectors are compared one by one.
_FEW = 4096


class FaissIndex(RowIndex, BaseEstimator):
    """Approximate search by faiss, tuned to a recall: its structures propose vectors, exact scores rank them.

    Needs the extra "faiss": ``pip install 'cvretrieval[faiss]'``.

    Parameters
    ----------
    metric : {"cosine", "inner_product", "l2", "hamming"}, default="cosine"
        What is ranked by, as for `DenseIndex`; "hamming" as for `BinaryIndex`, of vectors of bytes.
    structure : {"auto", "flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw"}, default="auto"
        What proposes vectors:

        - "flat": faiss's comparison with all vectors; exact;
        - "ivf_flat", "ivf_sq", "ivf_pq": an inverted file of some 4 √n cells that holds float32 vectors, 8 bits for
          each dimension, or product codes of a byte for four dimensions;
        - "hnsw": a graph of neighbours, the fastest to search, and minutes for a million vectors to build: in one
          thread, so that it is always the same;
        - "auto": "ivf_sq" and, from five million vectors on, "ivf_pq"; "hnsw" of binary vectors.

        Binary vectors have "flat" and "hnsw".
    recall : float, default=0.95
        Share of the ten best vectors that must be found, on average. How many cells are looked into, or vectors kept in
        mind, is chosen for it.
    n_train : int, default=20000
        Vectors from which a structure is built (at least 9,984 for "ivf_pq"); with fewer, and as long as the structure
        has not taken in the latest ones, every query meets every one of them.
    n_jobs : int, optional
        Threads; the number does not change a bit of the result.
    random_state : int, default=0
        Seed of the samples that cells are learned from and recall is measured with.

    Attributes
    ----------
    n_dims : int or None
        Dimension of the vectors; None before the first ones.
    recall_ : float
        Measured recall of the ten best; 1 as long as there is no structure.
    measured_ : tuple of (depth, (n_probes, factor), recall)
        For ranked lists of up to 10, 100 and 1,000 vectors: cells or vectors kept in mind, candidates for each vector
        wanted, and the recall measured with them.

    Notes
    -----
    Recall is measured with up to 256 stored vectors as queries, which are not allowed to find themselves, against
    `DenseIndex`'s exact search, and has to exceed `recall` by its error (95 %, one-sided). Other queries than stored
    vectors may fare differently: `tune` measures with them. If all effort falls short, a warning says so.

    Candidates are scored exactly, from the vectors, which are held beside the structure: in memory or, after `save`,
    memory-mapped. So scores, ties and `reconstruct` are those of `DenseIndex`, and only which vectors are found is
    approximate. `PQIndex` keeps nothing but codes.

    Lists longer than 1,000, or than a twentieth of the vectors, and few `within` are searched exhaustively; other
    `within`, and removed vectors, make a search look farther in proportion.

    A search sees the index as it was when the search began; one thread at a time may change it. An addition that makes
    more than 1/128 of new vectors is taken into a copy of the structure, and at four times the vectors that it was
    learned from it is built anew, as it is by `compact`; that call takes as long. Opening verifies all bytes of the
    structure before faiss reads them, even with ``verify=False``; open no index from somebody whom you would not trust
    with faiss itself.

    References
    ----------
    .. [1] M. Douze et al., "The Faiss library", arXiv:2401.08281, 2024.
    .. [2] Y. Malkov and D. Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical
       navigable small world graphs", PAMI 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import FaissIndex
    >>> vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    >>> index = FaissIndex("l2", n_train=400).add(np.arange(500), vectors)
    >>> bool(index.recall_ >= 0.95)
    True
    >>> index.search(vectors[:3], k=1)[0].ravel()
    array([0, 1, 2])
    """

    _metrics = (*METRICS, "hamming")
    _large_arrays: ClassVar[tuple[str, ...]] = ("vectors", "norms")

    _state = FaissState(Segments())
    _written: tuple[Structure | None, dict[str, NDArray[Any]]] = (None, {})

    def __init__(
        self,
        metric: str = "cosine",
        *,
        structure: str = "auto",
        recall: float = 0.95,
        n_train: int = 20_000,
        n_jobs: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.metric = metric
        self.structure = structure
        self.recall = recall
        self.n_train = n_train
        self.n_jobs = n_jobs
        self.random_state = random_state
        self._start()

    @property
    def kind(self) -> str:
        """What is added: "dense" vectors, or "binary" ones for Hamming distances."""
        return "binary" if self.metric == "hamming" else "dense"

    @property
    def exact(self) -> bool:
        """Whether a search always finds the best: with structure="flat"."""
        return self.structure == "flat"

    @property
    def recall_(self) -> float:
        """Measured recall of the ten best."""
        state = self._state
        return state.measured[0].recall if state.measured and not self.exact else 1.0

    @property
    def measured_(self) -> tuple[Measured, ...]:
        """Effort and recall by the length of the ranked list."""
        return self._state.measured

    @property
    def _rows(self) -> Rows:
        return _BINARY_ROWS if self.metric == "hamming" else _DENSE_ROWS

    @property
    def _segments(self) -> Segments[Any]:  # type: ignore[override]
        return self._state.segments

    @_segments.setter
    def _segments(self, segments: Segments[Any]) -> None:
        self._state = replace(self._state, segments=segments)

    def add(self, keys: Any, vectors: Any) -> FaissIndex:
        """Add vectors, and build or complete the structure when there are enough; see `DenseIndex.add`.

        Raises
        ------
        ValueError
            If a key is in the index (remove it first), or the vectors are not as for `DenseIndex.add`. Nothing is added
            then.
        ImportError
            If faiss is not installed.
        """
        import_optional("faiss", "FaissIndex")
        self._check_parameters()
        super().add(keys, vectors)
        return self

    def compact(self) -> FaissIndex:
        """Free the memory of removed vectors, and build the structure anew; see `DenseIndex.compact`."""
        self._check_parameters()
        segments = self._segments.compact()
        self._state = self._built(segments) if segments.n_live >= self._n_train() else FaissState(segments)
        return self

    def tune(self, queries: Any = None) -> FaissIndex:
        """Measure recall, and choose the effort of searches for it.

        Parameters
        ----------
        queries : array-like of shape (n_queries, n_dims), optional
            Queries like those to come, some hundreds. By default stored vectors, which must find others.

        Returns
        -------
        FaissIndex
            The index itself.
        """
        self._check_parameters()
        self._state = self._tuned(self._state, None if queries is None else self._check_search(queries, 1))
        return self

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best vectors for each query, nearly always; see `DenseIndex.search`."""
        asked, k = self._check_search(queries, k), int(k)
        state = self._state
        wanted = None if within is None else check_keys(within)
        if state.structure is None or not len(asked.rows):
            return self._search_all(state.segments, asked, k, wanted)
        if state.structure.metric != self.metric:
            raise ValueError(
                f"The structure of FaissIndex was built for metric={state.structure.metric!r}. "
                f"Call compact to build one for metric={self.metric!r}."
            )
        return self._search_state(state, state.structure, asked, k, wanted)

    def stats(self) -> dict[str, Any]:
        """Return facts.

        Returns
        -------
        dict
            Those of `DenseIndex.stats`; ``structure``, its name or None; ``n_structured``, the vectors in it;
            ``recall``; ``measured``, by the length of the ranked list.
        """
        structure = self._state.structure
        return {
            **super().stats(),
            "structure": None if structure is None else structure.name,
            "n_structured": 0 if structure is None else len(structure.rows),
            "recall": self.recall_,
            "measured": [[depth, list(effort), recall] for depth, effort, recall in self._state.measured],
        }

    def _search_state(
        self, state: FaissState, structure: Structure, asked: Queries, k: int, wanted: NDArray[np.int64] | None
    ) -> Ranked:
        segments = state.segments
        rows, mask = None, state.mask
        n_allowed = len(structure.rows) if mask is None else int(np.count_nonzero(mask))
        if wanted is not None:
            rows = distinct(segments.find(wanted), segments.n_rows)
            is_allowed = np.zeros(segments.n_rows, dtype=bool)
            is_allowed[rows] = True
            mask = is_allowed[structure.rows]
            n_allowed = int(np.count_nonzero(mask))
        depth = k * len(structure.rows) / max(1, n_allowed)
        effort = Effort(1) if structure.name == "flat" else effort_for(state.measured, depth)
        if effort is None or n_allowed <= min(_FEW, self._n_train() // 2) or 20 * k > n_allowed:
            return self._search_all(segments, asked, k, wanted)
        found = self._search_structure(state, asked, k, effort, mask)
        missed = np.flatnonzero(found[0][:, k - 1] < 0)
        if len(missed):
            norms = None if asked.norms is None else asked.norms[missed]
            again = state.covered if rows is None else rows[rows < structure.n_rows]
            keys, scores = self._search_rows(segments, Queries(asked.rows[missed], norms), k, again)
            found[0][missed], found[1][missed] = keys, scores
        tail = np.arange(structure.n_rows, segments.n_rows) if rows is None else rows[rows >= structure.n_rows]
        if not len(tail):
            return found
        return merge([found, self._search_rows(segments, asked, k, tail)], k)

    def _search_structure(
        self, state: FaissState, asked: Queries, k: int, effort: Effort, mask: NDArray[np.bool_] | None
    ) -> Ranked:
        if state.structure is None:
            raise ValueError("There is no structure.")
        search = CandidateSearch(state.segments, state.structure, effort, mask, k, asked, state.longest)
        return rank(search, len(asked.rows), k, k, self.n_jobs)

    def _take_in(self, segments: Segments[Any]) -> None:
        state, structure, n_train = self._state, self._state.structure, self._n_train()
        if structure is None:
            self._state = self._built(segments) if segments.n_live >= n_train else FaissState(segments)
        elif segments.n_rows - structure.n_rows <= max(n_train // 4, int(_TAIL * structure.n_rows)):
            self._state = replace(state, segments=segments)
        elif segments.n_live > _GROWTH * structure.n_learned:
            self._state = self._built(segments)
        else:
            state = replace(state, segments=segments, structure=structure.extend(segments, self.n_jobs))
            self._state = self._tuned(state, None) if segments.n_live > 2 * state.n_measured else state

    def _built(self, segments: Segments[Any]) -> FaissState:
        name = self.structure
        if name == "auto":
            name = "hnsw" if self.metric == "hamming" else "ivf_sq" if segments.n_live < _MANY else "ivf_pq"
        structure = Structure.build(name, self.metric, segments, seed=int(self.random_state), n_jobs=self.n_jobs)
        return self._tuned(FaissState(segments, structure), None)

    def _tuned(self, state: FaissState, asked: Queries | None) -> FaissState:
        """Measure with queries, or with stored vectors, which are not allowed to find themselves."""
        structure, own = state.structure, None
        if structure is None:
            return state
        covered = state.covered
        if asked is None:
            rows = structure.rows if state.mask is None else structure.rows[state.mask]
            chosen = np.random.RandomState(self.random_state).choice(rows, min(N_MEASURED, len(rows)), replace=False)
            sample = state.segments.take(np.sort(chosen))
            asked, own = Queries(sample.vectors, getattr(sample, "norms", None)), sample.keys
        depth = max((each for each in DEPTHS if each <= len(covered) // 20), default=DEPTHS[0])
        truth = scores_of_others(self._search_rows(state.segments, asked, depth + 1, covered), own)

        def measure(effort: Effort, depth: int) -> NDArray[np.float32]:
            return scores_of_others(self._search_structure(state, asked, depth + 1, effort, state.mask), own)

        measured = tune(structure, float(self.recall), truth, measure)
        if not self.exact and measured[0].recall < self.recall:
            warnings.warn(
                f"FaissIndex(structure={structure.name!r}) finds {measured[0].recall:.3f} of the ten best at most, not "
                f"recall={self.recall:g}. Choose another structure.",
                UserWarning,
                stacklevel=5,
            )
        return replace(state, measured=measured, n_measured=state.segments.n_live)

    def _n_train(self) -> int:
        return max(int(self.n_train), LEAST_FOR_PQ) if self.structure == "ivf_pq" else int(self.n_train)

    def _check_parameters(self) -> None:
        check_choice(self, "metric", self.metric, self._metrics)
        check_choice(self, "structure", self.structure, ("auto", *(BINARY if self.metric == "hamming" else DENSE)))
        check_number(self, "recall", self.recall, low=0, high=1, low_open=True)
        check_number(self, "n_train", self.n_train, low=1, integer=True)
        check_number(self, "random_state", self.random_state, low=0, high=2**31 - 1, integer=True)

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        state, structure = self._state, self._state.structure
        names = ("metric", "structure", "recall", "n_train", "random_state")
        facts: dict[str, Any] = {"params": {name: getattr(self, name) for name in names}, "n_dims": self._n_dims}
        if structure is None:
            return {}, facts
        facts["structure"] = {
            "name": structure.name, "metric": structure.metric, "n_rows": structure.n_rows,
            "n_learned": structure.n_learned, "n_measured": state.n_measured,
            "measured": [[depth, list(effort), recall] for depth, effort, recall in state.measured],
        }  # fmt: skip
        if self._written[0] is not structure:
            self._written = (structure, {"structure": structure.to_bytes(), "rows": structure.rows})
        return self._written[1], facts

    @classmethod
    def _from_facts(cls, facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> FaissIndex:
        index = super()._from_facts(facts, shared)
        known = facts.get("structure")
        if known is None:
            return index
        try:
            own = Structure.index_of(shared["structure"], known["metric"])
        except ValueError as error:
            raise StoreError(f"{error}. Upgrade faiss, or build the index again.") from error
        structure = Structure(known["name"], known["metric"], own, shared["rows"], known["n_rows"], known["n_learned"])
        measured = tuple(Measured(depth, Effort(*effort), recall) for depth, effort, recall in known["measured"])
        index._state = FaissState(Segments(), structure, measured, known["n_measured"])
        index._written = (structure, dict(shared))
        return index

    def _keep_shared(self, arrays: dict[str, NDArray[Any]]) -> None:
        if arrays:
            self._written = (self._written[0], arrays)

    def __getstate__(self) -> dict[str, Any]:
        # What was written lies on disk, and would be copied from there.
        return {name: value for name, value in super().__getstate__().items() if name not in ("_written", "_shared")}
