"""The words of the descriptors of images, whatever the codebook and however it finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._validation import non_finite_descriptors
from cvretrieval.codebooks import KMeansCodebook, NearestWord, NearestWords, has_euclidean_words
from cvretrieval.feature_chunks import FeatureChunks, finite_rows
from cvretrieval.local_features import LocalFeatures

#: Beyond so many words descriptors find theirs approximately: comparing with all takes a second an image.
EXACT_WORDS = 16_384


def learn_codebook(
    n_words: int, X: FeatureChunks, max_samples: int | None, random_state: Any, *, exact: bool = False
) -> KMeansCodebook:
    """Learn a codebook by k-means, with approximate assignment beyond 16,384 words unless it must be exact."""
    assignment = "exact" if exact or n_words <= EXACT_WORDS else "approximate"
    return KMeansCodebook(n_words, assignment=assignment, max_samples=max_samples, random_state=random_state).fit(X)


class FeatureWords:
    """Finds one word of each descriptor, or several; may be shared by threads.

    Parameters
    ----------
    codebook : clusterer
        As `resolve_words` accepts it.
    n_words : int
        Its number of words.
    n_nearest : int
        Words of each descriptor, at most `n_words`.
    owner : object
        The estimator that errors name.

    Notes
    -----
    The first word is what `codebook` says: the nearest centre, or what it predicts. The others are the nearest of the
    remaining centres, so a codebook that predicts by itself needs centres to give several words: with approximate
    assignment the nearest in the cells that a descriptor looks into, else of all.
    """

    def __init__(self, codebook: Any, n_words: int, n_nearest: int, owner: Any) -> None:
        self._codebook = codebook
        self._n_words = n_words
        self._n_nearest = n_nearest
        self._owner = owner
        self._is_euclidean = has_euclidean_words(codebook)
        needs_centers = self._is_euclidean or n_nearest > 1
        self._centers = self._required_centers() if needs_centers else np.empty((0, 0), dtype=np.float32)

    def assign(self, X: LocalFeatures, block: slice) -> NDArray[np.int32]:
        """Return the words of a block of images, int32 of shape (n_descriptors, n_nearest), the nearest first."""
        if self._is_euclidean:
            return self._nearest(X, block, self._n_nearest)
        if self._n_nearest == 1:
            return self._predict(X, block)[:, None]
        near = self._in_cells(X, block)
        if near is not None and (near[:, -1] >= 0).all():
            # The nearest in the cells that the codebook looks into is what it predicts.
            return near
        first = self._predict(X, block)[:, None]
        near = self._nearest(X, block, self._n_nearest) if near is None else self._completed(near, X, block)
        others = np.argsort(near == first, axis=1, kind="stable")[:, : self._n_nearest - 1]
        return np.hstack([first, np.take_along_axis(near, others, axis=1)])

    def _in_cells(self, X: LocalFeatures, block: slice) -> NDArray[np.int32] | None:
        """Return the nearest words in the cells of approximate assignment, −1 for none; None if there are no cells."""
        search = getattr(self._codebook, "search_", self._codebook)
        if not hasattr(search, "assign_several"):
            return None
        part = X[block]
        self._check_finite(part, block)
        near: NDArray[np.int32] = search.assign_several(part, self._n_nearest, owner=self._owner)
        return near

    def _completed(self, near: NDArray[np.int32], X: LocalFeatures, block: slice) -> NDArray[np.int32]:
        """Find the words of descriptors whose cells hold too few among all."""
        every = NearestWords(self._centers, self._n_nearest, self._owner)
        start = X.offsets[block.start]
        for i in np.flatnonzero(near[:, -1] < 0):
            # One by one, so that neighbours cannot change a bit; they are few.
            near[i] = every.assign(X.descriptors[start + i : start + i + 1], block.start)[0]
        return near

    def _nearest(self, X: LocalFeatures, block: slice, n_nearest: int) -> NDArray[np.int32]:
        start = X.offsets[block.start]
        words = np.empty((X.offsets[block.stop] - start, n_nearest), dtype=np.int32)
        one = NearestWord(self._centers, self._owner) if n_nearest == 1 else None
        several = NearestWords(self._centers, n_nearest, self._owner) if n_nearest > 1 else None
        for i in range(block.start, block.stop):
            descriptors = X.descriptors[X.offsets[i] : X.offsets[i + 1]]
            rows = slice(X.offsets[i] - start, X.offsets[i + 1] - start)
            if one is not None:
                words[rows, 0] = one.assign(descriptors, i)
            elif several is not None:
                words[rows] = several.assign(descriptors, i)[0]
        return words

    def _predict(self, X: LocalFeatures, block: slice) -> NDArray[np.int32]:
        """Ask a codebook that finds words in its own way."""
        part = X[block]
        if not part.n_descriptors:
            return np.empty(0, dtype=np.int32)
        self._check_finite(part, block)
        takes_features = getattr(self._codebook, "input_kind", None) == LocalFeaturesInputMixin.input_kind
        words = np.asarray(self._codebook.predict(part if takes_features else part.descriptors))
        if words.shape != (part.n_descriptors,) or words.min() < 0 or words.max() >= self._n_words:
            raise ValueError(
                f"The codebook {type(self._codebook).__name__} given to {type(self._owner).__name__} must predict one "
                f"word from 0 to {self._n_words - 1} for each of {part.n_descriptors} descriptors. Got {words.dtype} "
                f"of shape {words.shape}{f' from {words.min()} to {words.max()}' if words.size else ''} instead."
            )
        return words.astype(np.int32, copy=False)

    def _check_finite(self, part: LocalFeatures, block: slice) -> None:
        finite = finite_rows(part.descriptors)
        if not finite.all():
            raise non_finite_descriptors(self._owner, block.start + int(part.image_index()[~finite].min()))

    def _required_centers(self) -> NDArray[Any]:
        centers = getattr(self._codebook, "cluster_centers_", None)
        if centers is None or getattr(self._codebook, "metric", "euclidean") != "euclidean":
            raise ValueError(
                f"The codebook {type(self._codebook).__name__} given to {type(self._owner).__name__} predicts one word "
                "of each descriptor and has no centres to find others by: n_query_words must be 1."
            )
        return np.ascontiguousarray(centers, dtype=np.float32)
