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
    for k in range(1, n_words):
        half_norm = half_norms[k]
        word = np.int32(k)
        for i in range(n_descriptors):
            value = products[k, i] - half_norm
            better = value > best[i]
            best[i] = value if better else best[i]
            words[i] = word if better else words[i]
