"""Hamming search against the definition on unpacked bits, and what is special about rows of bits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cvretrieval import BinaryIndex
from cvretrieval._kernels.hamming import pack_bytes
from cvretrieval._kernels.hamming_search import row_distances, sort_nearest, update_nearest
from tests.reference.hamming import hamming, search


def run_kernel(queries, vectors, keys, k, *, n_places, block):
    """Offer vectors block by block, with lists of so many places."""
    rows, n_queries = pack_bytes(vectors), len(queries)
    n_bits = 64 * rows.shape[1]
    bounds, totals, sizes = np.full(n_queries, n_bits), np.zeros(n_queries, int), np.zeros(n_queries, int)
    counts = np.zeros((n_queries, n_bits + 1), int)
    distances, found = np.empty((n_queries, n_places), np.int32), np.empty((n_queries, n_places), int)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        update_nearest(pack_bytes(queries), rows[part], keys[part], k, bounds, totals, counts, sizes, distances, found)
    scores = np.full((n_queries, k), -np.inf, dtype=np.float32)
    best = np.full((n_queries, k), -1)
    sort_nearest(k, bounds, sizes, distances, found, scores, best)
    return best, scores


@pytest.mark.parametrize("n_bytes", [1, 8, 13, 16, 32, 61, 64])
def test_distances_equal_their_definition(n_bytes, rng):
    queries, vectors = (rng.integers(0, 256, (n, n_bytes), dtype=np.uint8) for n in (3, 200))
    distances = np.empty(200, dtype=np.int32)
    for query, expected in zip(pack_bytes(queries), hamming(queries, vectors), strict=True):
        row_distances(query, pack_bytes(vectors), distances)
        np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("n_bytes", [1, 8, 40])
@pytest.mark.parametrize("k", [1, 7, 50, 3000])
@pytest.mark.parametrize("spare", [1, 5, 1000])
def test_kernel_equals_its_slow_twin(n_bytes, k, spare, rng):
    """Short lists are full at every other row; one byte makes nearly all distances equal."""
    queries, vectors = (rng.integers(0, 256, (n, n_bytes), dtype=np.uint8) for n in (4, 2500))
    keys = rng.permutation(2500)
    keys[::9] = -1
    found = run_kernel(queries, vectors, keys, k, n_places=k + spare, block=1100)
    expected = search("hamming", queries, vectors, keys, k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("keys", [np.arange(5000), np.arange(5000)[::-1]], ids=["ascending", "descending"])
@pytest.mark.parametrize("n_jobs", [1, 4])
def test_equal_vectors_come_by_key(keys, n_jobs):
    """The worst order: every vector ties with the last one kept."""
    vectors = np.full((5000, 32), 7, dtype=np.uint8)
    index = BinaryIndex(n_jobs=n_jobs).add(keys[:3000], vectors[:3000]).add(keys[3000:], vectors[3000:])
    found, scores = index.search(vectors[:2], 30)
    np.testing.assert_array_equal(found, np.tile(np.arange(30), (2, 1)))
    assert (scores == 0).all()


@pytest.mark.parametrize("n_bytes", [256, 250])
def test_memory_mapped_bytes_stay_where_they_are(n_bytes, tmp_path, rng):
    np.save(tmp_path / "bits.npy", rng.integers(0, 256, (50_000, n_bytes), dtype=np.uint8))
    mapped = np.load(tmp_path / "bits.npy", mmap_mode="r")
    BinaryIndex().add([0], mapped[:1]).search(mapped[:1], 1)
    tracemalloc.start()
    try:
        index = BinaryIndex().add(np.arange(50_000), mapped)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Rows that do not fill words are copied.
    assert peak < 0.5 * mapped.nbytes if n_bytes == 256 else peak > mapped.nbytes
    found, _ = index.search(mapped[77:80], 1)
    np.testing.assert_array_equal(found[:, 0], [77, 78, 79])
    np.testing.assert_array_equal(index.reconstruct([5, 9]), mapped[[5, 9]])
    opened = BinaryIndex.open(index.save(tmp_path / "index"))
    np.testing.assert_array_equal(opened.search(mapped[:5], 20)[0], index.search(mapped[:5], 20)[0])
    assert opened.stats()["n_bytes"] == 50_000 * (256 + 8)


def test_long_lists_and_many_queries(rng):
    vectors = rng.integers(0, 256, (3000, 16), dtype=np.uint8)
    keys = rng.permutation(3000)
    index = BinaryIndex().add(keys, vectors)
    for queries, k in ((vectors[:700], 3), (vectors[:5], 3000), (vectors[:3], 10_000)):
        expected = search("hamming", queries, vectors, keys, k)
        found = index.search(queries, k)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_what_is_not_bytes_is_refused():
    index = BinaryIndex().add([1], np.zeros((1, 4), dtype=np.uint8))
    for wrong in (256, -1, 0.5, np.nan, 1e30):
        with pytest.raises(ValueError, match=r"Vectors must be bytes, whole numbers from 0 to 255. Got an array"):
            index.add([2], np.full((1, 4), wrong))
    with pytest.raises(TypeError, match=r"eight bits each. Got booleans: pack them by numpy.packbits"):
        index.add([2], np.ones((1, 32), dtype=bool))
    with pytest.raises(ValueError, match="Queries have 5 dimensions, but the index holds 4-d vectors"):
        index.search(np.zeros((1, 5), dtype=np.uint8), 1)
    assert len(index) == 1
