"""Asymmetric distances: exact queries against vectors in product codes, by look-up tables."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.top_k import COSINE, L2, SMALLEST_NORM, offer_scores

_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


@njit
def fill_tables(metric, queries, bounds, codewords, tables):
    """tables[i, m, c] = ⟨q_m, c_m⟩, or −‖q_m − c_m‖² for L2: what code c of sub-vector m adds to the score of query i.

    Added up in float64.

    Parameters
    ----------
    metric : int
        `INNER_PRODUCT`, `COSINE` or `L2`, of `cvretrieval._kernels.top_k`.
    queries : float32 (n_queries, n_dims)
    bounds : int64 (n_subvectors + 1,)
        Sub-vector m has the columns ``bounds[m]:bounds[m + 1]``.
    codewords : float32 (n_codewords, n_dims)
        Codeword c of all sub-vectors, side by side.
    tables : float32 (n_queries, n_subvectors, n_codewords)
        # OUT

    References
    ----------
    H. Jégou, M. Douze and C. Schmid, "Product quantization for nearest neighbor search", PAMI 2011, section III.A.
    """
    for i in range(len(queries)):
        for m in range(len(bounds) - 1):
            for c in range(len(codewords)):
                total = 0.0
                for d in range(bounds[m], bounds[m + 1]):
                    q, x = np.float64(queries[i, d]), np.float64(codewords[c, d])
                    total += -(q - x) * (q - x) if metric == L2 else q * x
                tables[i, m, c] = total


@njit
def add_up(table, codes, sums):
    """sums[j] = Σ_m table[m, codes[j, m]], in float32: four sums over m = 0, 4, …, m = 1, 5, … and so on, then these.

    Parameters
    ----------
    table : float32 (n_subvectors, n_codewords)
    codes : uint8 (n_vectors, n_subvectors)
        Below n_codewords.
    sums : float32 (n_vectors,)
        # OUT
    """
    n_vectors, n_subvectors = codes.shape
    # Unsigned, or numba would look out for indices from the end. Two vectors at a time, whose sums need not wait for
    # each other.
    step = np.uint64(table.shape[1])
    flat, numbers = table.reshape(-1), codes.reshape(-1)
    n_fours = n_subvectors // 4 * 4
    for j in range(0, n_vectors, 2):
        other = min(j + 1, n_vectors - 1)
        p, q = np.uint64(j * n_subvectors), np.uint64(other * n_subvectors)
        a, b, c, d = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        e, f, g, h = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        place = np.uint64(0)
        for _ in range(0, n_fours, 4):
            a += flat[place + np.uint64(numbers[p])]
            e += flat[place + np.uint64(numbers[q])]
            place += step
            b += flat[place + np.uint64(numbers[p + _1])]
            f += flat[place + np.uint64(numbers[q + _1])]
            place += step
            c += flat[place + np.uint64(numbers[p + _2])]
            g += flat[place + np.uint64(numbers[q + _2])]
            place += step
            d += flat[place + np.uint64(numbers[p + _3])]
            h += flat[place + np.uint64(numbers[q + _3])]
            place += step
            p, q = p + _4, q + _4
        for _ in range(n_fours, n_subvectors):
            a += flat[place + np.uint64(numbers[p])]
            e += flat[place + np.uint64(numbers[q])]
            place += step
            p, q = p + _1, q + _1
        sums[j] = (a + b) + (c + d)
        sums[other] = (e + f) + (g + h)


@njit
def update_by_tables(metric, tables, query_norms, squares, codes, keys, top_scores, top_keys):
    """Offer vectors in codes to the running top-k of some queries; the score is that of the decoded vector x̂.

    inner product Σ_m t_m, L2 Σ_m t_m of its own tables, cosine Σ_m t_m / (max(‖q‖, 1e-12) · max(‖x̂‖, 1e-12)), with
    ‖x̂‖² from a table as well. Among equal scores the lower key is better.

    Parameters
    ----------
    metric : int
    tables : float32 (n_queries, n_subvectors, n_codewords)
        Of `fill_tables`.
    query_norms : float64 (n_queries,)
    squares : float32 (n_subvectors, n_codewords)
        ‖c_m‖², for the cosine.
    codes : uint8 (n_vectors, n_subvectors)
    keys : int64 (n_vectors,)
        Negative for vectors that must not be found.
    top_scores : float32 (n_queries, k)
    top_keys : int64 (n_queries, k)
        Heaps as of `update_top_k`.  # OUT
    """
    n_vectors = len(codes)
    scores = np.empty(n_vectors, dtype=np.float32)
    norms = np.empty(n_vectors if metric == COSINE else 0, dtype=np.float64)
    if metric == COSINE:
        add_up(squares, codes, scores)
        for j in range(n_vectors):
            norms[j] = max(np.sqrt(np.float64(scores[j])), SMALLEST_NORM)
    for i in range(len(tables)):
        add_up(tables[i], codes, scores)
        if metric == COSINE:
            norm = max(query_norms[i], SMALLEST_NORM)
            for j in range(n_vectors):
                scores[j] = np.float32(np.float64(scores[j]) / (norm * norms[j]))
        offer_scores(scores, keys, top_scores[i], top_keys[i])
