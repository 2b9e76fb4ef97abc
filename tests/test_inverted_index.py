"""InvertedIndex in parity with the reference programs, and its scores against the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvretrieval import InvertedIndex, VisualWords
from tests.parity import agree
from tests.reference import inverted_index as slow

DATA = Path(__file__).parent / "data"


def dense_scores(index, queries, n_images):
    """(n_queries, n_images) scores of keys 0, …, n_images − 1; zero for what was not found."""
    keys, scores = index.search(queries, n_images)
    full = np.zeros((len(keys), n_images))
    for row, own_keys, own_scores in zip(full, keys, scores, strict=True):
        row[own_keys[own_keys >= 0]] = own_scores[own_keys >= 0]
    return full


def grouped(words, signatures, images, n_images, n_words, n_bits=None):
    """`VisualWords` of entries that say their image."""
    order = np.argsort(images, kind="stable")
    offsets = np.searchsorted(np.asarray(images)[order], np.arange(n_images + 1))
    return VisualWords(np.asarray(words)[order], np.asarray(signatures)[order], offsets, n_words, n_bits)


def test_cosine_of_tf_idf():
    reference = np.load(DATA / "bow_tfidf.npz")
    index = InvertedIndex().add(np.arange(9), reference["counts"])
    np.testing.assert_allclose(index.idf_, reference["idf"], atol=1e-12)
    found = dense_scores(index, reference["query_counts"], 9)
    agree("inverted-file-cosine", found, reference["cosine"], 1e-6)
    # A word without weight and a word that no image has find nothing.
    assert not found[:, 4].any() and not found[2].any()


@pytest.mark.parametrize("n_assigned", [1, 2])
def test_hamming_embedding_of_colmap(n_assigned):
    reference = np.load(DATA / "hamming_embedding.npz")
    database = grouped(reference["db_words"], reference["db_bits"][:, None], reference["db_image_ids"], 12, 10)
    words = reference["query_words"][:, :n_assigned].ravel()
    bits = reference[f"query_bits_ma{n_assigned}"].reshape(-1, 1)
    query = grouped(words, bits, np.zeros(len(words), dtype=int), 1, 10)
    index = InvertedIndex("hamming_embedding").add(np.arange(12), database)
    np.testing.assert_allclose(index.idf_**2, reference["idf_squared"], atol=1e-5)
    found = dense_scores(index, query, 12)[0]
    agree("inverted-file-hamming", found, reference[f"scores_ma{n_assigned}_float64"], 1e-6)


def aggregate(descriptors, images, nearest, centers, n_images, binary):
    """Residual sums of each image and word (Tolias et al. 2013): L2-normalised, or the bits of their signs."""
    entries = {}
    for x, image, words in zip(descriptors, images, nearest, strict=True):
        for word in words:
            entries.setdefault((image, word), []).append(x - centers[word])
    sums = {key: np.sum(residuals, axis=0, dtype=np.float64) for key, residuals in sorted(entries.items())}
    owners, words = np.array(list(sums)).T
    rows = np.array(list(sums.values()))
    if binary:
        bits = np.zeros((len(rows), 64), dtype=np.uint8)
        bits[:, : rows.shape[1]] = rows > 0
        signatures = np.packbits(bits, axis=1).view(np.uint64)
    else:
        signatures = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return grouped(words, signatures, owners, n_images, len(centers))


@pytest.mark.parametrize("kernel", ["asmk", "asmkstar"])
@pytest.mark.parametrize("with_idf", [0, 1])
@pytest.mark.parametrize("n_assigned", [1, 3])
def test_aggregated_match_kernels_of_asmk(kernel, with_idf, n_assigned):
    reference = np.load(DATA / "asmk.npz")
    centers, binary = reference["centroids"], kernel == "asmkstar"
    database = aggregate(
        reference["db"], reference["db_image_ids"], reference["db_words_top3"][:, :1], centers, 20, binary
    )
    queries = aggregate(
        reference["queries"], reference["query_image_ids"], reference["query_words_top3"][:, :n_assigned], centers, 4,
        binary,
    )  # fmt: skip
    # The program's idf is squared already.
    idf = np.sqrt(reference[f"{kernel}_idf1_ma1/idf"]) if with_idf else None
    index = InvertedIndex("asmk", idf=idf).add(np.arange(20), database)
    expected = reference[f"{kernel}_idf{with_idf}_ma{n_assigned}/scores"]
    agree("inverted-file-asmk", dense_scores(index, queries, 20), expected, 1e-6)


def random_words(rng, n_images, n_words, values):
    lengths = rng.integers(0, 30, n_images)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return VisualWords(rng.integers(0, n_words, offsets[-1]), values(offsets[-1]), offsets, n_words)


@pytest.mark.parametrize("burstiness", [None, "intra", "inter", "both"])
@pytest.mark.parametrize(("sigma", "max_distance"), [(16.0, 24), (30.0, 64)])
def test_hamming_embedding_by_its_definition(rng, burstiness, sigma, max_distance):
    def near(n):
        flips = rng.integers(0, 2**64, (n, 3), dtype=np.uint64)
        return (flips[:, 0] & flips[:, 1] & flips[:, 2])[:, None]

    database, queries = random_words(rng, 25, 7, near), random_words(rng, 6, 7, near)
    index = InvertedIndex(
        "hamming_embedding", idf=rng.uniform(0, 2, 7), sigma=sigma, max_distance=max_distance, burstiness=burstiness
    ).add(np.arange(25), database)
    expected = slow.hamming_embedding_scores(
        list(queries), list(database), index.idf_, sigma, max_distance,
        burstiness in ("intra", "both"), burstiness in ("inter", "both"),
    )  # fmt: skip
    assert (expected > 0).sum() > 20
    np.testing.assert_allclose(dense_scores(index, queries, 25), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("alpha", "threshold"), [(3.0, 0.0), (1.0, 0.3)])
def test_aggregated_match_kernels_by_their_definition(rng, binary, alpha, threshold):
    def values(n):
        if binary:
            return rng.integers(0, 2**64, (n, 2), dtype=np.uint64)
        rows = rng.normal(size=(n, 5)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def once(X):
        """Each word at most once an image, as aggregation gives them."""
        keep = [np.unique(image.words, return_index=True)[1] for image in X]
        offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in keep])])
        rows = np.concatenate([start + own for start, own in zip(X.offsets[:-1], keep, strict=True)])
        return VisualWords(X.words[rows], X.signatures[rows], offsets, X.n_words)

    database, queries = once(random_words(rng, 25, 40, values)), once(random_words(rng, 6, 40, values))
    index = InvertedIndex("asmk", alpha=alpha, threshold=threshold, idf=rng.uniform(0, 2, 40))
    index.add(np.arange(25), database)
    expected = slow.asmk_scores(list(queries), list(database), index.idf_, alpha, threshold, 128 if binary else None)
    found = dense_scores(index, queries, 25)
    assert (expected > 0).sum() > 20 or (binary and threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_votes_of_removed_images_do_not_count(rng):
    def values(n):
        return np.zeros((n, 1), dtype=np.uint64)

    database, query = random_words(rng, 12, 3, values), random_words(rng, 2, 3, values)
    parameters = {"metric": "hamming_embedding", "burstiness": "both", "idf": np.ones(3)}
    removed = InvertedIndex(**parameters).add(np.arange(12), database).remove([0, 3, 7])
    kept = np.setdiff1d(np.arange(12), [0, 3, 7])
    afresh = InvertedIndex(**parameters).add(kept, database[kept])
    for a, b in zip(removed.search(query, 12), afresh.search(query, 12), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_compared_must_fit_the_metric(rng):
    words = random_words(rng, 3, 4, lambda n: rng.normal(size=(n, 2)).astype(np.float32))
    with pytest.raises(ValueError, match="compares sparse vectors"):
        InvertedIndex().add(np.arange(3), words)
    with pytest.raises(ValueError, match="compares VisualWords"):
        InvertedIndex("asmk").add(np.arange(3), np.ones((3, 4)))
    with pytest.raises(ValueError, match="binary signatures"):
        InvertedIndex("hamming_embedding").add(np.arange(3), words)
    with pytest.raises(ValueError, match="2 weights, but there are 4 words"):
        InvertedIndex(idf=[1.0, 2.0]).add([0], np.ones((1, 4)))
