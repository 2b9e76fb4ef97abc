"""HammingEmbedding and ASMK: parity with the reference programs, and against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvretrieval import (
    ASMK,
    ApproximateWords,
    BagOfWords,
    HammingEmbedding,
    InvertedIndex,
    KMajorityCodebook,
    KMeansCodebook,
    LocalFeatures,
    VisualWords,
    VocabularyTree,
)
from cvretrieval._kernels.word_signatures import normalize_rows
from tests.parity import agree
from tests.reference import word_signatures as slow

DATA = Path(__file__).parent / "data"


class GivenWords:
    """A codebook that knows the word of each row it has been shown."""

    n_words = 10

    def __init__(self, rows, words):
        self.words_ = {row.tobytes(): word for row, word in zip(rows, words, strict=True)}

    def predict(self, rows):
        return np.array([self.words_[row.tobytes()] for row in np.ascontiguousarray(rows)])


class Centers:
    def __init__(self, centers):
        self.cluster_centers_ = centers


def images(rows, ids, n_images):
    return [rows[ids == i] for i in range(n_images)]


@pytest.fixture
def X(rng):
    return [rng.normal(size=(n, 20)).astype(np.float32) for n in (60, 0, 1, 45, 80)]


def test_bits_and_medians_of_colmap():
    reference = np.load(DATA / "hamming_embedding.npz")
    rows = [reference[name] for name in ("train", "db", "queries")]
    words = [reference["train_words"], reference["db_words"], reference["query_words"][:, 0]]
    codebook = GivenWords(np.concatenate(rows), np.concatenate(words))
    encoder = HammingEmbedding(codebook=codebook, projection=None).fit([rows[0]])
    np.testing.assert_allclose(encoder.medians_[:9], reference["thresholds"][:9], atol=1e-6)
    # The last word has few descriptors. There COLMAP's thresholds are zero, and ours the medians of all.
    np.testing.assert_allclose(encoder.medians_[9], np.median(rows[0], axis=0), atol=1e-6)
    encoder.medians_[9] = 0
    database = encoder.transform(images(rows[1], reference["db_image_ids"], 12))
    order = np.lexsort((reference["db_words"], reference["db_image_ids"]))
    np.testing.assert_array_equal(database.words, reference["db_words"][order])
    np.testing.assert_array_equal(database.signatures[:, 0], reference["db_bits"][order])
    query = encoder.transform_queries([rows[2]])
    order = np.argsort(reference["query_words"][:, 0], kind="stable")
    np.testing.assert_array_equal(query.signatures[:, 0], reference["query_bits_ma1"][order, 0])
    keys, scores = InvertedIndex("hamming_embedding").add(range(12), database).search(query, 12)
    agree("hamming-embedding", scores[keys >= 0], reference["scores_ma1_float64"][keys[keys >= 0]], 1e-6)


@pytest.mark.parametrize("n_query_words", [1, 3])
@pytest.mark.parametrize("binary", [False, True])
def test_aggregation_and_scores_of_asmk(binary, n_query_words):
    reference = np.load(DATA / "asmk.npz")
    encoder = ASMK(codebook=Centers(reference["centroids"]), binary=binary, n_query_words=n_query_words).fit([])
    database = encoder.transform(images(reference["db"], reference["db_image_ids"], 20))
    queries = encoder.transform_queries(images(reference["queries"], reference["query_image_ids"], 4))
    np.testing.assert_array_equal(database[0].words, reference["agg_img0_words"])
    if binary:
        # The program divides by the padded length.
        assert database.n_bits == 40
        database.n_bits = queries.n_bits = 64
    else:
        np.testing.assert_allclose(database[0].signatures, reference["agg_img0_desc"], atol=2e-6)
    keys, scores = InvertedIndex("asmk", idf=None).add(range(20), database).search(queries, 20)
    expected = reference[f"{'asmkstar' if binary else 'asmk'}_idf0_ma{n_query_words}/scores"]
    for own_keys, own_scores, row in zip(keys, scores, expected, strict=True):
        agree("asmk", own_scores[own_keys >= 0], row[own_keys[own_keys >= 0]], 2e-6)
        assert np.count_nonzero(row > 1e-6) == np.count_nonzero(own_scores > 1e-6)


@pytest.mark.parametrize("n_query_words", [1, 2, 50])
def test_hamming_embedding_by_its_definition(X, n_query_words):
    encoder = HammingEmbedding(n_words=6, n_bits=11, n_query_words=n_query_words, random_state=3).fit(X)
    projection, centers = encoder.projection_.astype(np.float64), encoder.codebook_.cluster_centers_
    np.testing.assert_allclose(projection @ projection.T, np.eye(11), atol=1e-6)
    rows = np.concatenate(X)
    words = slow.nearest(rows, centers, 1)[:, 0]
    expected = slow.medians(rows @ projection.T, words, 6, 5, centers @ projection.T)
    np.testing.assert_allclose(encoder.medians_, expected, atol=1e-6)
    for found, n_nearest in ((encoder.transform(X), 1), (encoder.transform_queries(X), min(n_query_words, 6))):
        assert found.n_words == 6 and found.n_bits == 11
        for image, rows in zip(found, X, strict=True):
            words, bits = slow.hamming_embedding(
                rows @ encoder.projection_.T, slow.nearest(rows, centers, n_nearest), encoder.medians_
            )
            np.testing.assert_array_equal(image.words, words)
            np.testing.assert_array_equal(image.signatures, np.reshape(bits, (-1, 1)))


def test_more_than_64_bits(rng):
    X = [rng.normal(size=(200, 100))]
    encoder = HammingEmbedding(n_words=3, n_bits=70, random_state=0).fit(X)
    found = encoder.transform(X)
    assert found.signatures.shape == (200, 2) and found.n_bits == 70
    assert found.signatures[:, 1].max() < 2**6
    halves = np.unpackbits(found.signatures.view(np.uint8), axis=1).mean()
    assert halves == pytest.approx(70 / 128 / 2, abs=0.01)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("n_query_words", [1, 3])
def test_asmk_by_its_definition(X, binary, n_query_words):
    encoder = ASMK(n_words=6, binary=binary, n_query_words=n_query_words, random_state=0).fit(X)
    centers = encoder.codebook_.cluster_centers_
    for found, n_nearest in ((encoder.transform(X), 1), (encoder.transform_queries(X), n_query_words)):
        for image, rows in zip(found, X, strict=True):
            sums = slow.residual_sums(rows, slow.nearest(rows, centers, n_nearest), centers)
            np.testing.assert_array_equal(image.words, list(sums))
            for signature, total in zip(image.signatures, sums.values(), strict=True):
                if binary:
                    np.testing.assert_array_equal(signature, slow.bits_above(total, np.zeros(20)))
                else:
                    np.testing.assert_allclose(signature, total / np.linalg.norm(total), atol=1e-5)


def test_a_descriptor_equal_to_its_word_has_the_zero_residual():
    centers = np.array([[0.1, 0.2, 0.3], [5, 5, 5]], dtype=np.float32)
    found = ASMK(codebook=Centers(centers)).fit([]).transform([centers[[0, 0, 0]]])
    np.testing.assert_array_equal(found.words, [0])
    np.testing.assert_array_equal(found.signatures, np.zeros((1, 3)))


def test_rows_are_normalised_and_zero_rows_stay(rng):
    rows = rng.normal(size=(5, 7)).astype(np.float32)
    rows[2] = 0
    expected = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    normalize_rows(rows)
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize(
    "encoder", [HammingEmbedding(n_bits=8), ASMK(), BagOfWords(norm=None)], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("kind", [VocabularyTree, ApproximateWords, KMeansCodebook])
def test_queries_get_the_own_word_first_whatever_the_codebook(X, encoder, kind):
    if kind is ApproximateWords:
        codebook = ApproximateWords(KMeansCodebook(12, random_state=0), n_probes=1, random_state=0).fit(X)
    else:
        options = {"branching": 4, "depth": 2} if kind is VocabularyTree else {"n_words": 12}
        codebook = kind(random_state=0, **options).fit(X)
    encoder = type(encoder)(**{**encoder.get_params(deep=False), "codebook": codebook, "n_query_words": 4}).fit(X)
    for i in range(len(X[0])):
        row = [X[0][i : i + 1]]
        own, several = encoder.transform(row), encoder.transform_queries(row)
        if isinstance(encoder, BagOfWords):
            own, several = np.flatnonzero(own), np.flatnonzero(several)
        else:
            own, several = own.words, several.words
        assert own.tolist() == codebook.predict(row).tolist()
        assert len(set(several)) == 4
        near = slow.nearest(row[0], codebook.cluster_centers_, 4)[0]
        expected = [*own, *near[near != own[0]][:3]]
        assert sorted(several) == sorted(expected)


def test_several_words_of_approximate_assignment(rng):
    X = [rng.normal(size=(n, 6)).astype(np.float32) for n in (300, 40)]
    codebook = KMeansCodebook(120, assignment="approximate", recall=0.7, random_state=0).fit(X)
    search, rows = codebook.search_, np.concatenate(X)
    few = search.assign_several(LocalFeatures.from_images([(x,) for x in X]), 4, owner=search)
    every = slow.nearest(rows, codebook.cluster_centers_, 4)
    assert (few >= 0).all() and 0.5 < np.mean(np.sort(few, axis=1) == np.sort(every, axis=1)) < 1
    np.testing.assert_array_equal(few[:, 0], codebook.predict(X))
    # Each cell is looked into, or there are too few words in those that are.
    search.n_probes_, search.n_groups_ = 10_000, 10_000
    np.testing.assert_array_equal(
        search.assign_several(LocalFeatures.from_images([(x,) for x in X]), 4, owner=1), every
    )
    search.n_probes_ = search.n_groups_ = 1
    found = ASMK(codebook=codebook, n_query_words=60).fit([]).transform_queries([rows[:1]])
    assert len(found.words) == 60 and set(slow.nearest(rows[:1], codebook.cluster_centers_, 59)[0]) <= set(found.words)


@pytest.mark.parametrize("n_query_words", [1, 3])
def test_approximate_assignment_names_the_image_that_is_not_finite(X, n_query_words):
    codebook = KMeansCodebook(12, assignment="approximate", random_state=0).fit(X)
    encoder = ASMK(codebook=codebook, n_query_words=n_query_words).fit(X)
    X = [rows.copy() for rows in X * 20]
    X[93][2, 5] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*image 93|image 93.*NaN"):
        encoder.transform_queries(X)


def test_large_codebooks_are_assigned_approximately(rng, monkeypatch):
    monkeypatch.setattr("cvretrieval.encoders.feature_words.EXACT_WORDS", 20)
    X = [rng.normal(size=(500, 6)).astype(np.float32)]
    for encoder in (ASMK(21, random_state=0), HammingEmbedding(21, n_bits=6, random_state=0), BagOfWords(21)):
        assert encoder.fit(X).codebook_.finds_own_words
        assert not encoder.set_params(n_words=20).fit(X).codebook_.finds_own_words
    assert not BagOfWords(21, assignment="multiple").fit(X).codebook_.finds_own_words


def test_chunks_are_the_same_as_the_whole(X):
    whole = LocalFeatures.from_images([(rows,) for rows in X])
    for encoder in (HammingEmbedding(6, n_bits=8, random_state=0), ASMK(6, random_state=0)):
        one, other = (type(encoder)(**encoder.get_params()).fit(data) for data in (whole, [whole[:2], whole[2:]]))
        a, b = one.transform(X), other.transform(X)
        np.testing.assert_array_equal(a.signatures, b.signatures)
        np.testing.assert_array_equal(a.words, b.words)


def test_transform_of_no_images(X):
    for encoder in (HammingEmbedding(6, n_bits=8, random_state=0), ASMK(6, random_state=0)):
        found = encoder.fit(X).transform(LocalFeatures.from_images([], n_dims=20))
        assert isinstance(found, VisualWords) and len(found) == 0
        assert found.signatures.shape[1] == encoder.transform(X).signatures.shape[1]


def test_bad_input_names_what_is_wrong(X, rng):
    with pytest.raises(ValueError, match=r"'n_bits' parameter .* is 64, but X has 20-d .* Set n_bits=20 or less"):
        HammingEmbedding(6).fit(X)
    with pytest.raises(ValueError, match=r"Set n_bits=20\."):
        HammingEmbedding(6, n_bits=10, projection=None).fit(X)
    bits = [rng.integers(0, 256, (30, 4), dtype=np.uint8)]
    binary = KMajorityCodebook(4, random_state=0).fit(bits)
    for kind in (ASMK, HammingEmbedding):
        with pytest.raises(ValueError, match="KMajorityCodebook given to it has the distance 'hamming'"):
            kind(codebook=binary).fit(bits)
        X[3][7, 2] = np.nan
        tree = VocabularyTree(4, 2, random_state=0).fit(X[:1])
        options = {"n_bits": 8} if kind is HammingEmbedding else {}
        fitted = kind(codebook=tree, **options).fit(X[:1])
        with pytest.raises(ValueError, match=f"{kind.__name__} got descriptors of image 3"):
            fitted.transform(X)
    words = GivenWords(X[0], np.zeros(60, dtype=int))
    with pytest.raises(TypeError, match="GivenWords given to it has no cluster_centers_"):
        ASMK(codebook=words).fit(X[:1])
    encoder = HammingEmbedding(codebook=words, n_bits=8, n_query_words=2).fit(X[:1])
    with pytest.raises(ValueError, match="no centres to find others by: n_query_words must be 1"):
        encoder.transform_queries(X[:1])
    with pytest.raises(ValueError, match="needs assignment='hard'"):
        BagOfWords(5, assignment="soft", n_query_words=2).fit(X[:1])
