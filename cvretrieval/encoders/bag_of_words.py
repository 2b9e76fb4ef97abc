"""Bag of visual words."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import vstack
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_choice, check_flag, check_number, dimension_mismatch
from cvretrieval.codebooks import (
    SoftWords,
    has_euclidean_words,
    learn_sigma,
    resolve_words,
)
from cvretrieval.encoders.feature_words import FeatureWords, learn_codebook
from cvretrieval.encoders.word_votes import WordVotes, dense_histograms, sparse_histograms
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures, check_local_features

_BLOCK_IMAGES = 32


class BagOfWords(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Bag of visual words: how often each word of a codebook occurs in an image (Sivic & Zisserman, Csurka et al.).

    Parameters
    ----------
    n_words : int, default=400
        Words of the codebook that `fit` learns; ignored if `codebook` is given. Beyond 16,384, hard assignment is
        approximate, with a recall of 0.95: ``KMeansCodebook(n_words, assignment="approximate")``.
    codebook : fitted clusterer, optional
        Anything with ``cluster_centers_`` (`KMeansCodebook`, scikit-learn's ``KMeans``), whose nearest centre by
        Euclidean distance is a descriptor's word; or anything with ``predict`` and ``n_words`` or ``n_clusters``
        (other distances, trees), whose predictions are the words. Kept as it is, by `fit` and when cross-validation
        clones the encoder.
    assignment : {"hard", "soft", "multiple", "path"}, default="hard"
        "hard": a descriptor counts 1 for its nearest word. "multiple": it counts 1 for each of its `n_nearest` words.
        "soft": its `n_nearest` words share the count 1 in proportion to exp(−d²/2σ²). "path": it counts 1 for each node
        on its way down a `VocabularyTree`; the words are then all nodes of the tree.
    n_nearest : int, default=3
        Words of a descriptor in soft and multiple assignment; at most as many as the codebook has are used.
    sigma : float or None, default=None
        σ of the soft assignment, in the unit of the descriptors. None learns it at fit, see Notes.
    norm : {"l2", "l1", None}, default="l2"
        Normalisation of each histogram. "l1" gives frequencies, None counts, which naive Bayes and the weights of
        Lazebnik's pyramid want.
    sparse : bool, default=False
        Return a CSR matrix instead of an array; for large codebooks. (A CSR array if scikit-learn's configuration
        ``sparse_interface`` says "sparray".)
    n_query_words : int, default=1
        With hard assignment, words that each descriptor of a query counts for, by `transform_queries`; at most as many
        as there are words are used.
    max_samples : int or None, default=100000
        Descriptors the codebook is learned on.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the codebook.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    codebook_ : clusterer
        The learned or given codebook.
    n_words_ : int
        Its number of words.
    n_dims_ : int
        Dimension of the descriptors.
    sigma_ : float
        σ used by soft assignment; only there.

    Notes
    -----
    Ties between words go to the lowest. An image without features is a row of zeros. Histograms are float32; counts are
    exact up to 2²⁴ per word.

    Philbin et al. took σ² = 6250 and three words for SIFT in [0, 255], where descriptors have a norm of about 512:
    ``sigma=79.06`` for `SIFT`; scaled to unit length, as `SIFT(root=True)` gives, that is ``sigma=0.154``. The right
    value depends on codebook and descriptors, so the default is learned: σ² is half the median of d₂² − d₁², the gap
    between the squared distances to the second and the nearest word, over 10,000 descriptors of the training
    images; gaps of zero (equal words) are left out. The second word of the median descriptor then has e⁻¹ = 0.37 times
    the weight of its first. For SIFT in [0, 255] of UKBench photographs this gives σ² = 6305 with 100 words and 6683
    with 1000: the paper's value, without its scale.

    References
    ----------
    .. [1] J. Sivic and A. Zisserman, "Video Google: a text retrieval approach to object matching in videos", ICCV 2003.
    .. [2] G. Csurka, C. Dance, L. Fan, J. Willamowski and C. Bray, "Visual categorization with bags of keypoints",
       ECCV workshop 2004.
    .. [3] J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, "Lost in quantization: improving particular object
       retrieval in large scale image databases", CVPR 2008, section 3.1 (soft assignment).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import BagOfWords
    >>> X = [np.array([[0.0, 0], [0, 1], [9, 9]]), np.array([[9.0, 8]])]
    >>> counts = BagOfWords(n_words=2, norm=None, random_state=0).fit_transform(X)
    >>> np.sort(counts, axis=1)
    array([[1., 2.],
           [0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        n_words: int = 400,
        *,
        codebook: Any = None,
        assignment: str = "hard",
        n_nearest: int = 3,
        sigma: float | None = None,
        norm: str | None = "l2",
        sparse: bool = False,
        n_query_words: int = 1,
        max_samples: int | None = 100_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_words = n_words
        self.codebook = codebook
        self.assignment = assignment
        self.n_nearest = n_nearest
        self.sigma = sigma
        self.norm = norm
        self.sparse = sparse
        self.n_query_words = n_query_words
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> BagOfWords:
        """Learn codebook and σ from `X`, or take the given ones.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        Learning both passes over it twice, which an iterator does not allow.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        if self.codebook is not None:
            self.n_words_, n_dims = resolve_words(self.codebook, self)
            self.codebook_ = self.codebook
            if self.assignment == "path" and hasattr(self.codebook, "path"):
                self.n_words_ = self.codebook.n_nodes_
            if n_dims is not None and not X.is_empty and X.n_dims != n_dims:
                raise dimension_mismatch("the codebook of BagOfWords", X.n_dims, n_dims)
            self.n_dims_ = X.n_dims if n_dims is None else n_dims
        else:
            if X.is_empty:
                raise ValueError("BagOfWords cannot be fitted: none of the images has any descriptor.")
            self.codebook_ = learn_codebook(
                int(self.n_words), X, self.max_samples, self.random_state, exact=self.assignment != "hard"
            )
            self.n_words_, self.n_dims_ = int(self.n_words), X.n_dims
        self._check_assignment()
        if self.assignment == "soft":
            self.sigma_ = (
                float(self.sigma) if self.sigma is not None else learn_sigma(X, self.codebook_.cluster_centers_, self)
            )
        return self

    def transform(self, X: Any) -> Any:
        """Encode images.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            With descriptors of the dimension seen at fit.

        Returns
        -------
        ndarray or CSR matrix of shape (n_images, n_words)
            float32, C-contiguous.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        X = self._check(X)
        return self._encode(X, self._width)

    def transform_queries(self, X: Any) -> Any:
        """Encode queries: `n_query_words` words for each descriptor (multiple assignment); else as `transform`.

        `ImageRetriever` calls this for queries and `transform` for the images it holds.
        """
        X = self._check(X)
        n_nearest = min(int(self.n_query_words), self.n_words_) if self.assignment == "hard" else self._width
        return self._encode(X, n_nearest)

    def _encode(self, X: LocalFeatures, n_nearest: int) -> Any:
        blocks = block_slices(len(X), _BLOCK_IMAGES)
        parts = []
        histograms = np.empty((0 if self.sparse else len(X), self.n_words_), dtype=np.float32)

        def encode(block: slice) -> Any:
            offsets = X.offsets[block.start : block.stop + 1]
            part = self.pool(self._assign(X, block, n_nearest), offsets - offsets[0])
            if self.sparse:
                return part
            histograms[block] = part
            return None

        for part in self._map(encode, blocks):
            parts.append(part)
        if not self.sparse:
            return histograms
        return vstack(parts, format="csr") if parts else self.pool(self._assign(X, slice(0, 0), n_nearest), X.offsets)

    def assign(self, X: Any) -> WordVotes:
        """Return the words that each descriptor of each image votes for, and the weights of these votes.

        `transform` is `pool` of these votes. Whoever needs the histograms of several groupings of the same
        descriptors, such as `SpatialPyramid`, assigns once and pools often.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays

        Returns
        -------
        WordVotes
            ``words``, int32 of shape (n_descriptors, n_nearest), and ``weights``, float32 of the same shape, or None if
            every vote counts 1. n_nearest is 1 in hard assignment.
        """
        X = self._check(X)
        words = np.empty((X.n_descriptors, self._width), dtype=np.int32)
        weights = np.empty(words.shape, dtype=np.float32) if self.assignment in ("soft", "path") else None

        def encode(block: slice) -> None:
            rows = slice(X.offsets[block.start], X.offsets[block.stop])
            votes = self._assign(X, block, self._width)
            words[rows] = votes.words
            if weights is not None:
                weights[rows] = votes.weights

        for _ in self._map(encode, block_slices(len(X), _BLOCK_IMAGES)):
            pass
        return WordVotes(words, weights)

    def pool(self, votes: WordVotes, offsets: Any) -> Any:
        """Return the normalised histograms of groups of votes.

        Parameters
        ----------
        votes : WordVotes
            As `assign` returns, in any order.
        offsets : ndarray of shape (n_groups + 1,)
            Group i owns the votes ``offsets[i]:offsets[i + 1]``.

        Returns
        -------
        ndarray or CSR matrix of shape (n_groups, n_words)
        """
        check_is_fitted(self, "codebook_")
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        make = sparse_histograms if self.sparse else dense_histograms
        histograms = make(votes, offsets, self.n_words_)
        if self.norm is not None and histograms.shape[0]:
            histograms = normalize(histograms, norm=self.norm, copy=False)
        return histograms

    def _check(self, X: Any) -> LocalFeatures:
        check_is_fitted(self, ["codebook_", "sigma_"] if self.assignment == "soft" else "codebook_")
        self._check_parameters()
        self._check_assignment()
        return check_local_features(X, n_dims=self.n_dims_, estimator=self)

    def _map(self, encode: Any, blocks: list[slice]) -> Any:
        weights = [block.stop - block.start for block in blocks]
        return map_blocks(
            encode, blocks, n_jobs=self.n_jobs, weights=weights, description="BagOfWords", verbose=self.verbose
        )

    @property
    def _width(self) -> int:
        """Votes of each descriptor."""
        if self.assignment == "path":
            return int(self.codebook_.depth_)
        return 1 if self.assignment == "hard" else min(int(self.n_nearest), self.n_words_)

    def _assign(self, X: LocalFeatures, block: slice, n_nearest: int) -> WordVotes:
        """Return the votes of a block of images; those of each image are computed from its own rows alone."""
        if self.assignment == "path":
            return self._follow(X[block])
        if self.assignment != "soft":
            return WordVotes(FeatureWords(self.codebook_, self.n_words_, n_nearest, self).assign(X, block))
        words = np.empty((X.offsets[block.stop] - X.offsets[block.start], n_nearest), dtype=np.int32)
        weights = np.empty(words.shape, dtype=np.float32)
        soft = SoftWords(self.codebook_.cluster_centers_, n_nearest, self.sigma_, self)
        for i in range(block.start, block.stop):
            rows = slice(X.offsets[i] - X.offsets[block.start], X.offsets[i + 1] - X.offsets[block.start])
            words[rows], weights[rows] = soft.assign(X.descriptors[X.offsets[i] : X.offsets[i + 1]], i)
        return WordVotes(words, weights)

    def _follow(self, X: LocalFeatures) -> WordVotes:
        """Return the nodes on the paths of a block of images; below a leaf the leaf again, with the weight zero."""
        path = self.codebook_.path(X)
        leaf = np.maximum.reduce(path, axis=1, keepdims=True, initial=0)
        return WordVotes(np.where(path < 0, leaf, path), (path >= 0).astype(np.float32))

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_choice(self, "assignment", self.assignment, ("hard", "soft", "multiple", "path"))
        check_number(self, "n_nearest", self.n_nearest, low=1, integer=True)
        check_number(self, "sigma", self.sigma, low=0, low_open=True, optional=True)
        check_choice(self, "norm", self.norm, ("l2", "l1", None))
        check_flag(self, "sparse", self.sparse)
        check_number(self, "n_query_words", self.n_query_words, low=1, integer=True)
        if self.n_query_words > 1 and self.assignment != "hard":
            raise ValueError(
                "n_query_words gives the descriptors of queries several words where those of images have one: it needs "
                f"assignment='hard'. Got {self.assignment!r}."
            )
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)

    def _check_assignment(self) -> None:
        name = type(self.codebook_).__name__
        if self.assignment == "path":
            if not hasattr(self.codebook_, "path"):
                raise ValueError(
                    f"assignment='path' needs a codebook with a path, VocabularyTree. Got codebook={name} instead."
                )
        elif self.assignment != "hard" and not has_euclidean_words(self.codebook_):
            raise ValueError(
                f"assignment={self.assignment!r} needs Euclidean distances to cluster_centers_, which the codebook "
                f"{name} does not have. Use assignment='hard'."
            )

    def __sklearn_clone__(self) -> BagOfWords:
        copy: BagOfWords = super().__sklearn_clone__()
        # scikit-learn would clone the codebook as well, and a clone is not fitted.
        copy.codebook = self.codebook
        return copy

    @property
    def _n_features_out(self) -> int:
        return self.n_words_
