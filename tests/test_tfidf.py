"""tf-idf: reference numbers, definition, stop lists, sparse input, and normalisations that compose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_array, csr_matrix, issparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import make_pipeline

from cvretrieval import PowerNormalizer, TfIdf
from tests.parity import agree
from tests.reference.tfidf import tfidf_naive

REFERENCE = np.load(Path(__file__).parent / "data" / "bow_tfidf.npz")
FORMS = {"dense": np.asarray, "csr": csr_matrix, "csr_array": csr_array}


@pytest.fixture(params=list(FORMS))
def form(request):
    return FORMS[request.param]


def dense(Z):
    return Z.toarray() if issparse(Z) else Z


@pytest.fixture
def counts(rng):
    """Some words in no image, one in all, and an image without words."""
    counts = rng.poisson(0.6, size=(12, 9)).astype(float)
    counts[:, 2] = 0
    counts[:, 4] = 1
    counts[7] = 0
    return counts


@pytest.mark.parametrize("norm", [None, "l1", "l2"])
def test_weights_are_those_of_the_reference(norm, form):
    key = "tfidf" if norm is None else f"tfidf_{norm}"
    tfidf = TfIdf(norm=norm).fit(form(REFERENCE["counts"]))
    np.testing.assert_array_equal(tfidf.document_frequency_, REFERENCE["df"])
    np.testing.assert_allclose(tfidf.idf_, REFERENCE["idf"], rtol=0, atol=1e-12)
    for prefix in ("", "query_"):
        weighted = tfidf.transform(form(REFERENCE[f"{prefix}counts"]))
        agree("bow-tfidf", dense(weighted), REFERENCE[prefix + key], 1e-12)


def test_scores_of_the_reference_are_products_and_distances():
    counts, queries = REFERENCE["counts"], REFERENCE["query_counts"]
    unit = TfIdf().fit(counts)
    np.testing.assert_allclose(
        unit.transform(queries) @ unit.transform(counts).T, REFERENCE["cosine"], rtol=0, atol=1e-12
    )
    relative = TfIdf(norm="l1").fit(counts)
    V, W = relative.transform(queries), relative.transform(counts)
    # DBoW2's score is 1 − ½‖v − w‖₁ where neither row is zero.
    scores = 1 - np.abs(V[:, None] - W).sum(axis=2) / 2
    present = V.any(axis=1)[:, None] & W.any(axis=1)
    agree("bow-dbow2", np.where(present, scores, 0), REFERENCE["dbow2_l1_score"], 1e-12)


def test_hellinger_map_is_that_of_the_reference(form):
    mapped = PowerNormalizer().fit_transform(form(REFERENCE["counts"].astype(float)))
    agree("hellinger", dense(mapped), REFERENCE["l2norm_counts_hellinger"], 1e-12)


@pytest.mark.parametrize("norm", [None, "l1", "l2"])
@pytest.mark.parametrize("term_frequency", ["relative", "count"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_their_definition(norm, term_frequency, dtype, form, counts):
    before = counts.copy()
    Z = TfIdf(norm=norm, term_frequency=term_frequency).fit(form(counts)).transform(form(counts.astype(dtype)))
    assert Z.dtype == dtype
    expected = tfidf_naive(counts, counts, norm, relative=term_frequency == "relative")
    np.testing.assert_allclose(dense(Z), expected, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-12)
    np.testing.assert_array_equal(counts, before)


def test_sparse_stays_sparse_and_is_not_changed(counts):
    for make in (csr_matrix, csr_array, csc_matrix):
        X = make(counts)
        before = X.copy()
        Z = TfIdf().fit_transform(X)
        assert issparse(Z) and Z.format == "csr" and isinstance(Z, csr_array) == (make is csr_array)
        assert (Z.data != 0).all()
        np.testing.assert_array_equal(X.data, before.data)
        np.testing.assert_array_equal(X.toarray(), counts)


def test_it_is_not_the_convention_of_scikit_learn(counts):
    """A word of every image says nothing here, and keeps a weight of 1 there."""
    assert TfIdf().fit(counts).idf_[4] == pytest.approx(np.log(12 / 12 if counts[7].any() else 12 / 11))
    everywhere = np.ones((5, 2))
    assert TfIdf().fit(everywhere).idf_.tolist() == [0, 0]
    assert TfidfTransformer().fit(everywhere).idf_.tolist() == [1, 1]


def test_scale_of_the_histograms_does_not_matter(counts):
    for norm in (None, "l2"):
        whole = TfIdf(norm=norm).fit_transform(counts)
        scale = np.arange(1, 13)[:, None] / 7
        np.testing.assert_allclose(TfIdf(norm=norm).fit_transform(counts * scale), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "stopped"),
    [
        ({}, []),
        ({"max_df": 3}, [3, 4, 5]),  # in more than 3 images
        ({"max_df": 0.5}, [3, 4, 5]),  # in more than 3 of 6
        ({"max_df": 1.0}, []),
        ({"min_df": 2}, [1]),
        ({"min_df": 0.5}, [1, 2]),  # in fewer than 3 of 6
        ({"min_df": 2, "max_df": 0.5}, [1, 3, 4, 5]),
        ({"stop_top": 0.2}, [5]),  # one of the five that occur
        ({"stop_top": 0.39}, [5]),
        ({"stop_bottom": 0.2}, [1]),
        ({"stop_top": 0.2, "stop_bottom": 0.4}, [1, 2, 5]),
    ],
)
def test_stop_words(options, stopped, form):
    frequencies = [0, 1, 2, 4, 5, 6]
    counts = np.array([[3.0 * (image < frequency) for frequency in frequencies] for image in range(6)])
    tfidf = TfIdf(norm=None, **options).fit(form(counts))
    assert np.flatnonzero(tfidf.stopped_words_).tolist() == stopped
    np.testing.assert_allclose(
        dense(tfidf.transform(form(counts))), tfidf_naive(counts, counts, stopped=stopped), atol=1e-12
    )


def test_stop_list_keeps_all_words_of_equal_frequency():
    counts = np.eye(10)
    assert not TfIdf(stop_top=0.05, stop_bottom=0.1).fit(counts).stopped_words_.any()


@pytest.mark.parametrize("options", [{"stop_top": 1}, {"stop_bottom": 1}, {"max_df": 0}, {"max_df": 1, "min_df": 2}])
def test_a_stop_list_of_everything_is_said(options, counts):
    with pytest.warns(UserWarning, match="TfIdf stops all 8 words that occur in these 12 images"):
        assert not TfIdf(**options).fit_transform(counts).any()


def test_composes_with_the_hellinger_map(counts):
    line = make_pipeline(TfIdf(norm="l1"), PowerNormalizer())
    Z = line.fit_transform(counts)
    np.testing.assert_allclose(line.fit_transform(csr_matrix(counts)).toarray(), Z, atol=1e-12)
    np.testing.assert_allclose((Z**2).sum(axis=1), np.abs(Z).any(axis=1).astype(float), atol=1e-12)


@pytest.mark.parametrize("power", [0.5, 0.3, 2])
@pytest.mark.parametrize("norm", ["l2", None])
def test_powers_of_sparse_vectors_are_those_of_dense_ones(power, norm, rng):
    X = rng.normal(size=(6, 20)) * (rng.uniform(size=(6, 20)) < 0.3)
    X[3] = 0
    sparse = csr_matrix(X)
    Z = PowerNormalizer(power, norm=norm).fit_transform(sparse)
    np.testing.assert_allclose(Z.toarray(), PowerNormalizer(power, norm=norm).fit_transform(X), atol=1e-12)
    np.testing.assert_array_equal(sparse.toarray(), X)


def test_rows_do_not_depend_on_the_batch(form, counts):
    tfidf = TfIdf().fit(counts)
    whole = dense(tfidf.transform(form(counts.astype(np.float32))))
    for i in range(len(counts)):
        np.testing.assert_array_equal(dense(tfidf.transform(form(counts[i : i + 1].astype(np.float32))))[0], whole[i])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"term_frequency": "log"}, "'term_frequency' parameter of TfIdf must be one of 'relative', 'count'"),
        ({"norm": "max"}, "'norm' parameter of TfIdf must be one of"),
        ({"max_df": 1.5}, r"'max_df' parameter of TfIdf must be a number in \[0, 1\]"),
        ({"min_df": -1}, "'min_df' parameter of TfIdf must be an integer in"),
        ({"stop_top": 2}, r"'stop_top' parameter of TfIdf must be a number in \[0, 1\]"),
        ({"stop_bottom": "0.1"}, "'stop_bottom' parameter of TfIdf must be a number"),
    ],
)
def test_wrong_parameters_are_named(parameters, message, counts):
    with pytest.raises(ValueError, match=message):
        TfIdf(**parameters).fit(counts)


def test_negative_counts_are_refused(form, counts):
    with pytest.raises(ValueError, match="Negative values in data passed to TfIdf"):
        TfIdf().fit(form(counts - 1))
