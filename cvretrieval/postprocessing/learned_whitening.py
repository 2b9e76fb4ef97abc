"""Whitening learned from matching pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from cvretrieval._parallel import single_threaded
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_number, describe_array
from cvretrieval.postprocessing.moments import scatter_of
from cvretrieval.postprocessing.power_norm import l2_normalize
from cvretrieval.postprocessing.projection import (
    RELATIVE_FLOOR,
    fix_signs,
    principal_directions,
    project,
    refuse_n_components,
)


class LearnedWhitening(SavableMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Whiten what differs between images of the same thing, then keep the directions in which all images differ most.

    Learned discriminative projections (Mikolajczyk and Matas 2007), the "learned whitening" L_w of CNN image retrieval
    (Radenović et al. 2018).

    Parameters
    ----------
    n_components : int or None, default=None
        Dimensions kept; None keeps min(n_samples, n_features).
    shrinkage : float, default=0.0
        In [0, 1]: the scatter S of the pairs is first replaced by (1 − shrinkage) S + shrinkage · trace(S)/n_features
        · I. Needed when there are fewer pairs than features, and of use when there are not many more.
    norm : {"l2", None}, default="l2"
        L2-normalise each row afterwards; rows of zeros stay zero.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
        Mean of the first images of the pairs.
    components_ : ndarray of shape (n_components, n_features)
        P, by decreasing variance; the sign makes the largest component positive.
    explained_variance_ : ndarray of shape (n_components,)
        Mean square of all images about `mean_` along them; that of the differences of matching images is 1.
    n_components_ : int
    n_pairs_ : int
        Number of pairs learned from; by labels, every pair counts in both directions.
    n_features_in_ : int

    Notes
    -----
    x ↦ P(x − mean), then L2. With pairs (i, j) and S = mean of (x_i − x_j)(x_i − x_j)ᵀ, P S Pᵀ = I, and P C Pᵀ is
    diagonal and decreasing for the scatter C of all images about the mean. Images that match none take part in C alone:
    they are what matching images are to be told apart from.

    float64 throughout `fit`. A singular S (fewer independent pairs than features) is an error unless there is
    shrinkage: along directions in which no pair differs, whitening has no scale.

    References
    ----------
    .. [1] K. Mikolajczyk and J. Matas, "Improving descriptors for fast tree matching by optimal linear projection",
       ICCV 2007, section 2.
    .. [2] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       section 3.4.

    Examples
    --------
    Forty places, three photos of each, whose first feature varies from photo to photo:

    >>> import numpy as np
    >>> from cvretrieval import LearnedWhitening
    >>> rng = np.random.default_rng(0)
    >>> place = np.repeat(np.arange(40), 3)
    >>> X = rng.normal(size=(40, 4))[place] + rng.normal(size=(120, 4)) * [5, 0.1, 0.2, 0.3]
    >>> whitening = LearnedWhitening(2, norm=None).fit(X, place)
    >>> Z = whitening.transform(X)
    >>> differences = np.concatenate([Z[i::3] - Z[j::3] for i, j in ((0, 1), (1, 2), (2, 0))])
    >>> np.round(differences.T @ differences / len(differences), 6) + 0.0
    array([[1., 0.],
           [0., 1.]])

    The same by naming the pairs, each in both directions:

    >>> pairs = [(i, j) for i in range(120) for j in range(120) if i != j and place[i] == place[j]]
    >>> bool(np.allclose(LearnedWhitening(2, norm=None).fit_transform(X, pairs=pairs), Z))
    True
    """

    def __init__(self, n_components: int | None = None, *, shrinkage: float = 0.0, norm: str | None = "l2") -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.norm = norm

    def fit(self, X: Any, y: Any = None, *, pairs: Any = None) -> LearnedWhitening:
        """Learn from vectors and which of them match.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors of images.
        y : array-like of shape (n_samples,)
            What each image shows, integers or strings: images of equal labels match. Not needed, and not used, with
            `pairs`.
        pairs : array-like of shape (n_pairs, 2), optional
            Row numbers of matching images, query first. They count rows of `X`, so cross-validation cannot split them;
            it can split `y`.

        Raises
        ------
        ValueError
            If there is no pair, or their scatter is singular and `shrinkage` is 0.
        """
        self._check_parameters()
        if pairs is None:
            if y is None:
                raise ValueError(
                    "LearnedWhitening requires y to be passed, but the target y is None. Give y, labels that are equal "
                    "for matching images, or pairs of row numbers."
                )
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
            check_classification_targets(y)
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        n_components = min(X.shape) if self.n_components is None else self.n_components
        if n_components > min(X.shape):
            raise refuse_n_components(n_components, *X.shape)
        n_pairs, mean, scatter = _moments_of_labels(X, y) if pairs is None else _moments_of_pairs(X, pairs)
        whitening = self._inverse_root(scatter, n_pairs)
        total = scatter_of(lambda block: X[block].astype(np.float64) - mean, *X.shape)
        with single_threaded():
            values, rotation = principal_directions(whitening @ total @ whitening.T, int(n_components))
            self.components_ = fix_signs(rotation @ whitening)
        self.mean_ = mean
        self.explained_variance_ = values / len(X)
        self.n_components_ = len(self.components_)
        self.n_pairs_ = n_pairs
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Whiten vectors, (n_images, n_features) → (n_images, n_components)."""
        check_is_fitted(self, "components_")
        self._check_parameters()
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        Z = project(X, self.mean_, self.components_)
        return l2_normalize(Z) if self.norm == "l2" else Z

    def _inverse_root(self, scatter: NDArray[np.float64], n_pairs: int) -> NDArray[np.float64]:
        """Return W with W S Wᵀ = I."""
        n_features = len(scatter)
        diagonal = np.einsum("ii->i", scatter)
        level = diagonal.mean()
        if not level > 0:
            raise ValueError(f"The images of each of the {n_pairs} pairs are equal: there is nothing to learn from.")
        scatter *= 1 - self.shrinkage
        diagonal += self.shrinkage * level
        values, directions = principal_directions(scatter, n_features)
        rank = int(np.count_nonzero(values > RELATIVE_FLOOR * values[0]))
        if rank < n_features:
            raise ValueError(
                f"The differences of {n_pairs} pairs span {rank} of {n_features} dimensions, so their scatter is "
                "singular. Give more pairs, fewer dimensions (PCAWhitening before), or shrinkage, such as 0.01."
            )
        return directions / np.sqrt(values)[:, None]

    def _check_parameters(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True, optional=True)
        check_number(self, "shrinkage", self.shrinkage, low=0, high=1)
        check_choice(self, "norm", self.norm, ("l2", None))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]


def _moments_of_pairs(X: NDArray[Any], pairs: Any) -> Moments:
    """Return the number of pairs, the mean of their first images, and the mean scatter of their differences."""
    pairs = check_array(pairs, dtype=None, ensure_min_samples=0, input_name="pairs")
    if pairs.dtype.kind not in "iu" or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(f"pairs must be integers of shape (n_pairs, 2), n_pairs > 0. Got {describe_array(pairs)}.")
    if pairs.min() < 0 or pairs.max() >= len(X):
        raise ValueError(
            f"pairs must be row numbers from 0 to {len(X) - 1}. Got numbers from {pairs.min()} to {pairs.max()}."
        )
    same = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if len(same):
        raise ValueError(f"pairs[{same[0]}] matches row {pairs[same[0], 0]} with itself.")
    first, second = pairs.T
    mean = np.bincount(first, minlength=len(X)) @ X.astype(np.float64, copy=False) / len(pairs)
    scatter = scatter_of(lambda block: X[first[block]].astype(np.float64) - X[second[block]], len(pairs), X.shape[1])
    return len(pairs), mean, scatter / len(pairs)


def _moments_of_labels(X: NDArray[Any], y: NDArray[Any]) -> Moments:
    """Return the same for all ordered pairs of equal labels, without going through them.

    Over the n² ordered pairs of n rows about their mean m, Σ (x_i − x_j)(x_i − x_j)ᵀ = 2n Σ (x_i − m)(x_i − m)ᵀ.
    """
    labels, members = np.unique(y, return_inverse=True)
    counts = np.bincount(members)
    n_pairs = int((counts * (counts - 1)).sum())
    if not n_pairs:
        raise ValueError(
            f"No two of the {len(X)} images have the same label, so none match. Give labels that are equal for "
            "matching images, or pairs."
        )
    rows = X.astype(np.float64, copy=False)
    membership = csr_matrix((np.ones(len(X)), (members, np.arange(len(X)))), shape=(len(labels), len(X)))
    sums = membership @ rows
    means = sums / counts[:, None]
    root = np.sqrt(counts)
    scatter = scatter_of(lambda block: (rows[block] - means[members[block]]) * root[members[block], None], *X.shape)
    return n_pairs, (counts - 1) @ sums / n_pairs, scatter * (2 / n_pairs)
