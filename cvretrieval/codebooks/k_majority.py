"""Codebooks of binary descriptors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.hamming import count_bits, nearest_by_hamming, pack_bytes
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_binary_descriptors, check_number
from cvretrieval.feature_chunks import sample_descriptors
from cvretrieval.local_features import check_local_features

# Descriptors assigned by one task: with 1,000 words some tens of milliseconds.
_BLOCK_ROWS = 4096

Assignment = tuple[NDArray[np.int32], NDArray[np.int32]]


class KMajorityCodebook(LocalFeaturesInputMixin, ClusterMixin, BaseEstimator):
    """Visual words of binary descriptors (ORB, BRISK, AKAZE, …) by k-majority: k-means for Hamming distances.

    Parameters
    ----------
    n_words : int, default=64
        Number of words. May exceed the number of distinct descriptors: the surplus words stay empty, with a warning.
    max_samples : int or None, default=100000
        At most so many descriptors are used, drawn without replacement; None takes all. Bounds time and memory.
    max_iter : int, default=50
        Rounds of assignment and vote, at most.
    n_jobs : int, optional
        Threads over blocks of descriptors; the number does not change the result.
    random_state : int, RandomState or None, default=None
        Seed of the sample and of the first words.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_words, n_bytes)
        The words, uint8, eight bits a byte.
    n_dims_ : int
        Number of bytes of the descriptors.
    inertia_ : int
        Sum of the Hamming distances of the sample to their words.
    n_iter_ : int
        Rounds run.
    n_samples_ : int
        Size of the sample.
    n_empty_words_ : int
        Words that no descriptor of the sample is nearest to.
    n_duplicate_words_ : int
        Words equal to an earlier one; they are empty, too.
    metric : str
        "hamming", for encoders that take a codebook.

    Notes
    -----
    The first words are distinct descriptors drawn at random. In each round every descriptor goes to the word at the
    smallest Hamming distance, ties to the lowest, and each bit of a word becomes what the majority of its descriptors
    have; on a tie it stays. A word without descriptors becomes the descriptor that is farthest from its own. The rounds
    end when no word changes. With a fitted codebook, ``BagOfWords(codebook=codebook)`` encodes images.

    References
    ----------
    .. [1] C. Grana, D. Borghesani, M. Manfredi and R. Cucchiara, "A fast approach for integrating ORB descriptors in
       the bag of words model", SPIE Multimedia Content and Mobile Devices 2013, section 3 (k-majority).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import KMajorityCodebook
    >>> X = [np.array([[0, 0], [0, 1]], dtype=np.uint8), np.array([[255, 255], [255, 247]], dtype=np.uint8)]
    >>> words = KMajorityCodebook(n_words=2, random_state=0).fit(X).predict(X)
    >>> bool(words[0] == words[1] != words[2] == words[3])
    True
    """

    metric = "hamming"

    def __init__(
        self,
        n_words: int = 64,
        *,
        max_samples: int | None = 100_000,
        max_iter: int = 50,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_words = n_words
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> KMajorityCodebook:
        """Learn the words from the binary descriptors of `X`.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays of uint8, or iterable of LocalFeatures
            Images, or chunks of them, of which one after the other is in memory, beside the sample.
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, or the descriptors are not bytes.
        """
        self._check_parameters()
        random_state = check_random_state(self.random_state)
        rows = sample_descriptors(X, self.max_samples, random_state, estimator=self)
        check_binary_descriptors(self, rows)
        self.n_samples_, self.n_dims_ = rows.shape
        centers = self._first_words(rows, random_state)
        words, distances = self._learn(rows, centers)
        self.inertia_ = int(distances.sum())
        self._count_useless_words(words)
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Return the word of every descriptor of every image, int32 of shape (n_descriptors,).

        Raises
        ------
        ValueError
            If the descriptors have another number of bytes than at fit, or are not bytes.
        """
        check_is_fitted(self, "cluster_centers_")
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        if X.n_descriptors == 0:
            return np.empty(0, dtype=np.int32)
        check_binary_descriptors(self, X.descriptors)
        return self._assign(pack_bytes(X.descriptors), self.cluster_centers_)[0]

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)

    def _first_words(self, rows: NDArray[np.uint8], random_state: np.random.RandomState) -> NDArray[np.uint8]:
        """Draw distinct descriptors; where there are too few, repeat one: a repetition is never the nearest."""
        shuffled = rows[random_state.permutation(len(rows))]
        _, first = np.unique(shuffled, axis=0, return_index=True)
        drawn = shuffled[np.sort(first)[: int(self.n_words)]]
        surplus = int(self.n_words) - len(drawn)
        return np.concatenate([drawn, np.repeat(drawn[:1], surplus, axis=0)])

    def _learn(self, rows: NDArray[np.uint8], centers: NDArray[np.uint8]) -> Assignment:
        """Vote until no word changes; return the words and distances of the sample."""
        packed = pack_bytes(rows)
        words, distances = self._assign(packed, centers)
        self.n_iter_ = 0
        while self.n_iter_ < self.max_iter:
            self.n_iter_ += 1
            updated = _vote(rows, words, distances, centers)
            if np.array_equal(updated, centers):
                break
            centers = updated
            words, distances = self._assign(packed, centers)
        self.cluster_centers_ = centers
        return words, distances

    def _assign(self, packed: NDArray[np.uint64], centers: NDArray[np.uint8]) -> Assignment:
        words = np.empty(len(packed), dtype=np.int32)
        distances = np.empty(len(packed), dtype=np.int32)
        packed_centers = pack_bytes(centers)

        def assign(block: slice) -> None:
            nearest_by_hamming(packed[block], packed_centers, words[block], distances[block])

        for _ in map_blocks(assign, block_slices(len(packed), _BLOCK_ROWS), n_jobs=self.n_jobs):
            pass
        return words, distances

    def _count_useless_words(self, words: NDArray[np.int32]) -> None:
        self.n_empty_words_ = int(self.n_words - np.count_nonzero(np.bincount(words, minlength=self.n_words)))
        self.n_duplicate_words_ = int(self.n_words - len(np.unique(self.cluster_centers_, axis=0)))
        if self.n_empty_words_:
            warnings.warn(
                f"{self.n_empty_words_} of n_words={self.n_words} words stay empty, {self.n_duplicate_words_} of them "
                f"as repetitions of others: too many words for this sample of {self.n_samples_} descriptors.",
                UserWarning,
                stacklevel=3,
            )


def _vote(
    rows: NDArray[np.uint8], words: NDArray[np.int32], distances: NDArray[np.int32], centers: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the centres after one vote; those without descriptors move to the descriptors farthest from theirs."""
    ones = np.zeros((len(centers), 8 * rows.shape[1]), dtype=np.int64)
    sizes = np.zeros(len(centers), dtype=np.int64)
    count_bits(rows, words, ones, sizes)
    margin = 2 * ones - sizes[:, None]
    updated = np.packbits(np.where(margin == 0, np.unpackbits(centers, axis=1), margin > 0), axis=1)
    empty = np.flatnonzero(sizes == 0)
    # A stable sort: of equally far ones the first.
    far = np.argsort(-distances, kind="stable")[: len(empty)]
    far = far[distances[far] > 0]
    updated[empty[: len(far)]] = rows[far]
    return updated
