"""The contract of every index engine (`VectorIndex`); a new engine adds a line to the table."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone

from cvretrieval.index import DenseIndex, VectorIndex
from tests.reference.top_k import search as slow_search

#: What builds an empty index, given the parameters that all engines have.
ENGINES = {"DenseIndex": DenseIndex}

METRICS = ("cosine", "inner_product", "l2")

N_DIMS = 19


@pytest.fixture(params=ENGINES.values(), ids=ENGINES.keys())
def engine(request):
    return request.param


@pytest.fixture
def vectors(rng):
    """Small integers: every sum is exact, in any order, and ties are many."""
    return rng.integers(-2, 3, (300, N_DIMS)).astype(np.float32)


@pytest.fixture
def keys(rng):
    return rng.permutation(10_000)[:300].astype(np.int64)


@pytest.fixture
def queries(rng):
    return rng.integers(-2, 3, (15, N_DIMS)).astype(np.float32)


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_has_the_protocol(engine):
    assert isinstance(engine(), VectorIndex)
    assert engine().metric == "cosine"
    assert len(engine()) == 0 and engine().n_dims is None


def test_parameters_and_clone(engine):
    index = engine(metric="l2", n_jobs=2).add([1], [[1.0, 2.0]])
    params = index.get_params()
    assert params["metric"] == "l2" and params["n_jobs"] == 2
    copy = clone(index)
    assert copy.get_params() == params and len(copy) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 10, 300, 400])
def test_equals_the_definition_with_ties_by_key(engine, metric, k, vectors, keys, queries):
    found = engine(metric=metric).add(keys, vectors).search(queries, k)
    assert found[0].dtype == np.int64 and found[1].dtype == np.float32
    assert_same(found, slow_search(metric, queries, vectors, keys, k))


@pytest.mark.parametrize("metric", METRICS)
def test_batches_jobs_order_and_additions_do_not_change_a_bit(engine, metric, rng):
    vectors = rng.normal(size=(3000, 128)).astype(np.float32)
    vectors[1500:] = vectors[:1500]
    queries = rng.normal(size=(200, 128)).astype(np.float32)
    keys = rng.permutation(3000)
    expected = engine(metric=metric).add(keys, vectors).search(queries, 25)
    assert (np.diff(expected[1], axis=1) <= 0).all()
    for n_jobs in (2, 3, 8):
        index = engine(metric=metric, n_jobs=n_jobs).add(keys, vectors)
        assert_same(index.search(queries, 25), expected)
        assert_same(index.search(queries[:1], 25), [part[:1] for part in expected])
    for start, stop in ((0, 1), (1, 8), (8, 200)):
        assert_same(index.search(queries[start:stop], 25), [part[start:stop] for part in expected])
    order = rng.permutation(3000)
    index = engine(metric=metric)
    for rows in np.array_split(order, [1, 2, 10, 700, 705, 2000]):
        index.add(keys[rows], vectors[rows])
    assert_same(index.search(queries, 25), expected)
    assert_same([part[:, :7] for part in expected], index.search(queries, 7))


@pytest.mark.parametrize("metric", METRICS)
def test_removed_vectors_are_gone_at_once(engine, metric, vectors, keys, queries):
    index = engine(metric=metric).add(keys[:90], vectors[:90]).add(keys[90:], vectors[90:])
    for gone in (5, 85, 260):
        assert index.remove(keys[:gone]) is index
        assert len(index) == 300 - gone
        assert_same(index.search(queries, 20), slow_search(metric, queries, vectors[gone:], keys[gone:], 20))
        index.add(keys[:gone], vectors[:gone])
    index.remove(keys)
    assert len(index) == 0
    assert (index.search(queries, 3)[0] == -1).all()


def test_a_key_can_be_used_again_after_removal(engine):
    index = engine(metric="inner_product").add([7, 8], [[1.0, 0.0], [0.0, 1.0]])
    index.remove([7]).add([7], [[5.0, 0.0]])
    np.testing.assert_array_equal(index.reconstruct([8, 7]), [[0, 1], [5, 0]])
    assert_same(index.search([[1.0, 0.0]], 3), ([[7, 8, -1]], [[5, 0, -np.inf]]))


def test_a_key_in_the_index_is_refused_and_nothing_changes(engine, vectors):
    index = engine().add([3, 1], vectors[:2])
    with pytest.raises(ValueError, match=r"in the index already: 1, 3\. Remove them first"):
        index.add([9, 3, 1], vectors[2:5])
    with pytest.raises(ValueError, match="more than once: 9"):
        index.add([9, 10, 9], vectors[2:5])
    assert len(index) == 2
    np.testing.assert_array_equal(index.reconstruct([1, 3]), vectors[[1, 0]])


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
    np.testing.assert_array_equal(found, vectors[rows])
    found[:] = 0
    np.testing.assert_array_equal(index.reconstruct(keys[rows]), vectors[rows])
    assert index.reconstruct([]).shape == (0, N_DIMS)


def test_rows_with_key_minus_one_are_never_found(engine, vectors, keys, queries):
    keys[::3] = -1
    vectors[0] = np.nan
    vectors[3] = np.inf
    index = engine().add(keys, vectors)
    assert len(index) == (keys >= 0).sum()
    assert_same(index.search(queries, 300), slow_search("cosine", queries, vectors, keys, 300))
    assert len(engine().add([-1, -1], vectors[:2])) == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_within_restricts_to_keys(engine, share, vectors, keys, queries, rng):
    index = engine(metric="l2", n_jobs=2).add(keys, vectors).remove(keys[:50])
    allowed = keys[rng.random(len(keys)) < share]
    left = np.isin(keys, allowed)
    left[:50] = False
    expected = slow_search("l2", queries, vectors[left], keys[left], 15)
    # Doubled, shuffled, and with keys that are not there.
    within = rng.permutation([*allowed, *allowed, -1, 123_456])
    assert_same(index.search(queries, 15, within=within), expected)
    assert_same(index.search(queries, 15, within=list(within)), expected)


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


@pytest.mark.parametrize("metric", METRICS)
def test_zero_vectors(engine, metric):
    """They are vectors like others; their cosine with everything is 0."""
    index = engine(metric=metric).add([4, 2, 3], [[0, 0], [3, 4], [-3, -4]])
    queries = np.array([[0, 0], [6, 8]], dtype=np.float32)
    expected = {
        "cosine": ([[2, 3, 4], [2, 4, 3]], [[0, 0, 0], [1, 0, -1]]),
        "inner_product": ([[2, 3, 4], [2, 4, 3]], [[0, 0, 0], [50, 0, -50]]),
        "l2": ([[4, 2, 3], [2, 4, 3]], [[0, -25, -25], [-25, -100, -225]]),
    }[metric]
    assert_same(index.search(queries, 3), expected)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(engine, vectors, value):
    index = engine().add(np.arange(300), vectors)
    wrong = vectors.astype(np.float64)
    wrong[5, 2] = value
    with pytest.raises(ValueError, match="Vectors must be finite float32 numbers, but key 1005 has NaN or infinity"):
        index.add(np.arange(1000, 1300), wrong)
    with pytest.raises(ValueError, match="Queries must be finite float32 numbers, but row 5 has NaN or infinity"):
        index.search(wrong, 1)
    assert len(index) == 300


def test_values_that_are_too_large_are_refused(engine):
    with pytest.raises(ValueError, match=r"at most 1e\+18.*Key 8 has norm 1e\+19; scale"):
        engine().add([7, 8], [[1.0], [1e19]])


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
    with pytest.raises(ValueError, match="'metric' parameter of .* must be one of 'cosine'"):
        engine(metric="euclidean").add([1], [[1.0]]).search([[1.0]], 1)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        engine(n_jobs=0).add([1], [[1.0]]).search([[1.0]], 1)


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
        assert_same(index.search(queries.astype(np.float64), 9), expected)
    read_only = [array.copy() for array in (keys, vectors, queries)]
    for array in read_only:
        array.setflags(write=False)
    index = engine().add(read_only[0], read_only[1])
    assert_same(index.search(np.asfortranarray(read_only[2]), 9), expected)
    index.remove(read_only[0][:5])
    np.testing.assert_array_equal(read_only[0], keys)


def test_later_changes_of_the_input_do_not_reach_the_index(engine, vectors, keys, queries):
    index = engine().add(keys, vectors)
    expected = index.search(queries, 9)
    vectors[:] = 1
    keys[:] = 0
    assert_same(index.search(queries, 9), expected)


def test_pickle_round_trip(engine, vectors, keys, queries):
    index = engine(metric="l2").add(keys, vectors).remove(keys[:9])
    copy = pickle.loads(pickle.dumps(index))
    assert len(copy) == len(index) and copy.metric == "l2"
    assert_same(copy.search(queries, 9), index.search(queries, 9))
