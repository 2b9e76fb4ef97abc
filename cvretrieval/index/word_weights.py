"""Weights of visual words and norms of images under them, for one state of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.posting_lists import add_squares, add_weights
from cvretrieval._kernels.posting_scores import BLOCK_IMAGES
from cvretrieval._kernels.top_k import SMALLEST_NORM
from cvretrieval._parallel import map_blocks
from cvretrieval._validation import describe_array
from cvretrieval.index.posting_segments import Postings, PostingSegment

# Far above ln(N / N_i) of any collection; with it no sum of weights overflows.
_LARGEST_IDF = 100.0


def check_idf(owner: Any, idf: Any, n_words: int | None = None) -> None:
    """Check the parameter: "collection", None, or weights of the words."""
    if idf is None or (isinstance(idf, str) and idf == "collection"):
        return
    name = type(owner).__name__
    array = np.asarray(idf)
    if isinstance(idf, str) or array.ndim != 1 or array.dtype.kind not in "fiu":
        what = repr(idf) if isinstance(idf, str) else describe_array(array)
        raise ValueError(
            f"The 'idf' parameter of {name} must be 'collection', None or a 1-D array of weights. Got {what} instead."
        )
    if not np.all((array >= 0) & (array <= _LARGEST_IDF)):
        raise ValueError(f"The weights in the 'idf' parameter of {name} must be from 0 to {_LARGEST_IDF:g}.")
    if n_words is not None and len(array) != n_words:
        raise ValueError(f"The 'idf' parameter of {name} has {len(array)} weights, but there are {n_words} words.")


def inverse_document_frequency(segments: Sequence[PostingSegment], n_words: int) -> NDArray[np.float64]:
    """Return ln(N / N_i) of the images that can be found; 0 for words that none of them contains."""
    frequency = np.zeros(n_words, dtype=np.int64)
    for segment in segments:
        frequency[segment.postings.words] += segment.frequency
    occurs = np.flatnonzero(frequency)
    idf = np.zeros(n_words)
    idf[occurs] = np.log(sum(segment.n_live for segment in segments) / frequency[occurs])
    return idf


Norms = tuple[NDArray[np.float64], NDArray[np.float32]]


class WordWeights:
    """What scores are weighted and divided by.

    Parameters
    ----------
    weights : ndarray of shape (n_words,)
        float64, idf²: the weight of a word in a product of two images.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self._known: dict[Postings, Norms] = {}

    def norms(self, segments: Sequence[PostingSegment], n_jobs: int | None) -> list[Norms]:
        """Return √(Σ weight · value²) of the images of each segment, and its inverse for quick comparisons.

        Those of segments seen by the last call are not computed again.
        """
        known = self._known
        missing = [segment for segment in segments if segment.postings not in known]
        computed = dict(zip(missing, map_blocks(self._measure, missing, n_jobs=n_jobs), strict=True))
        norms = [known[s.postings] if s.postings in known else computed[s] for s in segments]
        self._known = {segment.postings: found for segment, found in zip(segments, norms, strict=True)}
        return norms

    def _measure(self, segment: PostingSegment) -> Norms:
        lists = segment.postings
        squares = np.zeros(BLOCK_IMAGES)
        if lists.values.ndim == 1:
            add_squares(lists.words, lists.starts, lists.images, lists.values, self.weights, squares)
        else:
            add_weights(lists.words, lists.starts, lists.images, self.weights, squares)
        norms = np.sqrt(squares[: len(segment)])
        return norms, (1.0 / np.maximum(norms, SMALLEST_NORM)).astype(np.float32)
