"""Exact search, written from the definitions: one score at a time, one sort per query."""

from __future__ import annotations

import numpy as np


def score(metric, query, vector):
    """Return the score of one vector, float64 rounded to float32."""
    query, vector = query.astype(np.float64), vector.astype(np.float64)
    if metric == "l2":
        return np.float32(0.0 - ((query - vector) ** 2).sum())
    if metric == "inner_product":
        return np.float32((query * vector).sum())
    norms = max(np.sqrt((query**2).sum()), 1e-12) * max(np.sqrt((vector**2).sum()), 1e-12)
    return np.float32((query * vector).sum() / norms)


def search(metric, queries, vectors, keys, k):
    """Return keys and scores (n_queries, k): higher scores first, then lower keys; padded with -1 and −inf."""
    found_keys = np.full((len(queries), k), -1, dtype=np.int64)
    found_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for i, query in enumerate(queries):
        ranked = sorted((-score(metric, query, x), key) for x, key in zip(vectors, keys) if key >= 0)  # noqa: B905
        for rank, (negative, key) in enumerate(ranked[:k]):
            found_keys[i, rank], found_scores[i, rank] = key, -negative
    return found_keys, found_scores
