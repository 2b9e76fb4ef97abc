"""Aggregated selective match kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.word_signatures import normalize_rows, pack_positive_bits, sum_residuals_of_groups
from cvretrieval._validation import check_flag
from cvretrieval.encoders.visual_word_encoder import VisualWordEncoder, group_by_word
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures
from cvretrieval.visual_words import VisualWords


class ASMK(VisualWordEncoder):
    """Aggregated selective match kernel (ASMK, ASMK*, Tolias et al. 2013): one residual for each word of an image.

    The residuals x − c_k of the descriptors of a word are added up and L2-normalised, as in VLAD; but only the words
    that an image has are kept, so that codebooks may be large. ``InvertedIndex("asmk")`` compares them.

    Parameters
    ----------
    n_words : int, default=4096
        Words of the codebook that `fit` learns; ignored if `codebook` is given. The literature has 65,536; beyond
        16,384 descriptors find their words approximately, with a recall of 0.95.
    codebook : fitted clusterer, optional
        Anything with ``cluster_centers_`` and Euclidean distances (`KMeansCodebook`, `VocabularyTree`,
        `ApproximateWords`, scikit-learn's ``KMeans``). Kept as it is, by `fit` and when cross-validation clones the
        encoder.
    binary : bool, default=False
        Keep the signs of the residuals only (ASMK*): n_dims bits for a word instead of n_dims numbers.
    n_query_words : int, default=1
        Words of each feature of a query, by `transform_queries`; the literature has 5. At most as many as there are
        words are used.
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

    Notes
    -----
    For each image and word, v = Σ (x − c_k) over its features of the word, then v / max(‖v‖, 1e-12) in float32; or one
    bit for each component, 1 where v > 0. A word whose residuals are all zero has the zero vector. A feature of a query
    with several words counts in each of them. An image without features has no words.

    A codebook that finds words in its own way (trees, approximate assignment) gives the first word of a query's
    feature; the others are the nearest of all centres or, with approximate assignment, of those that are looked at.

    The binary similarity is relative to n_dims: u = 1 − 2h / n_dims. The program jenicek/asmk pads to multiples of 32
    bits and takes the padded length, which differs only for other dimensions. Weights of the words (idf) belong to the
    index; published results on ASMK mostly have none, ``InvertedIndex("asmk", idf=None)``.

    References
    ----------
    .. [1] G. Tolias, Y. Avrithis and H. Jégou, "To aggregate or not to aggregate: selective match kernels for image
       search", ICCV 2013, section 4.
    .. [2] G. Tolias, T. Jenicek and O. Chum, "Learning and aggregating deep local descriptors for instance-level
       recognition", ECCV 2020 (65,536 words, five for a query's feature, no idf).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ASMK, InvertedIndex
    >>> X = list(np.random.default_rng(0).normal(size=(6, 50, 8)))
    >>> encoder = ASMK(n_words=20, n_query_words=2, random_state=0).fit(X)
    >>> index = InvertedIndex("asmk", idf=None).add(range(6), encoder.transform(X))
    >>> keys, scores = index.search(encoder.transform_queries(X[3:4]), k=2)
    >>> int(keys[0, 0])
    3
    """

    def __init__(
        self,
        n_words: int = 4096,
        *,
        codebook: Any = None,
        binary: bool = False,
        n_query_words: int = 1,
        max_samples: int | None = 100_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_words = n_words
        self.codebook = codebook
        self.binary = binary
        self.n_query_words = n_query_words
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> ASMK:
        """Learn the codebook from `X`, or take the given one.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        """
        self._check_parameters()
        self._fit_codebook(check_feature_chunks(X, estimator=self))
        if not hasattr(self.codebook_, "cluster_centers_"):
            raise TypeError(
                "ASMK subtracts the centre of its word from each descriptor, but the codebook "
                f"{type(self.codebook_).__name__} given to it has no cluster_centers_."
            )
        return self

    def _encode_block(self, X: LocalFeatures, block: slice, words: NDArray[np.int32]) -> VisualWords:
        start, n_nearest = X.offsets[block.start], words.shape[1]
        rows = X.descriptors[start : X.offsets[block.stop]].astype(np.float32, copy=False)
        flat = words.ravel()
        order, bounds, offsets = group_by_word(flat, (X.offsets[block.start : block.stop + 1] - start) * n_nearest)
        own = flat[order[bounds[:-1]]]
        sums = np.zeros((len(own), X.n_dims), dtype=np.float32)
        sum_residuals_of_groups(rows, order // n_nearest, bounds, own, self._centers(), sums)
        if not self.binary:
            normalize_rows(sums)
            return VisualWords(own, sums, offsets, self.n_words_)
        bits = np.zeros((len(own), -(-X.n_dims // 64)), dtype=np.uint64)
        pack_positive_bits(sums, bits)
        return VisualWords(own, bits, offsets, self.n_words_, X.n_dims)

    def _centers(self) -> NDArray[np.float32]:
        # Kept: a tree gathers its centres anew each time it is asked.
        known = getattr(self, "_known_centers", None)
        if known is None or known[0] is not self.codebook_:
            known = (self.codebook_, np.ascontiguousarray(self.codebook_.cluster_centers_, dtype=np.float32))
            self._known_centers = known
        return known[1]

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_flag(self, "binary", self.binary)
