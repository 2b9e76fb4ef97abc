"""Any 2-D scikit-learn transformer, applied to every descriptor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import single_threaded
from cvretrieval._validation import check_number, describe_array, dimension_mismatch
from cvretrieval.feature_chunks import sample_descriptors
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
    Descriptors are passed as float32, image by image, and come back as float32: a matrix product over the rows of many
    images rounds differently from one over few, and batches must not change a bit. Images without features keep having
    none.

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
        """Fit the transformer on the descriptors of `X`.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        """
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        rows = sample_descriptors(X, self.max_samples, check_random_state(self.random_state), estimator=self)
        self.n_dims_ = rows.shape[1]
        self.estimator_ = clone(self.estimator).fit(rows.astype(np.float32))
        return self

    def transform(self, X: Any) -> LocalFeatures:
        """Transform every descriptor; return a container with the same geometry."""
        check_is_fitted(self, "estimator_")
        X = check_local_features(X, estimator=self)
        if X.n_descriptors == 0:
            return X.with_descriptors(np.empty((0, self._n_dims_out()), dtype=np.float32))
        if X.n_dims != self.n_dims_:
            raise dimension_mismatch("PerDescriptor", X.n_dims, self.n_dims_)
        with single_threaded():
            parts = [self._transform_rows(image.descriptors) for image in X if len(image.descriptors)]
        return X.with_descriptors(np.concatenate(parts))

    def _transform_rows(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        transformed = np.asarray(self.estimator_.transform(descriptors.astype(np.float32, copy=False)))
        if transformed.ndim != 2 or len(transformed) != len(descriptors):
            raise ValueError(
                f"The 'estimator' parameter of PerDescriptor must turn each row into one row. "
                f"{type(self.estimator_).__name__} turned {len(descriptors)} rows into "
                f"{describe_array(transformed)}."
            )
        return transformed.astype(np.float32, copy=False)

    def _n_dims_out(self) -> int:
        return self._transform_rows(np.zeros((1, self.n_dims_), dtype=np.float32)).shape[1]
