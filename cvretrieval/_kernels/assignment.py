"""Nearest-word assignment: what is left to do before and after the matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def read_ahead(descriptors):
    """Return Σ_{i,d} x_id²: not finite if a descriptor is NaN, infinite or too large to be squared in float32.

    To be called before the matrix product. BLAS packs several rows at once, a pattern that the prefetchers of the
    processor follow badly; reading a block from front to back first makes the product a fifth faster.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    """
    n_descriptors, n_dims = descriptors.shape
    total = np.float32(0.0)
    for i in range(n_descriptors):
        for d in range(n_dims):
            total += descriptors[i, d] * descriptors[i, d]
    return total


@njit
def best_words(products, half_norms, first_word, best, words):
    """Keep the best word of each descriptor: argmin_k ‖x − c_k‖² = argmax_k ⟨c_k, x⟩ − ½‖c_k‖²; ties to the lowest k.

    Called once per chunk of words, in ascending order; the chunk that holds word 0 starts anew.

    Parameters
    ----------
    products : float32 (n_words, at least n_descriptors)
        ⟨c_k, x_i⟩ of the words of this chunk. Words are rows, so that the inner loop runs over descriptors and needs
        no horizontal reduction.
    half_norms : float32 (n_words,)
        ½‖c_k‖².
    first_word : int
        Number of the first word of this chunk.
    best : float32 (n_descriptors,)
        Score of the best word so far.  # OUT
    words : int32 (n_descriptors,)
        The best word so far.  # OUT
    """
    n_descriptors = len(words)
    if first_word == 0:
        for i in range(n_descriptors):
            best[i] = -np.inf
            words[i] = 0
    for k in range(len(products)):
        word = np.int32(first_word + k)
        half_norm = half_norms[k]
        for i in range(n_descriptors):
            # In this form LLVM makes vector selects of it (five times faster): best[i] is read before any store.
            score = products[k, i] - half_norm
            top = best[i]
            words[i] = word if score > top else words[i]
            best[i] = score if score > top else top


@njit
def nearest_words(products, half_norms, first_word, scores, words):
    """Keep the r best words of each descriptor, best first, by ⟨c_k, x⟩ − ½‖c_k‖²; ties to the lowest k.

    Differences of these scores are half those of squared distances: ‖x − c_j‖² − ‖x − c_k‖² = 2 (score_k − score_j).
    Called once per chunk of words, in ascending order; the chunk that holds word 0 starts anew.

    Parameters
    ----------
    products : float32 (n_words, at least n_descriptors)
        ⟨c_k, x_i⟩ of the words of this chunk.
    half_norms : float32 (n_words,)
        ½‖c_k‖².
    first_word : int
        Number of the first word of this chunk.
    scores : float32 (r, n_descriptors)
        Scores of the best words so far, descending; −∞ where there are fewer.  # OUT
    words : int32 (r, n_descriptors)
        The best words so far.  # OUT
    """
    n_nearest, n_descriptors = words.shape
    if first_word == 0:
        scores[:] = -np.inf
        words[:] = 0
    last = n_nearest - 1
    for k in range(len(products)):
        word = np.int32(first_word + k)
        half_norm = half_norms[k]
        for i in range(n_descriptors):
            score = products[k, i] - half_norm
            # Seldom true, some n_nearest · log(n_words / n_nearest) times per descriptor: cheaper than selects.
            if score > scores[last, i]:
                place = last
                while place > 0 and score > scores[place - 1, i]:
                    scores[place, i] = scores[place - 1, i]
                    words[place, i] = words[place - 1, i]
                    place -= 1
                scores[place, i] = score
                words[place, i] = word


@njit
def insert_below_best(products, half_norm, word, scores_above, scores, words_above, words):
    """Offer one word to one place below the best: it takes the place if it beats who is there and not who is above.

    Who is above moves down if beaten. The caller goes from the last place to the second, then calls `insert_best`.

    Parameters
    ----------
    products : float32 (n_descriptors,)
        ⟨c_k, x_i⟩ of this word.
    half_norm : float32
        ½‖c_k‖².
    word : int32
    scores_above, scores : float32 (n_descriptors,)
        Scores of the place above, and of this one.  # OUT: scores
    words_above, words : int32 (n_descriptors,)
        Words of the place above, and of this one.  # OUT: words
    """
    for i in range(len(scores)):
        # Selects on separate rows, as in `best_words`: LLVM makes vectors of them.
        score = products[i] - half_norm
        above, here = scores_above[i], scores[i]
        word_above, word_here = words_above[i], words[i]
        taken = score if score > here else here
        taken_word = word if score > here else word_here
        scores[i] = above if score > above else taken
        words[i] = word_above if score > above else taken_word


@njit
def insert_best(products, half_norm, word, scores, words):
    """Offer one word to the first place: it takes it if its score ⟨c_k, x⟩ − ½‖c_k‖² is higher.

    Arguments as for `insert_below_best`.
    """
    for i in range(len(scores)):
        score = products[i] - half_norm
        top = scores[i]
        words[i] = word if score > top else words[i]
        scores[i] = score if score > top else top


@njit
def nearest_few_words(products, half_norms, first_word, scores, words):
    """Do what `nearest_words` does, without branches: five times as fast for a few words, slower for many.

    Every word is offered to every place, n_words · r selects for each descriptor, all of them in vectors. Arguments and
    results as for `nearest_words`.
    """
    n_nearest, n_descriptors = words.shape
    if first_word == 0:
        scores[:] = -np.inf
        words[:] = 0
    for k in range(len(products)):
        word = np.int32(first_word + k)
        row = products[k, :n_descriptors]
        for place in range(n_nearest - 1, 0, -1):
            insert_below_best(
                row, half_norms[k], word, scores[place - 1], scores[place], words[place - 1], words[place]
            )
        insert_best(row, half_norms[k], word, scores[0], words[0])
