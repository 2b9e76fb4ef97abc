"""Inverted files by their definitions: every query meets every image, word by word."""

from __future__ import annotations

import numpy as np


def idf_of(images, n_words):
    """ln(N / N_k) of images given as lists of words; 0 for words of none."""
    idf = np.zeros(n_words)
    for k in range(n_words):
        n = sum(k in words for words in images)
        idf[k] = np.log(len(images) / n) if n else 0.0
    return idf


def rank(scores, keys, k):
    """Keys and scores (n_queries, k) of the scores above zero: higher ones first, then lower keys."""
    found_keys = np.full((len(scores), k), -1, dtype=np.int64)
    found_scores = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for i, row in enumerate(scores):
        ranked = sorted((-score, key) for score, key in zip(row, keys) if key >= 0 and score > 0)  # noqa: B905
        for place, (negative, key) in enumerate(ranked[:k]):
            found_keys[i, place], found_scores[i, place] = key, -negative
    return found_keys, found_scores


def bag_of_words_scores(metric, queries, vectors, idf):
    """(n_queries, n_images) scores of dense rows of counts; sums in float32, norms and division in float64."""
    weights = np.asarray(idf, dtype=np.float64) ** 2
    scores = np.zeros((len(queries), len(vectors)), dtype=np.float32)
    for i, q in enumerate(np.asarray(queries, dtype=np.float64)):
        words = np.flatnonzero(q)
        query_norm = np.sqrt(np.sum(weights[words] * q[words] * q[words]))
        for j, x in enumerate(np.asarray(vectors, dtype=np.float64)):
            total, square = np.float32(0), 0.0
            for k in words:
                if x[k]:
                    total += np.float32(weights[k] * q[k]) * np.float32(x[k])
            for k in np.flatnonzero(x):
                square += weights[k] * (x[k] * x[k])
            if metric == "cosine":
                total = np.float32(float(total) / (max(query_norm, 1e-12) * max(np.sqrt(square), 1e-12)))
            scores[i, j] = total
    return scores


def search(metric, queries, vectors, keys, k, idf=None):
    """Keys and scores by `bag_of_words_scores`; idf None weights all words alike, "collection" by the images."""
    live = np.asarray(keys) >= 0
    vectors, keys = np.asarray(vectors)[live], np.asarray(keys)[live]
    n_words = np.shape(queries)[1]
    weights = np.ones(n_words) if idf is None else idf_of([set(np.flatnonzero(x)) for x in vectors], n_words)
    return rank(bag_of_words_scores(metric, queries, vectors, weights), keys, k)


def distance(a, b):
    """Differing bits of two signatures of uint64."""
    return sum(bin(int(x ^ y)).count("1") for x, y in zip(a, b))  # noqa: B905


def hamming_embedding_scores(queries, images, idf, sigma, max_distance, intra, inter):
    """(n_queries, n_images) scores, float64, of lists of (words, signatures)."""
    weights = np.asarray(idf, dtype=np.float64) ** 2
    scores = np.zeros((len(queries), len(images)))
    for i, (query_words, query_signatures) in enumerate(queries):
        for word, signature in zip(query_words, query_signatures):  # noqa: B905
            found = []
            for words, signatures in images:
                distances = [distance(signature, s) for w, s in zip(words, signatures) if w == word]  # noqa: B905
                found.append([np.exp(-((h / sigma) ** 2)) for h in distances if h <= max_distance])
            everywhere = sum(len(matches) for matches in found)
            for j, matches in enumerate(found):
                if matches:
                    part = weights[word] * sum(matches)
                    part /= np.sqrt(len(matches)) if intra else 1.0
                    scores[i, j] += part / (np.sqrt(everywhere) if inter else 1.0)
        for j, (words, _) in enumerate(images):
            norm = np.sqrt(weights[list(query_words)].sum()) * np.sqrt(weights[list(words)].sum())
            scores[i, j] /= max(norm, 1e-12)
    return scores


def asmk_scores(queries, images, idf, alpha, threshold, n_bits=None):
    """(n_queries, n_images) scores, float64, of lists of (words, residuals or signatures), each word once."""
    weights = np.asarray(idf, dtype=np.float64) ** 2
    scores = np.zeros((len(queries), len(images)))
    for i, (query_words, query_values) in enumerate(queries):
        for j, (words, values) in enumerate(images):
            for word, value in zip(query_words, query_values):  # noqa: B905
                for other, other_value in zip(words, values):  # noqa: B905
                    if word != other:
                        continue
                    if n_bits is None:
                        u = float(np.dot(value.astype(np.float64), other_value.astype(np.float64)))
                    else:
                        u = 1 - 2 * distance(value, other_value) / n_bits
                    scores[i, j] += weights[word] * u**alpha if u > 0 and u >= threshold else 0.0
            norm = np.sqrt(weights[list(query_words)].sum()) * np.sqrt(weights[list(words)].sum())
            scores[i, j] /= max(norm, 1e-12)
    return scores
