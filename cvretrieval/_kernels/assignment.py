"""Nearest-word assignment: what is left to do after the matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def best_words(products, half_norms, best, words):
    """Write the word of each descriptor: argmin_k ‖x − c_k‖² = argmax_k ⟨c_k, x⟩ − ½‖c_k‖²; ties to the lowest k.

    Parameters
    ----------
    products : float32 (n_words, n_descriptors)
        ⟨c_k, x_i⟩. Words are rows, so that the inner loop runs over descriptors and needs no horizontal reduction.
    half_norms : float32 (n_words,)
        ½‖c_k‖².
    best : float32 (n_descriptors,)
        Scratch.  # OUT
    words : int32 (n_descriptors,)
        # OUT
    """
    n_words, n_descriptors = products.shape
    for i in range(n_descriptors):
        best[i] = products[0, i] - half_norms[0]
        words[i] = 0
    # Four words at a time: the running best is loaded and stored once for all of them.
    first = 1
    while first + 4 <= n_words:
        h0, h1, h2, h3 = half_norms[first], half_norms[first + 1], half_norms[first + 2], half_norms[first + 3]
        k0, k1, k2, k3 = np.int32(first), np.int32(first + 1), np.int32(first + 2), np.int32(first + 3)
        for i in range(n_descriptors):
            top = best[i]
            word = words[i]
            value = products[first, i] - h0
            word = k0 if value > top else word
            top = value if value > top else top
            value = products[first + 1, i] - h1
            word = k1 if value > top else word
            top = value if value > top else top
            value = products[first + 2, i] - h2
            word = k2 if value > top else word
            top = value if value > top else top
            value = products[first + 3, i] - h3
            word = k3 if value > top else word
            top = value if value > top else top
            best[i] = top
            words[i] = word
        first += 4
    for k in range(first, n_words):
        for i in range(n_descriptors):
            value = products[k, i] - half_norms[k]
            words[i] = np.int32(k) if value > best[i] else words[i]
            best[i] = value if value > best[i] else best[i]
