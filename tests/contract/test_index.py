"""The contract of every index engine (`VectorIndex`); a new engine adds a line to the table."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.base import clone

from cvretrieval import ProductQuantizer, StoreError
from cvretrieval.index import BinaryIndex, DenseIndex, FaissIndex, InvertedIndex, PQIndex, VectorIndex
from tests.milvus_lite import HAS_MILVUS
from tests.milvus_lite import make_index as make_milvus_index
from tests.reference.hamming import search as slow_hamming_search
from tests.reference.inverted_index import search as slow_word_search
from tests.reference.top_k import search as slow_search

N_DIMS = 19


@dataclass(frozen=True)
class Engine:
    """One line of the table: how to build an empty index, what it takes, and what it should find.

    Attributes
    ----------
    build : callable
        Given the parameters that all engines have, returns an empty index.
    metrics : tuple of str
    integers : callable
        (generator, number of rows) → small integers of N_DIMS columns as an array: every sum is exact, in any order,
        and ties are many.
    numbers : callable
        (generator, number of rows) → vectors, as an array, of mostly 128 columns, whose sums are rounded.
    definition : callable
        (metric, queries, vectors, keys, k) → keys and scores, one by one.
    share : float
        Of the best, so many are found on average. What is found has the right score at the right place all the same.
    size : int
        Vectors of the largest test, and a thousand for each repeat of threads: fewer for an engine that is slow.
    """

    build: Callable[..., Any]
    metrics: tuple[str, ...]
    integers: Callable[..., Any]
    numbers: Callable[..., Any]
    definition: Callable[..., Any]
    share: float = 1.0
    size: int = 3000

    def __call__(self, **parameters):
        return self.build(**parameters)


class GridPQIndex(PQIndex):
    """Codewords −8 … 7 of every dimension, so that codes of small integers lose nothing; of any dimension."""

    def _learn(self, rows):
        n_dims = rows.shape[1]
        quantizer = ProductQuantizer(n_dims, n_codewords=16)
        quantizer.codewords_ = np.tile(np.arange(-8, 8, dtype=np.float32)[:, None], n_dims)
        quantizer.bounds_, quantizer.error_, quantizer.n_features_in_ = np.arange(n_dims + 1), 0.0, n_dims
        return quantizer


ENGINES = {
    "DenseIndex": Engine(
        DenseIndex,
        ("cosine", "inner_product", "l2"),
        lambda rng, n: rng.integers(-2, 3, (n, N_DIMS)).astype(np.float32),
        lambda rng, n: rng.normal(size=(n, 128)).astype(np.float32),
        slow_search,
    ),
    "BinaryIndex": Engine(
        BinaryIndex,
        ("hamming",),
        lambda rng, n: rng.choice(np.array([0, 1, 3, 128], dtype=np.uint8), (n, N_DIMS), p=[0.7, 0.1, 0.1, 0.1]),
        lambda rng, n: rng.integers(0, 256, (n, 128), dtype=np.uint8),
        slow_hamming_search,
    ),
    "PQIndex": Engine(
        GridPQIndex,
        ("cosine", "inner_product", "l2"),
        lambda rng, n: rng.integers(-2, 3, (n, N_DIMS)).astype(np.float32),
        lambda rng, n: rng.normal(size=(n, 128)).astype(np.float32),
        slow_search,
    ),
    "FaissIndex-flat": Engine(
        partial(FaissIndex, structure="flat", n_train=60),
        ("cosine", "inner_product", "l2"),
        lambda rng, n: rng.integers(-2, 3, (n, N_DIMS)).astype(np.float32),
        lambda rng, n: rng.normal(size=(n, 128)).astype(np.float32),
        slow_search,
        1.0,
    ),
    "FaissIndex-ivf": Engine(
        partial(FaissIndex, structure="ivf_sq", n_train=60),
        ("cosine", "inner_product", "l2"),
        lambda rng, n: rng.integers(-2, 3, (n, N_DIMS)).astype(np.float32),
        lambda rng, n: rng.normal(size=(n, 12)).astype(np.float32),
        slow_search,
        0.8,
    ),
    "FaissIndex-hnsw": Engine(
        partial(FaissIndex, structure="hnsw", n_train=60),
        ("cosine", "inner_product", "l2"),
        lambda rng, n: rng.integers(-2, 3, (n, N_DIMS)).astype(np.float32),
        lambda rng, n: rng.normal(size=(n, 12)).astype(np.float32),
        slow_search,
        0.8,
    ),
    "FaissIndex-binary-flat": Engine(
        partial(FaissIndex, metric="hamming", structure="flat", n_train=60),
        ("hamming",),
        lambda rng, n: rng.choice(np.array([0, 1, 3, 128], dtype=np.uint8), (n, N_DIMS), p=[0.7, 0.1, 0.1, 0.1]),
        lambda rng, n: rng.integers(0, 256, (n, 128), dtype=np.uint8),
        slow_hamming_search,
        1.0,
    ),
    "FaissIndex-binary-hnsw": Engine(
        partial(FaissIndex, metric="hamming", structure="hnsw", n_train=60),
        ("hamming",),
        lambda rng, n: rng.choice(np.array([0, 1, 3, 128], dtype=np.uint8), (n, N_DIMS), p=[0.7, 0.1, 0.1, 0.1]),
        lambda rng, n: rng.integers(0, 256, (n, 16), dtype=np.uint8),
        slow_hamming_search,
        0.6,  # queries of random bytes are far from everything
    ),
    "InvertedIndex": Engine(
        partial(InvertedIndex, idf=None),
        ("cosine", "inner_product"),
        lambda rng, n: np.maximum(rng.integers(-2, 3, (n, N_DIMS)), 0).astype(np.float32),
        lambda rng, n: np.maximum(rng.normal(size=(n, 128)) - 1, 0).astype(np.float32),
        slow_word_search,
    ),
    "InvertedIndex-idf": Engine(
        InvertedIndex,
        ("cosine", "inner_product"),
        lambda rng, n: np.maximum(rng.integers(-6, 3, (n, N_DIMS)), 0).astype(np.float32),
        lambda rng, n: np.maximum(rng.normal(size=(n, 128)) - 1, 0).astype(np.float32),
        partial(slow_word_search, idf="collection"),
    ),
}

if HAS_MILVUS:
    ENGINES |= {
        "MilvusIndex": Engine(
            partial(make_milvus_index, structure="flat"),
            ("cosine",),  # the others: tests/test_index_milvus.py
            ENGINES["DenseIndex"].integers,
            ENGINES["DenseIndex"].numbers,
            slow_search,
            size=600,
        ),
        "MilvusIndex-hnsw": Engine(
            partial(make_milvus_index, structure="hnsw", metric="inner_product"),
            ("inner_product",),
            ENGINES["DenseIndex"].integers,
            lambda rng, n: rng.normal(size=(n, 12)).astype(np.float32),
            slow_search,
            0.8,
            size=600,
        ),
        "MilvusIndex-sparse": Engine(
            partial(make_milvus_index, structure="sparse", metric="inner_product"),
            ("inner_product",),
            ENGINES["InvertedIndex"].integers,
            ENGINES["InvertedIndex"].numbers,
            slow_word_search,
            size=600,
        ),
    }

EACH_METRIC = pytest.mark.parametrize(
    ("engine", "metric"),
    [(engine, metric) for engine in ENGINES.values() for metric in engine.metrics],
    ids=[f"{name}-{metric}" for name, engine in ENGINES.items() for metric in engine.metrics],
)


@pytest.fixture(params=ENGINES.values(), ids=ENGINES.keys())
def engine(request):
    return request.param


@pytest.fixture
def vectors(engine, rng):
    return engine.integers(rng, 300)


@pytest.fixture
def keys(rng):
    return rng.permutation(10_000)[:300].astype(np.int64)


@pytest.fixture
def queries(engine, rng):
    return engine.integers(np.random.default_rng(1), 15)


def dense(vectors):
    return vectors.toarray() if issparse(vectors) else vectors


def assert_equal(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def assert_same(engine, found, expected):
    """Equal; of an approximate engine, right as far as it goes."""
    if engine.share == 1:
        assert_equal(found, expected)
        return
    assert found[0].shape == found[1].shape == expected[0].shape
    best = expected[1] > -np.inf
    np.testing.assert_array_equal(found[1] > -np.inf, best)
    np.testing.assert_array_equal(found[0] == -1, ~best)
    assert (found[1] <= expected[1]).all()
    if not best.any():
        return
    last = np.where(best, expected[1], np.inf).min(axis=1, keepdims=True)
    assert (found[1] >= last)[best].mean() >= engine.share
    for keys, scores, right in zip(*found, map(dict, map(zip, *expected)), strict=True):
        places = list(zip(-scores, keys, strict=True))
        assert places == sorted(places)  # of the same -1 at the end, too
        assert len(set(keys[keys >= 0])) == (keys >= 0).sum()
        assert all(right.get(key, score) == score for key, score in zip(keys, scores, strict=True))


def test_has_the_protocol(engine):
    assert isinstance(engine(), VectorIndex)
    assert engine().kind in ("dense", "sparse", "binary") and isinstance(engine().exact, bool)
    assert engine().metric == engine.metrics[0]
    assert len(engine()) == 0 and engine().n_dims is None


def test_parameters_and_clone(engine):
    index = engine(metric=engine.metrics[-1], n_jobs=2).add([1], [[1, 2]])
    params = index.get_params()
    assert params["metric"] == engine.metrics[-1] and params["n_jobs"] == 2
    copy = clone(index)
    assert copy.get_params() == params and len(copy) == 0


@EACH_METRIC
@pytest.mark.parametrize("k", [1, 10, 300, 400])
def test_equals_the_definition_with_ties_by_key(engine, metric, k, vectors, keys, queries):
    found = engine(metric=metric).add(keys, vectors).search(queries, k)
    assert found[0].dtype == np.int64 and found[1].dtype == np.float32
    assert_same(engine, found, engine.definition(metric, queries, vectors, keys, k))


@EACH_METRIC
def test_batches_jobs_order_and_additions_do_not_change_a_bit(engine, metric, rng):
    n, n_queries = engine.size, engine.size // 15
    vectors = engine.numbers(rng, n)
    vectors[n // 2 :] = vectors[: n // 2]
    queries = engine.numbers(rng, n_queries)
    keys = rng.permutation(n)
    expected = engine(metric=metric).add(keys, vectors).search(queries, 25)
    with np.errstate(invalid="ignore"):  # −inf less −inf, behind the end of a list
        assert not (np.diff(expected[1], axis=1) > 0).any()
    index = engine(metric=metric).add(keys, vectors)
    for n_jobs in (2, 3, 8):
        other = engine(metric=metric, n_jobs=n_jobs).add(keys, vectors)
        assert_equal(other.search(queries, 25), expected)
        assert_equal(other.search(queries[:1], 25), [part[:1] for part in expected])
    for start, stop in ((0, 1), (1, 8), (8, n_queries)):
        assert_equal(index.search(queries[start:stop], 25), [part[start:stop] for part in expected])
    order = rng.permutation(n)
    index = engine(metric=metric)
    for rows in np.array_split(order, [1, 2, 10, n // 4, n // 4 + 5, 2 * n // 3]):
        index.add(keys[rows], vectors[rows])
    for k in (25, 7):
        found = index.search(queries, k)
        if engine.share == 1:
            assert_equal(found, [part[:, :k] for part in expected])
        else:
            assert (found[1] >= expected[1][:, k - 1 : k]).mean() >= engine.share


@EACH_METRIC
def test_removed_vectors_are_gone_at_once(engine, metric, vectors, keys, queries):
    index = engine(metric=metric).add(keys[:90], vectors[:90]).add(keys[90:], vectors[90:])
    for gone in (5, 85, 260):
        assert index.remove(keys[:gone]) is index
        assert len(index) == 300 - gone
        assert_same(
            engine, index.search(queries, 20), engine.definition(metric, queries, vectors[gone:], keys[gone:], 20)
        )
        index.add(keys[:gone], vectors[:gone])
    index.remove(keys)
    assert len(index) == 0
    assert (index.search(queries, 3)[0] == -1).all()


def test_a_key_can_be_used_again_after_removal(engine):
    index = engine().add([7, 8], [[1, 0], [0, 1]])
    index.remove([7]).add([7], [[5, 0]])
    np.testing.assert_array_equal(dense(index.reconstruct([8, 7])), [[0, 1], [5, 0]])
    found = index.search([[5, 0]], 3)
    best = engine.definition(index.metric, np.array([[5, 0]]), np.array([[5, 0], [0, 1]]), np.array([7, 8]), 3)
    assert_same(engine, found, best)
    assert found[0][0, 0] == 7


def test_a_key_in_the_index_is_refused_and_nothing_changes(engine, vectors):
    index = engine().add([3, 1], vectors[:2])
    with pytest.raises(ValueError, match=r"in the index already: 1, 3\. Remove them first"):
        index.add([9, 3, 1], vectors[2:5])
    with pytest.raises(ValueError, match="more than once: 9"):
        index.add([9, 10, 9], vectors[2:5])
    assert len(index) == 2
    np.testing.assert_array_equal(dense(index.reconstruct([1, 3])), vectors[[1, 0]])


def test_unknown_keys_are_named_and_nothing_changes(engine, vectors):
    index = engine().add([3, 1], vectors[:2])
    for call in (index.remove, index.reconstruct):
        with pytest.raises(KeyError, match=r"Not in the index: -1, 2\."):
            call([1, 2, -1])
    assert len(index) == 2
    with pytest.raises(KeyError, match=r"0, 2, 4, 5, 6, … \(7 in all\)"):
        index.remove(np.arange(9))
    with pytest.raises(KeyError, match="Not in the index: 4"):
        engine().remove([4])


def test_reconstruct_returns_copies_in_order(engine, vectors, keys):
    index = engine().add(keys, vectors)
    rows = np.array([5, 299, 0, 5])
    found = index.reconstruct(keys[rows])
    np.testing.assert_array_equal(dense(found), vectors[rows])
    (found.data if issparse(found) else found)[:] = 0
    np.testing.assert_array_equal(dense(index.reconstruct(keys[rows])), vectors[rows])
    assert index.reconstruct([]).shape == (0, N_DIMS)


def test_rows_with_key_minus_one_are_never_found(engine, vectors, keys, queries):
    keys[::3] = -1
    if vectors.dtype.kind == "f":
        vectors[0] = np.nan
        vectors[3] = np.inf
    index = engine().add(keys, vectors)
    assert len(index) == (keys >= 0).sum()
    assert_same(engine, index.search(queries, 300), engine.definition(index.metric, queries, vectors, keys, 300))
    assert len(engine().add([-1, -1], vectors[:2])) == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_within_restricts_to_keys(engine, share, vectors, keys, queries, rng):
    metric = engine.metrics[-1]
    index = engine(metric=metric, n_jobs=2).add(keys, vectors).remove(keys[:50])
    allowed = keys[rng.random(len(keys)) < share]
    everything = engine.definition(metric, queries, vectors[50:], keys[50:], 250)
    expected = np.full((15, 15), -1), np.full((15, 15), -np.inf, dtype=np.float32)
    for row, found in enumerate(everything[0]):
        places = np.flatnonzero(np.isin(found, allowed))[:15]
        expected[0][row, : len(places)], expected[1][row, : len(places)] = found[places], everything[1][row, places]
    # Doubled, shuffled, and with keys that are not there.
    within = rng.permutation([*allowed, *allowed, -1, 123_456])
    assert_same(engine, index.search(queries, 15, within=within), expected)
    assert_same(engine, index.search(queries, 15, within=list(within)), expected)


def test_empty_index_empty_additions_and_no_queries(engine, vectors):
    index = engine()
    keys, scores = index.search(vectors[:2], 3)
    assert (keys == -1).all() and (scores == -np.inf).all() and keys.shape == scores.shape == (2, 3)
    index.add([], np.empty((0, 5)))
    assert len(index) == 0 and index.n_dims == 5
    index.add([0], np.ones((1, 5)))
    keys, scores = index.search(np.empty((0, 5)), 3)
    assert keys.shape == scores.shape == (0, 3)
    assert (index.search(np.ones((1, 5)), 3, within=[])[0] == -1).all()
    index.remove([])
    assert len(index) == 1


def test_wrong_dimension_names_both_numbers(engine, vectors):
    index = engine().add(np.arange(300), vectors)
    with pytest.raises(ValueError, match=r"Queries have 9 dimensions, but the index holds 19-d vectors\."):
        index.search(np.ones((2, 9)), 1)
    with pytest.raises(ValueError, match=r"Vectors have 9 dimensions, but the index holds 19-d vectors\."):
        index.add([1000], np.ones((1, 9)))
    # The dimension stays when the vectors go.
    index.remove(np.arange(300))
    with pytest.raises(ValueError, match="19-d"):
        index.search(np.ones((2, 9)), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(engine, vectors, value):
    if vectors.dtype.kind != "f":
        return  # bytes are always finite
    index = engine().add(np.arange(300), vectors)
    wrong = vectors.astype(np.float64)
    wrong[5, 2] = value
    with pytest.raises(ValueError, match="Vectors must be finite float32 numbers, but key 1005 has NaN or infinity"):
        index.add(np.arange(1000, 1300), wrong)
    with pytest.raises(ValueError, match="Queries must be finite float32 numbers, but row 5 has NaN or infinity"):
        index.search(wrong, 1)
    assert len(index) == 300


def test_wrong_types_and_shapes_are_refused(engine, vectors):
    index = engine().add(np.arange(300), vectors)
    with pytest.raises(TypeError, match="must be real numbers. Got an array of complex128"):
        index.search(vectors.astype(complex), 1)
    with pytest.raises(TypeError, match="must be real numbers. Got an array of <U"):
        index.add([1000], [["a"] * N_DIMS])
    with pytest.raises(ValueError, match=r"Queries must be 2-D.*shape \(19,\) instead. One vector\? Wrap it in a list"):
        index.search(vectors[0], 1)
    with pytest.raises(ValueError, match="There are 2 vectors, but 3 keys"):
        index.add([1000, 1001, 1002], vectors[:2])
    with pytest.raises(ValueError, match="1-D sequence of integers. Got an array of float64"):
        index.add([1000.0], vectors[:1])
    with pytest.raises(ValueError, match="1-D sequence of integers. Got an array of bool"):
        index.search(vectors[:1], 1, within=np.ones(300, dtype=bool))
    with pytest.raises(ValueError, match="0 or more, or -1.* Got -2"):
        index.add([-2], vectors[:1])
    with pytest.raises(ValueError, match="fit in int64"):
        index.add(np.array([2**63], dtype=np.uint64), vectors[:1])
    for k in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match="'k' parameter of search must be an integer"):
            index.search(vectors[:1], k)
    with pytest.raises(ValueError, match=f"'metric' parameter of .* must be one of .*'{engine.metrics[0]}'"):
        engine(metric="euclidean").add([1], [[1]]).search([[1]], 1)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        engine(n_jobs=0).add([1], [[1]]).search([[1]], 1)


def test_input_of_any_layout_gives_the_same_and_is_not_changed(engine, vectors, keys, queries, tmp_path):
    expected = engine().add(keys, vectors).search(queries, 9)
    np.save(tmp_path / "vectors.npy", vectors)
    forms = {
        "float64": vectors.astype(np.float64),
        "float16": vectors.astype(np.float16),
        "int": vectors.astype(np.int64),
        "Fortran": np.asfortranarray(vectors),
        "strided": np.repeat(vectors, 2, axis=1)[:, ::2],
        "list": vectors.tolist(),
        "memory-mapped": np.load(tmp_path / "vectors.npy", mmap_mode="r"),
    }
    for form in forms.values():
        index = engine().add(keys.astype(np.int32), form)
        assert_same(engine, index.search(queries.astype(np.float64), 9), expected)
    read_only = [array.copy() for array in (keys, vectors, queries)]
    for array in read_only:
        array.setflags(write=False)
    index = engine().add(read_only[0], read_only[1])
    assert_same(engine, index.search(np.asfortranarray(read_only[2]), 9), expected)
    index.remove(read_only[0][:5])
    np.testing.assert_array_equal(read_only[0], keys)


def test_later_changes_of_the_input_do_not_reach_the_index(engine, vectors, keys, queries):
    index = engine().add(keys, vectors)
    expected = index.search(queries, 9)
    vectors[:] = 1
    keys[:] = 0
    assert_same(engine, index.search(queries, 9), expected)


def test_pickle_round_trip(engine, vectors, keys, queries):
    index = engine(metric=engine.metrics[-1]).add(keys, vectors).remove(keys[:9])
    copy = pickle.loads(pickle.dumps(index))
    assert len(copy) == len(index) and copy.metric == engine.metrics[-1]
    assert_same(engine, copy.search(queries, 9), index.search(queries, 9))


def test_stats_say_what_is_held(engine, vectors, keys):
    index = engine()
    assert index.stats()["n_vectors"] == 0 and index.stats()["n_dims"] is None
    index.add(keys, vectors).remove(keys[:9])
    stats = index.stats()
    assert stats["n_vectors"] == len(index) == 291
    assert stats["n_dims"] == N_DIMS
    assert stats["n_removed"] >= 0 and stats["n_segments"] >= 1 and stats["n_bytes"] > 0
    json.dumps(stats)


def test_keys_are_those_that_can_be_found(engine, vectors, keys):
    index = engine()
    assert index.keys.shape == (0,) and index.keys.dtype == np.int64
    keys = keys.copy()
    keys[20:25] = -1
    index.add(keys[:100], vectors[:100]).add(keys[100:], vectors[100:]).remove(keys[95:105])
    np.testing.assert_array_equal(index.keys, np.sort(np.delete(keys, [*range(20, 25), *range(95, 105)])))


def test_adding_in_any_order_or_adding_and_removing_is_building_afresh(engine, vectors, keys, queries, rng):
    expected = engine().add(keys[:200], vectors[:200]).search(queries, 40)
    for _ in range(3):
        order = rng.permutation(300)
        index = engine()
        for rows in np.array_split(order, np.sort(rng.integers(0, 300, 7))):
            index.add(keys[rows], vectors[rows])
        gone = rng.permutation(np.arange(200, 300))
        for rows in np.array_split(gone, 4):
            index.remove(keys[rows])
        assert_same(engine, index.search(queries, 40), expected)


def test_saved_and_opened_it_finds_the_same(engine, vectors, keys, queries, tmp_path):
    index = engine(metric=engine.metrics[-1]).add(keys[:200], vectors[:200]).add(keys[200:], vectors[200:])
    index.remove(keys[:9])
    expected = index.search(queries, 20)
    path = index.save(tmp_path / "index")
    assert path == tmp_path / "index"
    assert_same(engine, index.search(queries, 20), expected)
    for verify in (True, False):
        opened = type(index).open(path, n_jobs=2, verify=verify)
        assert opened.metric == index.metric and opened.n_jobs == 2
        assert len(opened) == 291 and opened.n_dims == N_DIMS
        assert_same(engine, opened.search(queries, 20), expected)
        np.testing.assert_array_equal(dense(opened.reconstruct(keys[9:40])), vectors[9:40])
    with pytest.raises(StoreError, match="exists already and is not empty"):
        index.save(path)
    with pytest.raises(KeyError, match="Not in the index"):
        opened.reconstruct(keys[:1])


def test_flush_makes_changes_durable_and_only_flush(engine, vectors, keys, queries, tmp_path):
    index = engine().add(keys[:100], vectors[:100])
    assert index.flush() is index  # nowhere to write to, nothing to do
    path = index.save(tmp_path / "index")
    kept = index.search(queries, 20)
    index.add(keys[100:], vectors[100:]).remove(keys[50:150])
    changed = index.search(queries, 20)
    assert_same(engine, type(index).open(path).search(queries, 20), kept)
    index.flush()
    assert_same(engine, index.search(queries, 20), changed)
    opened = type(index).open(path)
    assert_same(engine, opened.search(queries, 20), changed)
    opened.remove(keys[:50]).add(keys[50:60], vectors[50:60]).flush()
    rows = np.r_[50:60, 150:300]
    assert_same(
        engine, type(index).open(path).search(queries, 20), engine().add(keys[rows], vectors[rows]).search(queries, 20)
    )
    with pytest.raises(StoreError, match="written to by another process"):
        index.flush()


def test_an_empty_index_is_saved(engine, queries, tmp_path):
    engine().save(tmp_path / "index")
    opened = engine().open(tmp_path / "index")
    assert len(opened) == 0 and opened.n_dims is None
    assert (opened.search(queries, 3)[0] == -1).all()


def test_damage_on_disk_is_noticed(engine, vectors, keys, tmp_path):
    """Whatever byte of whatever file is changed, cut off or gone."""
    path = engine().add(keys, vectors).remove(keys[:5]).save(tmp_path / "index")
    open_again = engine().open
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in np.linspace(0, len(whole) - 1, 9).astype(int):
            damaged = bytearray(whole)
            damaged[place] ^= 0x11
            file.write_bytes(damaged)
            with pytest.raises(StoreError, match=r"is damaged|is no index"):
                open_again(path)
        file.write_bytes(whole[:-1])
        with pytest.raises(StoreError, match="is damaged"):
            open_again(path)
        file.unlink()
        with pytest.raises(StoreError, match=r"is missing|does not exist or is no index"):
            open_again(path)
        file.write_bytes(whole)
    assert len(open_again(path)) == 295


def test_readers_see_whole_states_while_one_thread_changes_the_index(engine, vectors, keys, queries):
    """Every search equals that of an index with the first so many additions."""
    parts = np.array_split(np.arange(300), 15)
    state = engine()
    expected = [state.search(queries, 8)]
    for rows in parts:
        expected.append(state.add(keys[rows], vectors[rows]).search(queries, 8))
    for _ in range(max(1, engine.size // 1000)):
        index, seen, failures, done = engine(), [], [], threading.Event()

        def read(index=index, seen=seen, failures=failures, done=done):
            last = 0
            try:
                while not done.is_set():
                    found = index.search(queries, 8)
                    last = next(n for n in range(last, len(expected)) if all(map(np.array_equal, found, expected[n])))
                    seen.append(last)
            except BaseException as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for rows in parts:
            index.add(keys[rows], vectors[rows])
        done.set()
        for reader in readers:
            reader.join()
        assert not failures
        assert_same(engine, index.search(queries, 8), expected[-1])
