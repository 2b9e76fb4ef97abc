"""Term frequency times inverse document frequency, as image retrieval defines it."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils.sparsefuncs import inplace_csr_column_scale, inplace_row_scale
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_number


class TfIdf(SavableMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Weight visual words by term frequency and inverse document frequency (Sivic & Zisserman 2003).

    Parameters
    ----------
    term_frequency : {"relative", "count"}, default="relative"
        "relative" divides each count by the sum of the counts of its image; "count" takes the values as they are.
        The difference vanishes with a norm.
    norm : {"l2", "l1", None}, default="l2"
        Normalisation of each row afterwards; rows of zeros stay zero.
    max_df, min_df : int or float, default=1.0 and 1
        Stop words by document frequency: words that occur in more than `max_df` or in fewer than `min_df` of the images
        seen at fit get the weight zero. An integer is a number of images, a float a share of them.
    stop_top, stop_bottom : float, default=0.0
        Stop words by rank: the share of the words with the highest and the lowest document frequency that get the
        weight zero, among words that occur at all. Sivic and Zisserman stopped the top 5 % and the bottom 10 %. Where
        the limit falls among words of equal frequency, all of these are kept.

    Attributes
    ----------
    idf_ : ndarray of shape (n_words,)
        float64 weights of the words.
    document_frequency_ : ndarray of shape (n_words,)
        int64 number of images that contain each word.
    stopped_words_ : ndarray of shape (n_words,)
        Boolean: which words were stopped.
    n_images_ : int
        Images seen at fit.
    n_features_in_ : int
        Number of words.

    Notes
    -----
    With counts n_id of word i in image d, t_id = n_id / Σ_j n_jd · ln(N / N_i), where N_i of the N images contain word
    i; the sum includes stopped words. Words of every image get the weight zero, and so do those that no image contains
    (N_i = 0). Images without features count in N.

    This is not scikit-learn's ``TfidfTransformer``, which adds 1 to every idf, so that words of every image keep a
    weight, and smooths N and N_i by 1.

    Counts or histograms of any scale, dense or CSR; CSR stays CSR. float32 stays float32; the weights are learned in
    float64.

    References
    ----------
    .. [1] J. Sivic and A. Zisserman, "Video Google: a text retrieval approach to object matching in videos", ICCV 2003,
       section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import TfIdf
    >>> counts = [[2, 1, 1], [0, 3, 0], [0, 2, 0]]
    >>> np.round(TfIdf(norm=None).fit_transform(counts), 3)
    array([[0.549, 0.   , 0.275],
           [0.   , 0.   , 0.   ],
           [0.   , 0.   , 0.   ]])
    """

    def __init__(
        self,
        *,
        term_frequency: str = "relative",
        norm: str | None = "l2",
        max_df: float = 1.0,
        min_df: float = 1,
        stop_top: float = 0.0,
        stop_bottom: float = 0.0,
    ) -> None:
        self.term_frequency = term_frequency
        self.norm = norm
        self.max_df = max_df
        self.min_df = min_df
        self.stop_top = stop_top
        self.stop_bottom = stop_bottom

    def fit(self, X: Any, y: Any = None) -> TfIdf:
        """Learn the weights from the counts of images, (n_images, n_words), dense or sparse.

        Raises
        ------
        ValueError
            If a count is negative, NaN or infinite.
        """
        self._check_parameters()
        X = self._check(X, reset=True)
        frequency = np.asarray((X != 0).sum(axis=0), dtype=np.int64).ravel()
        occurs = frequency > 0
        idf = np.zeros(len(frequency))
        idf[occurs] = np.log(X.shape[0] / frequency[occurs])
        stopped = self._stopped(frequency, X.shape[0])
        idf[stopped] = 0
        if occurs.any() and stopped[occurs].all():
            warnings.warn(
                f"TfIdf stops all {np.count_nonzero(occurs)} words that occur in these {X.shape[0]} images: every "
                "vector will be zero. Loosen max_df, min_df, stop_top or stop_bottom.",
                UserWarning,
                stacklevel=2,
            )
        self.idf_ = idf
        self.document_frequency_ = frequency
        self.stopped_words_ = stopped
        self.n_images_ = int(X.shape[0])
        return self

    def transform(self, X: Any) -> Any:
        """Weight the counts of images, (n_images, n_words), dense or sparse."""
        check_is_fitted(self, "idf_")
        self._check_parameters()
        X = self._check(X, reset=False)
        idf = self.idf_.astype(X.dtype)
        if issparse(X):
            X = X.copy()
            if self.term_frequency == "relative":
                inplace_row_scale(X, _inverse(np.asarray(X.sum(axis=1)).ravel()).astype(X.dtype))
            inplace_csr_column_scale(X, idf)
            X.eliminate_zeros()
        else:
            if self.term_frequency == "relative":
                X = X * _inverse(X.sum(axis=1, keepdims=True))
            X = X * idf
        return X if self.norm is None else normalize(X, norm=self.norm, copy=False)

    def _check(self, X: Any, *, reset: bool) -> Any:
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=reset)
        check_non_negative(X, type(self).__name__)
        return X

    def _stopped(self, frequency: NDArray[np.int64], n_images: int) -> NDArray[np.bool_]:
        low, high = _number_of_images(self.min_df, n_images), _number_of_images(self.max_df, n_images)
        stopped = (frequency > high) | ((frequency < low) & (frequency > 0))
        ranked = np.sort(frequency[frequency > 0])
        n_top, n_bottom = _number_of_words(self.stop_top, len(ranked)), _number_of_words(self.stop_bottom, len(ranked))
        # Compared with the first frequency that stays, so that all words of equal frequency do.
        stopped |= frequency > (ranked[len(ranked) - 1 - n_top] if n_top < len(ranked) else 0)
        stopped |= (frequency > 0) & (frequency < (ranked[n_bottom] if n_bottom < len(ranked) else np.inf))
        return np.asarray(stopped)

    def _check_parameters(self) -> None:
        check_choice(self, "term_frequency", self.term_frequency, ("relative", "count"))
        check_choice(self, "norm", self.norm, ("l2", "l1", None))
        for name in ("max_df", "min_df"):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral)
            check_number(self, name, value, low=0, high=np.inf if whole else 1, integer=whole)
        check_number(self, "stop_top", self.stop_top, low=0, high=1)
        check_number(self, "stop_bottom", self.stop_bottom, low=0, high=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _number_of_images(limit: float, n_images: int) -> float:
    return float(limit) if isinstance(limit, numbers.Integral) else float(limit) * n_images


def _number_of_words(share: float, n_words: int) -> int:
    """Return the whole part of share · n_words, so that 0.29 of 100 is 29 in spite of rounding."""
    return int(share * n_words + 1e-9 * n_words)


def _inverse(sums: NDArray[Any]) -> NDArray[Any]:
    """Return 1 / sums, and zero where a sum is zero."""
    return np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
