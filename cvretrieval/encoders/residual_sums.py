"""Sums of residuals per word, from votes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.mixture_statistics import add_posteriors
from cvretrieval._kernels.vlad import (
    aggregate_residuals,
    aggregate_unit_residuals,
    aggregate_weighted_residuals,
    aggregate_weighted_unit_residuals,
)
from cvretrieval.codebooks.assignment import BLOCK
from cvretrieval.encoders.descriptor_votes import DescriptorVotes

# A difference this much smaller than its terms has lost as much of their float32 precision, 1e-7 or so.
_CANCELLATION = 64.0


class ResidualSums:
    """Adds up Σ q_ik (x_i − c_k), or residuals of unit length, and masses Σ q_ik.

    Parameters
    ----------
    centers : ndarray of shape (n_words, n_dims)
        c_k.
    unit : bool
        Whether each residual is divided by its norm.

    Notes
    -----
    Votes for few words are added residual by residual. Votes for all words are a matrix product,
    Σ q_ik (x_i − m) − (Σ q_ik) (c_k − m) with m the mean of the words; where this difference is much smaller than its
    terms, as for descriptors that are all but equal to a word, the residuals are added one by one after all.
    """

    def __init__(self, centers: NDArray[Any], unit: bool) -> None:
        self._centers = np.ascontiguousarray(centers, dtype=np.float32)
        self._unit = unit
        self._origin = self._centers.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._shifted = self._centers.astype(np.float64) - self._origin
        self._distances = np.sqrt((self._shifted**2).sum(axis=1))
        self._rows = np.empty((BLOCK, self._centers.shape[1]), dtype=np.float32)

    def add(self, votes: DescriptorVotes, sums: NDArray[np.float32], masses: NDArray[np.float64]) -> None:
        """Add a block of votes.

        Parameters
        ----------
        votes : DescriptorVotes
            With descriptors in float32.
        sums : ndarray of shape (n_words, n_dims)
            Added to.
        masses : ndarray of shape (n_words,)
            Added to.
        """
        rows, words, weights = votes
        if words is None:
            self._add_all(rows, np.asarray(weights).T, sums, masses)
        elif weights is None:
            aggregate = aggregate_unit_residuals if self._unit else aggregate_residuals
            aggregate(rows, np.ascontiguousarray(words[:, 0]), self._centers, sums, masses)
        else:
            self._add_one_by_one(rows, words.T, weights.T, sums, masses)

    def _add_all(self, rows: NDArray[Any], weights: NDArray[Any], sums: NDArray[Any], masses: NDArray[Any]) -> None:
        everything = np.arange(len(weights), dtype=np.int32)
        if self._unit:
            self._add_one_by_one(rows, _repeat(everything, rows), weights, sums, masses)
            return
        block_masses = np.zeros_like(masses)
        add_posteriors(np.ascontiguousarray(weights), block_masses)
        np.subtract(rows, self._origin, out=self._rows[: len(rows)])
        differences = weights @ self._rows[: len(rows)] - block_masses[:, None] * self._shifted
        lost = np.sqrt((differences**2).sum(axis=1)) * _CANCELLATION < block_masses * self._distances
        differences[lost] = 0
        sums += differences
        masses += block_masses
        if lost.any():
            few = everything[lost]
            self._add_one_by_one(rows, _repeat(few, rows), weights[lost], sums, np.empty_like(masses))

    def _add_one_by_one(
        self, rows: NDArray[Any], words: NDArray[Any], weights: NDArray[Any], sums: NDArray[Any], masses: NDArray[Any]
    ) -> None:
        aggregate = aggregate_weighted_unit_residuals if self._unit else aggregate_weighted_residuals
        # Contiguous, so that there is one compiled variant, whichever way the votes lie.
        aggregate(rows, np.ascontiguousarray(words), np.ascontiguousarray(weights), self._centers, sums, masses)


def _repeat(words: NDArray[np.int32], rows: NDArray[Any]) -> NDArray[np.int32]:
    return np.repeat(words[:, None], len(rows), axis=1)
