"""Votes of descriptors for visual words, and their histograms."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn import get_config

from cvretrieval._kernels.word_counts import add_votes, count_words


class WordVotes(NamedTuple):
    """The words that each descriptor votes for.

    Attributes
    ----------
    words : ndarray of shape (n_descriptors, n_nearest)
        int32, the nearest first.
    weights : ndarray of shape (n_descriptors, n_nearest) or None
        float32; None if every vote counts 1.
    """

    words: NDArray[np.int32]
    weights: NDArray[np.float32] | None = None

    def take(self, rows: Any) -> WordVotes:
        """Return the votes of some descriptors: a slice or an integer array."""
        return WordVotes(self.words[rows], None if self.weights is None else self.weights[rows])


def dense_histograms(votes: WordVotes, offsets: NDArray[np.int64], n_words: int) -> NDArray[np.float32]:
    """Return the sums of the votes of each image, float32 of shape (n_images, n_words)."""
    histograms = np.zeros((len(offsets) - 1, n_words), dtype=np.float32)
    if votes.weights is None:
        count_words(votes.words, offsets, histograms)
    else:
        add_votes(votes.words, votes.weights, offsets, histograms)
    return histograms


def sparse_histograms(votes: WordVotes, offsets: NDArray[np.int64], n_words: int) -> Any:
    """Return the sums of the votes of each image as CSR; only words that some vote names are stored."""
    n_nearest = votes.words.shape[1]
    images = np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets) * n_nearest)
    places, inverse = np.unique(images * n_words + votes.words.ravel(), return_inverse=True)
    weights = None if votes.weights is None else votes.weights.ravel()
    sums = np.bincount(inverse.ravel(), weights, minlength=len(places)).astype(np.float32)
    rows, columns = np.divmod(places, n_words)
    indptr = np.searchsorted(rows, np.arange(len(offsets), dtype=np.int64))
    return csr(sums, columns, indptr, (len(offsets) - 1, n_words))


def csr(data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, int]) -> Any:
    """Build a CSR matrix, or a CSR array where scikit-learn's ``sparse_interface`` asks for one."""
    as_array = get_config().get("sparse_interface", "spmatrix") == "sparray"
    return (csr_array if as_array else csr_matrix)((data, indices, indptr), shape=shape)
