"""Asymmetric distances against their definition on decoded vectors, and what is special about codes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from cvretrieval import DenseIndex, PQIndex, ProductQuantizer
from cvretrieval._kernels.product_codes import add_up, fill_tables
from cvretrieval.index.dense_rows import METRICS
from tests.reference.product_codes import decode
from tests.reference.top_k import score as slow_score
from tests.reference.top_k import search as slow_search

N_DIMS = 22


@pytest.fixture
def vectors(rng):
    centers = rng.normal(size=(30, N_DIMS))
    return (centers[rng.integers(0, 30, 3000)] + 0.3 * rng.normal(size=(3000, N_DIMS))).astype(np.float32)


@pytest.fixture(params=[None, "random"])
def quantizer(request, vectors):
    return ProductQuantizer(7, n_codewords=40, rotation=request.param, random_state=0).fit(vectors)


@pytest.mark.parametrize("metric", METRICS)
def test_tables_and_sums_equal_the_scores_of_decoded_vectors(metric, rng):
    bounds = np.array([0, 3, 4, 9, 11, 15, 19, 22])
    codewords = rng.normal(size=(50, N_DIMS)).astype(np.float32)
    queries = rng.normal(size=(3, N_DIMS)).astype(np.float32)
    codes = rng.integers(0, 50, (81, 7)).astype(np.uint8)
    tables = np.empty((3, 7, 50), dtype=np.float32)
    fill_tables(METRICS[metric], queries, bounds, codewords, tables)
    decoded = decode(codes, codewords, bounds)
    sums = np.empty(81, dtype=np.float32)
    for query, table in zip(queries, tables, strict=True):
        add_up(table, codes, sums)
        plain = "inner_product" if metric == "cosine" else metric
        np.testing.assert_allclose(sums, [slow_score(plain, query, x) for x in decoded], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_ranks_by_the_decoded_vectors(metric, quantizer, vectors):
    """Exact comparison with what `reconstruct` returns gives the same lists, up to the rounding of scores."""
    index = PQIndex(quantizer, metric).add(np.arange(3000), vectors)
    decoded = index.reconstruct(np.arange(3000))
    np.testing.assert_array_equal(decoded, quantizer.inverse_transform(quantizer.transform(vectors)))
    keys, scores = index.search(vectors[:9] + 0.05, 15)
    expected = slow_search(metric, vectors[:9] + 0.05, decoded, np.arange(3000), 15)
    np.testing.assert_allclose(scores, expected[1], rtol=2e-5, atol=2e-5)
    if quantizer.rotation is None:  # turning back rounds, and makes equal codes differ
        assert (keys == expected[0]).mean() > 0.9
    for query, row, own in zip(vectors[:9] + 0.05, keys, scores, strict=True):
        np.testing.assert_allclose(own, [slow_score(metric, query, decoded[key]) for key in row], rtol=2e-5, atol=2e-5)


def test_codes_find_what_is_near(vectors):
    exact = DenseIndex("l2").add(np.arange(3000), vectors).search(vectors[:100], 10)[0]
    recalls = []
    for n_bytes in (2, 5, 11, 22):
        index = PQIndex(ProductQuantizer(n_bytes, random_state=0), "l2").add(np.arange(3000), vectors)
        found = index.search(vectors[:100], 10)[0]
        recalls.append(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
        assert index.stats()["n_bytes"] == 3000 * (n_bytes + 8)
    assert np.all(np.diff(recalls) > 0) and recalls[-1] > 0.9


def test_many_equal_codes_come_by_key_whatever_the_threads(rng):
    vectors = np.repeat(rng.normal(size=(3, 16)), 4000, axis=0).astype(np.float32)
    keys = rng.permutation(12_000)
    quantizer = ProductQuantizer(16, random_state=0).fit(vectors)
    for n_jobs in (1, 3):
        found = PQIndex(quantizer, "l2", n_jobs=n_jobs).add(keys, vectors).search(vectors[:1], 20)[0]
        np.testing.assert_array_equal(found[0], np.sort(keys[:4000])[:20])


def test_a_quantizer_that_is_not_fitted_learns_from_the_first_vectors(vectors):
    quantizer = ProductQuantizer(4, n_codewords=30, random_state=0)
    index = PQIndex(quantizer)
    with pytest.raises(ValueError, match=r"n_codewords=30 from the first vectors added. Got 29: add more at first"):
        index.add(np.arange(29), vectors[:29])
    assert len(index) == 0 and index.n_dims is None
    index.add(np.arange(2000), vectors[:2000])
    assert not hasattr(quantizer, "codewords_")
    np.testing.assert_array_equal(index.quantizer_.codewords_, clone(quantizer).fit(vectors[:2000]).codewords_)
    before = index.quantizer_
    index.add(np.arange(2000, 3000), vectors[2000:])
    assert index.quantizer_ is before and len(index) == 3000
    assert len(PQIndex().add(np.arange(3000), vectors).quantizer_.bounds_) == 17


def test_a_fitted_quantizer_stays_fitted_and_knows_its_dimension(quantizer, vectors):
    index = clone(PQIndex(quantizer))
    assert index.quantizer is quantizer
    with pytest.raises(
        ValueError, match=r"Vectors have 5 dimensions, but the quantizer of PQIndex was fitted with 22-d"
    ):
        index.add([0], np.ones((1, 5)))
    assert len(index) == 0
    assert len(index.add([0], vectors[:1])) == 1


def test_opened_it_codes_and_finds_the_same(quantizer, vectors, tmp_path):
    index = PQIndex(quantizer, "inner_product").add(np.arange(2000), vectors[:2000])
    opened = PQIndex.open(index.save(tmp_path / "index"))
    for each in (index, opened):
        each.add(np.arange(2000, 3000), vectors[2000:])
    for ours, theirs in zip(index.search(vectors[:20], 30), opened.search(vectors[:20], 30), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert opened.quantizer.error_ == quantizer.error_ and opened.quantizer.rotation == quantizer.rotation
    assert clone(opened).quantizer is opened.quantizer


@pytest.mark.parametrize("n_subvectors", [1, 3, 4, 9])
@pytest.mark.parametrize("n_vectors", [1, 2, 5])
def test_sums_of_every_length(n_subvectors, n_vectors, rng):
    table = rng.normal(size=(n_subvectors, 256)).astype(np.float32)
    codes = rng.integers(0, 256, (n_vectors, n_subvectors)).astype(np.uint8)
    sums = np.empty(n_vectors, dtype=np.float32)
    add_up(table, codes, sums)
    np.testing.assert_allclose(sums, table[np.arange(n_subvectors), codes].sum(axis=1, dtype=np.float64), atol=1e-5)
