"""What encoders to `VisualWords` share: the codebook, and one word for images, several for queries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_number, dimension_mismatch
from cvretrieval.codebooks import resolve_words
from cvretrieval.encoders.feature_words import FeatureWords, learn_codebook
from cvretrieval.feature_chunks import FeatureChunks
from cvretrieval.local_features import LocalFeatures, check_local_features
from cvretrieval.visual_words import VisualWords

_BLOCK_IMAGES = 32


class VisualWordEncoder(LocalFeaturesInputMixin, TransformerMixin, BaseEstimator):
    """Base of `HammingEmbedding` and `ASMK`: local features → `VisualWords`."""

    output_kind = "words"

    n_words: int
    codebook: Any
    n_query_words: int
    max_samples: int | None
    n_jobs: int | None
    random_state: Any
    verbose: bool | int

    def transform(self, X: Any) -> VisualWords:
        """Encode the images of a collection: one word for each feature.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            With descriptors of the dimension seen at fit.

        Returns
        -------
        VisualWords
            One entry per image.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        return self._encode(X, 1)

    def transform_queries(self, X: Any) -> VisualWords:
        """Encode queries: `n_query_words` words for each feature (multiple assignment); else as `transform`.

        `ImageRetriever` calls this for queries and `transform` for the images it holds.
        """
        return self._encode(X, int(self.n_query_words))

    def _encode_block(self, X: LocalFeatures, block: slice, words: NDArray[np.int32]) -> VisualWords:
        """Encode a block of images, given the words of its descriptors, (n_descriptors, n_nearest)."""
        raise NotImplementedError

    def _encode(self, X: Any, n_nearest: int) -> VisualWords:
        check_is_fitted(self, "codebook_")
        self._check_parameters()
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        words = FeatureWords(self.codebook_, self.n_words_, min(n_nearest, self.n_words_), self)
        # Without images an empty block says of which kind they would be.
        blocks = block_slices(len(X), _BLOCK_IMAGES) or [slice(0, 0)]

        def encode(block: slice) -> VisualWords:
            return self._encode_block(X, block, words.assign(X, block))

        parts = map_blocks(
            encode,
            blocks,
            n_jobs=self.n_jobs,
            weights=[block.stop - block.start for block in blocks],
            description=type(self).__name__,
            verbose=self.verbose,
        )
        return VisualWords.concatenate(list(parts))

    def _fit_codebook(self, X: FeatureChunks) -> None:
        """Learn the codebook, or take the given one."""
        name = type(self).__name__
        if X.is_empty and self.codebook is None:
            raise ValueError(f"{name} cannot be fitted: none of the images has any descriptor.")
        if self.codebook is None:
            self.codebook_ = learn_codebook(int(self.n_words), X, self.max_samples, self.random_state)
            self.n_words_, self.n_dims_ = int(self.n_words), X.n_dims
            return
        self.n_words_, n_dims = resolve_words(self.codebook, self)
        self.codebook_ = self.codebook
        if n_dims is not None and not X.is_empty and X.n_dims != n_dims:
            raise dimension_mismatch(f"the codebook of {name}", X.n_dims, n_dims)
        self.n_dims_ = X.n_dims if n_dims is None else n_dims

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_number(self, "n_query_words", self.n_query_words, low=1, integer=True)
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        if getattr(self.codebook, "metric", "euclidean") != "euclidean":
            raise ValueError(
                f"{type(self).__name__} compares descriptors as vectors, but the codebook "
                f"{type(self.codebook).__name__} given to it has the distance {self.codebook.metric!r}. Binary "
                "descriptors can be searched as bags of words."
            )

    def __sklearn_clone__(self) -> Any:
        copy = super().__sklearn_clone__()
        # scikit-learn would clone the codebook as well, and a clone is not fitted.
        copy.codebook = self.codebook
        return copy


def group_by_word(
    words: NDArray[np.int32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Order the entries of images by word.

    Parameters
    ----------
    words : ndarray of shape (n_entries,)
    offsets : ndarray of shape (n_images + 1,)

    Returns
    -------
    order : ndarray of shape (n_entries,)
        Entries by image and word; those of one word stay in their order.
    bounds : ndarray of shape (n_groups + 1,)
        Where the groups of one image and word begin in `order`.
    group_offsets : ndarray of shape (n_images + 1,)
        The groups of each image.
    """
    images = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((words, images))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (np.diff(words[order]) != 0) | (np.diff(images) != 0)
    starts = np.flatnonzero(is_first)
    bounds = np.append(starts, len(order)).astype(np.int64)
    return order, bounds, np.searchsorted(starts, offsets).astype(np.int64)
