"""Scores from posting lists: what the lists of a query's words add to the images of a block, and the best of them.

Blocks of posting lists are those of `cvretrieval._kernels.posting_lists`. A block has at most 65,536 images, so that
the running scores, 256 KB, stay in the cache of a core while the lists stream by. Beside them a byte for each group of
64 images says whether any posting has touched the group; only those are looked at and set back to zero afterwards.
"""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.hamming import count_ones
from cvretrieval._kernels.top_k import SMALLEST_NORM, _is_better, _replace_worst, inner_product

#: Images of a block at most, and images that share a mark.
BLOCK_IMAGES = 65_536
MARKED_IMAGES = 64

_SHIFT = np.uint16(6)
_LINE_BYTES = 64
_ROUNDOFF = 2.0**-24


@njit
def find_lists(query_words, words, places):
    """places_j = number of the list of word j, where words[places_j] = query_words_j; −1 if there is none.

    All words halve their ranges in turn, without branches, so that their reads from memory overlap; one after the
    other, each would wait for its own.

    Parameters
    ----------
    query_words : int32 (n_query_words,)
    words : int32 (n_lists,)
        Ascending.
    places : int64 (n_query_words,)
        # OUT
    """
    places[:] = 0 if len(words) else -1
    n_left = len(words)
    while n_left > 1:
        half = n_left >> 1
        for j in range(len(query_words)):
            places[j] += half if words[places[j] + half - 1] < query_words[j] else 0
        n_left -= half
    for j in range(len(query_words)):
        if len(words):
            places[j] += 1 if words[places[j]] < query_words[j] else 0
            if places[j] == len(words) or words[places[j]] != query_words[j]:
                places[j] = -1


@njit
def fetch_lists(places, starts, images, values):
    """Read once from every line of memory of some lists, and return the sum, which nobody needs.

    These reads do not depend on each other, so they overlap; the lists are in the cache when they are scored.

    Parameters
    ----------
    places : int64 (n_query_words,)
        As of `find_lists`.
    starts, images : as in `posting_lists`
    values : (n_postings * n_columns,)
        Flat.
    """
    total = 0
    n_columns = len(values) // max(1, len(images))
    per_line, values_per_line = _LINE_BYTES // images.itemsize, max(1, _LINE_BYTES // values.itemsize)
    for j in range(len(places)):
        if places[j] >= 0:
            first, last = np.int64(starts[places[j]]), np.int64(starts[places[j] + 1])
            for p in range(first, last, per_line):
                total += images[p]
            for p in range(first * n_columns, last * n_columns, values_per_line):
                total += 1 if values[p] else 0
    return total


@njit
def score_products(places, query_weights, starts, images, values, scores, marks):
    """scores_i += Σ_k q_k v_ik over the words k of the query, in their order, in float32.

    Parameters
    ----------
    places : int64 (n_query_words,)
        Lists of the words, as of `find_lists`.
    query_weights : float32 (n_query_words,)
    starts, images : as in `posting_lists`
    values : uint8, uint16 or float32 (n_postings,)
    scores : float32 (65536,)
        # OUT, added to
    marks : uint8 (1024,)
        1 for groups of 64 images of which any was added to.  # OUT
    """
    for j in range(len(places)):
        if places[j] < 0:
            continue
        weight = query_weights[j]
        # Slices, whose indices are known not to be negative.
        own_images = images[starts[places[j]] : starts[places[j] + 1]]
        own_values = values[starts[places[j]] : starts[places[j] + 1]]
        for p in range(own_images.size):
            image = own_images[p]
            scores[image] += weight * np.float32(own_values[p])
            marks[image >> _SHIFT] = 1


@njit
def score_signatures(
    places, query_signatures, query_weights, starts, images, values, similarities, damp, scores, marks
):
    """scores_i += Σ_e q_e Σ_p s[h(b_e, b_p)] over entries e of the query and postings p of image i with their word.

    With `damp`, the inner sum is divided by the square root of the number of postings with s > 0: the burstiness of a
    word within one image, as a match that occurs n times there counts √n times. The inner sum is in float64.

    Parameters
    ----------
    places : int64 (n_entries,)
        Lists of their words, as of `find_lists`.
    query_signatures : uint64 (n_entries, n_columns)
    query_weights : float32 (n_entries,)
    starts, images : as in `posting_lists`
    values : uint64 (n_postings, n_columns)
    similarities : float64 (64 n_columns + 1,)
        s by Hamming distance h, not negative.
    damp : bool
    scores : float32 (65536,)
        # OUT, added to
    marks : uint8 (1024,)
        # OUT
    """
    n_columns = values.shape[1]
    for e in range(len(places)):
        if places[e] < 0:
            continue
        p, end = np.int64(starts[places[e]]), np.int64(starts[places[e] + 1])
        while p < end:
            image = np.int64(images[p])
            total, votes = 0.0, 0
            while p < end and np.int64(images[p]) == image:
                distance = np.uint64(0)
                for column in range(n_columns):
                    distance += count_ones(query_signatures[e, column] ^ values[p, column])
                similarity = similarities[distance]
                if similarity > 0.0:
                    total += similarity
                    votes += 1
                p += 1
            if votes > 0:
                if damp and votes > 1:
                    total /= np.sqrt(np.float64(votes))
                scores[image] += np.float32(query_weights[e] * total)
                marks[image >> _SHIFT] = 1


@njit
def count_votes(places, query_signatures, starts, images, values, keys, similarities, votes):
    """votes_e += number of postings of the word of entry e, of images not removed, with s[h(b_e, b_p)] > 0.

    Parameters
    ----------
    places, query_signatures, starts, images, values, similarities : as for `score_signatures`
    keys : int64 (n_images,)
        Negative for removed images.
    votes : int64 (n_entries,)
        # OUT, added to
    """
    n_columns = values.shape[1]
    for e in range(len(places)):
        if places[e] < 0:
            continue
        for p in range(starts[places[e]], starts[places[e] + 1]):
            distance = np.uint64(0)
            for column in range(n_columns):
                distance += count_ones(query_signatures[e, column] ^ values[p, column])
            image = np.int64(images[p])
            if similarities[distance] > 0.0 and image < len(keys) and keys[image] >= 0:
                votes[e] += 1


@njit
def score_residuals(places, query_residuals, query_weights, starts, images, values, alpha, threshold, scores, marks):
    """scores_i += Σ_e q_e σ(⟨r_e, r_p⟩) over entries e and postings p with their word, σ(u) = u^α if u ≥ τ, else 0.

    Products that are not positive add nothing, whatever τ.

    Parameters
    ----------
    places : int64 (n_entries,)
        Lists of their words, as of `find_lists`.
    query_residuals : float32 (n_entries, n_dims)
    query_weights : float32 (n_entries,)
    starts, images : as in `posting_lists`
    values : float32 (n_postings, n_dims)
    alpha, threshold : float
        α and τ.
    scores : float32 (65536,)
        # OUT, added to
    marks : uint8 (1024,)
        # OUT
    """
    for e in range(len(places)):
        if places[e] < 0:
            continue
        for p in range(starts[places[e]], starts[places[e] + 1]):
            product = inner_product(query_residuals[e], values[p])
            if product > 0.0 and product >= threshold:
                image = np.int64(images[p])
                scores[image] += np.float32(query_weights[e] * product**alpha)
                marks[image >> _SHIFT] = 1


@njit
def offer_scores(scores, marks, keys, norms, inverse_norms, query_norm, top_scores, top_keys):
    """Offer the scores of a block to the running top-k of one query, and set what was touched back to zero.

    The score of image i is scores_i / (max(‖q‖, 1e-12) · max(‖x_i‖, 1e-12)), in float64 and rounded to float32; scores
    that are not above zero are not offered. Among equal ones the lower key is better.

    Parameters
    ----------
    scores : float32 (65536,)
        # OUT, zero again
    marks : uint8 (1024,)
        # OUT, zero again
    keys : int64 (n_images,)
        Negative for images that must not be found.
    norms : float64 (n_images,)
        Ones where scores are not normalised.
    inverse_norms : float32 (n_images,)
        1 / max(norms, 1e-12), which says what is worth a closer look.
    query_norm : float
    top_scores : float32 (k,)
    top_keys : int64 (k,)
        Heaps as of `update_top_k`.  # OUT
    """
    n_images = len(keys)
    query_norm = max(query_norm, SMALLEST_NORM)
    cut = _cut(top_scores[0], query_norm)
    for group in range(len(marks)):
        if marks[group] == 0:
            continue
        marks[group] = 0
        first = group * MARKED_IMAGES
        last = min(first + MARKED_IMAGES, n_images)
        if _any_reaches(scores[first:last], inverse_norms[first:last], cut):
            for i in range(first, last):
                if not scores[i] > 0.0 or keys[i] < 0 or scores[i] * inverse_norms[i] < cut:
                    continue
                score = np.float32(np.float64(scores[i]) / (query_norm * max(norms[i], SMALLEST_NORM)))
                if score > 0.0 and _is_better(score, keys[i], top_scores[0], top_keys[0]):
                    _replace_worst(top_scores, top_keys, top_scores.size, score, keys[i])
                    cut = _cut(top_scores[0], query_norm)
        scores[first : first + MARKED_IMAGES] = 0.0


@njit
def _any_reaches(scores, inverse_norms, cut):
    """Tell whether any product is `cut` or more; counting vectorises, stopping at the first would not."""
    n_found = np.int32(0)
    for i in range(scores.size):
        n_found = np.int32(n_found + np.int32(1)) if scores[i] * inverse_norms[i] >= cut else n_found
    return n_found > 0


@njit
def _cut(worst, query_norm):
    """Return the least score · inverse norm, both in float32, of an image that scores `worst` or more."""
    if worst == -np.inf:
        return np.float32(0.0)
    return np.float32(np.float64(worst) * query_norm * (1.0 - 8.0 * _ROUNDOFF))
