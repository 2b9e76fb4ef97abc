"""Signed power and L2 normalisation of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, validate_data

from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_number

#: Smallest norm that is divided by; below it a row counts as zero and stays so.
SMALLEST_NORM = 1e-12


class PowerNormalizer(SavableMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Signed power normalisation, then L2 (Perronnin et al. 2010).

    Parameters
    ----------
    power : float, default=0.5
        Every component z becomes sign(z)|z|^power; 0.5 is the signed square root, 1 leaves the values.
    norm : {"l2", None}, default="l2"
        L2-normalise each row afterwards; rows of zeros stay zero.

    Attributes
    ----------
    n_features_in_ : int
        Length of the vectors seen at fit.

    Notes
    -----
    Nothing is learned. float32 stays float32, CSR stays CSR. On histograms the defaults are the Hellinger map: square
    root, then L2, so that inner products are Hellinger kernels of the L1-normalised histograms.

    References
    ----------
    .. [1] F. Perronnin, J. Sánchez and T. Mensink, "Improving the Fisher kernel for large-scale image
       classification", ECCV 2010, section 3.2.

    Examples
    --------
    >>> from cvretrieval import PowerNormalizer
    >>> PowerNormalizer(norm=None).fit_transform([[4.0, -9.0, 0.0]])
    array([[ 2., -3.,  0.]])
    """

    def __init__(self, power: float = 0.5, *, norm: str | None = "l2") -> None:
        self.power = power
        self.norm = norm

    def fit(self, X: Any, y: Any = None) -> PowerNormalizer:
        """Check parameters and input; nothing is learned."""
        self._check_parameters()
        validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32])
        return self

    def transform(self, X: Any) -> Any:
        """Normalise vectors, (n_images, n_features), dense or sparse."""
        check_is_fitted(self)
        self._check_parameters()
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        if issparse(X):
            # Zeros stay zeros under every power.
            powered = X.copy()
            powered.data = self._power(X.data)
            return normalize(powered, copy=False) if self.norm == "l2" else powered
        powered = self._power(X)
        return l2_normalize(powered) if self.norm == "l2" else powered

    def _power(self, values: NDArray[Any]) -> NDArray[Any]:
        powered = np.sqrt(np.abs(values)) if self.power == 0.5 else np.abs(values) ** values.dtype.type(self.power)
        return np.copysign(powered, values)

    def _check_parameters(self) -> None:
        check_number(self, "power", self.power, low=0, low_open=True)
        check_choice(self, "norm", self.norm, ("l2", None))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def l2_normalize(X: NDArray[Any]) -> NDArray[Any]:
    """Divide each row by its L2 norm, in place; rows of (almost) zeros stay as they are."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    X /= np.where(norms > SMALLEST_NORM, norms, 1).astype(X.dtype, copy=False)
    return X
