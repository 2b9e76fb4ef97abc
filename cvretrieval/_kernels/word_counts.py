"""Histograms of visual words."""

from __future__ import annotations

from cvretrieval._kernels._jit import njit


@njit
def count_words(words, offsets, histograms):
    """Add one for each word of each descriptor: h_ik += |{(n, j) : offsets_i ≤ n < offsets_(i+1), words_nj = k}|.

    Parameters
    ----------
    words : int32 (n_descriptors, n_nearest)
    offsets : int64 (n_images + 1,)
        Image i owns the rows offsets_i, …, offsets_(i+1) − 1.
    histograms : float32 (n_images, n_words)
        Exact up to 2²⁴ per word.  # OUT
    """
    for i in range(len(offsets) - 1):
        for n in range(offsets[i], offsets[i + 1]):
            for j in range(words.shape[1]):
                histograms[i, words[n, j]] += 1


@njit
def add_votes(words, weights, offsets, histograms):
    """Add the weights of the words of each descriptor: h_ik += Σ_{n of image i} Σ_j weights_nj [words_nj = k].

    Parameters
    ----------
    words : int32 (n_descriptors, n_nearest)
    weights : float32 (n_descriptors, n_nearest)
    offsets : int64 (n_images + 1,)
        Image i owns the rows offsets_i, …, offsets_(i+1) − 1.
    histograms : float32 (n_images, n_words)
        # OUT
    """
    for i in range(len(offsets) - 1):
        for n in range(offsets[i], offsets[i + 1]):
            for j in range(words.shape[1]):
                histograms[i, words[n, j]] += weights[n, j]
