"""k-means codebooks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.nearest_center import center_means, sum_of_squares
from cvretrieval._parallel import single_threaded
from cvretrieval._spread import Spread
from cvretrieval._validation import check_choice, check_number, describe_array
from cvretrieval.codebooks.approximate_lloyd import approximate_lloyd
from cvretrieval.codebooks.approximate_words import MEASURED, ApproximateWords
from cvretrieval.codebooks.assignment import NearestWord
from cvretrieval.codebooks.lloyd import KMeansResult, lloyd, start_of_lloyd
from cvretrieval.feature_chunks import check_feature_chunks, sample_descriptors
from cvretrieval.local_features import check_local_features
from cvretrieval.shared_sample import spread_sample

# Up to here Lloyd's algorithm on the default sample takes seconds; beyond, mini-batches cost 2 % of the objective.
_LLOYD_WORDS = 512

# Beyond, mini-batches, of four descriptors for each word compared with all words, take hours.
_MINIBATCH_WORDS = 16_384

# Descriptors times words from which Lloyd's algorithm is our own. Below, scikit-learn's takes seconds in one thread.
_LARGE = 2**26


class KMeansCodebook(LocalFeaturesInputMixin, ClusterMixin, BaseEstimator):
    """Visual words by k-means on a sample of the descriptors.

    Parameters
    ----------
    n_words : int, default=64
        Number of words. May exceed the number of distinct descriptors: the surplus words stay empty, with a warning.
    algorithm : {"auto", "lloyd", "minibatch", "approximate"}, default="auto"
        "auto" takes Lloyd's for up to 512 words, mini-batches for up to 16,384, and beyond these Lloyd's with
        approximately nearest words ("approximate k-means", Philbin et al. 2007), up to millions. "approximate" starts
        from random descriptors, and reads bytes and memory-mapped arrays as they are, block by block.
    assignment : {"exact", "approximate", "hnsw"}, default="exact"
        How `predict`, and encoders given the codebook, find words: by comparison with all, or by `ApproximateWords`, in
        the nearest cells or by faiss's graph. A tenth of the sample, 4,096 descriptors at most, is then left out from
        learning, and the recall is measured on it.
    recall : float, default=0.95
        Share of descriptors that must find their nearest word, unless the assignment is exact.
    max_samples : int or None, default=100000
        At most so many descriptors are used, drawn without replacement; None takes all. Bounds time and memory.
    max_iter : int, default=50
        Iterations of Lloyd's algorithm, or passes over the sample by mini-batches.
    tol : float, default=1e-4
        Relative tolerance of the change of the centres, as in scikit-learn.
    n_init : int, default=1
        Starts by k-means++; the best is kept.
    n_jobs : int, optional
        Threads of Lloyd's algorithm where there are more than 67 million pairs of descriptor and word, of the
        approximate algorithm and of approximate assignment; the number does not change a bit of the result. Everything
        else runs in one thread.
    random_state : int, RandomState or None, default=None
        Seed of the sample and the starts.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_words, n_dims)
        The words, float32.
    n_dims_ : int
        Dimension of the descriptors.
    counts_ : ndarray of shape (n_words,)
        Descriptors of the sample that each word is nearest to, or that it has taken in by `partial_fit`; int64.
    inertia_ : float
        Sum of the squared distances of the sample to their words; of the last batch before it moved the words, after
        `partial_fit`.
    n_iter_ : int
        Iterations run; `partial_fit` adds one for each batch.
    n_samples_ : int
        Size of the sample; `partial_fit` adds its batches.
    n_empty_words_ : int
        Words that no descriptor of the sample is nearest to.
    n_duplicate_words_ : int
        Words equal to an earlier one; they are empty, too.
    search_ : ApproximateWords
        Says which recall was reached, ``search_.recall_``, and by how many probes; only if the assignment is not exact.

    Notes
    -----
    Distances are Euclidean, ties go to the lowest word. Small fits, and mini-batches, are those of scikit-learn, in one
    thread: it adds partial sums of several threads in varying order, and the same seed would give other words. Large
    fits start with k-means++ and a few iterations on growing samples, which are not counted as iterations.

    Large fits, but for mini-batches and the approximate algorithm, are computed by the processes that
    ``joblib.parallel_config`` names, Dask's for example, where `X` is ``ImageRetriever.iter_features()``: the sample is
    the same, the words are those of threads up to the order in which sums are added.

    References
    ----------
    .. [1] D. Sculley, "Web-scale k-means clustering", WWW 2010 (mini-batches, `partial_fit`).
    .. [2] J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, "Object retrieval with large vocabularies and fast
       spatial matching", CVPR 2007, section 3.1 (approximate k-means).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import KMeansCodebook
    >>> X = [np.array([[0.0, 0], [0, 1]]), np.array([[9.0, 9], [9, 8]])]
    >>> codebook = KMeansCodebook(n_words=2, random_state=0).fit(X)
    >>> words = codebook.predict(X)
    >>> bool(words[0] == words[1] != words[2] == words[3])
    True
    """

    cluster_centers_: NDArray[np.float32]
    counts_: NDArray[np.int64]
    n_dims_: int
    n_iter_: int
    n_samples_: int

    def __init__(
        self,
        n_words: int = 64,
        *,
        algorithm: str = "auto",
        assignment: str = "exact",
        recall: float = 0.95,
        max_samples: int | None = 100_000,
        max_iter: int = 50,
        tol: float = 1e-4,
        n_init: int = 1,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_words = n_words
        self.algorithm = algorithm
        self.assignment = assignment
        self.recall = recall
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> KMeansCodebook:
        """Learn the words from the descriptors of `X`.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays, or iterable of LocalFeatures
            Images, or chunks of them, such as a generator or ``ImageRetriever.iter_features()``: one chunk after the
            other is in memory, beside the sample. The words do not depend on how images are cut into chunks.
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, or one of the sample is NaN or infinite.
        """
        self._check_parameters()
        random_state = check_random_state(self.random_state)
        sample = spread_sample(X, self.max_samples, random_state, n_jobs=self.n_jobs, estimator=self)
        with sample as (rows, spread):
            self._learn_from(rows, spread, random_state)
        return self

    def _learn_from(self, rows: NDArray[Any], spread: Spread, random_state: np.random.RandomState) -> None:
        self.n_samples_, self.n_dims_ = rows.shape
        distinct = np.unique(rows, axis=0) if len(rows) <= 2 * self.n_words else None
        if distinct is not None and len(distinct) <= self.n_words:
            left_out = np.arange(len(rows))
            counts = self._take_all(distinct.astype(np.float32), rows.astype(np.float32, copy=False))
        else:
            left_out = self._leave_out(len(rows), random_state)
            counts = self._learn(rows, left_out, random_state, spread)
        self.counts_ = counts
        self._count_useless_words(counts)
        self._arrange(rows[left_out] if len(left_out) else rows[:MEASURED])

    def _leave_out(self, n_rows: int, random_state: np.random.RandomState) -> NDArray[np.int64]:
        """Choose the descriptors that the recall is measured on; none may be missing for the words themselves."""
        n_left_out = min(MEASURED, n_rows // 10, n_rows - int(self.n_words))
        if self.assignment == "exact" or n_left_out < 1:
            return np.empty(0, dtype=np.int64)
        return np.sort(random_state.choice(n_rows, n_left_out, replace=False))

    def _arrange(self, rows: NDArray[Any]) -> None:
        """Prepare the approximate assignment to the words, if it is asked for."""
        if self.assignment == "exact":
            return
        method = "hnsw" if self.assignment == "hnsw" else "cells"
        search = ApproximateWords(recall=self.recall, method=method, n_jobs=self.n_jobs, random_state=0)
        self.search_ = search.fit_words(self.cluster_centers_, rows)

    def partial_fit(self, X: Any, y: Any = None) -> KMeansCodebook:
        """Move the words towards the descriptors of one batch (mini-batch k-means); all of them are used.

        Every word becomes the mean of all the descriptors it has taken in, ``counts_`` of them. The first call, unless
        `fit` was called before, chooses the words from its batch by k-means++.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays, or iterable of LocalFeatures
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, the first batch has fewer than `n_words`, a descriptor has another
            dimension than before, or is NaN or infinite.
        """
        self._check_parameters()
        is_first = not hasattr(self, "counts_")
        if not is_first:
            X = check_feature_chunks(X, n_dims=self.n_dims_, estimator=self)
        rows = sample_descriptors(X, None, check_random_state(0), estimator=self).astype(np.float32, copy=False)
        if is_first:
            self._start(rows)
        words = self._nearest(rows)
        means, counts = self.cluster_centers_.copy(), np.empty(len(self.cluster_centers_), dtype=np.int64)
        center_means(rows, words, np.empty(means.shape), counts, means)
        self.inertia_ = sum_of_squares(rows, self.cluster_centers_, words)
        share = (counts / np.maximum(self.counts_ + counts, 1))[:, None]
        self.cluster_centers_ = (self.cluster_centers_ + share * (means - self.cluster_centers_)).astype(np.float32)
        self.counts_ = self.counts_ + counts
        self.n_iter_ += 1
        self.n_samples_ += len(rows)
        self.n_empty_words_ = int(np.count_nonzero(self.counts_ == 0))
        self.n_duplicate_words_ = len(self.counts_) - len(np.unique(self.cluster_centers_, axis=0))
        self._arrange(rows[:MEASURED])
        return self

    def _start(self, rows: NDArray[np.float32]) -> None:
        if len(rows) < self.n_words:
            raise ValueError(
                f"The first batch of KMeansCodebook.partial_fit has {len(rows)} descriptors: too few to choose "
                f"n_words={self.n_words} words from. Give a larger batch first, or call fit on a sample."
            )
        with single_threaded():
            centers, _ = kmeans_plusplus(rows, int(self.n_words), random_state=check_random_state(self.random_state))
        self.cluster_centers_ = np.ascontiguousarray(centers, dtype=np.float32)
        self.counts_ = np.zeros(int(self.n_words), dtype=np.int64)
        self.n_dims_, self.n_iter_, self.n_samples_ = rows.shape[1], 0, 0

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Return the word of every descriptor of every image, int32 of shape (n_descriptors,).

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        check_is_fitted(self, "cluster_centers_")
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        if self.finds_own_words:
            return self.search_.assign(X, n_jobs=self.n_jobs, owner=self)
        nearest = NearestWord(self.cluster_centers_, self)
        with single_threaded():
            words = [nearest.assign(image.descriptors, i) for i, image in enumerate(X)]
        return np.concatenate(words) if words else np.empty(0, dtype=np.int32)

    @property
    def finds_own_words(self) -> bool:
        """Whether `predict` says which word a descriptor is, rather than the nearest centre."""
        return self.assignment != "exact" and hasattr(self, "search_")

    @property
    def n_words_(self) -> int:
        """Number of words."""
        return len(self.cluster_centers_)

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_choice(self, "algorithm", self.algorithm, ("auto", "lloyd", "minibatch", "approximate"))
        check_choice(self, "assignment", self.assignment, ("exact", "approximate", "hnsw"))
        check_number(self, "recall", self.recall, low=0, high=1, low_open=True)
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        check_number(self, "tol", self.tol, low=0)
        check_number(self, "n_init", self.n_init, low=1, integer=True)

    def _take_all(self, distinct: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Make every distinct descriptor a word; surplus words repeat the first and so are never nearest."""
        surplus = int(self.n_words) - len(distinct)
        self.cluster_centers_ = np.concatenate([distinct, np.repeat(distinct[:1], surplus, axis=0)])
        self.inertia_ = 0.0
        self.n_iter_ = 0
        return self._count_words(rows)

    def _learn(
        self, rows: NDArray[Any], left_out: NDArray[np.int64], random_state: np.random.RandomState, spread: Spread
    ) -> NDArray[np.int64]:
        """Learn the words, and return the number of descriptors of each."""
        if self.algorithm == "approximate" or (self.algorithm == "auto" and self.n_words > _MINIBATCH_WORDS):
            return self._keep(
                approximate_lloyd(
                    rows, left_out, int(self.n_words), max_iter=int(self.max_iter), tol=float(self.tol),
                    n_jobs=self.n_jobs, random_state=random_state,
                )
            )  # fmt: skip
        rows = spread.keep(np.delete(rows, left_out, axis=0)) if len(left_out) else rows
        is_minibatch = self.algorithm == "minibatch" or (self.algorithm == "auto" and self.n_words > _LLOYD_WORDS)
        if not is_minibatch and len(rows) * self.n_words >= _LARGE:
            return self._learn_large(rows, random_state, spread)
        return self._learn_small(rows.astype(np.float32, copy=False), random_state, is_minibatch)

    def _learn_large(
        self, rows: NDArray[Any], random_state: np.random.RandomState, spread: Spread
    ) -> NDArray[np.int64]:
        owner = type(self).__name__

        def run() -> KMeansResult:
            start = start_of_lloyd(rows, int(self.n_words), random_state, spread=spread, owner=owner)
            return lloyd(rows, start, max_iter=int(self.max_iter), tol=float(self.tol), spread=spread, owner=owner)

        return self._keep(min((run() for _ in range(int(self.n_init))), key=lambda result: result.inertia))

    def _keep(self, result: KMeansResult) -> NDArray[np.int64]:
        self.cluster_centers_, counts, self.inertia_, self.n_iter_ = result
        return counts

    def _learn_small(
        self, rows: NDArray[np.float32], random_state: np.random.RandomState, is_minibatch: bool
    ) -> NDArray[np.int64]:
        options: dict[str, Any] = {
            "n_clusters": int(self.n_words), "max_iter": int(self.max_iter), "tol": self.tol,
            "n_init": int(self.n_init), "random_state": random_state,
        }  # fmt: skip
        if is_minibatch:
            # Reassignment of rare words returns fewer distinct ones on small data (scikit-learn#23141).
            model: Any = MiniBatchKMeans(**options, batch_size=max(1024, 4 * int(self.n_words)), reassignment_ratio=0)
        else:
            model = KMeans(**options, algorithm="lloyd")
        with single_threaded(), warnings.catch_warnings():
            # Fewer distinct words than asked for are counted and reported as attributes.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows)
        self.cluster_centers_ = np.ascontiguousarray(model.cluster_centers_, dtype=np.float32)
        self.inertia_ = float(model.inertia_)
        self.n_iter_ = int(model.n_iter_)
        return self._count_words(rows)

    def _count_words(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.bincount(self._nearest(rows), minlength=int(self.n_words))

    def _nearest(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        with single_threaded():
            return NearestWord(self.cluster_centers_, self).assign(rows, image=0)

    def _count_useless_words(self, counts: NDArray[np.int64]) -> None:
        self.n_empty_words_ = int(self.n_words - np.count_nonzero(counts))
        self.n_duplicate_words_ = int(self.n_words - len(np.unique(self.cluster_centers_, axis=0)))
        if self.n_empty_words_:
            warnings.warn(
                f"{self.n_empty_words_} of n_words={self.n_words} words stay empty, {self.n_duplicate_words_} of them "
                f"as repetitions of others: too many words for this sample of {self.n_samples_} descriptors.",
                UserWarning,
                stacklevel=4,
            )


def resolve_codebook(codebook: Any, owner: Any) -> Any:
    """Check that a given codebook is a fitted clusterer with ``cluster_centers_``, and return it as it is.

    Raises
    ------
    TypeError, ValueError
        If it is no clusterer with centres, or not fitted.
    """
    name = type(owner).__name__
    centers = getattr(codebook, "cluster_centers_", None)
    if centers is None:
        if not hasattr(codebook, "fit"):
            raise TypeError(
                f"The 'codebook' parameter of {name} must be a fitted clusterer with cluster_centers_, such as "
                f"KMeansCodebook or sklearn.cluster.KMeans. Got {type(codebook).__name__} instead."
            )
        raise ValueError(
            f"The codebook given to {name} is not fitted: call {type(codebook).__name__}.fit first, or give n_words."
        )
    metric = getattr(codebook, "metric", "euclidean")
    if metric != "euclidean":
        raise ValueError(
            f"{name} subtracts words from descriptors and needs a codebook of Euclidean distances. "
            f"{type(codebook).__name__} has metric={metric!r}; BagOfWords can use it."
        )
    if np.ndim(centers) != 2 or not len(centers) or not np.isfinite(centers).all():
        raise ValueError(
            f"The cluster_centers_ of the codebook given to {name} must be finite numbers of shape (n_words, n_dims). "
            f"Got {describe_array(np.asarray(centers))} instead."
        )
    return codebook
