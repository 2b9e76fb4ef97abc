"""Vocabulary trees: kernels and growth against slow twins, paths, out-of-core input, and trees that end early."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval import BagOfWords, LocalFeatures, TfIdf, VocabularyTree
from cvretrieval._kernels.nearest_center import (
    center_means,
    distinct_rows,
    move_empty_centers,
    nearest_center,
    nearest_children,
    sum_of_squares,
)
from cvretrieval.codebooks import tree_growth
from cvretrieval.codebooks.tree_growth import cluster, half_norms
from tests.reference.vocabulary_tree import (
    cluster_naive,
    descend_naive,
    distinct_rows_naive,
    leaves_naive,
    nearest_center_naive,
)


def whole_numbers(rng, *shape, high=4):
    """Every product of these is exact in float32, and ties are frequent."""
    return rng.integers(-high, high + 1, shape).astype(np.float32)


@pytest.fixture
def X(rng):
    points = 30 * rng.normal(size=(12, 8))
    return [points[rng.integers(0, 12, 60)] + rng.normal(size=(60, 8)) for _ in range(6)]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 130), st.integers(1, 11), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_nearest_center_against_its_twin(n_rows, n_centers, n_dims, seed):
    rng = np.random.default_rng(seed)
    rows, centers = whole_numbers(rng, 140, n_dims), whole_numbers(rng, n_centers, n_dims)
    order = rng.permutation(140)[:n_rows]
    words, scores = np.full(140, -7, np.int32), np.full(140, 99, np.float32)
    nearest_center(rows, order, centers, half_norms(centers), words, scores)
    expected, products = nearest_center_naive(rows[order], centers)
    np.testing.assert_array_equal(words[order], expected)
    np.testing.assert_array_equal(scores[order], products)
    assert (np.delete(words, order) == -7).all()


def test_company_does_not_change_a_bit_of_a_product(rng):
    rows, centers = rng.normal(size=(200, 37)).astype(np.float32), rng.normal(size=(9, 37)).astype(np.float32)
    together, alone = np.empty(200, np.float32), np.empty(200, np.float32)
    words = np.empty(200, np.int32)
    nearest_center(rows, np.arange(200), centers, half_norms(centers), words, together)
    for i in range(200):
        nearest_center(
            rows,
            np.array([i]),
            centers[words[i] : words[i] + 1],
            half_norms(centers)[words[i] : words[i] + 1],
            np.empty(200, np.int32),
            alone,
        )
    np.testing.assert_array_equal(alone, together)


def test_nearest_children_goes_down_one_level(rng):
    centers = whole_numbers(rng, 9, 5)
    children = np.array([[0, 2], [2, 6], [6, 9]] + [[0, 0]] * 7, dtype=np.int32)
    rows, order, bounds = whole_numbers(rng, 10, 5), np.array([4, 1, 7, 0, 9]), np.array([0, 2, 5])
    nodes, scores = np.full(10, -1, np.int32), np.zeros(10, np.float32)
    nearest_children(rows, order, bounds, np.array([2, 1]), children, centers, half_norms(centers), nodes, scores)
    for group, (first, stop) in zip((order[:2], order[2:]), ((6, 9), (2, 6)), strict=True):
        expected, products = nearest_center_naive(rows[group], centers[first:stop])
        np.testing.assert_array_equal(nodes[group], first + expected)
        np.testing.assert_array_equal(scores[group], products)
    assert (nodes[[2, 3, 5, 6, 8]] == -1).all()


@pytest.mark.parametrize("n_wanted", [1, 3, 50])
def test_distinct_rows_against_its_twin(n_wanted, rng):
    rows, chosen = whole_numbers(rng, 60, 2, high=1), np.empty(n_wanted, np.int64)
    n_chosen = distinct_rows(rows, n_wanted, chosen)
    assert chosen[:n_chosen].tolist() == distinct_rows_naive(rows, n_wanted)


def test_means_and_empty_centers(rng):
    rows, words = whole_numbers(rng, 40, 3), rng.integers(0, 4, 40).astype(np.int32)
    words[words == 2] = 1
    centers = np.full((5, 3), 50, np.float32)
    counts, scores = np.empty(5, np.int64), np.zeros(40, np.float32)
    center_means(rows, words, np.empty((5, 3)), counts, centers)
    assert counts.tolist() == np.bincount(words, minlength=5).tolist()
    for k in (0, 1, 3):
        np.testing.assert_allclose(centers[k], rows[words == k].mean(axis=0), rtol=1e-6)
    assert (centers[[2, 4]] == 50).all()
    # Scores of zero: the distance is the squared norm.
    assert move_empty_centers(rows, scores, counts, centers) == 2
    norms = (rows**2).sum(axis=1)
    first = int(norms.argmax())
    norms[first] = 0
    np.testing.assert_array_equal(centers[[2, 4]], rows[[first, int(norms.argmax())]])
    assert (
        move_empty_centers(np.zeros((3, 3), np.float32), np.zeros(3, np.float32), np.zeros(2, np.int64), centers) == 0
    )


def test_sum_of_squares(rng):
    rows, centers, words = whole_numbers(rng, 40, 3), whole_numbers(rng, 5, 3), rng.integers(0, 5, 40).astype(np.int32)
    assert sum_of_squares(rows, centers, words) == ((rows - centers[words]) ** 2).sum()


@pytest.mark.parametrize("n_centers", [1, 2, 7])
@pytest.mark.parametrize("max_iter", [1, 2, 30])
def test_small_k_means_against_its_twin(n_centers, max_iter, rng):
    rows = np.concatenate([whole_numbers(rng, 50, 4, high=60), np.repeat(whole_numbers(rng, 1, 4), 9, axis=0)])
    np.testing.assert_allclose(cluster(rows, n_centers, max_iter), cluster_naive(rows, n_centers, max_iter), atol=1e-4)


@pytest.mark.parametrize(("branching", "depth"), [(2, 1), (3, 3), (7, 2)])
def test_descent_against_its_twin(branching, depth, X):
    tree = VocabularyTree(branching, depth, random_state=0).fit(X)
    words, path = tree.predict(X), tree.path(X)
    assert words.dtype == path.dtype == np.int32 and path.shape == (360, tree.depth_)
    for i, x in enumerate(np.concatenate(X)):
        expected = descend_naive(x.astype(np.float32), tree.nodes_, tree.children_)
        assert [node for node in path[i] if node >= 0] == expected
        assert tree.words_[expected[-1]] == words[i]


def test_leaves_are_numbered_from_left_to_right(X):
    tree = VocabularyTree(3, 4, random_state=0).fit(X)
    leaves = leaves_naive(tree.children_.tolist())
    assert tree.words_[leaves].tolist() == list(range(tree.n_words_)) and tree.depth_ == 4
    assert (np.delete(tree.words_, leaves) == -1).all() and len(tree.words_) == tree.n_nodes_ == len(tree.nodes_)
    np.testing.assert_array_equal(tree.cluster_centers_, tree.nodes_[leaves])
    assert len({len(path[path >= 0]) for path in tree.path(X)}) > 1  # some leaves lie higher than others


def test_nodes_are_the_means_of_their_descriptors(X):
    tree = VocabularyTree(4, 2, max_iter=100, random_state=0).fit(X)
    rows, path = np.concatenate(X), tree.path(X)
    for node in range(tree.n_nodes_):
        np.testing.assert_allclose(tree.nodes_[node], rows[(path == node).any(axis=1)].mean(axis=0), atol=1e-4)


def test_blocks_and_threads_do_not_change_a_bit(X, monkeypatch):
    trees = [VocabularyTree(3, 3, n_jobs=n_jobs, random_state=0).fit(X) for n_jobs in (None, 2, 3)]
    monkeypatch.setattr(tree_growth, "_BLOCK_ROWS", 50)  # every node of the first levels is a large one
    trees += [VocabularyTree(3, 3, n_jobs=n_jobs, random_state=0).fit(X) for n_jobs in (None, 2)]
    monkeypatch.setattr("cvretrieval.codebooks.hierarchical._BLOCK_ROWS", 7)
    words = [tree.predict(X) for tree in trees]
    for tree, found in zip(trees[1:], words[1:], strict=True):
        for name in ("nodes_", "children_", "words_"):
            np.testing.assert_array_equal(getattr(tree, name), getattr(trees[0], name))
        np.testing.assert_array_equal(found, words[0])


def test_chunks_memory_maps_and_bytes(rng, tmp_path):
    rows = rng.integers(0, 256, (500, 6), dtype=np.uint8)
    X = LocalFeatures(rows, np.arange(0, 501, 50))
    np.save(tmp_path / "rows.npy", rows)
    mapped = X.with_descriptors(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    for max_samples in (None, 200):
        expected = VocabularyTree(3, 2, max_samples=max_samples, random_state=0).fit(X)
        assert expected.n_samples_ == (max_samples or 500)
        for source in (mapped, (X[i : i + 3] for i in range(0, 10, 3)), X.with_descriptors(rows.astype(np.float32))):
            tree = VocabularyTree(3, 2, max_samples=max_samples, random_state=0).fit(source)
            np.testing.assert_array_equal(tree.nodes_, expected.nodes_)
    np.testing.assert_array_equal(tree.predict(mapped), expected.predict(X))


def test_large_nodes_learn_on_a_sample_of_their_descriptors(rng, monkeypatch):
    monkeypatch.setattr(tree_growth, "SAMPLES_PER_CHILD", 10)
    rows = rng.normal(size=(3000, 4)).astype(np.float32)
    tree = VocabularyTree(5, 2, random_state=0).fit([rows])
    assert tree.n_words_ == 25 and set(tree.predict([rows])) == set(range(25))


def test_more_words_than_descriptors_allow(rng):
    X = [rng.normal(size=(3, 4)), rng.normal(size=(2, 4))]
    with pytest.warns(UserWarning, match="5 words of the 100 that branching=10 and depth=2 allow.*5 descriptors"):
        tree = VocabularyTree(10, 2, random_state=0).fit(X)
    assert tree.n_words_ == 5 and tree.depth_ == 1
    np.testing.assert_allclose(tree.cluster_centers_[tree.predict(X)], np.concatenate(X), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 200])
def test_equal_descriptors_are_one_word(n):
    X = [np.full((n, 3), 2.0)]
    with pytest.warns(UserWarning, match="1 words of the 1000000"):
        tree = VocabularyTree(random_state=0).fit(X)
    assert (tree.n_words_, tree.n_nodes_, tree.depth_) == (1, 1, 1)
    assert tree.predict(X).tolist() == [0] * n and tree.path(X).tolist() == [[0]] * n
    assert tree.predict([None]).shape == (0,) and tree.path([None]).shape == (0, 1)


def test_descriptors_that_are_not_finite_are_refused_by_image(X):
    tree = VocabularyTree(3, 2, random_state=0).fit(X)
    X[4][7, 2] = np.inf
    for attempt in (tree.predict, tree.path, VocabularyTree(3, 2).fit):
        with pytest.raises(ValueError, match="VocabularyTree got descriptors of image 4 that are NaN"):
            attempt(X)


@pytest.mark.parametrize(
    ("parameter", "value"), [("branching", 1), ("depth", 0), ("max_samples", 0), ("max_iter", 0), ("branching", 2.5)]
)
def test_bad_parameters_are_named(X, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of VocabularyTree must be an integer"):
        VocabularyTree(**{parameter: value}).fit(X)


def test_words_of_a_tree_are_counted_by_the_bag_of_words(X):
    tree = VocabularyTree(3, 2, random_state=0).fit(X)
    for sparse in (False, True):
        counts = BagOfWords(codebook=tree, norm=None, sparse=sparse).fit(X).transform(X)
        counts = counts.toarray() if sparse else counts
        expected = [np.bincount(tree.predict([x]), minlength=tree.n_words_) for x in X]
        np.testing.assert_array_equal(counts, expected)


def test_nodes_on_the_path_are_counted_by_the_bag_of_words(X):
    tree = VocabularyTree(3, 4, random_state=0).fit(X)
    for sparse in (False, True):
        encoder = BagOfWords(codebook=tree, assignment="path", norm=None, sparse=sparse).fit(X)
        counts = encoder.transform([*X, None])
        counts = counts.toarray() if sparse else counts
        expected = [np.bincount(path[path >= 0], minlength=tree.n_nodes_) for path in map(tree.path, [[x] for x in X])]
        np.testing.assert_array_equal(counts[:-1], expected)
        assert not counts[-1].any() and encoder.n_words_ == tree.n_nodes_
    # Nistér and Stewénius: every node weighted by ln(N / N_i).
    counts = BagOfWords(codebook=tree, assignment="path", norm=None, sparse=True).fit(X).transform(X)
    weighted = TfIdf(term_frequency="count", norm=None).fit(counts).transform(counts).toarray()
    frequency = (np.array(expected) > 0).sum(axis=0)
    weights = np.log(len(X) / frequency, where=frequency > 0, out=np.zeros(tree.n_nodes_))
    np.testing.assert_allclose(weighted, np.array(expected) * weights, rtol=1e-6)


def test_assignments_that_a_codebook_does_not_offer(X):
    tree = VocabularyTree(3, 2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="assignment='soft' needs.*VocabularyTree"):
        BagOfWords(codebook=tree, assignment="soft").fit(X)
    with pytest.raises(
        ValueError, match="assignment='path' needs a codebook with a path, VocabularyTree.*KMeansCodebook"
    ):
        BagOfWords(n_words=3, assignment="path", random_state=0).fit(X)
