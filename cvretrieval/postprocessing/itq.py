"""Binarisation: vectors as bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from cvretrieval._parallel import single_threaded
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_number
from cvretrieval.postprocessing.projection import project
from cvretrieval.postprocessing.whitening import PCAWhitening


class ITQ(SavableMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Vectors to bits: the signs of rotated principal components (iterative quantisation, Gong & Lazebnik 2011).

    Parameters
    ----------
    n_bits : int or None, default=None
        Bits of a code, at most min(n_samples, n_features), which None takes.
    rotation : {"itq", "random", None}, default="itq"
        Of the principal components before their signs are taken: learned, so that components lie near ±1; random; or
        none, which gives components of little variance as much weight as the others.
    max_iter : int, default=50
        Iterations of the learned rotation.
    max_samples : int or None, default=65536
        Vectors that the rotation is learned from, at most, drawn without replacement.
    random_state : int, RandomState or None, default=None
        Seed of the rotation and the sample.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    hyperplanes_ : ndarray of shape (n_bits, n_features)
        Bit b of x is ⟨``hyperplanes_[b]``, x − ``mean_``⟩ ≥ 0.
    error_ : float
        Mean of ‖sign(z) − z / s‖² over the sample and the bits, z the rotated components and s their root mean square;
        2 − 2 √(2/π) = 0.404 if they are normally distributed with equal variances.
    n_iter_ : int
        Iterations of the learned rotation; else 1.
    n_features_in_ : int

    Notes
    -----
    Codes are bytes of eight bits in numpy's order (``numpy.unpackbits``); missing bits of the last byte are zero.
    `BinaryIndex` searches them. The learned rotation makes ‖sign(V R) − V R‖² small, V the components: in turn the
    signs B, and R = U Wᵀ of the singular value decomposition Vᵀ B = U S Wᵀ.

    References
    ----------
    .. [1] Y. Gong and S. Lazebnik, "Iterative quantization: a procrustean approach to learning binary codes", CVPR
       2011.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ITQ
    >>> X = np.random.default_rng(0).normal(size=(100, 32))
    >>> codes = ITQ(n_bits=20, random_state=0).fit_transform(X)
    >>> codes.shape, codes.dtype
    ((100, 3), dtype('uint8'))
    """

    def __init__(
        self,
        n_bits: int | None = None,
        *,
        rotation: str | None = "itq",
        max_iter: int = 50,
        max_samples: int | None = 65_536,
        random_state: Any = None,
    ) -> None:
        self.n_bits = n_bits
        self.rotation = rotation
        self.max_iter = max_iter
        self.max_samples = max_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ITQ:
        """Learn mean, directions and rotation from vectors, (n_samples, n_features)."""
        check_number(self, "n_bits", self.n_bits, low=1, integer=True, optional=True)
        check_choice(self, "rotation", self.rotation, ("itq", "random", None))
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if self.n_bits is not None and self.n_bits > min(X.shape):
            raise ValueError(
                f"n_bits={self.n_bits} of ITQ is more than min(n_samples, n_features): X has n_samples={len(X)} and "
                f"n_features={X.shape[1]}. Use at most {min(X.shape)} bits."
            )
        random_state = check_random_state(self.random_state)
        pca = PCAWhitening(self.n_bits, power=0, norm=None, random_state=random_state.randint(2**31 - 1)).fit(X)
        if self.max_samples is not None and len(X) > self.max_samples:
            X = X[np.sort(random_state.choice(len(X), int(self.max_samples), replace=False))]
        components = project(X, pca.mean_, pca.components_).astype(np.float64)
        rotation = np.eye(components.shape[1])
        if self.rotation is not None:
            rotation = _random_rotation(components.shape[1], random_state)
        if self.rotation == "itq":
            rotation = _learned_rotation(components, rotation, int(self.max_iter))
        with single_threaded():
            rotated = components @ rotation
            self.hyperplanes_ = (rotation.T @ pca.components_).astype(X.dtype)
        self.n_iter_ = int(self.max_iter) if self.rotation == "itq" else 1
        self.mean_ = pca.mean_.astype(X.dtype, copy=False)
        scale = np.sqrt(np.mean(rotated**2))
        self.error_ = float(np.mean((_signs(rotated) - rotated / (scale if scale > 0 else 1.0)) ** 2))
        return self

    def transform(self, X: Any) -> NDArray[np.uint8]:
        """Return codes, uint8 of shape (n_samples, ceil(n_bits / 8)), of vectors (n_samples, n_features)."""
        check_is_fitted(self, "hyperplanes_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.packbits(project(X, self.mean_, self.hyperplanes_) >= 0, axis=1)

    @property
    def _n_features_out(self) -> int:
        return -(-len(self.hyperplanes_) // 8)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values >= 0, 1.0, -1.0)


def _random_rotation(n_dims: int, random_state: np.random.RandomState) -> NDArray[np.float64]:
    """Return a random orthogonal matrix."""
    with single_threaded():
        orthogonal, triangle = np.linalg.qr(random_state.normal(size=(n_dims, n_dims)))
    return np.asarray(orthogonal * np.sign(np.diag(triangle)))


def _learned_rotation(
    components: NDArray[np.float64], rotation: NDArray[np.float64], max_iter: int
) -> NDArray[np.float64]:
    """Return the rotation that brings components near their signs, on one scale."""
    with single_threaded():
        for _ in range(max_iter):
            left, _, right = np.linalg.svd(components.T @ _signs(components @ rotation))
            rotation = left @ right
    return rotation
