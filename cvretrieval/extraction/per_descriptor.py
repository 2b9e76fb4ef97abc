"""Any 2-D scikit-learn transformer, applied to every descriptor."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._validation import check_number, dimension_mismatch
from cvretrieval.local_features import LocalFeatures, check_local_features


class PerDescriptor(LocalFeaturesInputMixin, TransformerMixin, BaseEstimator):
    """Apply a transformer of rows, such as PCA, to the descriptors of all images and keep their geometry.

    Parameters
    ----------
    estimator : scikit-learn transformer
        Cloned and fitted on descriptors, e.g. ``PCA(64)``.
    max_samples : int or None, default=200000
        Fit on at most so many descriptors, drawn without replacement; None takes all.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Attributes
    ----------
    estimator_ : transformer
        The fitted clone.
    n_dims_ : int
        Dimension of the descriptors seen at fit.

    Notes
    -----
    Descriptors are passed as float32 and come back as float32. Images without features keep having none.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from cvretrieval import LocalFeatures, PerDescriptor
    >>> X = LocalFeatures.from_images(list(np.random.default_rng(0).normal(size=(3, 50, 16))))
    >>> PerDescriptor(PCA(4)).fit_transform(X).n_dims
    4
    """

    def __init__(self, estimator: Any, *, max_samples: int | None = 200_000, random_state: Any = None) -> None:
        self.estimator = estimator
        self.max_samples = max_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> PerDescriptor:
        """Fit the transformer on the descriptors of `X` (LocalFeatures or a list of 2-D arrays)."""
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        X = check_local_features(X, estimator=self)
        if X.n_descriptors == 0:
            raise ValueError("PerDescriptor cannot be fitted: none of the images has any descriptor.")
        rows: Any = slice(None)
        if self.max_samples is not None and X.n_descriptors > self.max_samples:
            random_state = check_random_state(self.random_state)
            rows = np.sort(random_state.choice(X.n_descriptors, self.max_samples, replace=False))
        self.n_dims_ = X.n_dims
        self.estimator_ = clone(self.estimator).fit(X.descriptors[rows].astype(np.float32))
        return self

    def transform(self, X: Any) -> LocalFeatures:
        """Transform every descriptor; return a container with the same geometry."""
        check_is_fitted(self, "estimator_")
        X = check_local_features(X, estimator=self)
        if X.n_descriptors == 0:
            return X.with_descriptors(np.empty((0, self._n_dims_out()), dtype=np.float32))
        if X.n_dims != self.n_dims_:
            raise dimension_mismatch("PerDescriptor", X.n_dims, self.n_dims_)
        transformed = self.estimator_.transform(X.descriptors.astype(np.float32, copy=False))
        return X.with_descriptors(np.asarray(transformed, dtype=np.float32))

    def _n_dims_out(self) -> int:
        return int(self.estimator_.transform(np.zeros((1, self.n_dims_), dtype=np.float32)).shape[1])
