"""Search structures of faiss over the rows of an index: built, added to in a copy, asked for candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import SMALLEST_NORM
from cvretrieval._optional import import_optional
from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval._spread import Threads
from cvretrieval.codebooks.approximate_lloyd import approximate_lloyd
from cvretrieval.codebooks.lloyd import lloyd
from cvretrieval.index.row_index import Queries
from cvretrieval.index.segments import Segments

#: Structures of dense vectors, and those of binary ones.
DENSE, BINARY = ("flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw"), ("flat", "hnsw")

#: Vectors that the codewords of "ivf_pq" are learned from, at least: 39 for each, as faiss asks for.
LEAST_FOR_PQ = 39 * 256

# Neighbours of each vector in the graph, and vectors kept in mind while it is built: usual for high recall.
_NEIGHBORS, _BUILD_LIST = 32, 80
# Vectors per list that their centres are learned from, and iterations.
_ROWS_PER_LIST, _ITERATIONS = 64, 8
# Cells from which k-means looks for near centres only.
_APPROXIMATELY = 16_384
# "ivf_pq": dimensions per byte.
_DIMS_PER_BYTE = 4
_BLOCK_ROWS = 16_384


class Effort(NamedTuple):
    """How hard to search: lists looked into, or vectors kept in mind; and candidates for each vector wanted."""

    n_probes: int
    factor: int = 1


@contextmanager
def one_thread(faiss: Any) -> Iterator[None]:
    """Keep faiss from starting threads: the setting belongs to the thread that asks, not to the process."""
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(n_threads)


@dataclass(frozen=True, eq=False)
class Structure:
    """A structure over the rows ``0 … n_rows − 1``; never changed, so any number of threads may ask it.

    Attributes
    ----------
    name : str
        One of `DENSE` or `BINARY`.
    metric : str
    index : faiss.Index
    rows : ndarray of shape (n_held,)
        int64, the row of each vector in it, ascending: those that could be found when they were added.
    n_rows : int
    n_learned : int
        Vectors there were when it was built.
    """

    name: str
    metric: str
    index: Any
    rows: NDArray[np.int64]
    n_rows: int
    n_learned: int

    @classmethod
    def build(cls, name: str, metric: str, segments: Segments[Any], *, seed: int, n_jobs: int | None) -> Structure:
        """Build a structure over all rows."""
        rows = segments.lookup[1]
        sample = rows
        n_lists = 0
        if name.startswith("ivf"):
            n_lists = int(2 ** np.round(np.log2(4 * np.sqrt(len(rows)))))
            n_lists = max(1, min(n_lists, len(rows) // 4))
            n_sample = max(_ROWS_PER_LIST * n_lists, LEAST_FOR_PQ)
            if len(rows) > n_sample:
                sample = np.sort(np.random.RandomState(seed).choice(rows, n_sample, replace=False))
        taken = segments.take(np.sort(sample) if n_lists else np.sort(rows[:1]))
        examples = prepare(metric, taken.vectors, getattr(taken, "norms", None))
        index = _empty(name, metric, examples, n_lists, seed, n_jobs)
        empty = cls(name, metric, index, np.empty(0, dtype=np.int64), 0, len(rows))
        return empty._add(segments, n_jobs)

    def extend(self, segments: Segments[Any], n_jobs: int | None) -> Structure:
        """Return a structure that has the later rows as well, a copy."""
        faiss = _faiss()
        clone = faiss.clone_binary_index if self.metric == "hamming" else faiss.clone_index
        return replace(self, index=clone(self.index))._add(segments, n_jobs)

    def _add(self, segments: Segments[Any], n_jobs: int | None) -> Structure:
        """Add rows from `n_rows` on, in place; return the structure that knows of them."""
        faiss = _faiss()
        later = np.sort(segments.lookup[1])
        later = later[np.searchsorted(later, self.n_rows) :]

        def read(block: slice) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
            segment = segments.take(later[block])
            vectors = prepare(self.metric, segment.vectors, getattr(segment, "norms", None))
            if not self.name.startswith("ivf"):
                return vectors, None
            with one_thread(faiss):
                return vectors, self.index.quantizer.search(vectors, 1)[1][:, 0].copy()

        # Found list by list in threads, added in order by one: the same structure whatever the number of threads.
        for vectors, lists in map_blocks(read, block_slices(len(later), _BLOCK_ROWS), n_jobs=n_jobs):
            with one_thread(faiss):
                if lists is None:
                    self.index.add(vectors)
                else:
                    pointers = faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists)
                    self.index.add_core(len(vectors), *pointers)
        return replace(self, rows=np.concatenate([self.rows, later]), n_rows=segments.n_rows)

    def propose(
        self, queries: NDArray[Any], n: int, effort: Effort, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the rows of n candidates for each query, -1 for none, and faiss's own values of them.

        `queries` are prepared, `mask` says which of the vectors held may be proposed.
        """
        faiss = _faiss()
        n = max(1, min(n, len(self.rows)))
        options: dict[str, Any] = {}
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        if self.name == "flat":
            parameters = faiss.SearchParameters(**options)
        elif self.name == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort.n_probes, n), **options)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=effort.n_probes, **options)
        with one_thread(faiss):
            values, places = self.index.search(queries, n, params=parameters)
        return np.where(places >= 0, self.rows[places], -1), values

    def __reduce__(self) -> tuple[Any, ...]:
        # faiss pickles some of its classes only.
        return _from_bytes, (self.to_bytes(), self.name, self.metric, self.rows, self.n_rows, self.n_learned)

    @property
    def most_probes(self) -> int:
        """Lists there are, or vectors that can be kept in mind."""
        if self.name == "hnsw":
            return min(len(self.rows), 4096)
        return int(self.index.nlist) if self.name.startswith("ivf") else 1

    def to_bytes(self) -> NDArray[np.uint8]:
        """Return faiss's file."""
        faiss = _faiss()
        write = faiss.serialize_index_binary if self.metric == "hamming" else faiss.serialize_index
        return np.asarray(write(self.index))

    @staticmethod
    def index_of(data: NDArray[np.uint8], metric: str) -> Any:
        """Return the index of a file of faiss; ValueError if it cannot be read."""
        faiss = _faiss()
        read = faiss.deserialize_index_binary if metric == "hamming" else faiss.deserialize_index
        try:
            return read(np.array(data))
        except RuntimeError as error:
            raise ValueError(f"faiss {faiss.__version__} cannot read its structure: {error}") from error


def _from_bytes(data: NDArray[np.uint8], name: str, metric: str, *facts: Any) -> Structure:
    return Structure(name, metric, Structure.index_of(data, metric), *facts)


def prepare(metric: str, rows: NDArray[Any], norms: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return rows as faiss gets them: divided by their norms for the cosine, as bytes for Hamming distances."""
    if metric == "hamming":
        return np.ascontiguousarray(rows).view(np.uint8)
    if metric == "cosine":
        rows = rows / np.maximum(np.asarray(norms), SMALLEST_NORM)[:, None]
    missing = -rows.shape[1] % _DIMS_PER_BYTE
    if missing:
        rows = np.concatenate([rows, np.zeros((len(rows), missing), dtype=np.float32)], axis=1)
    return np.ascontiguousarray(rows, dtype=np.float32)


def prepared(metric: str, queries: Queries) -> NDArray[Any]:
    """Return queries as faiss gets them."""
    return prepare(metric, queries.rows, queries.norms)


def _faiss() -> Any:
    return import_optional("faiss", "FaissIndex")


def _empty(name: str, metric: str, examples: NDArray[Any], n_lists: int, seed: int, n_jobs: int | None) -> Any:
    """Return a trained index without vectors."""
    faiss = _faiss()
    n_dims = examples.shape[1]
    if metric == "hamming":
        if name == "flat":
            return faiss.IndexBinaryFlat(8 * n_dims)
        index = faiss.IndexBinaryHNSW(8 * n_dims, _NEIGHBORS)
        index.hnsw.efConstruction = _BUILD_LIST
        return index
    # Unit vectors have the same order by distance, which suits lists and graphs better; but not zero vectors.
    by_product = metric == "inner_product" or (metric == "cosine" and name == "flat")
    kind = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
    if name == "flat":
        return faiss.IndexFlat(n_dims, kind)
    if name == "hnsw":
        index = faiss.IndexHNSWFlat(n_dims, _NEIGHBORS, kind)
        index.hnsw.efConstruction = _BUILD_LIST
        return index
    centers = _centers(examples, n_lists, seed, n_jobs)
    quantizer = faiss.IndexFlat(n_dims, kind)
    quantizer.add(centers)
    if name == "ivf_flat":
        index = faiss.IndexIVFFlat(quantizer, n_dims, n_lists, kind)
    elif name == "ivf_sq":
        codes = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(quantizer, n_dims, n_lists, codes, kind)
    else:
        index = faiss.IndexIVFPQ(quantizer, n_dims, n_lists, n_dims // _DIMS_PER_BYTE, 8, kind)
        index.pq.cp.seed = seed
    with single_threaded(), one_thread(faiss):
        index.train(examples)
    return index


def _centers(examples: NDArray[np.float32], n_lists: int, seed: int, n_jobs: int | None) -> NDArray[np.float32]:
    """Return centres of cells by k-means, which starts at random vectors: better starts cost more than they gain."""
    random_state = np.random.RandomState(seed)
    if n_lists >= _APPROXIMATELY:
        nobody = np.empty(0, dtype=np.int64)
        result = approximate_lloyd(
            examples, nobody, n_lists, max_iter=_ITERATIONS, tol=0, n_jobs=n_jobs, random_state=random_state
        )
    else:
        start = examples[np.sort(random_state.choice(len(examples), n_lists, replace=False))]
        result = lloyd(examples, start, max_iter=_ITERATIONS, tol=0, spread=Threads(n_jobs), owner="FaissIndex")
    return np.ascontiguousarray(result.centers, dtype=np.float32)
