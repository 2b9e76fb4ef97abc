"""Descriptors with the words that they are counted for, in each of VLAD's assignments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval.codebooks import AllWords, GaussianPosteriors, NearestWord, SoftWords, gmm_parameters
from cvretrieval.codebooks.assignment import block_bounds


class DescriptorVotes(NamedTuple):
    """Descriptors and the words that they vote for.

    Attributes
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
    words : ndarray of shape (n_descriptors, n_nearest) or None
        int32, the nearest first; None if every descriptor votes for all words, in their order.
    weights : ndarray of shape (n_descriptors, n_nearest) or None
        float32; None if every vote counts 1.
    """

    descriptors: NDArray[Any]
    words: NDArray[np.int32] | None
    weights: NDArray[np.float32] | None

    def take(self, rows: Any) -> DescriptorVotes:
        """Return the votes of some descriptors: a slice or an integer array."""
        descriptors, words, weights = self
        return DescriptorVotes(
            descriptors[rows], None if words is None else words[rows], None if weights is None else weights[rows]
        )

    def best_words(self) -> NDArray[np.int32]:
        """Return the word that each descriptor votes for most, int32 of shape (n_descriptors,)."""
        return (
            self.words[:, 0].copy()
            if self.words is not None
            else np.argmax(np.asarray(self.weights), axis=1).astype(np.int32)
        )

    def blocks(self) -> Iterator[DescriptorVotes]:
        """Yield blocks that fit in cache, cut as an image's are, with descriptors in float32."""
        for start, stop in pairwise(block_bounds(len(self.descriptors))):
            votes = self.take(slice(start, stop))
            yield votes._replace(descriptors=votes.descriptors.astype(np.float32, copy=False))


#: Called with the descriptors of one image and its number, for messages; yields their votes block by block. Blocks may
#: be overwritten by the next. Keeps scratch memory, so each thread needs its own.
Voter = Callable[[NDArray[Any], int], Iterator[DescriptorVotes]]


def hard_voter(centers: NDArray[Any], owner: Any) -> Voter:
    """One vote for the nearest word."""
    nearest = NearestWord(centers, owner)

    def vote(descriptors: NDArray[Any], image: int) -> Iterator[DescriptorVotes]:
        for rows, words in nearest.blocks(descriptors, image):
            yield DescriptorVotes(rows, words[:, None], None)

    return vote


def soft_voter(centers: NDArray[Any], n_nearest: int, sigma: float, owner: Any) -> Voter:
    """Votes for the nearest words in proportion to exp(−d²/2σ²), which add up to 1."""
    if n_nearest >= len(centers):
        everything = AllWords(centers, sigma, owner)

        def vote_for_all(descriptors: NDArray[Any], image: int) -> Iterator[DescriptorVotes]:
            for rows, weights in everything.blocks(descriptors, image):
                yield DescriptorVotes(rows, None, weights.T)

        return vote_for_all
    nearest = SoftWords(centers, n_nearest, sigma, owner)

    def vote(descriptors: NDArray[Any], image: int) -> Iterator[DescriptorVotes]:
        for rows, words, weights in nearest.blocks(descriptors, image):
            yield DescriptorVotes(rows, words.T, weights.T)

    return vote


def posterior_voter(gmm: Any, owner: Any) -> Voter:
    """Votes for all components by their posterior probabilities."""
    posteriors = GaussianPosteriors(*gmm_parameters(gmm), owner)

    def vote(descriptors: NDArray[Any], image: int) -> Iterator[DescriptorVotes]:
        for block in posteriors.blocks(descriptors, image):
            yield DescriptorVotes(block.rows, None, block.posteriors.T)

    return vote
