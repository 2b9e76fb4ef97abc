"""Hamming embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvretrieval._kernels.word_signatures import medians_of_groups, pack_bits_above
from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval._validation import check_choice, check_number
from cvretrieval.encoders.feature_words import FeatureWords
from cvretrieval.encoders.visual_word_encoder import VisualWordEncoder
from cvretrieval.feature_chunks import check_feature_chunks, sample_descriptors
from cvretrieval.local_features import LocalFeatures
from cvretrieval.visual_words import VisualWords

# With fewer descriptors of a word at fit, their medians say less than the word itself.
_FEWEST = 5

# Descriptors of the sample that find their words and are projected together.
_BLOCK_ROWS = 4096


class HammingEmbedding(VisualWordEncoder):
    """Hamming embedding (HE, Jégou et al. 2008): for each feature its word and a binary signature within the word.

    A descriptor is projected onto `n_bits` random orthogonal directions; each bit says whether the projection exceeds
    the median of the descriptors of the same word. Features match if they have one word and few differing bits, which
    ``InvertedIndex("hamming_embedding")`` counts.

    Parameters
    ----------
    n_words : int, default=4096
        Words of the codebook that `fit` learns; ignored if `codebook` is given. The paper has 20,000, and large
        collections are faster to search with more. Beyond 16,384 descriptors find their words approximately, with a
        recall of 0.95.
    n_bits : int, default=64
        Bits of a signature, at most the dimension of the descriptors.
    projection : {"random", None}, default="random"
        None compares the descriptors' own components, which must then be `n_bits` in number; for descriptors that have
        been projected before.
    codebook : fitted clusterer, optional
        Anything with ``cluster_centers_`` and Euclidean distances, or with ``predict`` and ``n_words`` or
        ``n_clusters`` (`KMeansCodebook`, `VocabularyTree`, `ApproximateWords`, scikit-learn's ``KMeans``). Kept as it
        is, by `fit` and when cross-validation clones the encoder.
    n_query_words : int, default=1
        Words of each feature of a query, by `transform_queries`, with a signature in each (multiple assignment). At
        most as many as there are words are used.
    max_samples : int or None, default=100000
        Descriptors the codebook is learned on.
    max_median_samples : int or None, default=1000000
        Descriptors the medians are learned on. They are in memory with their projections.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the codebook, the projection and the sample for the medians.
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
    projection_ : ndarray of shape (n_bits, n_dims)
        Orthonormal rows, float32; not if `projection` is None.
    medians_ : ndarray of shape (n_words, n_bits)
        Thresholds of the bits, float32.

    Notes
    -----
    Bit i is 1 where the i-th projection is above the median, 0 where it is equal or below. Median of an even number is
    the mean of the middle two. A word that fewer than 5 descriptors of the sample belong to takes its projected centre
    instead, or the medians of all descriptors if the codebook has no centres; in COLMAP its thresholds are 0.

    The projection is the orthogonal factor of a Gaussian random matrix, so it is uniform among all of them.

    A codebook that finds words in its own way (trees, approximate assignment) gives the first word of a query's
    feature; the others are the nearest of all centres or, with approximate assignment, of those that are looked at. An
    image without features has no words.

    References
    ----------
    .. [1] H. Jégou, M. Douze and C. Schmid, "Hamming embedding and weak geometric consistency for large scale image
       search", ECCV 2008, section 3.
    .. [2] H. Jégou, M. Douze and C. Schmid, "Improving bag-of-features for large scale image search", IJCV 2010
       (multiple assignment of queries only).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import HammingEmbedding, InvertedIndex
    >>> X = list(np.random.default_rng(0).normal(size=(6, 50, 16)))
    >>> encoder = HammingEmbedding(n_words=10, n_bits=16, random_state=0).fit(X)
    >>> index = InvertedIndex("hamming_embedding", idf=None, max_distance=4, sigma=4)
    >>> index = index.add(range(6), encoder.transform(X))
    >>> keys, scores = index.search(encoder.transform_queries(X[3:4]), k=2)
    >>> int(keys[0, 0])
    3
    """

    projection_: NDArray[np.float32]
    medians_: NDArray[np.float32]

    def __init__(
        self,
        n_words: int = 4096,
        *,
        n_bits: int = 64,
        projection: str | None = "random",
        codebook: Any = None,
        n_query_words: int = 1,
        max_samples: int | None = 100_000,
        max_median_samples: int | None = 1_000_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_words = n_words
        self.n_bits = n_bits
        self.projection = projection
        self.codebook = codebook
        self.n_query_words = n_query_words
        self.max_samples = max_samples
        self.max_median_samples = max_median_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> HammingEmbedding:
        """Learn the codebook from `X`, or take the given one; then the projection, and the medians of each word.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        Learning the codebook too passes over it twice, which an iterator does not allow.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        if X.is_empty:
            raise ValueError("HammingEmbedding cannot be fitted: none of the images has any descriptor.")
        n_bits = int(self.n_bits)
        if n_bits > X.n_dims or (self.projection is None and n_bits != X.n_dims):
            how = "so many" if self.projection is None else "at most so many"
            raise ValueError(
                f"The 'n_bits' parameter of HammingEmbedding is {n_bits}, but X has {X.n_dims}-d descriptors, which "
                f"give {how} bits. Set n_bits={X.n_dims}{'' if self.projection is None else ' or less'}."
            )
        self._fit_codebook(X)
        random_state = check_random_state(self.random_state)
        with single_threaded():
            if self.projection is not None:
                self.projection_ = _random_directions(n_bits, X.n_dims, random_state)
            rows = sample_descriptors(X, self.max_median_samples, random_state, estimator=self)
            self.medians_ = self._learn_medians(rows)
        return self

    def _learn_medians(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        sample = LocalFeatures(rows, np.append(np.arange(0, len(rows), _BLOCK_ROWS), len(rows)))
        assign = FeatureWords(self.codebook_, self.n_words_, 1, self).assign
        words = np.empty(len(rows), dtype=np.int32)
        values = np.empty((len(rows), int(self.n_bits)), dtype=np.float32)

        def learn(block: slice) -> None:
            own = slice(sample.offsets[block.start], sample.offsets[block.stop])
            words[own] = assign(sample, block)[:, 0]
            values[own] = self._project(rows[own])

        for _ in map_blocks(learn, block_slices(len(sample), 1), n_jobs=self.n_jobs):
            pass
        order = np.argsort(words, kind="stable")
        counts = np.bincount(words, minlength=self.n_words_)
        medians = self._medians_of_rare_words(values)
        learned = np.flatnonzero(counts >= _FEWEST).astype(np.int32)
        order = order[np.repeat(counts >= _FEWEST, counts)]
        bounds = np.concatenate([[0], np.cumsum(counts[learned])]).astype(np.int64)
        found = np.empty((len(learned), values.shape[1]), dtype=np.float32)
        medians_of_groups(values, order, bounds, found)
        medians[learned] = found
        return medians

    def _medians_of_rare_words(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if hasattr(self.codebook_, "cluster_centers_"):
            return self._project(np.asarray(self.codebook_.cluster_centers_))
        return np.repeat(np.median(values, axis=0)[None].astype(np.float32), self.n_words_, axis=0)

    def _project(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        rows = rows.astype(np.float32, copy=False)
        return np.array(rows, order="C") if self.projection is None else rows @ self.projection_.T

    def _encode_block(self, X: LocalFeatures, block: slice, words: NDArray[np.int32]) -> VisualWords:
        start = X.offsets[block.start]
        values = np.empty((len(words), self.medians_.shape[1]), dtype=np.float32)
        for i in range(block.start, block.stop):
            # Image by image, so that batches cannot change a bit.
            own = slice(X.offsets[i], X.offsets[i + 1])
            values[own.start - start : own.stop - start] = self._project(X.descriptors[own])
        n_bits = values.shape[1]
        n_columns = -(-n_bits // 64)
        bits = np.zeros((*words.shape, n_columns), dtype=np.uint64)
        pack_bits_above(values, words, self.medians_, bits)
        offsets = (X.offsets[block.start : block.stop + 1] - start) * words.shape[1]
        return VisualWords(words.ravel(), bits.reshape(words.size, n_columns), offsets, self.n_words_, n_bits)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "n_bits", self.n_bits, low=1, integer=True)
        check_choice(self, "projection", self.projection, ("random", None))
        check_number(self, "max_median_samples", self.max_median_samples, low=1, integer=True, optional=True)


def _random_directions(n_bits: int, n_dims: int, random_state: np.random.RandomState) -> NDArray[np.float32]:
    """Draw orthonormal rows, uniformly: Q of a Gaussian matrix, with a positive diagonal of R."""
    q, r = np.linalg.qr(random_state.normal(size=(n_dims, n_bits)))
    return np.ascontiguousarray((q * np.where(np.diag(r) < 0, -1.0, 1.0)).T, dtype=np.float32)
