"""Approximate assignment and approximate k-means: kernels against slow twins, recall, bits, input of all kinds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans

from cvretrieval import ApproximateWords, BagOfWords, KMeansCodebook, LocalFeatures, VocabularyTree, load_model
from cvretrieval._kernels.lloyd import distances_to_words, means_of_rows
from cvretrieval._kernels.word_cells import group_pairs, row_products
from cvretrieval.codebooks import approximate_lloyd, approximate_words, word_cells
from cvretrieval.codebooks.probe_choice import choose_probes
from cvretrieval.codebooks.word_cells import WordCells, arrange, default_branching, pairs
from tests.reference.word_cells import (
    means_naive,
    nearest_words_naive,
    rank_naive,
    search_naive,
    upper_bound_naive,
)


def clustered(rng, n, n_dims=24, n_clusters=40):
    """Rows that lie mostly in a few dimensions, as descriptors do."""
    spread = np.linspace(3, 0.1, n_dims)
    centers = 6 * np.random.default_rng(5).normal(size=(n_clusters, n_dims)) * spread
    return (centers[rng.integers(0, n_clusters, n)] + rng.normal(size=(n, n_dims)) * spread).astype(np.float32)


def word_cells_of(words, branching=None, seed=0):
    branching = default_branching(len(words)) if branching is None else branching
    layout = arrange(words, branching, np.random.RandomState(seed), None)
    return layout, WordCells(words, layout)


@pytest.fixture
def words(rng):
    return clustered(rng, 600)


@pytest.fixture
def rows(rng):
    return clustered(rng, 300)


def as_images(rows, n=50):
    return [rows[i : i + n] for i in range(0, len(rows), n)]


def test_row_products_and_pairs(rng):
    for n_rows, n_centers, n_dims in ((1, 1, 1), (3, 4, 8), (50, 7, 13), (4, 9, 5)):
        rows, centers = rng.integers(-9, 10, (n_rows, n_dims)), rng.integers(-9, 10, (n_centers, n_dims))
        products = np.full((n_rows, n_centers), np.nan, np.float32)
        row_products(rows.astype(np.float32), centers.astype(np.float32), products)
        np.testing.assert_array_equal(products, rows @ centers.T)
    nodes = rng.integers(-1, 6, (40, 3)).astype(np.int32)
    order, bounds = np.empty(120, np.int32), np.empty(7, np.int64)
    group_pairs(nodes, bounds, order)
    for node in range(6):
        assert order[bounds[node] : bounds[node + 1]].tolist() == np.flatnonzero(nodes == node).__floordiv__(3).tolist()


def test_bounds_are_never_exceeded(words, rows):
    layout, cells = word_cells_of(words)
    assert 0 < len(layout.basis) < words.shape[1]
    gram = layout.basis.astype(np.float64) @ layout.basis.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-6)
    short, squares = cells.project(rows[:20])
    word_short, word_squares = cells.project(words)
    for i in range(20):
        for k in range(0, 600, 7):
            bound = short[i, :-1] @ word_short[k, :-1] - 0.5 * word_squares[k]
            exact = upper_bound_naive(rows[i], words[k], layout.origin.astype(np.float64), layout.basis)
            assert exact <= bound + 1e-6 * squares[i] and bound <= exact + 1e-3 * squares[i]
            truth = 0.5 * squares[i] - 0.5 * float(((rows[i].astype(np.float64) - words[k]) ** 2).sum())
            assert truth <= bound + 1e-6 * squares[i]


@pytest.mark.parametrize(("n_groups", "n_probes"), [(1, 1), (2, 3), (3, 8), (100, 5)])
def test_search_against_its_twin(n_groups, n_probes, words, rows):
    layout, cells = word_cells_of(words, branching=5)
    found, distances = cells.search(rows[:60], n_groups, n_probes)
    for i, x in enumerate(rows[:60]):
        ranked = rank_naive(
            x, layout.origin.astype(np.float64), layout.basis, layout.group_centers, layout.cell_centers,
            layout.group_bounds, n_groups, n_probes,
        )  # fmt: skip
        nodes = cells.rank(cells.project(rows[i : i + 1])[0], n_groups, n_probes)[0]
        assert nodes[0] == ranked[0] and set(nodes[nodes >= 0]) == set(ranked)
        word, distance = search_naive(x, words, layout.cells, ranked)
        assert found[i] == word
        np.testing.assert_allclose(distances[i], distance, rtol=1e-5)


def test_all_cells_are_exact(words, rows):
    _, cells = word_cells_of(words)
    expected, nearest = nearest_words_naive(rows[:80], words)
    for found, distances in (cells.search_all(rows[:80]), cells.search(rows[:80], cells.n_groups, cells.n_cells)):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(distances, nearest, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_ties_go_to_the_lowest_word(rng, dtype):
    words = rng.integers(0, 4, (400, 3)).astype(np.float32)
    rows = rng.integers(0, 4, (200, 3)).astype(dtype)
    expected, nearest = nearest_words_naive(rows, words)
    found, distances = word_cells_of(words)[1].search_all(rows)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(distances, nearest)


def test_far_descriptors_and_badly_scaled_words(rng):
    words = (1000 + rng.normal(size=(300, 6)) * [30, 10, 1, 0.1, 1e-3, 1e-6]).astype(np.float32)
    rows = np.concatenate([words[:50] + np.float32(1e-2), 5000 + rng.normal(size=(50, 6)).astype(np.float32)])
    rows = rows.astype(np.float32)
    found, distances = word_cells_of(words)[1].search_all(rows)
    _, nearest = nearest_words_naive(rows, words)
    np.testing.assert_allclose(distances, nearest, rtol=1e-5)
    own = np.array([((x.astype(np.float64) - words[k]) ** 2).sum() for x, k in zip(rows, found, strict=True)])
    np.testing.assert_allclose(own, nearest, rtol=1e-5)


def test_company_does_not_change_a_word(words, rng):
    _, cells = word_cells_of(words)
    rows = clustered(rng, 500)
    found, distances = cells.search(rows, 2, 3)
    for size in (1, 7, 64, 131):
        parts = [cells.search(np.ascontiguousarray(rows[i : i + size]), 2, 3) for i in range(0, 500, size)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), found)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), distances)


def test_a_word_to_begin_with_is_left_for_nearer_ones_only(words, rng):
    _, cells = word_cells_of(words)
    rows = rng.normal(scale=5, size=(300, 24)).astype(np.float32)
    start = rng.integers(0, 600, len(rows)).astype(np.int32)
    start[::2] = cells.search_all(rows)[0][::2]
    given = np.empty(len(rows), np.float32)
    distances_to_words(rows, words, start, given)
    np.testing.assert_allclose(given, ((rows - words[start]) ** 2).sum(axis=1), rtol=1e-5)
    free, free_distances = cells.search(rows, 1, 1)
    found, distances = cells.search(rows, 1, 1, start, given)
    np.testing.assert_array_equal(distances, np.minimum(free_distances, given))
    stays = given < free_distances
    assert 0 < stays.sum() < len(rows)
    np.testing.assert_array_equal(found, np.where(stays, start, free))


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.99])
def test_recall_holds_on_other_descriptors(recall, words, rng):
    images = as_images(clustered(rng, 4000))
    codebook = ApproximateWords(KMeans(1), recall=recall, random_state=0)
    codebook.fit_words(words, np.concatenate(images))
    others = clustered(rng, 4000)
    truth, _ = word_cells_of(words)[1].search_all(others)
    measured = (codebook.predict([others]) == truth).mean()
    # Two samples of 4,000: their difference has a standard error of 0.0112 at most.
    assert codebook.recall_ >= recall and measured >= recall - 0.01
    assert abs(codebook.recall_ - measured) < 0.04
    assert codebook.n_probes_ < len(codebook.cell_centers_)


def test_more_probes_find_more(words, rows):
    found = [
        ApproximateWords(KMeans(1), n_probes=n, random_state=0).fit_words(words, rows).recall_ for n in (1, 2, 4, 10**6)
    ]
    assert found == sorted(found) and found[0] < found[-1] == 1.0


def test_probes_that_are_given_are_measured(words, rows):
    _, cells = word_cells_of(words)
    probes = choose_probes(cells, rows, 0.9, 2, None)
    truth, _ = cells.search_all(rows)
    assert probes.n_cells == 2
    assert probes.recall == (cells.search(rows, probes.n_groups, 2)[0] == truth).mean()


@pytest.mark.parametrize("n_words", [1, 2, 15, 16, 17, 40])
def test_few_words(n_words, rng):
    words, rows = clustered(rng, n_words), clustered(rng, 30)
    codebook = ApproximateWords(KMeans(1), recall=1, random_state=0).fit_words(words, rows)
    np.testing.assert_array_equal(codebook.predict([rows]), nearest_words_naive(rows, words)[0])
    assert codebook.recall_ == 1 and codebook.n_words_ == n_words


def test_equal_words_and_words_on_a_line(rng):
    rows = clustered(rng, 40)
    for words in (np.repeat(rows[:3], 100, axis=0), np.linspace(0, 1, 200, dtype=np.float32)[:, None] * rows[:1]):
        codebook = ApproximateWords(KMeans(1), recall=0.9, random_state=0).fit_words(np.ascontiguousarray(words), rows)
        truth, nearest = nearest_words_naive(rows, words)
        found = codebook.predict([rows])
        own = ((rows.astype(np.float64) - words[found]) ** 2).sum(axis=1)
        assert (own <= nearest * 1.00001).mean() >= 0.9
        assert set(found) <= set(truth) or codebook.recall_ < 1


def test_means_of_rows_against_their_twin(rng):
    rows, words = rng.integers(0, 256, (90, 5), dtype=np.uint8), rng.integers(-1, 7, 90).astype(np.int32)
    words[words == 3] = -1
    centers = rng.normal(size=(7, 5)).astype(np.float32)
    expected = means_naive(rows, words, centers)
    order, bounds = pairs(words[:, None], 7)
    means_of_rows(rows, order, bounds, centers)
    np.testing.assert_allclose(centers, expected, rtol=1e-6)


def test_approximate_k_means_comes_close_to_lloyds(rng):
    rows = clustered(rng, 6000)
    settings = {"n_words": 300, "max_samples": None, "random_state": 0}
    ours = KMeansCodebook(algorithm="approximate", **settings).fit([rows])
    exact = KMeansCodebook(algorithm="lloyd", **settings).fit([rows])
    assert ours.inertia_ < 1.05 * exact.inertia_ and ours.n_iter_ > 1
    # What it says of itself is true of its words, but for those few descriptors that missed the nearest.
    distances = ((rows[:, None] - ours.cluster_centers_[None]) ** 2).sum(axis=2).min(axis=1).sum()
    assert distances <= ours.inertia_ * 1.0001 and ours.inertia_ < 1.02 * distances
    assert ours.counts_.sum() == 6000 and ours.n_empty_words_ == 0


@pytest.mark.filterwarnings("ignore:.*words stay empty")
def test_inertia_never_rises(rng):
    rows = clustered(rng, 3000)
    inertias = [
        KMeansCodebook(200, algorithm="approximate", max_iter=n, tol=0, random_state=0).fit([rows]).inertia_
        for n in range(1, 8)
    ]
    assert inertias == sorted(inertias, reverse=True) and inertias[-1] < inertias[0]


def test_left_out_descriptors_take_no_part(rng):
    rows = clustered(rng, 1000)
    left_out = np.sort(rng.choice(1000, 100, replace=False))
    rows[left_out] += 1000
    result = approximate_lloyd.approximate_lloyd(
        rows, left_out, 50, max_iter=4, tol=0, n_jobs=None, random_state=np.random.RandomState(0)
    )
    assert result.counts.sum() == 900 and np.abs(result.centers).max() < 500 and np.isfinite(result.inertia)


def test_equal_descriptors_leave_words_empty(rng):
    rows = np.repeat(clustered(rng, 30), 20, axis=0)
    with pytest.warns(UserWarning, match="words stay empty"):
        codebook = KMeansCodebook(40, algorithm="approximate", random_state=0).fit([rows])
    np.testing.assert_allclose(codebook.cluster_centers_[codebook.predict([rows])], rows, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["approximate", "lloyd"])
def test_jobs_and_blocks_do_not_change_a_bit(algorithm, rng, monkeypatch):
    X = as_images(clustered(rng, 3000))
    found = []
    for n_jobs, block in ((None, 700), (2, 700), (3, 700), (2, 131_072)):
        for module in (approximate_lloyd, approximate_words, word_cells):
            monkeypatch.setattr(module, "BLOCK_ROWS", block)
        codebook = KMeansCodebook(
            250, algorithm=algorithm, assignment="approximate", recall=0.8, n_jobs=n_jobs, random_state=0
        ).fit(X)
        found.append((codebook.cluster_centers_, codebook.predict(X), codebook.search_.recall_, codebook.inertia_))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_bytes_memory_maps_chunks_and_read_only(rng, tmp_path):
    rows = np.clip(clustered(rng, 2000) * 2 + 100, 0, 255).astype(np.uint8)
    X = LocalFeatures(rows, np.arange(0, 2001, 100))
    np.save(tmp_path / "rows.npy", rows)
    mapped = X.with_descriptors(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    frozen = rows.copy()
    frozen.setflags(write=False)
    settings = {"n_words": 150, "algorithm": "approximate", "assignment": "approximate", "max_samples": None}
    expected = KMeansCodebook(**settings, random_state=0).fit(X)
    words = expected.predict(X)
    for source in (mapped, X.with_descriptors(frozen), X.with_descriptors(rows.astype(np.float32)), [X[:7], X[7:]]):
        codebook = KMeansCodebook(**settings, random_state=0).fit(source)
        np.testing.assert_array_equal(codebook.cluster_centers_, expected.cluster_centers_)
        if isinstance(source, LocalFeatures):
            np.testing.assert_array_equal(codebook.predict(source), words)


def test_one_image_empty_images_and_no_image(words, rows):
    codebook = ApproximateWords(KMeans(1), random_state=0).fit_words(words, rows)
    alone = codebook.predict([rows[:1]])
    assert alone.dtype == np.int32 and alone[0] == codebook.predict([rows])[0]
    np.testing.assert_array_equal(codebook.predict([None, rows, np.empty((0, 24))]), codebook.predict([rows]))
    assert codebook.predict([None]).shape == codebook.predict([]).shape == (0,)


def test_descriptors_that_are_not_finite_are_refused_by_image(words, rng):
    X = as_images(clustered(rng, 300))
    estimators = [
        ApproximateWords(VocabularyTree(3, 2, random_state=0).fit(X), random_state=0).fit(X),
        KMeansCodebook(40, algorithm="approximate", assignment="approximate", random_state=0).fit(X),
    ]
    X[4][7, 2] = np.nan
    for estimator in estimators:
        for attempt in (estimator.predict, clone(estimator).fit):
            with pytest.raises(ValueError, match=f"{type(estimator).__name__} got descriptors of image 4 that are NaN"):
                attempt(X)


def test_leaves_of_a_tree_are_found_more_often_than_by_descent(rng):
    X = as_images(rng.normal(size=(4000, 24)))
    tree = VocabularyTree(5, 3, random_state=0).fit(X)
    codebook = ApproximateWords(tree, recall=0.95, random_state=0).fit(X)
    truth, _ = nearest_words_naive(np.concatenate(X)[:200], tree.cluster_centers_)
    assert (codebook.predict(X)[:200] == truth).mean() > (tree.predict(X)[:200] == truth).mean()
    assert clone(codebook).codebook is tree


@pytest.mark.parametrize("sparse", [False, True])
def test_bag_of_words_asks_the_codebook(sparse, rng):
    X = as_images(clustered(rng, 3000))
    codebook = KMeansCodebook(200, assignment="approximate", recall=0.5, random_state=0).fit(X)
    exact = clone(codebook).set_params(assignment="exact").fit(X)
    assert codebook.finds_own_words and not exact.finds_own_words
    for given in (codebook, codebook.search_):
        counts = BagOfWords(codebook=given, norm=None, sparse=sparse).fit(X).transform(X)
        counts = counts.toarray() if sparse else counts
        expected = [np.bincount(codebook.predict([x]), minlength=200) for x in X]
        np.testing.assert_array_equal(counts, expected)
    with pytest.raises(ValueError, match="assignment='soft' needs Euclidean distances"):
        BagOfWords(codebook=codebook, assignment="soft").fit(X)


def test_saved_and_loaded_it_searches_the_same_cells(rng, tmp_path):
    X = as_images(clustered(rng, 3000))
    codebook = KMeansCodebook(200, assignment="approximate", recall=0.6, random_state=0).fit(X)
    loaded = load_model(codebook.save(tmp_path / "words.cvm"))
    np.testing.assert_array_equal(loaded.predict(X), codebook.predict(X))
    assert (loaded.search_.recall_, loaded.search_.n_probes_) == (codebook.search_.recall_, codebook.search_.n_probes_)
    # The words are stored once.
    assert loaded.search_.cluster_centers_ is loaded.cluster_centers_
    encoder = BagOfWords(codebook=codebook).fit(X)
    again = load_model(encoder.save(tmp_path / "bag.cvm"))
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))


def test_partial_fit_moves_the_words_that_are_searched(rng):
    X, more = as_images(clustered(rng, 2000)), [clustered(rng, 500)]
    codebook = KMeansCodebook(100, assignment="approximate", random_state=0).fit(X)
    before = codebook.search_.cluster_centers_
    codebook.partial_fit(more)
    assert codebook.search_.cluster_centers_ is codebook.cluster_centers_ is not before
    truth = nearest_words_naive(more[0][:100], codebook.cluster_centers_)[0]
    assert (codebook.predict(more)[:100] == truth).mean() > 0.85


def test_faiss_graph_finds_words_where_it_is_installed(rng):
    faiss = pytest.importorskip("faiss")
    assert faiss
    X = as_images(clustered(rng, 3000))
    codebook = KMeansCodebook(200, assignment="hnsw", recall=0.9, random_state=0).fit(X)
    truth, _ = nearest_words_naive(np.concatenate(X)[:200], codebook.cluster_centers_)
    assert codebook.search_.recall_ >= 0.9 and (codebook.predict(X)[:200] == truth).mean() >= 0.85
    with pytest.raises(ValueError, match="KMeansCodebook got descriptors of image 1 that are NaN"):
        codebook.predict([X[0], np.full((1, 24), np.nan)])


def test_without_faiss_the_graph_says_how_to_get_it(words, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"method='hnsw' needs faiss.*pip install 'cvretrieval\[faiss\]'"):
        ApproximateWords(KMeans(1), method="hnsw").fit_words(words, rows)


@pytest.mark.parametrize(
    ("parameter", "value"), [("recall", 0), ("recall", 1.1), ("n_probes", 0), ("method", "lsh"), ("max_samples", 0)]
)
def test_bad_parameters_are_named(rows, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of ApproximateWords must be"):
        ApproximateWords(KMeans(2), **{parameter: value}).fit([rows])
    with pytest.raises(TypeError, match="'codebook' parameter of ApproximateWords must be a clusterer.*NoneType"):
        ApproximateWords().fit([rows])


@pytest.mark.parametrize(("parameter", "value"), [("algorithm", "akm"), ("assignment", "soft"), ("recall", -1)])
def test_bad_parameters_of_the_codebook_are_named(rows, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of KMeansCodebook must be"):
        KMeansCodebook(4, **{parameter: value}).fit([rows])
