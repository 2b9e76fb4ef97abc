"""Exact search of dense vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._kernels.top_k import COSINE, INNER_PRODUCT, L2, NO_KEY
from cvretrieval._parallel import block_slices, effective_n_jobs, map_blocks
from cvretrieval._validation import check_choice, check_number
from cvretrieval.index.checks import (
    check_keys,
    check_new_keys,
    check_norms,
    check_vectors,
    measure_norms,
    name_keys,
    refuse_norms,
)
from cvretrieval.index.index_folder import ArrayFile, IndexFolder
from cvretrieval.index.scan import Scan, merge
from cvretrieval.index.segments import Segment, Segments
from cvretrieval.index.stored import StoredIndex, n_bytes

_METRICS = {"cosine": COSINE, "inner_product": INNER_PRODUCT, "l2": L2}

# Rows per task when norms are measured.
_BLOCK_ROWS = 65_536


class DenseIndex(StoredIndex, BaseEstimator):
    """Exact search of dense vectors: every query meets every vector.

    Parameters
    ----------
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        What is ranked by; higher is better. May be changed at any time.

        - ``"cosine"``: ⟨q, x⟩ / (‖q‖ ‖x‖), with norms of at least 1e-12: a zero vector scores 0 with everything;
        - ``"inner_product"``: ⟨q, x⟩;
        - ``"l2"``: −‖q − x‖², the negative squared distance.
    n_jobs : int, optional
        Threads over queries and, if these are few, over vectors; the number does not change a bit of the result.

    Attributes
    ----------
    n_dims : int or None
        Dimension of the vectors; None before the first ones.

    Notes
    -----
    Float32 matrix products find the candidates; whatever could be among the best k, given the largest rounding error
    that a product can have, is scored again in float64. So the score of a query and a vector depends on the two
    alone, and a result neither on the other queries, nor on `n_jobs`, BLAS, the order of the vectors, how they were
    added or what was removed before. Among equal scores the lower key comes first, at the k-th place too.

    `add` keeps a memory-mapped array (C-contiguous float32) where it is and reads it block by block; its file must
    stay unchanged. Everything else is copied. A search sees the index as it was when the search began; one thread at
    a time may change it. `save` writes all vectors to a folder, those of memory-mapped arrays as well.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import DenseIndex
    >>> index = DenseIndex(metric="l2").add([10, 20, 30], [[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    >>> keys, scores = index.search([[3.0, 4.0]], k=4)
    >>> keys
    array([[20, 30, 10, -1]])
    >>> scores
    array([[  0.,   0., -25., -inf]], dtype=float32)
    >>> index.search([[3.0, 4.0]], k=1, within=[10, 30])[0]
    array([[30]])
    """

    kind = "dense"
    exact = True

    _large_arrays: ClassVar[tuple[str, ...]] = ("vectors", "norms")

    def __init__(self, metric: str = "cosine", *, n_jobs: int | None = None) -> None:
        self.metric = metric
        self.n_jobs = n_jobs
        self._segments = Segments()
        self._n_dims: int | None = None
        self._folder: IndexFolder | None = None

    def __len__(self) -> int:
        """Return the number of vectors that can be found."""
        return self._segments.n_live

    @property
    def n_dims(self) -> int | None:
        """Dimension of the vectors; None before the first ones."""
        return self._n_dims

    def add(self, keys: Any, vectors: Any) -> DenseIndex:
        """Add vectors.

        Parameters
        ----------
        keys : array-like of shape (n_vectors,)
            Integers, each 0 or more and in the index at most once. A row with key -1 is never found, whatever is in
            it; a file may hold such rows.
        vectors : array-like of shape (n_vectors, n_dims)
            Real numbers, finite in float32, with norms of at most 1e18. Zero vectors are allowed.

        Returns
        -------
        DenseIndex
            The index itself.

        Raises
        ------
        ValueError
            If a key is in the index (remove it first), or the vectors are not as above. Nothing is added then.
        """
        rows = check_vectors("Vectors", vectors, self._n_dims)
        new = check_new_keys(keys, len(rows))
        self._refuse_known(new)
        is_mapped = _is_mapped(rows)
        if not is_mapped:
            # A copy even where the conversion made one: what is behind an array-like cannot be known.
            rows = rows.copy()
        norms = self._norms(rows)
        refuse_norms("Vectors", norms[new >= 0], new[new >= 0], "key")
        norms[new < 0] = 0.0
        if len(rows):
            self._segments = self._segments.add(Segment(rows, new, norms, is_mapped))
        self._n_dims = rows.shape[1]
        return self

    def remove(self, keys: Any) -> DenseIndex:
        """Remove vectors.

        Their memory is kept until `compact`; memory-mapped files are never written to.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        DenseIndex
            The index itself.

        Raises
        ------
        KeyError
            If a key is not in the index. Nothing is removed then.
        """
        rows = np.unique(self._find(keys))
        if len(rows):
            self._segments = self._segments.remove(rows)
        return self

    def compact(self) -> DenseIndex:
        """Free the memory of removed vectors; of memory-mapped arrays, those without any vector left are let go."""
        self._segments = self._segments.compact()
        return self

    def reconstruct(self, keys: Any) -> NDArray[np.float32]:
        """Return stored vectors.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        ndarray of shape (n_keys, n_dims)
            A float32 copy, in the order of the keys.

        Raises
        ------
        KeyError
            If a key is not in the index.
        """
        rows, inverse = np.unique(self._find(keys), return_inverse=True)
        if not len(rows):
            return np.empty((0, self._n_dims or 0), dtype=np.float32)
        return self._segments.take(rows).vectors[inverse]

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best vectors for each query.

        Parameters
        ----------
        queries : array-like of shape (n_queries, n_dims)
            Real numbers, as for `add`.
        k : int
            Length of the ranked lists; may be more than there are vectors.
        within : array-like of shape (n_keys,), optional
            Only these keys are searched; those that are not in the index make no difference.

        Returns
        -------
        keys : ndarray of shape (n_queries, k)
            int64, best first; -1 where there are no more vectors.
        scores : ndarray of shape (n_queries, k)
            float32, by `metric`; −inf where there are no more vectors.
        """
        check_choice(self, "metric", self.metric, tuple(_METRICS))
        check_number("search", "k", k, low=1, integer=True)
        # An index without vectors has no dimension that queries could miss.
        rows = check_vectors("Queries", queries, self._n_dims)
        norms = check_norms("Queries", rows)
        segments = self._segments
        chosen = None
        if within is not None:
            chosen = _distinct(segments.find(check_keys(within)), segments.n_rows)
        elif segments.n_live < segments.n_rows // 2:
            # Most rows were removed: gathering the others is cheaper than products that nobody needs.
            chosen = _distinct(segments.lookup[1], segments.n_rows)
        n_found = min(int(k), segments.n_live if chosen is None else len(chosen))
        keys = np.full((len(rows), int(k)), -1, dtype=np.int64)
        scores = np.full((len(rows), int(k)), -np.inf, dtype=np.float32)
        if n_found == 0 or len(rows) == 0:
            return keys, scores
        scan = Scan(segments, chosen, _METRICS[self.metric], n_found, rows, norms)
        tasks = scan.tasks(effective_n_jobs(self.n_jobs))
        parts: dict[int, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
        ranked_parts = map_blocks(scan.run, tasks, n_jobs=self.n_jobs if len(tasks) > 1 else 1)
        for task, part in zip(tasks, ranked_parts, strict=True):
            parts.setdefault(task[0].start, []).append(part)
        for start, ranked in parts.items():
            found, values = merge(ranked, n_found)
            keys[start : start + len(found), :n_found] = found
            scores[start : start + len(found), :n_found] = values
        keys[keys == NO_KEY] = -1
        return keys, scores

    def stats(self) -> dict[str, Any]:
        """Return facts.

        Returns
        -------
        dict
            ``n_vectors``; ``n_removed``, those whose memory is kept until `compact`; ``n_dims``; ``n_segments``;
            ``n_bytes`` of all arrays, in memory or on disk.
        """
        segments = self._segments
        return {
            "n_vectors": segments.n_live,
            "n_removed": segments.n_rows - segments.n_live,
            "n_dims": self._n_dims,
            "n_segments": len(segments.segments),
            "n_bytes": n_bytes(self._segment_list()),
        }

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {}, {"params": {"metric": self.metric}, "n_dims": self._n_dims}

    @classmethod
    def _from_facts(cls, facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> DenseIndex:
        index = cls(**facts["params"])
        index._n_dims = facts["n_dims"]
        return index

    def _segment_list(self) -> list[Segment]:
        return list(self._segments.segments)

    def _set_segments(
        self, stored: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, ArrayFile]]], facts: Mapping[str, Any]
    ) -> None:
        segments = [Segment.stored(arrays, files) for arrays, files in stored]
        for segment in segments:
            if segment.vectors.shape[1] != self._n_dims:
                raise ValueError(f"{segment.vectors.shape[1]}-d vectors in an index of {self._n_dims}-d ones")
        self._replace_segments(segments)

    def _replace_segments(self, segments: list[Segment]) -> None:
        self._segments = Segments.of(segments)

    def _find(self, keys: Any) -> NDArray[np.int64]:
        """Return the rows of keys that must be in the index."""
        wanted = check_keys(keys)
        rows = self._segments.find(wanted)
        if (rows < 0).any():
            raise KeyError(f"Not in the index: {name_keys(np.unique(wanted[rows < 0]))}.")
        return rows

    def _refuse_known(self, keys: NDArray[np.int64]) -> None:
        live = keys[keys >= 0]
        # Keys that only grow, the usual case, need no look-up, which would be sorted anew after each addition.
        if not len(live) or live.min() > self._segments.largest_key:
            return
        known = live[self._segments.find(live) >= 0]
        if len(known):
            raise ValueError(
                f"Keys are in the index already: {name_keys(np.sort(known))}. "
                "Remove them first to replace their vectors."
            )

    def _norms(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        blocks = block_slices(len(vectors), _BLOCK_ROWS)
        if len(blocks) == 1:
            return measure_norms(vectors)
        parts = map_blocks(measure_norms, (vectors[block] for block in blocks), n_jobs=self.n_jobs)
        return np.concatenate([np.empty(0), *parts])


def _distinct(rows: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Return the distinct rows that are not negative, ascending."""
    mask = np.zeros(n_rows, dtype=np.bool_)
    mask[rows[rows >= 0]] = True
    return np.flatnonzero(mask)


def _is_mapped(array: Any) -> bool:
    """Tell whether the memory of an array is a mapped file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
