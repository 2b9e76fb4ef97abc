"""Spatial pyramid around any encoder."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import hstack, issparse, vstack
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices
from cvretrieval._validation import check_choice
from cvretrieval.encoders.cells import group_by_cell
from cvretrieval.encoders.word_votes import csr
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures, check_local_features
from cvretrieval.positions import relative_positions, require_geometry

# Bounds the copies of descriptors grouped by cell.
_BLOCK_IMAGES = 256


class SpatialPyramid(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode every cell of a pyramid of grids and concatenate (Lazebnik, Schmid & Ponce 2006).

    Parameters
    ----------
    encoder : encoder
        Any stage from local features to vectors: `BagOfWords`, `VLAD`, or a pipeline that starts with one. A clone is
        fitted on the whole images and encodes every cell.
    levels : int or sequence of (n_rows, n_columns), default=3
        An integer gives the grids 1 × 1, 2 × 2, 4 × 4, … of that many levels. Or the grids themselves, such as
        ``((1, 1), (3, 1))``: the whole image, and three bands from top to bottom (VLFeat's layouts 1x1 and 3x1).
    weights : "lazebnik", sequence of float or None, default="lazebnik"
        Factor of each level's vectors. "lazebnik" is 1/2^L for level 0 and 1/2^(L − l + 1) for level l ≥ 1, where L
        is the last level; the level of a grid is its place in the sequence. None leaves them.
    norm : {"l2", "l1", None}, default="l2"
        Normalisation of the whole vector, after the weights.

    Attributes
    ----------
    encoder_ : encoder
        The fitted clone.
    n_dims_ : int
        Dimension of the descriptors.
    grids_ : tuple of (n_rows, n_columns)
        The grids.
    weights_ : ndarray of shape (n_levels,)
        float64 factors of the levels.

    Notes
    -----
    The vector is level-major, then row-major over cells: all cells of the first grid, then all of the second. Images
    need keypoints and image sizes. The centre of the top-left pixel is (0, 0), so an image covers [−½, width − ½) in x;
    a keypoint on the boundary of two cells belongs to the one right of or below it, and keypoints outside of the image
    to the nearest cell. A cell without descriptors is a block of zeros, an image without descriptors a row of zeros.

    Lazebnik's weights are meant for counts that are divided by the number of descriptors of the whole image and
    compared by histogram intersection, which carries a factor of the histograms over to the kernel. That is
    ``norm=None`` inside and ``norm="l1"`` outside, as in the example; an encoder that normalises makes all cells
    equally important, however few descriptors they hold.

    Encoders with `assign` and `pool`, such as `BagOfWords` and `VLAD`, assign each descriptor once for all levels;
    others encode the descriptors anew at every level. Threads and progress bars are those of the encoder.

    References
    ----------
    .. [1] S. Lazebnik, C. Schmid and J. Ponce, "Beyond bags of features: spatial pyramid matching for recognizing
       natural scene categories", CVPR 2006, section 3, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import BagOfWords, SpatialPyramid
    >>> rng = np.random.default_rng(0)
    >>> X = [(rng.normal(size=(50, 8)), rng.uniform(0, 63, size=(50, 4)), (64, 64)) for _ in range(4)]
    >>> pyramid = SpatialPyramid(BagOfWords(n_words=5, norm=None, random_state=0), levels=3, norm="l1")
    >>> pyramid.fit_transform(X).shape
    (4, 105)
    """

    def __init__(self, encoder: Any, levels: Any = 3, *, weights: Any = "lazebnik", norm: str | None = "l2") -> None:
        self.encoder = encoder
        self.levels = levels
        self.weights = weights
        self.norm = norm

    def fit(self, X: Any, y: Any = None) -> SpatialPyramid:
        """Fit a clone of the encoder on whole images.

        `X` is LocalFeatures, a list of tuples with keypoints and image sizes, or an iterable of LocalFeatures: chunks,
        if the encoder takes them.

        Raises
        ------
        ValueError
            If keypoints or image sizes are missing.
        """
        grids = self._check_levels()
        weights = self._check_weights(len(grids))
        check_choice(self, "norm", self.norm, ("l2", "l1", None))
        X = check_feature_chunks(X, estimator=self)
        if X.container is not None:
            require_geometry(X.container, self)
        self.encoder_ = clone(self.encoder).fit(X if X.container is None else X.container, y)
        self.n_dims_ = X.n_dims or int(getattr(self.encoder_, "n_dims_", 0))
        self.grids_ = grids
        self.weights_ = weights
        return self

    def transform(self, X: Any) -> Any:
        """Encode images.

        Parameters
        ----------
        X : LocalFeatures or list of tuples (descriptors, keypoints, (width, height))
            With descriptors of the dimension seen at fit.

        Returns
        -------
        ndarray or CSR matrix of shape (n_images, n_cells * n_encoder_features)
            As the encoder returns; n_cells counts the cells of all grids.
        """
        check_is_fitted(self, "encoder_")
        check_choice(self, "norm", self.norm, ("l2", "l1", None))
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        require_geometry(X, self)
        blocks = block_slices(len(X), _BLOCK_IMAGES) or [slice(0, 0)]
        parts = [self._encode(X[block]) for block in blocks]
        vectors = vstack(parts, format="csr") if issparse(parts[0]) else np.concatenate(parts)
        if self.norm is not None and len(X):
            vectors = normalize(vectors, norm=self.norm, copy=False)
        return vectors

    def _encode(self, X: LocalFeatures) -> Any:
        positions, images = relative_positions(X), X.image_index()
        votes = self.encoder_.assign(X) if hasattr(self.encoder_, "assign") else None
        levels = []
        for grid, weight in zip(self.grids_, self.weights_, strict=True):
            rows: Any
            if tuple(grid) == (1, 1):
                rows, offsets = slice(None), X.offsets
            else:
                rows, offsets = group_by_cell(positions, images, len(X), grid)
            if votes is not None:
                cells = self.encoder_.pool(votes.take(rows), offsets)
            else:
                cells = self.encoder_.transform(_regroup(X, rows, offsets))
            levels.append(_side_by_side(cells, grid[0] * grid[1], weight))
        return hstack(levels, format="csr") if issparse(levels[0]) else np.concatenate(levels, axis=1)

    def _check_levels(self) -> tuple[tuple[int, int], ...]:
        levels = self.levels
        if _is_count(levels):
            return tuple((2**level, 2**level) for level in range(levels))
        grids = tuple(tuple(grid) if _is_sequence(grid) else () for grid in levels) if _is_sequence(levels) else ()
        if not grids or not all(len(grid) == 2 and all(_is_count(side) for side in grid) for grid in grids):
            raise ValueError(
                "The 'levels' parameter of SpatialPyramid must be a positive integer or a sequence of grids "
                f"(n_rows, n_columns), such as ((1, 1), (3, 1)). Got {levels!r} instead."
            )
        return tuple((int(grid[0]), int(grid[1])) for grid in grids)

    def _check_weights(self, n_levels: int) -> NDArray[np.float64]:
        weights = self.weights
        if weights is None:
            return np.ones(n_levels)
        if isinstance(weights, str) and weights == "lazebnik":
            last = n_levels - 1
            return np.array([0.5**last, *(0.5 ** (last - level + 1) for level in range(1, n_levels))])
        if _is_sequence(weights) and len(weights) == n_levels and all(_is_finite_number(weight) for weight in weights):
            return np.array([float(weight) for weight in weights])
        raise ValueError(
            f"The 'weights' parameter of SpatialPyramid must be 'lazebnik', None or one number for each of {n_levels} "
            f"levels. Got {weights!r} instead."
        )

    @property
    def _n_features_out(self) -> int:
        n_cells = sum(n_rows * n_columns for n_rows, n_columns in self.grids_)
        return n_cells * len(self.encoder_.get_feature_names_out())


def _regroup(X: LocalFeatures, rows: Any, offsets: NDArray[np.int64]) -> LocalFeatures:
    """Return the cells as if they were images; geometry stays that of the whole image."""
    if isinstance(rows, slice):
        return X
    keypoints = None if X.keypoints is None else X.keypoints[rows]
    sizes = None if X.image_sizes is None else np.repeat(X.image_sizes, (len(offsets) - 1) // max(len(X), 1), axis=0)
    return LocalFeatures(X.descriptors[rows], offsets, keypoints, sizes)


def _side_by_side(cells: Any, n_cells: int, weight: float) -> Any:
    """Put the vectors of the `n_cells` cells of each image side by side and multiply by the weight of their level."""
    n_images, n_features = cells.shape[0] // n_cells, cells.shape[1]
    if not issparse(cells):
        return np.asarray(cells).reshape(n_images, n_cells * n_features) * np.asarray(weight, cells.dtype)
    cells = cells.tocsr()
    shift = np.repeat(np.arange(cells.shape[0]) % n_cells * n_features, np.diff(cells.indptr))
    data = cells.data * np.asarray(weight, cells.dtype)
    return csr(data, cells.indices + shift, cells.indptr[::n_cells], (n_images, n_cells * n_features))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict, set)) and hasattr(value, "__len__")


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)) and int(value) >= 1


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(float(value))
