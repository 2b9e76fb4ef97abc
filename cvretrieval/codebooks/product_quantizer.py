"""Product quantisation: vectors as a few bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval._saving import SavableMixin
from cvretrieval._spread import Threads
from cvretrieval._validation import check_choice, check_number
from cvretrieval.codebooks.assignment import NearestWord
from cvretrieval.codebooks.lloyd import KMeansResult, lloyd, start_of_lloyd
from cvretrieval.codebooks.optimized_rotation import optimized_rotation, random_rotation

# Vectors coded by one task.
_BLOCK_ROWS = 8192


class ProductQuantizer(SavableMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Product quantisation (PQ): a vector is cut into sub-vectors, and each becomes the number of its nearest codeword.

    Parameters
    ----------
    n_subvectors : int, default=16
        Sub-vectors, and so bytes of a code; at most n_features. Their lengths differ by one at most.
    n_codewords : int, default=256
        Codewords of each sub-vector, from 2 to 256.
    rotation : {None, "random", "opq"}, default=None
        What is done before the vector is cut: nothing; a random rotation, which spreads the variance evenly and should
        follow PCA, where the first sub-vectors would hold nearly all of it; or the rotation learned by optimised
        product quantisation (OPQ), the best and the slowest.
    max_samples : int or None, default=65536
        At most so many vectors are used to learn, drawn without replacement; None takes all.
    max_iter : int, default=25
        Iterations of k-means.
    n_jobs : int, optional
        Threads over sub-vectors at fit, and over vectors; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the sample, the rotation and the starts of k-means.

    Attributes
    ----------
    codewords_ : ndarray of shape (n_codewords, n_features)
        float32. Codeword c of sub-vector m is ``codewords_[c, bounds_[m]:bounds_[m + 1]]``.
    bounds_ : ndarray of shape (n_subvectors + 1,)
        int64.
    rotation_ : ndarray of shape (n_features, n_features)
        Orthogonal; ``x @ rotation_`` is what is cut. Only if `rotation` is not None.
    error_ : float
        Mean of ‖x − x̂‖² over the sample.
    n_iter_ : int
        Most iterations of k-means that a sub-vector took.
    n_features_in_ : int

    Notes
    -----
    k-means is that of `KMeansCodebook` for large samples; ties go to the lowest codeword. With fewer distinct
    sub-vectors than codewords, each is a codeword, and coding the sample loses nothing. `PQIndex` searches codes.

    References
    ----------
    .. [1] H. Jégou, M. Douze and C. Schmid, "Product quantization for nearest neighbor search", PAMI 2011.
    .. [2] H. Jégou, M. Douze, C. Schmid and P. Pérez, "Aggregating local descriptors into a compact image
       representation", CVPR 2010, section 4.2 (the random rotation after PCA).
    .. [3] T. Ge, K. He, Q. Ke and J. Sun, "Optimized product quantization", PAMI 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ProductQuantizer
    >>> X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    >>> quantizer = ProductQuantizer(n_subvectors=4, n_codewords=16, random_state=0).fit(X)
    >>> codes = quantizer.transform(X)
    >>> codes.shape, codes.dtype
    ((300, 4), dtype('uint8'))
    >>> error = ((X - quantizer.inverse_transform(codes)) ** 2).sum(axis=1).mean()
    >>> bool(error < 0.2 * (X**2).sum(axis=1).mean())
    True
    """

    codewords_: NDArray[np.float32]
    bounds_: NDArray[np.int64]

    def __init__(
        self,
        n_subvectors: int = 16,
        *,
        n_codewords: int = 256,
        rotation: str | None = None,
        max_samples: int | None = 65_536,
        max_iter: int = 25,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_subvectors = n_subvectors
        self.n_codewords = n_codewords
        self.rotation = rotation
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ProductQuantizer:
        """Learn rotation and codewords from vectors, (n_samples, n_features)."""
        self._check_parameters()
        X = validate_data(self, X, dtype=[np.float32, np.float64])
        if self.n_subvectors > X.shape[1]:
            raise ValueError(
                f"n_subvectors={self.n_subvectors} of ProductQuantizer is more than there are dimensions "
                f"(n_features={X.shape[1]}). Use at most {X.shape[1]}."
            )
        random_state = check_random_state(self.random_state)
        rows = self._sample(X, random_state)
        lengths = [len(part) for part in np.array_split(np.arange(X.shape[1]), int(self.n_subvectors))]
        self.bounds_ = np.cumsum([0, *lengths], dtype=np.int64)
        self.__dict__.pop("rotation_", None)
        if self.rotation == "random":
            self.rotation_ = random_rotation(X.shape[1], random_state)
        elif self.rotation == "opq":
            start = optimized_rotation(rows, self.bounds_, self._learn, random_state, n_jobs=self.n_jobs, owner=self)
            self.rotation_ = start
        rotated = self._rotate(rows)
        self.codewords_ = self._learn(rotated, random_state)
        decoded = self._decode(self._encode(rotated))
        self.error_ = float(((rotated - decoded).astype(np.float64) ** 2).sum(axis=1).mean())
        return self

    def transform(self, X: Any) -> NDArray[np.uint8]:
        """Return codes, uint8 of shape (n_samples, n_subvectors), of vectors (n_samples, n_features)."""
        check_is_fitted(self, "codewords_")
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        return self._encode(self._rotate(X.astype(np.float32, copy=False)))

    def inverse_transform(self, X: Any) -> NDArray[np.float32]:
        """Return the vectors, float32 of shape (n_samples, n_features), that codes (n_samples, n_subvectors) stand for.

        Raises
        ------
        ValueError
            If the codes have another length than at fit, or there is no such codeword.
        """
        check_is_fitted(self, "codewords_")
        codes = check_array(X, dtype=None, ensure_min_samples=0)
        n_subvectors = len(self.bounds_) - 1
        if codes.shape[1] != n_subvectors:
            raise ValueError(f"X has codes of {codes.shape[1]} sub-vectors, but ProductQuantizer has {n_subvectors}.")
        if codes.dtype.kind not in "iu" or (len(codes) and not 0 <= codes.min() <= codes.max() < len(self.codewords_)):
            raise ValueError(f"Codes must be integers from 0 to {len(self.codewords_) - 1}, as transform returns them.")
        decoded = self._decode(codes)
        if not hasattr(self, "rotation_"):
            return decoded
        with single_threaded():
            return np.asarray(decoded @ self.rotation_.T)

    def _sample(self, X: NDArray[Any], random_state: np.random.RandomState) -> NDArray[np.float32]:
        if self.max_samples is not None and len(X) > self.max_samples:
            X = X[np.sort(random_state.choice(len(X), int(self.max_samples), replace=False))]
        return X.astype(np.float32, copy=False)

    def _rotate(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(self, "rotation_"):
            return rows
        rotated = np.empty_like(rows, order="C")

        def rotate(block: slice) -> None:
            np.matmul(rows[block], self.rotation_, out=rotated[block])

        for _ in map_blocks(rotate, block_slices(len(rows), _BLOCK_ROWS), n_jobs=self.n_jobs):
            pass
        return rotated

    def _learn(self, rows: NDArray[np.float32], random_state: np.random.RandomState) -> NDArray[np.float32]:
        """Return the codewords of all sub-vectors, side by side."""
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(self.bounds_) - 1)

        def learn(m: int) -> KMeansResult:
            part = np.ascontiguousarray(rows[:, self.bounds_[m] : self.bounds_[m + 1]])
            return self._cluster(part, np.random.RandomState(seeds[m]))

        found = list(map_blocks(learn, range(len(seeds)), n_jobs=self.n_jobs))
        self.n_iter_ = max(result.n_iter for result in found)
        return np.concatenate([result.centers for result in found], axis=1)

    def _cluster(self, rows: NDArray[np.float32], random_state: np.random.RandomState) -> KMeansResult:
        """Return the codewords of one sub-vector; with too few distinct rows these, and surplus repetitions."""
        n_words = int(self.n_codewords)
        distinct = np.unique(rows, axis=0)
        if len(distinct) <= n_words:
            surplus = np.repeat(distinct[:1], n_words - len(distinct), axis=0)
            return KMeansResult(np.concatenate([distinct, surplus]), np.empty(0, dtype=np.int64), 0.0, 0)
        start = start_of_lloyd(rows, n_words, random_state, spread=Threads(1), owner=type(self).__name__)
        return lloyd(rows, start, max_iter=int(self.max_iter), tol=0, spread=Threads(1), owner=type(self).__name__)

    def _encode(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        codes = np.empty((len(rows), len(self.bounds_) - 1), dtype=np.uint8)
        parts = [slice(self.bounds_[m], self.bounds_[m + 1]) for m in range(codes.shape[1])]

        def encode(block: slice) -> None:
            for m, part in enumerate(parts):
                nearest = NearestWord(self.codewords_[:, part], self)
                codes[block, m] = nearest.assign(np.ascontiguousarray(rows[block, part]), image=0)

        for _ in map_blocks(encode, block_slices(len(rows), _BLOCK_ROWS), n_jobs=self.n_jobs):
            pass
        return codes

    def _decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        decoded = np.empty((len(codes), self.codewords_.shape[1]), dtype=np.float32)
        for m in range(codes.shape[1]):
            part = slice(self.bounds_[m], self.bounds_[m + 1])
            decoded[:, part] = self.codewords_[codes[:, m], part]
        return decoded

    def _check_parameters(self) -> None:
        check_number(self, "n_subvectors", self.n_subvectors, low=1, integer=True)
        check_number(self, "n_codewords", self.n_codewords, low=2, high=256, integer=True)
        check_choice(self, "rotation", self.rotation, (None, "random", "opq"))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)

    @property
    def _n_features_out(self) -> int:
        return len(self.bounds_) - 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
