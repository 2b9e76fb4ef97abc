"""Inverted file: posting lists of visual words, for bags of words, Hamming embedding and aggregated match kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._parallel import effective_n_jobs
from cvretrieval._validation import check_choice, check_number
from cvretrieval.index.checks import check_keys
from cvretrieval.index.posting_index import PostingIndex
from cvretrieval.index.posting_search import PostingSearch, WordSimilarity
from cvretrieval.index.posting_segments import PostingSegments
from cvretrieval.index.ranking import no_results, rank
from cvretrieval.index.sparse_checks import WordRows, check_word_rows
from cvretrieval.index.word_weights import WordWeights, check_idf, inverse_document_frequency

_VECTORS, _WORDS = ("cosine", "inner_product"), ("hamming_embedding", "asmk")
_BURSTINESS = (None, "intra", "inter", "both")


class InvertedIndex(PostingIndex, BaseEstimator):
    """Inverted file: for each visual word the images that contain it (Sivic & Zisserman 2003).

    Parameters
    ----------
    metric : {"cosine", "inner_product", "hamming_embedding", "asmk"}, default="cosine"
        What is ranked by, and so what is added. With w_k = idf_k²:

        - ``"cosine"``, of bags of words: Σ_k w_k q_k x_k / (√(Σ_k w_k q_k²) √(Σ_k w_k x_k²)), the cosine of the tf-idf
          vectors;
        - ``"inner_product"``, of bags of words: Σ_k w_k q_k x_k;
        - ``"hamming_embedding"``, of features with binary signatures (`VisualWords`): the weights
          exp(−h²/σ²) of all pairs of features with one word and h ≤ `max_distance` differing bits, times w_k, divided
          by √(Σ w_k) over the features of the query and of the image;
        - ``"asmk"``, of words with aggregated residuals or their signs (`VisualWords`): Σ_k w_k s(u_k) over common
          words, with s(u) = u^alpha for u ≥ `threshold` and 0 below, u the inner product of the residuals or
          1 − 2h / n_bits, divided by √(Σ w_k) over the words of the query and of the image.
    idf : {"collection", None} or ndarray of shape (n_words,), default="collection"
        Weights of the words: ln(N / N_k) of the images that the index holds at the time of the search (0 for words that
        none of them contains), 1, or the given ones. See Notes.
    sigma : float, default=16.0
        σ of Hamming embedding, in bits.
    max_distance : int, default=24
        Differing bits of a match of Hamming embedding, at most.
    burstiness : {None, "intra", "inter", "both"}, default="intra"
        What keeps repeated structure down in Hamming embedding: a feature of the query that has n matches in an image
        counts Σ/√n there; one that has n matches in all images counts 1/√n everywhere; or both.
    alpha : float, default=3.0
        Exponent of the selectivity of ASMK.
    threshold : float, default=0.0
        Least similarity of ASMK, from 0 to 1.
    n_jobs : int, optional
        Threads over queries and, if these are few, over segments; the number does not change a bit of the result.

    Attributes
    ----------
    n_dims : int or None
        Number of words; None before the first images.
    idf_ : ndarray of shape (n_words,)
        float64 weights of the words at this time.

    Notes
    -----
    A search reads the lists of the query's words only, and finds only images with a score above zero: one without a
    common word, or without features, is never found. Scores are sums in float32 over the words of the query in
    ascending order, divided in float64; they depend neither on the other images (but for the idf) nor on the order in
    which images were added, removed or merged. Among equal scores the lower key comes first.

    With ``idf="collection"`` the first search after a change computes the norms of all images anew, which reads all
    lists once: some milliseconds per million postings. A large index that changes all the time is better given weights:
    ``InvertedIndex(idf=index.idf_)``.

    Images are held in segments of 65,536. A posting takes two bytes for the image and one for the count, two where
    counts above 255 occur, four where they are not whole numbers (so give counts, ``BagOfWords(norm=None)``: the
    cosine of normalised ones is the same), 8 for 64 bits, 4 per dimension of a residual. Removed images keep theirs
    until their segment is merged with another or `compact`. Additions of any size are merged like the digits of a
    binary counter.

    Multiple assignment belongs to the queries: give them several words per feature, the images one.

    The idf is squared because it weights both sides, as in COLMAP. Counting matches for the burstiness is COLMAP's,
    too; Jégou et al. (2009) weight a match by √(s / Σ s) of its similarity s, the same where all similarities are.

    References
    ----------
    .. [1] J. Sivic and A. Zisserman, "Video Google: a text retrieval approach to object matching in videos", ICCV 2003.
    .. [2] H. Jégou, M. Douze and C. Schmid, "Hamming embedding and weak geometric consistency for large scale image
       search", ECCV 2008.
    .. [3] H. Jégou, M. Douze and C. Schmid, "On the burstiness of visual elements", CVPR 2009.
    .. [4] G. Tolias, Y. Avrithis and H. Jégou, "To aggregate or not to aggregate: selective match kernels for image
       search", ICCV 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import InvertedIndex
    >>> index = InvertedIndex().add([10, 20, 30], [[3, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    >>> keys, scores = index.search([[2, 1, 0, 5]], k=3)
    >>> keys
    array([[10, 20, -1]])
    >>> np.round(index.idf_, 3)
    array([0.405, 1.099, 1.099, 0.   ])
    """

    def __init__(
        self,
        metric: str = "cosine",
        *,
        idf: Any = "collection",
        sigma: float = 16.0,
        max_distance: int = 24,
        burstiness: str | None = "intra",
        alpha: float = 3.0,
        threshold: float = 0.0,
        n_jobs: int | None = None,
    ) -> None:
        self.metric = metric
        self.idf = idf
        self.sigma = sigma
        self.max_distance = max_distance
        self.burstiness = burstiness
        self.alpha = alpha
        self.threshold = threshold
        self.n_jobs = n_jobs
        self._start()
        self._weighted: tuple[Any, PostingSegments | None, WordWeights] | None = None

    @property
    def kind(self) -> str:
        """What is added: "sparse" vectors, or "words" with signatures."""
        return "words" if self.metric in _WORDS else "sparse"

    @property
    def idf_(self) -> NDArray[np.float64]:
        """Weights of the words at this time."""
        if self._example is None:
            raise ValueError("InvertedIndex holds no images yet, so there are no words to weight.")
        return self._idf(self._segments)

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best images for each query.

        Parameters
        ----------
        queries : CSR matrix or array-like of shape (n_queries, n_words), or VisualWords
            As for `add`.
        k : int
            Length of the ranked lists; may be more than there are images.
        within : array-like of shape (n_keys,), optional
            Only these keys are searched; those that are not in the index make no difference. They do not change the
            weights of the words.

        Returns
        -------
        keys : ndarray of shape (n_queries, k)
            int64, best first; -1 where there are no more images with a score above zero.
        scores : ndarray of shape (n_queries, k)
            float32; −inf where there are no more.
        """
        self._check_parameters()
        check_number("search", "k", k, low=1, integer=True)
        rows = check_word_rows("Queries", queries)
        segments = self._segments
        # An index without images holds no words that queries could miss.
        if self._example is not None:
            self._check_rows("Queries", rows)
        keys, n_live = [segment.keys for segment in segments.segments], segments.n_live
        if within is not None:
            wanted = check_keys(within)
            keys = [np.where(np.isin(own, wanted), own, -1) for own in keys]
            n_live = sum(int(np.count_nonzero(own >= 0)) for own in keys)
        n_found = min(int(k), n_live)
        if not n_found or not len(rows):
            return no_results(len(rows), int(k))
        weights = self._weights(segments)
        norms = None if self.metric == "inner_product" else weights.norms(segments.segments, self.n_jobs)
        search = PostingSearch(segments.segments, keys, rows, weights.weights, norms, self._similarity(), n_found)
        return rank(search, len(rows), int(k), n_found, self.n_jobs)

    def _idf(self, segments: PostingSegments) -> NDArray[np.float64]:
        n_words = self.n_dims or 0
        if self.idf is None:
            return np.ones(n_words)
        if isinstance(self.idf, str):
            return inverse_document_frequency(segments.segments, n_words)
        return np.asarray(self.idf, dtype=np.float64)

    def _weights(self, segments: PostingSegments) -> WordWeights:
        """Return weights and norms, those of the last search where neither idf nor images have changed."""
        state = segments if isinstance(self.idf, str) else None
        known = self._weighted
        if known is None or known[0] is not self.idf or known[1] is not state:
            known = (self.idf, state, WordWeights(self._idf(segments) ** 2))
            self._weighted = known
        return known[2]

    def _similarity(self) -> WordSimilarity:
        if self.metric == "hamming_embedding":
            n_bits = 64 * self._n_columns
            distances = np.arange(n_bits + 1)
            weights = np.where(distances <= self.max_distance, np.exp(-((distances / self.sigma) ** 2)), 0.0)
            intra, inter = self.burstiness in ("intra", "both"), self.burstiness in ("inter", "both")
            return WordSimilarity(weights, intra=intra, inter=inter)
        if self.metric == "asmk" and self._example is not None and self._example.n_bits is not None:
            products = 1.0 - 2.0 * np.arange(64 * self._n_columns + 1) / self._example.n_bits
            selected = (products > 0) & (products >= self.threshold)
            return WordSimilarity(np.where(selected, np.maximum(products, 0.0) ** self.alpha, 0.0))
        return WordSimilarity(None, float(self.alpha), float(self.threshold))

    @property
    def _n_columns(self) -> int:
        return 0 if self._example is None else int(self._example.values.shape[1])

    def _check_form(self, name: str, rows: WordRows) -> None:
        """Refuse what `metric` does not compare."""
        has_signatures = rows.values.ndim == 2
        if has_signatures != (self.metric in _WORDS):
            takes = "VisualWords" if self.metric in _WORDS else "sparse vectors"
            raise ValueError(f"metric={self.metric!r} of InvertedIndex compares {takes}. {name} are {rows.form}.")
        if self.metric == "hamming_embedding" and rows.n_bits is None:
            raise ValueError(f"metric='hamming_embedding' compares binary signatures. {name} are {rows.form}.")
        check_idf(self, self.idf, rows.n_words)

    def _check_parameters(self) -> None:
        check_choice(self, "metric", self.metric, (*_VECTORS, *_WORDS))
        check_idf(self, self.idf)
        check_number(self, "sigma", self.sigma, low=0, low_open=True)
        check_number(self, "max_distance", self.max_distance, low=0, integer=True)
        check_choice(self, "burstiness", self.burstiness, _BURSTINESS)
        check_number(self, "alpha", self.alpha, low=0, low_open=True)
        check_number(self, "threshold", self.threshold, low=0, high=1)
        effective_n_jobs(self.n_jobs)
