"""Searching posting lists: the words of each query, segment by segment, and a running top-k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.posting_scores import (
    BLOCK_IMAGES,
    MARKED_IMAGES,
    count_votes,
    fetch_lists,
    find_lists,
    offer_scores,
    score_products,
    score_residuals,
    score_signatures,
)
from cvretrieval._kernels.top_k import NO_KEY, sort_top_k
from cvretrieval.index.posting_segments import PostingSegment
from cvretrieval.index.sparse_checks import WordRows
from cvretrieval.index.word_weights import Norms

# Queries times images for which it is worth starting a thread.
_WORK_PER_TASK = 200_000


@dataclass(frozen=True)
class WordSimilarity:
    """How two signatures of one word compare.

    Attributes
    ----------
    by_distance : ndarray of shape (n_bits + 1,) or None
        float64, similarity by Hamming distance, for binary signatures.
    alpha, threshold : float
        σ(u) = u^α from τ on, for residuals.
    intra, inter : bool
        Divide by the square root of the number of matches that an entry of the query has in the image, or in all
        images.
    """

    by_distance: NDArray[np.float64] | None = None
    alpha: float = 1.0
    threshold: float = 0.0
    intra: bool = False
    inter: bool = False


@dataclass(frozen=True)
class PostingSearch:
    """Everything a task needs, and its own part: some queries in some segments.

    Attributes
    ----------
    segments : sequence of PostingSegment
    keys : sequence of ndarray
        For each segment the keys of its images; -1 for those that must not be found.
    queries : WordRows
    weights : ndarray of shape (n_words,)
        float64 weights of the words.
    norms : sequence or None
        For each segment the norms of its images and their inverses; None if scores are not normalised.
    similarity : WordSimilarity
    k : int
    """

    segments: Sequence[PostingSegment]
    keys: Sequence[NDArray[np.int64]]
    queries: WordRows
    weights: NDArray[np.float64]
    norms: Sequence[Norms] | None
    similarity: WordSimilarity
    k: int

    def tasks(self, n_jobs: int) -> list[tuple[slice, slice]]:
        """Cut the work for some threads: queries first; then segments."""
        n_queries, n_segments = len(self.queries), len(self.segments)
        work = n_queries * sum(len(segment) for segment in self.segments)
        n_tasks = max(1, min(n_jobs, work // _WORK_PER_TASK))
        n_parts = min(n_tasks, n_queries)
        n_ranges = max(1, min(-(-n_tasks // n_parts), n_segments))
        return [(q, s) for q in _even_slices(n_queries, n_parts) for s in _even_slices(n_segments, n_ranges)]

    def run(self, task: tuple[slice, slice]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ranked keys and scores (n_queries, k) of a range of queries within a range of segments."""
        numbers = range(task[0].start, task[0].stop)
        top_scores = np.full((len(numbers), self.k), -np.inf, dtype=np.float32)
        top_keys = np.full((len(numbers), self.k), NO_KEY, dtype=np.int64)
        scores = np.zeros(BLOCK_IMAGES, dtype=np.float32)
        marks = np.zeros(BLOCK_IMAGES // MARKED_IMAGES, dtype=np.uint8)
        queries = [self._weighted(number) for number in numbers]
        for number in range(task[1].start, task[1].stop):
            segment, keys = self.segments[number], self.keys[number]
            norms, inverse_norms = _ones(len(keys)) if self.norms is None else self.norms[number]
            for row, (words, values, weights, norm) in enumerate(queries):
                self._score(segment, words, values, weights, scores, marks)
                offer_scores(scores, marks, keys, norms, inverse_norms, norm, top_scores[row], top_keys[row])
        sort_top_k(top_scores, top_keys)
        return top_keys, top_scores

    def _score(
        self,
        segment: PostingSegment,
        words: NDArray[np.int32],
        values: NDArray[np.float32] | NDArray[np.uint64],
        weights: NDArray[np.float32],
        scores: NDArray[np.float32],
        marks: NDArray[np.uint8],
    ) -> None:
        lists = segment.postings
        places = np.empty(len(words), dtype=np.int64)
        find_lists(words, lists.words, places)
        fetch_lists(places, lists.starts, lists.images, lists.values.reshape(-1))
        postings = (lists.starts, lists.images, lists.values)
        similarity = self.similarity
        if values.ndim == 1:
            score_products(places, weights, *postings, scores, marks)
        elif similarity.by_distance is not None:
            score_signatures(
                places, values, weights, *postings, similarity.by_distance, similarity.intra, scores, marks
            )
        else:
            score_residuals(places, values, weights, *postings, similarity.alpha, similarity.threshold, scores, marks)

    def _weighted(
        self, number: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | NDArray[np.uint64], NDArray[np.float32], float]:
        """Return words, values, weights and norm of a query."""
        rows = slice(self.queries.offsets[number], self.queries.offsets[number + 1])
        words, values = self.queries.words[rows], self.queries.values[rows]
        weights = self.weights[words]
        counts = values.astype(np.float64) if values.ndim == 1 else np.ones(len(words))
        norm = float(np.sqrt(np.sum(weights * counts * counts))) if self.norms is not None else 1.0
        weights = weights * counts
        if self.similarity.inter:
            weights = weights / np.sqrt(np.maximum(self._votes(words, values), 1))
        return words, values, weights.astype(np.float32), norm

    def _votes(self, words: NDArray[np.int32], values: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Count the matches of each entry of a query in all images that were not removed."""
        votes = np.zeros(len(words), dtype=np.int64)
        for segment in self.segments:
            lists = segment.postings
            places = np.empty(len(words), dtype=np.int64)
            find_lists(words, lists.words, places)
            count_votes(places, values, lists.starts, lists.images, lists.values, segment.keys,
                        self.similarity.by_distance, votes)  # fmt: skip
        return votes


def _ones(n_images: int) -> Norms:
    return np.ones(n_images), np.ones(n_images, dtype=np.float32)


def _even_slices(n_items: int, n_parts: int) -> list[slice]:
    bounds = [n_items * part // n_parts for part in range(n_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
