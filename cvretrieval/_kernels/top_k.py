"""Running top-k of an exhaustive search: what is left to do after each matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

#: The metrics, as the kernels know them.
INNER_PRODUCT, COSINE, L2 = 0, 1, 2

#: The norms that a cosine divides by are at least this: a zero vector has similarity 0 with everything.
SMALLEST_NORM = 1e-12

#: Key of a place in the top-k that no vector has taken yet; as the largest of all keys it loses every tie.
NO_KEY = np.iinfo(np.int64).max

_CHUNK = 64
# Unit round-off and smallest normal number of float32.
_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126


@njit(fastmath=True)
def inner_product(x, y):
    """Return Σ_d x_d y_d of float32 (n_dims,) arrays, added up in float64."""
    total = 0.0
    for d in range(x.size):
        total += np.float64(x[d]) * np.float64(y[d])
    return total


@njit(fastmath=True)
def squared_distance(x, y):
    """Return Σ_d (x_d − y_d)² of float32 (n_dims,) arrays, subtracted and added up in float64."""
    total = 0.0
    for d in range(x.size):
        difference = np.float64(x[d]) - np.float64(y[d])
        total += difference * difference
    return total


@njit
def row_norms(vectors, norms):
    """Write ‖x_j‖ = √⟨x_j, x_j⟩ of every row.

    Parameters
    ----------
    vectors : float32 (n_vectors, n_dims)
    norms : float64 (n_vectors,)
        Not finite where the row is not, and only there: squares of float32 do not overflow in float64.  # OUT
    """
    for j in range(len(vectors)):
        norms[j] = np.sqrt(inner_product(vectors[j], vectors[j]))


@njit(fastmath=True)
def inner_products(queries, vectors, products):
    """Write ⟨q_i, x_j⟩, added up in float32: for a few queries, where BLAS would first copy the vectors.

    Parameters
    ----------
    queries : float32 (n_queries, n_dims)
    vectors : float32 (n_vectors, n_dims)
    products : float32 (n_queries, n_vectors)
        # OUT
    """
    for i in range(len(queries)):
        query = queries[i]
        for j in range(len(vectors)):
            vector = vectors[j]
            total = np.float32(0.0)
            for d in range(query.size):
                total += query[d] * vector[d]
            products[i, j] = total


@njit
def update_top_k(metric, products, floors, queries, query_norms, vectors, norms, keys, top_scores, top_keys):
    """Offer one block of vectors to the running top-k of some queries.

    The score of query q and vector x is computed in float64 from the two alone and rounded to float32::

        inner product   ⟨q, x⟩
        cosine          ⟨q, x⟩ / (max(‖q‖, 1e-12) · max(‖x‖, 1e-12))
        L2              −‖q − x‖²

    Among equal scores the lower key is better. The float32 products only say which vectors are worth scoring. With
    γ = (1.1 n_dims + 8) · 2⁻²⁴, a float32 sum of n_dims products (of up to a million) is within γ ‖q‖ ‖x‖ of its value,
    in whatever order it is added up; a vector whose product falls short of the worst of the top-k by more than that
    cannot enter. So the result is the top-k of the scores above, whatever the BLAS, the shape of the blocks and the
    order of the vectors.

    Parameters
    ----------
    metric : int
        `INNER_PRODUCT`, `COSINE` or `L2`.
    products : float32 (n_queries, n_vectors)
        ⟨q_i, x_j⟩ from BLAS or `inner_products`.
    floors : float32 (n_queries,)
        A value that at least k of these or earlier vectors reach, of ⟨q, x⟩, ⟨q, x⟩ / max(‖x‖, 1e-12) or
        ⟨q, x⟩ − ½‖x‖² by metric, computed in float32; −inf if none is known. Spares the scoring of most of the
        first vectors.
    queries : float32 (n_queries, n_dims)
    query_norms : float64 (n_queries,)
    vectors : float32 (n_vectors, n_dims)
    norms : float64 (n_vectors,)
        As by `row_norms`. Norms are at most 1e18, so that no product overflows.
    keys : int64 (n_vectors,)
        Negative for vectors that must not be found.
    top_scores : float32 (n_queries, k)
    top_keys : int64 (n_queries, k)
        Binary heaps, the worst of the top-k first; before the first block −inf and `NO_KEY`.  # OUT

    References
    ----------
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM 2002, section 3.1 (the error of
    an inner product).
    """
    n_queries, n_vectors = products.shape
    # The bounds are on product · factor − offset: the score, up to terms of the query alone.
    factors = np.empty(n_vectors, dtype=np.float32)
    offsets = np.empty(n_vectors, dtype=np.float32)
    largest, smallest = 0.0, np.inf
    for j in range(n_vectors):
        largest = max(largest, norms[j])
        smallest = min(smallest, norms[j])
        factors[j] = 1.0 / max(norms[j], SMALLEST_NORM) if metric == COSINE else 1.0
        offsets[j] = 0.5 * norms[j] * norms[j] if metric == L2 else 0.0
    n_terms = 1.1 * queries.shape[1] + 8.0
    scratch = np.empty(n_vectors, dtype=np.float32)
    candidates = np.empty(_CHUNK + 1, dtype=np.int64)
    for i in range(n_queries):
        if metric == COSINE:
            margin = n_terms * (_ROUNDOFF * query_norms[i] + _SMALLEST_NORMAL / max(smallest, SMALLEST_NORM))
        else:
            margin = n_terms * (_ROUNDOFF * query_norms[i] * largest + _SMALLEST_NORMAL)
            if metric == L2:
                margin += 8.0 * _ROUNDOFF * largest * largest
        query, values, scores, own_keys = queries[i], products[i], top_scores[i], top_keys[i]
        if metric != INNER_PRODUCT:
            for j in range(n_vectors):
                scratch[j] = values[j] * factors[j] - offsets[j]
            values = scratch
        least = np.float32(-np.inf)
        if floors[i] > -np.inf:
            size = abs(np.float64(floors[i])) + (query_norms[i] * query_norms[i] if metric == L2 else 0.0)
            least = np.float32(floors[i] - 4.0 * (margin + _ROUNDOFF * size))
        cut = max(least, _cut(metric, scores[0], query_norms[i], margin))
        for first in range(0, n_vectors, _CHUNK):
            last = min(first + _CHUNK, n_vectors)
            if not _any_at_least(values[first:last], cut):
                continue
            # Collected without a branch: which vectors pass is unpredictable.
            n_candidates = 0
            for j in range(first, last):
                candidates[n_candidates] = j
                n_candidates += 1 if values[j] >= cut else 0
            for c in range(n_candidates):
                j = candidates[c]
                if keys[j] < 0 or values[j] < cut:
                    continue
                if metric == L2:
                    score = np.float32(0.0 - squared_distance(query, vectors[j]))
                elif metric == COSINE:
                    norm = max(query_norms[i], SMALLEST_NORM) * max(norms[j], SMALLEST_NORM)
                    score = np.float32(inner_product(query, vectors[j]) / norm)
                else:
                    score = np.float32(inner_product(query, vectors[j]))
                if _is_better(score, keys[j], scores[0], own_keys[0]):
                    _replace_worst(scores, own_keys, scores.size, score, keys[j])
                    cut = max(least, _cut(metric, scores[0], query_norms[i], margin))


@njit
def _cut(metric, worst, query_norm, margin):
    """Return the least product · factor − offset, in float32, of a vector that scores `worst` or more."""
    if worst == -np.inf:
        return np.float32(-np.inf)
    score = np.float64(worst) - 2.0 * _ROUNDOFF * abs(np.float64(worst))
    if metric == COSINE:
        score *= max(query_norm, SMALLEST_NORM)
    elif metric == L2:
        score = 0.5 * (score + query_norm * query_norm)
    return np.float32(score - margin - 2.0 * _ROUNDOFF * abs(score))


@njit
def _any_at_least(values, cut):
    """Tell whether any value is `cut` or more; counting vectorises, stopping at the first would not."""
    n_found = np.int32(0)
    for j in range(values.size):
        n_found = np.int32(n_found + np.int32(1)) if values[j] >= cut else n_found
    return n_found > 0


@njit
def _is_better(score, key, other_score, other_key):
    """Order of a ranked list: the higher score, among equals the lower key."""
    return score > other_score or (score == other_score and key < other_key)


@njit
def _replace_worst(scores, keys, size, score, key):
    """Put an entry in place of the root of a heap of `size` entries, the worst of them, and restore the heap."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _is_better(scores[child], keys[child], scores[child + 1], keys[child + 1]):
            child += 1
        if not _is_better(score, key, scores[child], keys[child]):
            break
        scores[place], keys[place] = scores[child], keys[child]
        place = child
    scores[place], keys[place] = score, key


@njit
def offer_scores(scores, keys, top_scores, top_keys):
    """Offer scored vectors to the running top-k of one query.

    Parameters
    ----------
    scores : float32 (n_vectors,)
    keys : int64 (n_vectors,)
        Negative for vectors that must not be found.
    top_scores : float32 (k,)
    top_keys : int64 (k,)
        Heap as of `update_top_k`.  # OUT
    """
    k = len(top_scores)
    for first in range(0, scores.size, _CHUNK):
        last = min(first + _CHUNK, scores.size)
        if not _any_at_least(scores[first:last], top_scores[0]):
            continue
        for j in range(first, last):
            if keys[j] >= 0 and _is_better(scores[j], keys[j], top_scores[0], top_keys[0]):
                _replace_worst(top_scores, top_keys, k, scores[j], keys[j])


@njit
def sort_top_k(top_scores, top_keys):
    """Turn the heaps of `update_top_k` into ranked lists, best first.

    Parameters
    ----------
    top_scores : float32 (n_queries, k)
    top_keys : int64 (n_queries, k)
        # OUT
    """
    n_queries, k = top_scores.shape
    for i in range(n_queries):
        scores, keys = top_scores[i], top_keys[i]
        for size in range(k - 1, 0, -1):
            score, key = scores[size], keys[size]
            scores[size], keys[size] = scores[0], keys[0]
            _replace_worst(scores, keys, size, score, key)
