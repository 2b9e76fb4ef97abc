"""Whitening that stays as close as possible to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from cvretrieval._parallel import single_threaded
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_number
from cvretrieval.postprocessing.projection import RELATIVE_FLOOR, project


class ZCAWhitening(SavableMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Zero-phase whitening: decorrelate features by the symmetric root of their covariance.

    Parameters
    ----------
    epsilon : float, default=0.1
        Added to the variances λ before their root is taken: directions with less are damped rather than blown up.
        The default suits `Patches`.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    explained_variance_ : ndarray of shape (n_features,)
        λ: variances along the principal directions, divided by n_samples, in decreasing order.
    components_ : ndarray of shape (n_features, n_features)
        U diag((λ + epsilon)^−½) Uᵀ, symmetric.
    n_features_in_ : int

    Notes
    -----
    x ↦ ``components_`` (x − mean). Of all whitening transforms this one changes its input least, in the mean square: a
    whitened patch still looks like the patch. Unlike `PCAWhitening` it neither reduces nor L2-normalises. Directions
    whose variance is below 1e-10 of the largest give zeros.

    References
    ----------
    .. [1] A. Bell and T. Sejnowski, "The 'independent components' of natural scenes are edge filters", Vision Research
       1997.
    .. [2] A. Coates, A. Ng and H. Lee, "An analysis of single-layer networks in unsupervised feature learning",
       AISTATS 2011, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ZCAWhitening
    >>> X = np.random.default_rng(0).normal(size=(50, 3)) @ [[3, 1, 0], [0, 2, 1], [0, 0, 1]]
    >>> Z = ZCAWhitening(epsilon=0).fit_transform(X)
    >>> np.abs(np.round(np.cov(Z.T, bias=True), 6))
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        self.epsilon = epsilon

    def fit(self, X: Any, y: Any = None) -> ZCAWhitening:
        """Learn mean and covariance from rows, (n_samples, n_features)."""
        check_number(self, "epsilon", self.epsilon, low=0)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        rows = X.astype(np.float64, copy=False)
        self.mean_ = rows.mean(axis=0)
        centred = rows - self.mean_
        with single_threaded():
            variances, directions = np.linalg.eigh(centred.T @ centred / len(rows))
            variances, directions = np.maximum(variances[::-1], 0.0), directions[:, ::-1]
            kept = variances > RELATIVE_FLOOR * max(float(variances[0]), np.finfo(np.float64).tiny)
            scale = np.zeros_like(variances)
            scale[kept] = (variances[kept] + self.epsilon) ** -0.5
            self.components_ = (directions * scale) @ directions.T
        self.explained_variance_ = variances
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Whiten rows, (n_samples, n_features)."""
        check_is_fitted(self, "components_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return project(X, self.mean_, self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
