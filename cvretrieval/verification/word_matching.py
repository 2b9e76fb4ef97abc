"""Matches of one image with many others among descriptors of the same visual words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.assignment import best_words
from cvretrieval._kernels.matching import select_matches
from cvretrieval._kernels.nearest_center import center_means
from cvretrieval._kernels.word_matching import ROWS, group_by_word, match_within_words, unpack_rows

# One word for so many descriptors, up to the most words; beyond, finding the word costs more than comparing.
_DESCRIPTORS_PER_WORD = 8
_MOST_WORDS = 256

# Words are found by about so many components: a third of SIFT's costs a third of the time, and 1 % of the matches.
_KEY_DIMS = 40

# Recall hardly grows after a few iterations.
_ITERATIONS = 5

# Descriptors per matrix product.
_BLOCK = 1024


class WordMatcher:
    """Matches the descriptors of one image with those of others where both have a visual word in common.

    The words are learned from the image itself by k-means: there is nothing to fit before, and they divide its own
    descriptors more evenly than those of a data set do. A descriptor of another image has its nearest word; one of this
    image has all words that are nearly as near as its nearest, `n_assignments` on average. Of long descriptors, words
    see every third component or so; descriptors are compared by all.

    Parameters
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
    ratio, mutual
        See `match_descriptors`.
    n_assignments : float
        1 or more; as many as there are words is an exhaustive comparison.
    """

    def __init__(self, descriptors: NDArray[Any], ratio: float, mutual: bool, n_assignments: float) -> None:
        self._squared_ratio = float(ratio) ** 2
        self._mutual = bool(mutual)
        self._rows, keys, self._half_norms = _unpack(descriptors)
        # A row that is not finite is nobody's nearest.
        usable = np.flatnonzero(np.isfinite(self._half_norms)).astype(np.int32)
        self._words = _Words(keys[usable])
        members, self._starts = self._words.assign_several(keys[usable], n_assignments)
        self._members = usable[members]
        self._most_members = int(np.diff(self._starts).max())

    def match(self, descriptors: NDArray[Any]) -> NDArray[np.int64]:
        """Return the matches with the descriptors of another image; see `match_descriptors`."""
        n_a, n_b = len(self._rows), len(descriptors)
        if not n_a or not n_b:
            return np.empty((0, 2), dtype=np.int64)
        rows, keys, half_norms = _unpack(descriptors)
        order, bounds = np.empty(n_b, dtype=np.int32), np.empty(len(self._starts), dtype=np.int64)
        group_by_word(self._words.assign(keys), order, bounds)
        best, second = np.empty(n_a, dtype=np.float32), np.empty(n_a, dtype=np.float32)
        nearest, best_of_b = np.empty(n_a, dtype=np.int32), np.empty(n_b, dtype=np.float32)
        match_within_words(
            self._rows, self._half_norms, self._members, self._starts, rows, half_norms, order, bounds,
            np.empty((ROWS, self._most_members), dtype=np.float32), best, second, nearest, best_of_b,
        )  # fmt: skip
        matches = np.empty((n_a, 2), dtype=np.int64)
        n_matches = select_matches(best, second, nearest, best_of_b, self._squared_ratio, self._mutual, matches)
        return matches[:n_matches].copy()


class _Words:
    """Visual words of a few rows, by k-means from evenly spaced ones of them."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        n_words = min(_MOST_WORDS, max(1, len(rows) // _DESCRIPTORS_PER_WORD))
        # Matrix products are fastest in eights.
        n_words -= n_words % 8 if n_words > 8 else 0
        start = np.linspace(0, max(0, len(rows) - 1), n_words).astype(np.int64)
        self._centers = rows[start].copy() if len(rows) else np.zeros((1, rows.shape[1]), dtype=np.float32)
        self._half_norms = _half_squared_norms(self._centers)
        sums, counts = np.empty(self._centers.shape), np.empty(len(self._centers), dtype=np.int64)
        for _ in range(_ITERATIONS if n_words > 1 else 0):
            center_means(rows, self.assign(rows), sums, counts, self._centers)
            self._half_norms = _half_squared_norms(self._centers)

    def assign(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the nearest word of every row; it depends on the rows of the same call only."""
        words = np.empty(len(rows), dtype=np.int32)
        best = np.empty(min(_BLOCK, len(rows)), dtype=np.float32)
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            products = np.matmul(self._centers, block.T)
            best_words(products, self._half_norms, 0, best[: len(block)], words[first : first + len(block)])
        return words

    def assign_several(
        self, rows: NDArray[np.float32], n_assignments: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of every word, one word after the other, and where each begins.

        Of all pairs of row and word, the ``n_assignments * n_rows`` with the least gap ‖x − c_k‖² − min_l ‖x − c_l‖²
        are taken: a row well inside its cell has fewer words than one between cells.
        """
        n_words, n_rows = len(self._centers), len(rows)
        if not n_rows:
            return np.empty(0, dtype=np.int64), np.zeros(n_words + 1, dtype=np.int64)
        scores = np.matmul(rows, self._centers.T) - self._half_norms
        gaps = scores.max(axis=1, keepdims=True) - scores
        n_pairs = min(gaps.size, round(n_assignments * n_rows))
        taken = gaps <= np.partition(gaps, n_pairs - 1, axis=None)[n_pairs - 1]
        words, members = np.nonzero(taken.T)
        starts = np.searchsorted(words, np.arange(n_words + 1)).astype(np.int64)
        return members, starts


def _unpack(
    descriptors: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return descriptors in float32, what words are found by, and half the squared norms."""
    dtype = np.uint8 if descriptors.dtype == np.uint8 else np.float32
    # Read-only arrays are copied: kernels would be compiled once more for them.
    descriptors = np.require(descriptors, dtype=dtype, requirements=["C", "W", "E"])
    n_rows, n_dims = descriptors.shape
    # Odd, so that of histograms with an even number of bins all bins are met.
    step = max(1, (n_dims // _KEY_DIMS - 1) // 2 * 2 + 1)
    rows = np.empty((n_rows, n_dims), dtype=np.float32)
    keys = np.empty((n_rows, -(-n_dims // step)), dtype=np.float32)
    half_norms = np.empty(n_rows, dtype=np.float32)
    unpack_rows(descriptors, step, rows, keys, half_norms)
    return rows, keys, half_norms


def _half_squared_norms(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.float32(0.5) * np.einsum("ij,ij->i", rows, rows)
    return norms
