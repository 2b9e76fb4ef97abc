"""PCA with a free exponent of the eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted, validate_data

from cvretrieval._parallel import single_threaded
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_number
from cvretrieval.postprocessing.power_norm import l2_normalize

# Directions with less than this share of the largest variance hold rounding errors; whitening would blow them up.
_RELATIVE_FLOOR = 1e-10

# Up to here a full singular value decomposition takes seconds, and is exact.
_FULL_SVD = 1500


class PCAWhitening(SavableMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Rotate vectors to their principal directions, divide by a power of the variances, L2-normalise.

    Parameters
    ----------
    n_components : int or None, default=None
        Dimensions kept; None keeps min(n_samples, n_features).
    power : float, default=0.5
        Component i is divided by λ_i^power: 0.5 whitens, 0 is PCA alone, 0.25 lies between.
    shrinkage : float, default=0.0
        In [0, 1]: λ_i is first replaced by (1 − shrinkage) λ_i + shrinkage · mean of the kept λ; tames the noise of
        the last directions when there are few training vectors.
    norm : {"l2", None}, default="l2"
        L2-normalise each row afterwards; rows of zeros stay zero.
    random_state : int, RandomState or None, default=0
        Seed of the randomised decomposition, which is used when both n_samples and n_features exceed 1500 and few
        components are kept.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    components_ : ndarray of shape (n_components, n_features)
        Principal directions, by decreasing variance; the sign makes the largest component positive.
    explained_variance_ : ndarray of shape (n_components,)
        λ: variances along them, divided by n_samples.
    n_components_ : int
    n_features_in_ : int

    Notes
    -----
    x ↦ (Wᵀ(x − mean)) / λ^power, then L2. Directions whose variance is below 1e-10 of the largest carry only rounding
    errors and give zeros. The mean of all-zero vectors (images without features) is subtracted like any other, so such
    a row does not stay zero; `ImageRetriever` never returns such images.

    References
    ----------
    .. [1] H. Jégou and O. Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
       whitening", ECCV 2012, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import PCAWhitening
    >>> X = np.random.default_rng(0).normal(size=(50, 8)) * [9, 8, 7, 6, 5, 4, 3, 2]
    >>> Z = PCAWhitening(3, norm=None).fit_transform(X)
    >>> np.round(np.cov(Z.T, bias=True), 6) + 0.0
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        power: float = 0.5,
        shrinkage: float = 0.0,
        norm: str | None = "l2",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.power = power
        self.shrinkage = shrinkage
        self.norm = norm
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> PCAWhitening:
        """Learn mean, directions and variances from vectors, (n_samples, n_features)."""
        self._check_parameters()
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        most = min(X.shape)
        if self.n_components is not None and self.n_components > most:
            raise ValueError(
                f"n_components={self.n_components} exceeds min(n_samples, n_features) = {most}: X has {X.shape[0]} "
                f"samples of {X.shape[1]} features. Give more samples or a smaller n_components."
            )
        solver = "full" if most <= _FULL_SVD else "auto"
        pca = PCA(self.n_components, svd_solver=solver, random_state=self.random_state)
        # Identical vectors: scikit-learn divides the variances by their sum, 0, for an attribute that is not used here.
        with single_threaded(), np.errstate(invalid="ignore"):
            pca.fit(X)
        self.mean_ = pca.mean_
        self.components_ = pca.components_
        # scikit-learn divides by n − 1, the retrieval literature by n.
        self.explained_variance_ = pca.explained_variance_ * ((len(X) - 1) / len(X))
        self.n_components_ = len(self.components_)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Whiten vectors, (n_images, n_features) → (n_images, n_components)."""
        check_is_fitted(self, "components_")
        self._check_parameters()
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        directions = self.components_.astype(X.dtype, copy=False)
        centred = X - self.mean_.astype(X.dtype, copy=False)
        with single_threaded():
            # Row by row: a product over many rows may round differently from one over few, and batches must not
            # change a bit.
            Z = np.stack([directions @ row for row in centred]) if len(X) else centred @ directions.T
        Z *= self._scale().astype(X.dtype)
        return l2_normalize(Z) if self.norm == "l2" else Z

    def _scale(self) -> NDArray[np.float64]:
        """Return λ^−power after shrinkage, zero for directions without variance."""
        variances = self.explained_variance_.astype(np.float64)
        floor = _RELATIVE_FLOOR * max(float(variances.max()), np.finfo(np.float64).tiny)
        shrunk = (1 - self.shrinkage) * variances + self.shrinkage * variances.mean()
        return np.where(variances > floor, np.maximum(shrunk, floor) ** -self.power, 0.0)

    def _check_parameters(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True, optional=True)
        check_number(self, "power", self.power, low=0)
        check_number(self, "shrinkage", self.shrinkage, low=0, high=1)
        check_choice(self, "norm", self.norm, ("l2", None))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
