"""What flows through a chain of rerankers: queries with their ranked lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.local_features import ImageFeatures, LocalFeatures


@dataclass(frozen=True, eq=False)
class VerifiedMatches:
    """What geometric verification found out about the queries, for expansion by local features.

    Attributes
    ----------
    queries : sequence of ImageFeatures or None
        The features of each query; None for a query without any.
    results : sequence of mapping
        For each query the number of each verified image → its `ImageFeatures` and the `Verification` of the pair,
        whose transform maps from the query to the image.
    encode : callable
        `LocalFeatures` → vectors (n_images, n_dims): the encoder that the vectors of the database are from.
    """

    queries: Sequence[ImageFeatures | None]
    results: Sequence[Mapping[int, tuple[ImageFeatures, Any]]]
    encode: Callable[[LocalFeatures], NDArray[np.float32]]

    def mask(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark which images of the ranked lists (n_queries, depth) were accepted."""
        mask = np.zeros(indices.shape, dtype=np.bool_)
        for i, (row, results) in enumerate(zip(indices, self.results, strict=True)):
            mask[i] = [int(index) in results and bool(results[int(index)][1]) for index in row]
        return mask

    def take(self, rows: NDArray[np.int64]) -> VerifiedMatches:
        """Return what is known of some of the queries."""
        return VerifiedMatches([self.queries[i] for i in rows], [self.results[i] for i in rows], self.encode)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Some queries, and for each a ranked list.

    Attributes
    ----------
    queries : ndarray of shape (n_queries, n_dims)
        float32, of norm 1.
    indices : ndarray of shape (n_queries, depth)
        int64 numbers of images, best first; -1 behind the last.
    scores : ndarray of shape (n_queries, depth)
        float64, decreasing; −inf behind the last.
    within : ndarray or None
        The only images that may be found.
    verified : ndarray of shape (n_queries, depth) or None
        Which images of the lists show the same thing for sure.
    matches : VerifiedMatches or None
    """

    queries: NDArray[np.float32]
    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    within: NDArray[np.int64] | None = None
    verified: NDArray[np.bool_] | None = None
    matches: VerifiedMatches | None = None

    @property
    def depth(self) -> int:
        return int(self.indices.shape[1])

    def reordered(self, indices: NDArray[np.int64], scores: NDArray[Any]) -> Ranking:
        """Return other lists for the same queries; `verified` follows its images."""
        verified = self.verified
        if verified is not None:
            rows = zip(indices, self.indices, verified, strict=True)
            verified = np.stack([np.isin(new, old[known & (old >= 0)]) for new, old, known in rows])
        return replace(self, indices=indices, scores=np.asarray(scores, dtype=np.float64), verified=verified)

    def cut(self, k: int) -> Ranking:
        """Return lists of length k: cut off, or padded."""
        indices = np.full((len(self.indices), k), -1, dtype=np.int64)
        scores = np.full((len(self.indices), k), -np.inf)
        width = min(k, self.depth)
        indices[:, :width], scores[:, :width] = self.indices[:, :width], self.scores[:, :width]
        return self.reordered(indices, scores)
