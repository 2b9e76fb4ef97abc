"""Positions as additional dimensions of descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._validation import check_number
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures, check_local_features
from cvretrieval.positions import relative_positions, require_geometry


class SpatialCoordinates(LocalFeaturesInputMixin, TransformerMixin, BaseEstimator):
    """Append the position in the image to every descriptor (Sánchez, Perronnin & de Campos 2012; SPAUG).

    Words then stand for an appearance at a place: an alternative to spatial pyramids that adds two dimensions.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the two coordinates, in the unit of the descriptors: the larger, the more the place decides. What 1 is
        to descriptors of unit length, such as `SIFT(root=True)`, 512 is to `SIFT` in [0, 255].

    Attributes
    ----------
    n_dims_ : int
        Dimension of the descriptors seen at fit.

    Notes
    -----
    The two last dimensions of the result are weight · ((x + ½) / width − ½) and weight · ((y + ½) / height − ½): from
    −weight/2 at the left and upper edge to weight/2 at the right and lower one, 0 in the middle. (The centre of the
    top-left pixel is (0, 0); VLFeat, which counts pixels from 1, has x / width − ½, half a pixel more.) To be placed
    after stages that change descriptors, such as PCA.

    Nothing is learned. Descriptors come back as float32, and keypoints and image sizes as they are.

    References
    ----------
    .. [1] J. Sánchez, F. Perronnin and T. de Campos, "Modeling the spatial layout of images beyond spatial pyramids",
       Pattern Recognition Letters 33, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SpatialCoordinates
    >>> image = np.ones((1, 3)), [[19.5, 19.5, 1, 0]], (40, 20)
    >>> SpatialCoordinates().fit_transform([image]).descriptors
    array([[1. , 1. , 1. , 0. , 0.5]], dtype=float32)
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def fit(self, X: Any, y: Any = None) -> SpatialCoordinates:
        """Remember the dimension of the descriptors of `X`: images with geometry, or chunks of them, LocalFeatures."""
        check_number(self, "weight", self.weight, low=0)
        X = check_feature_chunks(X, estimator=self)
        if X.container is not None:
            require_geometry(X.container, self)
        if X.is_empty:
            raise ValueError("SpatialCoordinates cannot be fitted: none of the images has any descriptor.")
        self.n_dims_ = X.n_dims
        return self

    def transform(self, X: Any) -> LocalFeatures:
        """Append the coordinates to every descriptor; return a container with the same geometry.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or keypoints or image sizes are missing.
        """
        check_is_fitted(self, "n_dims_")
        check_number(self, "weight", self.weight, low=0)
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        require_geometry(X, self)
        descriptors = np.empty((X.n_descriptors, self.n_dims_ + 2), dtype=np.float32)
        descriptors[:, :-2] = X.descriptors
        descriptors[:, -2:] = self.weight * (relative_positions(X) - 0.5)
        return X.with_descriptors(descriptors)
