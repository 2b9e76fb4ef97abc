"""DenseIndex: the kernels against their slow twins, the bound that makes it exact, memory, and the segments."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from cvretrieval._kernels.top_k import (
    COSINE,
    INNER_PRODUCT,
    L2,
    NO_KEY,
    inner_products,
    row_norms,
    sort_top_k,
    update_top_k,
)
from cvretrieval.index import DenseIndex
from cvretrieval.index.scan import Scan, reached_values
from cvretrieval.index.segments import Segment, Segments
from tests.reference.top_k import score as slow_score
from tests.reference.top_k import search as slow_search

METRICS = {"inner_product": INNER_PRODUCT, "cosine": COSINE, "l2": L2}


def assert_ranked_alike(found, expected):
    """The scores may differ in the order of a float64 sum, so in the last bit of float32 at most."""
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1.2e-7, atol=1e-12)


def run_kernel(metric, queries, vectors, keys, k, *, block=100, products=None):
    """Search with the kernel, block by block, with the given products in place of those of BLAS."""
    if products is None:
        products = queries @ vectors.T
    query_norms, norms = np.empty(len(queries)), np.empty(len(vectors))
    row_norms(queries, query_norms)
    row_norms(vectors, norms)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    found = np.full((len(queries), k), NO_KEY, dtype=np.int64)
    for start in range(0, len(vectors), block):
        rows = slice(start, start + block)
        own = np.ascontiguousarray(products[:, rows])
        # Only the first block may be asked: the floors count vectors of the first block up to this one.
        segment = Segment(vectors[rows], keys[rows], norms[rows])
        floors = reached_values(METRICS[metric], own, segment, k if start == 0 else 0)
        update_top_k(
            METRICS[metric], own, floors, queries, query_norms, vectors[rows], norms[rows], keys[rows], scores, found
        )
    sort_top_k(scores, found)
    found[found == NO_KEY] = -1
    return found, scores


@pytest.mark.parametrize("n_dims", [1, 7, 8, 33, 128])
@pytest.mark.parametrize("metric", METRICS)
def test_kernel_equals_its_slow_twin(metric, n_dims, rng):
    queries = rng.normal(size=(6, n_dims)).astype(np.float32)
    vectors = rng.normal(size=(230, n_dims)).astype(np.float32)
    keys = rng.permutation(230)
    keys[::7] = -1
    for k in (1, 12, 300):
        assert_ranked_alike(
            run_kernel(metric, queries, vectors, keys, k), slow_search(metric, queries, vectors, keys, k)
        )


@pytest.mark.parametrize("n_dims", [1, 9, 128])
def test_products_of_a_few_queries(n_dims, rng):
    queries = rng.normal(size=(3, n_dims)).astype(np.float32)
    vectors = rng.normal(size=(50, n_dims)).astype(np.float32)
    products = np.empty((3, 50), dtype=np.float32)
    inner_products(queries, vectors, products)
    expected = [[sum(float(a) * float(b) for a, b in zip(q, x, strict=True)) for x in vectors] for q in queries]
    np.testing.assert_allclose(products, expected, rtol=1e-5, atol=1e-5)


def test_norms_equal_their_definition(rng):
    vectors = rng.normal(size=(20, 37)).astype(np.float32)
    vectors[3], vectors[4, 5], vectors[5, 5], vectors[6] = 0, np.nan, np.inf, 3e38
    norms = np.empty(20)
    row_norms(vectors, norms)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(norms, np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1)), rtol=1e-14)
    assert np.isfinite(norms[6]) and not np.isfinite(norms[4:6]).any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
def test_products_as_wrong_as_rounding_allows_do_not_change_the_result(metric, scale, rng):
    """Whatever BLAS does within the bound of a float32 sum, the best vectors are found."""
    n_dims = 64
    base = rng.normal(size=n_dims)
    # Neighbours so near that the errors below put them into any order.
    vectors = (scale * (base + 1e-6 * rng.normal(size=(400, n_dims)))).astype(np.float32)
    vectors[::5] = (scale * rng.normal(size=(80, n_dims))).astype(np.float32)
    queries = (scale * (base + 1e-3 * rng.normal(size=(5, n_dims)))).astype(np.float32)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors.astype(np.float64), axis=1)
    bound = n_dims * 2.0**-24 * lengths
    expected = run_kernel(metric, queries, vectors, np.arange(400), 20)
    assert_ranked_alike(expected, slow_search(metric, queries, vectors, np.arange(400), 20))
    ranks = exact.argsort(axis=1).argsort(axis=1)
    for wrong in (exact + bound, exact - bound, exact + rng.choice([-1, 1], exact.shape) * bound,
                  exact + np.where(ranks > 380, -1, 1) * bound):  # fmt: skip
        found = run_kernel(metric, queries, vectors, np.arange(400), 20, products=wrong.astype(np.float32))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_are_ranked_by_their_scores_not_by_the_products(metric, rng):
    """One vector far longer than the others makes the bound useless for its block, and the result no worse."""
    base = rng.normal(size=96)
    vectors = (base + 1e-5 * rng.normal(size=(500, 96))).astype(np.float32)
    vectors[77] *= 1e6
    queries = (base + 0.1 * rng.normal(size=(4, 96))).astype(np.float32)
    found = DenseIndex(metric=metric).add(np.arange(500), vectors).search(queries, 50)
    assert_ranked_alike(found, slow_search(metric, queries, vectors, np.arange(500), 50))


@pytest.mark.parametrize("ascending", [True, False])
def test_order_of_the_vectors_does_not_matter(ascending, rng):
    vectors = rng.normal(size=(900, 16)).astype(np.float32)
    query = rng.normal(size=(1, 16)).astype(np.float32)
    order = np.argsort(vectors @ query[0])[:: 1 if ascending else -1]
    found = DenseIndex(metric="inner_product").add(np.arange(900), vectors[order]).search(query, 30)
    assert_ranked_alike(found, slow_search("inner_product", query, vectors[order], np.arange(900), 30))


def test_equal_vectors_come_by_key_across_blocks_segments_and_threads(rng):
    """5,000 copies of one vector: the best ten are the ten lowest keys, wherever they lie."""
    keys = rng.permutation(5000)
    vectors = np.tile(rng.normal(size=(1, 32)).astype(np.float32), (5000, 1))
    for n_jobs in (1, 4):
        for metric, expected in (("cosine", 1.0), ("l2", 0.0)):
            index = DenseIndex(metric=metric, n_jobs=n_jobs)
            index.add(keys[:3000], vectors[:3000]).add(keys[3000:], vectors[3000:])
            found, scores = index.search(vectors[:3], 10)
            np.testing.assert_array_equal(found, np.tile(np.arange(10), (3, 1)))
            np.testing.assert_array_equal(scores, np.float32(expected))


def test_many_dimensions(rng):
    """As many as a Fisher vector has: a block has few rows then, and sums many terms."""
    vectors = rng.standard_normal((150, 33_024), dtype=np.float32)
    found = DenseIndex().add(np.arange(150), vectors).search(vectors[:2] + vectors[2:4], 6)
    assert_ranked_alike(found, slow_search("cosine", vectors[:2] + vectors[2:4], vectors, np.arange(150), 6))


def test_the_metric_may_change(rng):
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    index = DenseIndex().add(np.arange(60), vectors)
    for metric in METRICS:
        assert_ranked_alike(
            index.set_params(metric=metric).search(vectors[:3], 5),
            slow_search(metric, vectors[:3], vectors, np.arange(60), 5),
        )


def test_scores_are_what_the_documentation_says(rng):
    query, vector = rng.normal(size=(2, 1, 50)).astype(np.float32)
    for metric in METRICS:
        scores = DenseIndex(metric=metric).add([0], vector).search(query, 1)[1]
        np.testing.assert_allclose(scores[0, 0], slow_score(metric, query[0], vector[0]), rtol=1.2e-7)
    scores = DenseIndex(metric="cosine").add([0], 1e-13 * np.ones((1, 1))).search([[1.0]], 1)[1]
    np.testing.assert_allclose(scores, [[0.1]], rtol=1e-6)


@pytest.fixture
def mapped(tmp_path, rng):
    np.save(tmp_path / "vectors.npy", rng.standard_normal((40_000, 128), dtype=np.float32))
    return np.load(tmp_path / "vectors.npy", mmap_mode="r").view(np.ndarray)


def test_a_memory_mapped_array_is_never_copied_whole(mapped):
    index = DenseIndex().add([0], mapped[:1])
    index.search(mapped[:1], 1)
    tracemalloc.start()
    try:
        index.add(np.arange(1, 40_001), mapped)
        index.search(mapped[5:9], 10)
        index.search(mapped[:300], 10)
        index.remove(np.arange(0, 40_001, 2)).search(mapped[:4], 10)
        index.search(mapped[:4], 10, within=np.arange(30_000))
        index.compact()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * mapped.nbytes


def test_compact_frees_removed_vectors_and_changes_no_result(mapped, rng):
    before = mapped[:10].copy()
    index = DenseIndex().add(np.arange(100), mapped[:100]).add(np.arange(100, 200), mapped[100:200])
    index.add(np.arange(200, 20_200), np.array(mapped[:20_000])).add([999_999], mapped[:1].copy())
    index.remove(np.arange(90)).remove(np.arange(100, 19_200))
    expected = index.search(before, 50)
    tracemalloc.start()
    try:
        index.compact()
        freed = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert [len(segment) for segment in index._segments.segments] == [100, 1001]
    assert freed < 2_000_000
    assert len(index) == 10 + 1001
    for part, same in zip(index.search(before, 50), expected, strict=True):
        np.testing.assert_array_equal(part, same)
    np.testing.assert_array_equal(mapped[:10], before)
    np.testing.assert_array_equal(index.reconstruct([999_999, 95]), mapped[[0, 95]])
    index.add([0], mapped[:1])
    assert len(index.remove(index.search(before, 2000)[0][0][:1012]).compact()) == 0
    assert index._segments.segments == ()


def test_small_additions_are_joined(rng):
    vectors = rng.normal(size=(1000, 4)).astype(np.float32)
    index = DenseIndex()
    for i in range(1000):
        index.add([i], vectors[i : i + 1])
    assert len(index._segments.segments) <= 10
    np.testing.assert_array_equal(index.reconstruct(np.arange(1000)), vectors)


def test_many_small_mapped_segments_are_searched_together(mapped, rng):
    """As a store with many small shards gives them."""
    keys = rng.permutation(2000)
    whole = DenseIndex().add(keys, mapped[:2000])
    pieces = DenseIndex(n_jobs=2)
    for rows in np.array_split(np.arange(2000), 300):
        pieces.add(keys[rows], mapped[rows[0] : rows[-1] + 1])
    assert len(pieces._segments.segments) == 300
    for part, same in zip(pieces.search(mapped[:20], 15), whole.search(mapped[:20], 15), strict=True):
        np.testing.assert_array_equal(part, same)
    np.testing.assert_array_equal(pieces.reconstruct(keys[::-1]), mapped[1999::-1])


def test_searches_see_one_state_while_another_thread_changes_the_index(rng):
    """Ten keys are exchanged at once again and again: a search never sees nine or eleven of them."""
    vectors = rng.normal(size=(3000, 8)).astype(np.float32)
    vectors[:, 0] = 1
    vectors[:10, 0] = 100
    index = DenseIndex(metric="inner_product").add(np.arange(3000), vectors)
    query = np.eye(1, 8, dtype=np.float32)
    stop, failures = threading.Event(), []

    def change():
        while not stop.is_set():
            index.remove(np.arange(10))
            index.add(np.arange(10), vectors[:10])

    def ask():
        for _ in range(200):
            n_seen = int((index.search(query, 12)[1] == 100).sum())
            if n_seen not in (0, 10):
                failures.append(n_seen)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    writer = threading.Thread(target=change)
    for thread in (writer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    writer.join()
    assert failures == []


SIZES = [(1, 1), (1, 100_000), (1, 1_000_000), (40, 5000), (1000, 700), (3000, 100_000)]


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 16, 100])
@pytest.mark.parametrize(("n_queries", "n_rows"), SIZES)
def test_tasks_cover_every_pair_once(n_jobs, n_queries, n_rows):
    segment = Segment(np.empty((n_rows, 128), np.float32), np.zeros(n_rows, np.int64), np.zeros(n_rows))
    queries, norms = np.empty((n_queries, 128), np.float32), np.zeros(n_queries)
    tasks = Scan(Segments().add(segment), None, COSINE, 1, queries, norms).tasks(n_jobs)
    assert 1 <= len(tasks) <= 2 * n_jobs
    if n_queries * n_rows * 128 > 2**24 * n_jobs and n_jobs <= 16:
        assert len(tasks) >= n_jobs
    of_queries = sorted({(q.start, q.stop) for q, _ in tasks})
    of_rows = sorted({(r.start, r.stop) for _, r in tasks})
    assert len(tasks) == len(of_queries) * len(of_rows)
    for parts, n_items in ((of_queries, n_queries), (of_rows, n_rows)):
        assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == n_items and all(start < stop for start, stop in parts)


@pytest.mark.parametrize("n_queries", [1, 5, 33, 100])
def test_tasks_over_queries_and_rows_do_not_change_a_bit(n_queries, rng, monkeypatch):
    monkeypatch.setattr("cvretrieval.index.ranking._PRODUCTS_PER_TASK", 1)
    vectors = rng.normal(size=(5000, 16)).astype(np.float32)
    vectors[2500:] = vectors[:2500]
    keys = rng.permutation(5000)
    expected = DenseIndex().add(keys, vectors).search(vectors[:n_queries], 40)
    for n_jobs in (2, 3, 8):
        found = DenseIndex(n_jobs=n_jobs).add(keys, vectors).search(vectors[:n_queries], 40)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
def test_zero_vectors(metric):
    """They are vectors like others; their cosine with everything is 0."""
    index = DenseIndex(metric=metric).add([4, 2, 3], [[0, 0], [3, 4], [-3, -4]])
    queries = np.array([[0, 0], [6, 8]], dtype=np.float32)
    expected = {
        "cosine": ([[2, 3, 4], [2, 4, 3]], [[0, 0, 0], [1, 0, -1]]),
        "inner_product": ([[2, 3, 4], [2, 4, 3]], [[0, 0, 0], [50, 0, -50]]),
        "l2": ([[4, 2, 3], [2, 4, 3]], [[0, -25, -25], [-25, -100, -225]]),
    }[metric]
    assert_ranked_alike(index.search(queries, 3), expected)


def test_values_that_are_too_large_are_refused():
    with pytest.raises(ValueError, match=r"at most 1e\+18.*Key 8 has norm 1e\+19; scale"):
        DenseIndex().add([7, 8], [[1.0], [1e19]])
