"""Nearly always the nearest word, at a fraction of the cost, for vocabularies of up to millions of words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_choice, check_number, non_finite_descriptors
from cvretrieval.codebooks.probe_choice import Probes, choose_probes
from cvretrieval.codebooks.word_cells import BLOCK_ROWS, Layout, WordCells, arrange, default_branching
from cvretrieval.codebooks.word_graph import WordGraph
from cvretrieval.feature_chunks import check_feature_chunks, finite_rows, sample_descriptors
from cvretrieval.local_features import LocalFeatures, check_local_features

#: Descriptors on which recall is measured, at most: its standard error at 0.95 is then 0.003.
MEASURED = 4096


class ApproximateWords(LocalFeaturesInputMixin, ClusterMixin, BaseEstimator):
    """Assignment to the words of a large flat codebook by approximate nearest neighbours, with measured recall.

    Parameters
    ----------
    codebook : clusterer
        Anything with ``cluster_centers_`` and Euclidean distances: a fitted `KMeansCodebook` or `VocabularyTree`, whose
        words are taken as they are; one that is not fitted is fitted first, on the same descriptors.
    recall : float, default=0.95
        Share of descriptors that must find their nearest word; `fit` chooses the number of probes for it. 1 is exact.
    n_probes : int, optional
        Cells that a descriptor looks into (words kept in mind with "hnsw"), instead of `recall`.
    method : {"cells", "hnsw"}, default="cells"
        "cells": words are grouped into some 8 √n_words cells by two levels of k-means, and all words of the nearest
        cells are compared. "hnsw": the graph of faiss, which must be installed (extra "faiss").
    max_samples : int, default=4096
        Descriptors of `X` on which the recall is measured.
    n_jobs : int, optional
        Threads over blocks of descriptors; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the cells and of the sample.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_words, n_dims)
        The words, float32.
    n_words_, n_dims_ : int
    recall_ : float
        Share of the sample whose word is the nearest, measured; of equally near words each counts.
    n_probes_ : int
        Cells that a descriptor looks into, or words kept in mind.
    n_groups_ : int
        Groups of cells in which these are looked for.
    cells_ : ndarray of shape (n_words,)
        int32. The cell of each word. With ``group_centers_``, ``cell_centers_``, ``group_bounds_``, ``origin_`` and
        ``basis_`` the arrangement of the cells; not with "hnsw", whose graph is built anew after loading.

    Notes
    -----
    Give descriptors to `fit` that the codebook was not learned from: its own lie nearer to their words.

    The number of probes is the least whose recall on the sample exceeds the wanted one by 1.6 standard errors. A word
    found by "cells" is exactly the nearest of all words in the probed cells: most are ruled out by a bound in the
    principal subspace of the words, the others measured from differences in float32, ties to the lowest. So the word of
    a descriptor does not depend on the descriptors beside it.

    References
    ----------
    .. [1] J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, "Object retrieval with large vocabularies and fast
       spatial matching", CVPR 2007 (approximate assignment, by a forest of k-d trees there).
    .. [2] J. Sivic and A. Zisserman, "Video Google", ICCV 2003; H. Jégou, M. Douze and C. Schmid, "Product quantization
       for nearest neighbor search", TPAMI 2011, section 4 (search in the nearest cells of a coarse quantiser).
    .. [3] Y. Malkov and D. Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical
       navigable small world graphs", TPAMI 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ApproximateWords, KMeansCodebook
    >>> X = list(np.random.default_rng(0).normal(size=(4, 500, 8)))
    >>> codebook = KMeansCodebook(n_words=200, random_state=0).fit(X[:2])
    >>> words = ApproximateWords(codebook, recall=0.9, random_state=0).fit(X[2:])
    >>> words.recall_ >= 0.9
    True
    """

    finds_own_words = True

    cluster_centers_: NDArray[np.float32]
    n_words_: int
    n_dims_: int
    recall_: float
    n_probes_: int
    n_groups_: int
    _search: tuple[NDArray[np.float32], WordCells | WordGraph]

    def __init__(
        self,
        codebook: Any = None,
        *,
        recall: float = 0.95,
        n_probes: int | None = None,
        method: str = "cells",
        max_samples: int = MEASURED,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.codebook = codebook
        self.recall = recall
        self.n_probes = n_probes
        self.method = method
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ApproximateWords:
        """Arrange the words of the codebook, and choose the probes by the descriptors of `X`.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays, or iterable of LocalFeatures
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, a descriptor of the sample is NaN or infinite, or has another
            dimension than the words.
        TypeError
            If the codebook has no centres.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        codebook = self.codebook
        if not hasattr(codebook, "cluster_centers_"):
            if not hasattr(codebook, "fit") or getattr(codebook, "metric", "euclidean") != "euclidean":
                raise TypeError(
                    "The 'codebook' parameter of ApproximateWords must be a clusterer with cluster_centers_ and "
                    f"Euclidean distances, such as KMeansCodebook. Got {type(codebook).__name__} instead."
                )
            codebook = clone(codebook).fit(X)
        words = np.ascontiguousarray(codebook.cluster_centers_, dtype=np.float32)
        X = check_feature_chunks(X, n_dims=words.shape[1], estimator=self)
        rows = sample_descriptors(X, int(self.max_samples), check_random_state(self.random_state), estimator=self)
        return self.fit_words(words, rows)

    def fit_words(self, words: NDArray[np.float32], rows: NDArray[Any]) -> ApproximateWords:
        """Do what `fit` does for given words and rows, as they are.

        Parameters
        ----------
        words : ndarray of shape (n_words, n_dims)
            float32, finite, C-contiguous; kept.
        rows : ndarray of shape (n_descriptors, n_dims)
            uint8 or float32, finite: to measure the recall on.
        """
        self._check_parameters()
        rows = np.ascontiguousarray(rows)
        self.cluster_centers_ = words
        self.n_words_, self.n_dims_ = words.shape
        random_state = check_random_state(self.random_state)
        layout = arrange(words, default_branching(len(words)), random_state, self.n_jobs)
        cells = WordCells(words, layout)
        if self.method == "cells":
            self._keep(layout, cells)
            probes = choose_probes(cells, rows, float(self.recall), self.n_probes, self.n_jobs)
        else:
            graph = WordGraph(words)
            self._search = (words, graph)
            probes = self._choose_list(graph, cells, rows)
        self.n_groups_, self.n_probes_, self.recall_ = probes
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Return the word of every descriptor of every image, int32 of shape (n_descriptors,).

        Raises
        ------
        ValueError
            If the descriptors have another dimension than the words, or are NaN or infinite; the message names the
            image.
        """
        check_is_fitted(self, "recall_")
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        return self.assign(X, n_jobs=self.n_jobs, owner=self)

    def assign(self, X: LocalFeatures, *, n_jobs: int | None, owner: Any) -> NDArray[np.int32]:
        """Return what `predict` does for checked features; `owner` is the estimator that errors name."""
        search = self._prepare()
        found = np.empty(X.n_descriptors, dtype=np.int32)

        def find(block: slice) -> None:
            rows = self._rows(X, block, owner)
            if isinstance(search, WordCells):
                found[block] = search.search(rows, self.n_groups_, self.n_probes_)[0]
            else:
                found[block] = search.search(rows, self.n_probes_)[0]

        for _ in map_blocks(find, block_slices(X.n_descriptors, BLOCK_ROWS), n_jobs=n_jobs):
            pass
        return found

    def assign_several(self, X: LocalFeatures, n_nearest: int, *, owner: Any) -> NDArray[np.int32]:
        """Return the nearest words of each descriptor in the cells that it looks into, the nearest first.

        int32 of shape (n_descriptors, n_nearest); −1 where there are fewer, with "hnsw" everywhere.
        """
        found = np.full((X.n_descriptors, n_nearest), -1, dtype=np.int32)
        search = self._prepare()
        if isinstance(search, WordCells):
            for block in block_slices(X.n_descriptors, BLOCK_ROWS):
                rows = self._rows(X, block, owner)
                found[block] = search.search_several(rows, self.n_groups_, self.n_probes_, n_nearest)
        return found

    def _rows(self, X: LocalFeatures, block: slice, owner: Any) -> NDArray[Any]:
        """Return some descriptors as they are searched; refuse those that are not finite."""
        rows = np.ascontiguousarray(X.descriptors[block])
        rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32, copy=False)
        finite = finite_rows(rows)
        if not finite.all():
            row = block.start + int(np.flatnonzero(~finite)[0])
            raise non_finite_descriptors(owner, int(np.searchsorted(X.offsets, row, side="right")) - 1)
        return rows

    def _prepare(self) -> WordCells | WordGraph:
        """Return what searches; made anew after loading, or if somebody exchanged the words."""
        if getattr(self, "_search", (None, None))[0] is not self.cluster_centers_:
            if hasattr(self, "cells_"):
                layout = Layout(
                    self.origin_, self.basis_, self.group_centers_, self.cell_centers_, self.group_bounds_, self.cells_
                )
                self._search = (self.cluster_centers_, WordCells(self.cluster_centers_, layout))
            else:
                self._search = (self.cluster_centers_, WordGraph(self.cluster_centers_))
        return self._search[1]

    def _keep(self, layout: Layout, cells: WordCells) -> None:
        self.origin_, self.basis_, self.group_centers_, self.cell_centers_, self.group_bounds_, self.cells_ = layout
        self._search = (self.cluster_centers_, cells)

    def _choose_list(self, graph: WordGraph, cells: WordCells, rows: NDArray[Any]) -> Probes:
        def nearest(block: slice) -> NDArray[np.float32]:
            return cells.search_all(rows[block])[1]

        distances = np.concatenate(list(map_blocks(nearest, block_slices(len(rows), 256), n_jobs=self.n_jobs)))
        return graph.choose(rows, distances, float(self.recall), self.n_probes, self.n_jobs)

    def _check_parameters(self) -> None:
        check_number(self, "recall", self.recall, low=0, high=1, low_open=True)
        check_number(self, "n_probes", self.n_probes, low=1, integer=True, optional=True)
        check_choice(self, "method", self.method, ("cells", "hnsw"))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True)

    def __sklearn_clone__(self) -> ApproximateWords:
        copy: ApproximateWords = super().__sklearn_clone__()
        if hasattr(self.codebook, "cluster_centers_"):
            # scikit-learn would clone the codebook as well, and a clone is not fitted.
            copy.codebook = self.codebook
        return copy
