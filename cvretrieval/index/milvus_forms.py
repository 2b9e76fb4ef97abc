"""What dense and sparse vectors are to Milvus, and how its candidates are ranked by their exact scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.rescoring import rank_candidates
from cvretrieval._kernels.top_k import NO_KEY, sort_top_k
from cvretrieval.index.checks import check_norms, check_vectors, measure_norms, refuse_norms
from cvretrieval.index.dense_rows import METRICS
from cvretrieval.index.inverted import InvertedIndex
from cvretrieval.index.ranking import Ranked
from cvretrieval.index.row_index import Queries
from cvretrieval.index.sparse_checks import check_word_rows

# The largest error of a float32 sum of n products is within (1.1 n + 16) of these, as of `update_top_k`.
_ROUNDOFF = 2.0**-24


class Form(Protocol):
    """One form of vectors: how they are checked, carried and compared."""

    @property
    def metric(self) -> str:
        """What is ranked by."""

    @property
    def metric_type(self) -> str:
        """Milvus's name of the metric."""

    @property
    def data_type(self) -> str:
        """Milvus's name of the vectors."""

    @property
    def has_fixed_size(self) -> bool:
        """Whether a collection is made for one dimension."""

    @property
    def most_dims(self) -> int:
        """The largest dimension that Milvus takes."""

    def read(self, name: str, vectors: Any, n_dims: int | None, keys: Any = None) -> Any:
        """Return checked vectors; rows under key -1 may hold anything."""

    def sizes(self, rows: Any, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the norms of checked vectors, 0 for those that Milvus need not hold; ValueError names keys."""

    def queries(self, vectors: Any, n_dims: int | None) -> Queries:
        """Return checked queries and their norms."""

    def n_bytes(self, rows: Any) -> int:
        """Return the bytes of vectors."""

    def row_bytes(self, n_dims: int) -> int:
        """Return about the bytes of one vector."""

    def to_milvus(self, rows: Any, part: slice) -> list[Any]:
        """Return a range of vectors as pymilvus takes them."""

    def from_milvus(self, values: list[Any], n_dims: int) -> Any:
        """Return what pymilvus has returned as vectors."""

    def zeros(self, n: int, n_dims: int) -> Any:
        """Return vectors of zeros."""

    def finds_zeros(self) -> bool:
        """Whether zero vectors can be found."""

    def rank(self, queries: Queries, rows: Any, keys: NDArray[np.int64], places: NDArray[np.int64], k: int) -> Ranked:
        """Return the best `k` keys and scores for each query; `places` (n_queries, n) of its candidates among rows."""

    def is_certain(
        self, queries: Queries, last: NDArray[np.float64], worst: NDArray[np.float64], longest: float
    ) -> NDArray[np.bool_]:
        """Whether whatever Milvus ranks behind a value `last` scores below `worst`, for each query."""


@dataclass(frozen=True)
class DenseForm:
    """Rows of float32."""

    metric: str

    data_type = "FLOAT_VECTOR"
    has_fixed_size = True
    most_dims = 32_768

    @property
    def metric_type(self) -> str:
        """Milvus's name of the metric."""
        return {"cosine": "COSINE", "inner_product": "IP", "l2": "L2"}[self.metric]

    def read(self, name: str, vectors: Any, n_dims: int | None, keys: Any = None) -> NDArray[np.float32]:
        return check_vectors(name, vectors, n_dims)

    def sizes(self, rows: NDArray[np.float32], keys: NDArray[np.int64]) -> NDArray[np.float64]:
        norms = measure_norms(rows)
        refuse_norms("Vectors", norms[keys >= 0], keys[keys >= 0], "key")
        return norms

    def queries(self, vectors: Any, n_dims: int | None) -> Queries:
        rows = check_vectors("Queries", vectors, n_dims)
        return Queries(rows, check_norms("Queries", rows))

    def n_bytes(self, rows: NDArray[np.float32]) -> int:
        return int(rows.nbytes)

    def row_bytes(self, n_dims: int) -> int:
        return 4 * n_dims

    def to_milvus(self, rows: NDArray[np.float32], part: slice) -> list[Any]:
        return list(rows[part])

    def from_milvus(self, values: list[Any], n_dims: int) -> NDArray[np.float32]:
        return np.array(values, dtype=np.float32).reshape(len(values), n_dims)

    def zeros(self, n: int, n_dims: int) -> NDArray[np.float32]:
        return np.zeros((n, n_dims), dtype=np.float32)

    def finds_zeros(self) -> bool:
        return True

    def rank(self, queries: Queries, rows: Any, keys: NDArray[np.int64], places: NDArray[np.int64], k: int) -> Ranked:
        scores = np.full((len(queries.rows), k), -np.inf, dtype=np.float32)
        found = np.full((len(queries.rows), k), NO_KEY, dtype=np.int64)
        rows = np.ascontiguousarray(rows)
        rows.setflags(write=False)
        rank_candidates(
            METRICS[self.metric], queries.rows, queries.norms, rows, measure_norms(rows), keys, places, scores, found
        )
        sort_top_k(scores, found)
        return found, scores

    def is_certain(
        self, queries: Queries, last: NDArray[np.float64], worst: NDArray[np.float64], longest: float
    ) -> NDArray[np.bool_]:
        lengths = np.asarray(queries.norms)
        bound = (1.1 * queries.rows.shape[1] + 16) * _ROUNDOFF
        if self.metric == "inner_product":
            return np.asarray(last + 4 * bound * lengths * longest < worst)
        if self.metric == "cosine":
            return np.asarray(last + 16 * bound < worst)
        return np.asarray(last - 4 * bound * (lengths + longest) ** 2 > -worst)


@dataclass(frozen=True)
class SparseForm:
    """CSR rows of numbers that are not negative, compared by their inner product."""

    metric = "inner_product"
    metric_type = "IP"
    data_type = "SPARSE_FLOAT_VECTOR"
    has_fixed_size = False
    most_dims = 2**31 - 1

    def read(self, name: str, vectors: Any, n_dims: int | None, keys: Any = None) -> Any:
        labels = None if keys is None else np.asarray(keys)
        named = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
        rows = check_word_rows(name, vectors, labels if named else None)
        if rows.values.ndim == 2:
            raise ValueError(f"MilvusIndex(structure='sparse') compares sparse vectors. {name} are {rows.form}.")
        if n_dims is not None and rows.n_words != n_dims:
            raise ValueError(f"{name} have {rows.n_words} dimensions, but the index holds {n_dims}-d vectors.")
        return _csr(rows.values, rows.words, rows.offsets, rows.n_words)

    def sizes(self, rows: Any, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.sqrt(np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel())

    def queries(self, vectors: Any, n_dims: int | None) -> Queries:
        return Queries(self.read("Queries", vectors, n_dims))

    def n_bytes(self, rows: Any) -> int:
        return 8 * int(rows.nnz)

    def row_bytes(self, n_dims: int) -> int:
        return 8 * min(n_dims, 1000)  # features of an image, about

    def to_milvus(self, rows: Any, part: slice) -> list[Any]:
        offsets = rows.indptr[part.start : min(part.stop, rows.shape[0]) + 1].tolist()
        words, values = rows.indices.tolist(), rows.data.tolist()
        return [dict(zip(words[a:b], values[a:b], strict=True)) for a, b in pairwise(offsets)]

    def from_milvus(self, values: list[Any], n_dims: int) -> Any:
        rows = [sorted(row.items()) for row in values]
        entries = [entry for row in rows for entry in row]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        words = np.array([word for word, _ in entries], dtype=np.int32)
        return _csr(np.array([value for _, value in entries], dtype=np.float32), words, offsets, n_dims)

    def zeros(self, n: int, n_dims: int) -> Any:
        empty = np.empty(0, dtype=np.int32)
        return _csr(empty.astype(np.float32), empty, np.zeros(n + 1, dtype=np.int64), n_dims)

    def finds_zeros(self) -> bool:
        return False

    def rank(self, queries: Queries, rows: Any, keys: NDArray[np.int64], places: NDArray[np.int64], k: int) -> Ranked:
        # Candidates of other queries are as good: there are no approximate structures of sparse vectors.
        found, scores = InvertedIndex("inner_product", idf=None).add(keys, rows).search(queries.rows, k)
        return np.where(found < 0, NO_KEY, found), scores

    def is_certain(
        self, queries: Queries, last: NDArray[np.float64], worst: NDArray[np.float64], longest: float
    ) -> NDArray[np.bool_]:
        rows: Any = queries.rows
        n_terms = np.diff(rows.indptr)
        # All products are positive, so that the error of a sum is a share of it.
        return np.asarray(last * (1 + 4 * (1.1 * n_terms + 16) * _ROUNDOFF) < worst)


def _csr(values: NDArray[Any], words: NDArray[Any], offsets: NDArray[Any], n_dims: int) -> Any:
    from scipy.sparse import csr_array

    rows = csr_array((values, words, offsets), shape=(len(offsets) - 1, n_dims))
    rows.has_sorted_indices = rows.has_canonical_format = True
    return rows
