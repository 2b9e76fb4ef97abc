"""Exact scores of candidates that something else has proposed."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.hamming import count_ones
from cvretrieval._kernels.top_k import (
    COSINE,
    INNER_PRODUCT,
    SMALLEST_NORM,
    inner_product,
    offer_scores,
    squared_distance,
)


@njit
def rank_candidates(metric, queries, query_norms, vectors, norms, keys, places, top_scores, top_keys):
    """Rank the candidates of each query by the scores of `update_top_k`, to the bit.

    Parameters
    ----------
    metric : int
    queries : float32 (n_queries, n_dims)
    query_norms : float64 (n_queries,)
    vectors : float32 (n_vectors, n_dims)
    norms : float64 (n_vectors,)
    keys : int64 (n_vectors,)
        Negative for vectors that must not be found.
    places : int64 (n_queries, n_candidates)
        Numbers of vectors, no one twice; negative for none.
    top_scores : float32 (n_queries, k)
    top_keys : int64 (n_queries, k)
        Heaps as of `update_top_k`.  # OUT
    """
    n_candidates = places.shape[1]
    scores = np.empty(n_candidates, dtype=np.float32)
    own_keys = np.empty(n_candidates, dtype=np.int64)
    for i in range(len(queries)):
        for c in range(n_candidates):
            j = places[i, c]
            own_keys[c] = keys[j] if j >= 0 else -1
            scores[c] = np.float32(-np.inf)
            if own_keys[c] < 0:
                continue
            if metric == INNER_PRODUCT:
                scores[c] = np.float32(inner_product(queries[i], vectors[j]))
            elif metric == COSINE:
                norm = max(query_norms[i], SMALLEST_NORM) * max(norms[j], SMALLEST_NORM)
                scores[c] = np.float32(inner_product(queries[i], vectors[j]) / norm)
            else:
                scores[c] = np.float32(0.0 - squared_distance(queries[i], vectors[j]))
        offer_scores(scores, own_keys, top_scores[i], top_keys[i])


@njit
def rank_binary_candidates(queries, vectors, keys, places, top_scores, top_keys):
    """Rank the candidates of each query by −h, h the number of bits in which query and vector differ.

    Parameters
    ----------
    queries : uint64 (n_queries, n_words)
    vectors : uint64 (n_vectors, n_words)
    keys, places, top_scores, top_keys
        As of `rank_candidates`.
    """
    n_candidates = places.shape[1]
    scores = np.empty(n_candidates, dtype=np.float32)
    own_keys = np.empty(n_candidates, dtype=np.int64)
    for i in range(len(queries)):
        for c in range(n_candidates):
            j = places[i, c]
            own_keys[c] = keys[j] if j >= 0 else -1
            total = np.uint64(0)
            if own_keys[c] >= 0:
                for w in range(queries.shape[1]):
                    total += count_ones(queries[i, w] ^ vectors[j, w])
            scores[c] = -np.float32(total)
        offer_scores(scores, own_keys, top_scores[i], top_keys[i])
