"""Kernels of the rerankers against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cvretrieval._kernels.k_reciprocal import (
    average_encodings,
    insert_neighbors,
    jaccard_distances,
    pair_products,
    reciprocal_sets,
)
from cvretrieval._kernels.neighbor_graph import conjugate_gradient
from cvretrieval.reranking.diffusion import mutual_graph, normalized
from tests.reference.reranking import (
    conjugate_gradient_naive,
    expanded_reciprocal_naive,
    mutual_affinities_naive,
    nearest_naive,
    transitions_naive,
)


def cosines(rng, n, n_dims=5):
    X = rng.normal(size=(n, n_dims))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    S = X @ X.T
    return (S + S.T) / 2


def neighbor_lists(S, width):
    lists = np.full((len(S), width), -1, dtype=np.int32)
    values = np.full((len(S), width), -np.inf, dtype=np.float32)
    for i, row in enumerate(S):
        found = nearest_naive(row, i, min(width, len(S)))
        lists[i, : len(found)], values[i, : len(found)] = found, row[found]
    return lists, values


@pytest.mark.parametrize(("n", "k", "gamma"), [(30, 6, 3.0), (30, 30, 1.0), (8, 20, 2.5), (1, 3, 3.0), (25, 1, 3.0)])
def test_mutual_graph(rng, n, k, gamma):
    S = cosines(rng, n)
    graph = mutual_graph(*neighbor_lists(S, k), gamma)
    assert graph.has_sorted_indices and (graph.diagonal() == 0).all()
    assert (graph != graph.T).nnz == 0
    np.testing.assert_allclose(graph.toarray(), mutual_affinities_naive(S, k, gamma), rtol=3e-6 * gamma, atol=1e-30)
    np.testing.assert_allclose(normalized(graph).toarray(), transitions_naive(graph.toarray()), rtol=1e-13, atol=1e-300)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(1, 7), st.integers(1, 30), st.floats(0, 0.99))
def test_conjugate_gradient(seed, n, n_columns, max_iter, alpha):
    rng = np.random.default_rng(seed)
    S = transitions_naive(mutual_affinities_naive(cosines(rng, n), 6, 3.0))
    matrix = sparse.csr_array(S)
    y = np.maximum(rng.normal(size=(n, n_columns)), 0)
    y[:, 0] = 0  # nothing to solve
    solutions, n_iter = np.empty_like(y), np.empty(n_columns, dtype=np.int64)
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
    conjugate_gradient(*arrays, alpha, y, max_iter, 1e-4, solutions, n_iter)
    assert n_iter[0] == 0
    for b in range(n_columns):
        expected, n_steps = conjugate_gradient_naive(np.eye(n) - alpha * S, y[:, b], max_iter, 1e-4)
        assert abs(n_iter[b] - n_steps) <= 1
        np.testing.assert_allclose(solutions[:, b], expected, rtol=0, atol=2e-3 * np.abs(expected).max() + 1e-12)
        alone, count = np.empty((n, 1)), np.empty(1, dtype=np.int64)
        conjugate_gradient(*arrays, alpha, np.ascontiguousarray(y[:, b : b + 1]), max_iter, 1e-4, alone, count)
        np.testing.assert_array_equal(alone[:, 0], solutions[:, b])


def test_conjugate_gradient_converges(rng):
    S = transitions_naive(mutual_affinities_naive(cosines(rng, 60), 8, 3.0))
    matrix = sparse.csr_array(S)
    y = rng.uniform(size=(60, 3))
    solutions, n_iter = np.empty_like(y), np.empty(3, dtype=np.int64)
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
    conjugate_gradient(*arrays, 0.95, y, 500, 1e-13, solutions, n_iter)
    np.testing.assert_allclose(solutions, np.linalg.solve(np.eye(60) - 0.95 * S, y), rtol=1e-10)
    assert (n_iter < 500).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 9))
def test_insert_neighbors(seed, n_new, width):
    """Old and new neighbours sorted together are what insertion gives; few values, so that many are equal."""
    rng = np.random.default_rng(seed)
    n_listed = int(rng.integers(0, width))
    old = -np.sort(-rng.integers(0, 5, n_listed)).astype(np.float32)
    lists = np.full((1, width), -1, dtype=np.int32)
    values = np.full((1, width), -np.inf, dtype=np.float32)
    lists[0, : n_listed + 1] = np.arange(n_listed + 1)
    values[0, 1 : n_listed + 1] = old
    ids = (100 + np.arange(n_new)).astype(np.int32)
    similarities = rng.integers(0, 5, n_new).astype(np.float32)
    insert_neighbors(np.zeros(n_new, dtype=np.int64), ids, similarities, lists, values)
    pairs = [*zip(-old, range(1, n_listed + 1), strict=True), *zip(-similarities, ids, strict=True)]
    expected = sorted(pairs)[: width - 1]
    assert lists[0, 0] == 0
    assert lists[0, 1 : len(expected) + 1].tolist() == [node for _, node in expected]
    assert (lists[0, len(expected) + 1 :] == -1).all()


@pytest.mark.parametrize(("n", "k"), [(40, 7), (40, 20), (6, 10), (1, 3), (20, 1)])
def test_reciprocal_sets(rng, n, k):
    S = cosines(rng, n)
    lists, _ = neighbor_lists(S, k + 1)
    # A third of the lists are given as changed ones; those in their places are of no meaning then.
    changed = np.arange(0, n, 3).astype(np.int32)
    spoilt = lists.copy()
    spoilt[changed] = 0
    nodes = np.arange(n).astype(np.int32)
    half = round(k / 2)
    offsets, members = np.empty(n + 1, dtype=np.int64), np.empty(n * (k + 1) * (half + 2), dtype=np.int32)
    reciprocal_sets(nodes, spoilt, changed, lists[changed], half, offsets, members)
    full = [nearest_naive(row, i, n) for i, row in enumerate(S)]
    for i in range(n):
        found = members[offsets[i] : offsets[i + 1]].tolist()
        assert found == sorted(expanded_reciprocal_naive(full, i, k))


def random_encodings(rng, n, n_members):
    dense = rng.uniform(0.1, 1, (n, n_members)) * (rng.uniform(size=(n, n_members)) < 0.4)
    dense[np.arange(n), rng.integers(0, n_members, n)] = 0.5
    dense /= dense.sum(axis=1, keepdims=True)
    matrix = sparse.csr_array(dense)
    return dense, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def test_average_encodings(rng):
    dense, offsets, members, weights = random_encodings(rng, 9, 20)
    nodes = np.array([1, 2, 5, 6, 7, 11, 12, 15, 19], dtype=np.int32)
    lists = np.array([[5, 1, 19], [7, -1, -1], [12, 15, -1], [1, 5, 19]], dtype=np.int32)
    out = np.empty(5, dtype=np.int64), np.empty(200, dtype=np.int32), np.empty(200)
    scratch = np.zeros(20)
    average_encodings(lists, nodes, offsets, members, weights, scratch, *out)
    assert (scratch == 0).all()
    averaged = sparse.csr_array((out[2][: out[0][-1]], out[1][: out[0][-1]], out[0]), shape=(4, 20))
    assert averaged.has_sorted_indices
    for row, nearest in zip(averaged.toarray(), lists, strict=True):
        kept = [np.flatnonzero(nodes == node)[0] for node in nearest if node >= 0]
        np.testing.assert_allclose(row, dense[kept].mean(axis=0), rtol=1e-14)


def test_jaccard_distances(rng):
    dense, offsets, members, weights = random_encodings(rng, 12, 30)
    rows = np.array([3, 0, 11, 4])
    distances = np.empty(4)
    jaccard_distances(3, rows, offsets, members, weights, distances)
    expected = [1 - np.minimum(dense[3], x).sum() / np.maximum(dense[3], x).sum() for x in dense[rows]]
    np.testing.assert_allclose(distances, expected, atol=1e-14)


def test_pair_products(rng):
    X = rng.normal(size=(7, 33)).astype(np.float32)
    first, second = rng.integers(0, 7, (2, 20))
    products = np.empty(20)
    pair_products(X, first, second, products)
    expected = [X[i].astype(float) @ X[j].astype(float) for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(products, expected, rtol=1e-12, atol=1e-13)
