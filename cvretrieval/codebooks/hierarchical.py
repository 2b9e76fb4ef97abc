"""Vocabulary trees: visual words by hierarchical k-means."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.nearest_center import nearest_children
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_number, non_finite_descriptors
from cvretrieval.codebooks.tree_growth import grow_tree, half_norms
from cvretrieval.feature_chunks import finite_rows
from cvretrieval.local_features import LocalFeatures, check_local_features
from cvretrieval.shared_sample import spread_sample

# Descriptors that go down together: those of one node share its children in cache.
_BLOCK_ROWS = 65_536


class VocabularyTree(LocalFeaturesInputMixin, ClusterMixin, BaseEstimator):
    """Visual words by hierarchical k-means (vocabulary tree, Nistér & Stewénius 2006); up to millions of them.

    The descriptors are split by k-means into `branching` groups, each of these again, and so on, `depth` times. The
    last groups are the words. A descriptor finds its word by going down the tree to the nearest child each time:
    branching · depth comparisons instead of branching^depth.

    Parameters
    ----------
    branching : int, default=10
        Children of a node, at most.
    depth : int, default=6
        Levels below the root. There are at most branching^depth words: a million by default.
    max_samples : int or None, default=10000000
        At most so many descriptors are used, drawn without replacement; None takes all. They are kept as they are, in
        bytes or float32, and read where they lie if they are a memory-mapped array and all are taken.
    max_iter : int, default=10
        Iterations of k-means at each node, on at most 256 of its descriptors for each child.
    n_jobs : int, optional
        Threads over nodes and over blocks of descriptors; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the sample and of the starts of k-means.
    verbose : bool, default=False
        Show progress bars on a terminal.

    Attributes
    ----------
    nodes_ : ndarray of shape (n_nodes, n_dims)
        Centres of all nodes but the root, float32, level by level; children of a node in sequence.
    children_ : ndarray of shape (n_nodes + 1, 2)
        int32. Row 0 is the root, row i + 1 is node i: its first child, and the node after its last; equal for leaves.
    words_ : ndarray of shape (n_nodes,)
        int32. The word that a leaf is; −1 for inner nodes.
    cluster_centers_ : ndarray of shape (n_words, n_dims)
        Centres of the words.
    n_words_, n_nodes_, depth_ : int
        Number of words and of nodes without the root, and levels that came about.
    n_dims_ : int
        Dimension of the descriptors.
    n_samples_ : int
        Size of the sample.

    Notes
    -----
    A node with no more descriptors than `branching`, or whose descriptors are all equal, is not split: it is a leaf
    above the last level. So there may be fewer words than branching^depth; they are numbered 0, 1, … from left to right
    in the tree, and words with close numbers are close in the tree.

    The word is not always the nearest of ``cluster_centers_``: on the border of two branches the descent may take the
    wrong one. `ApproximateWords` finds the nearest much more often, at more cost.

    Inner nodes are words, too, of a coarser kind: `path` tells all that a descriptor belongs to, and
    ``BagOfWords(codebook=tree, assignment="path", sparse=True)`` counts them. Followed by `TfIdf`, this is the scoring
    of Nistér and Stewénius: each node is weighted by ln(N / N_i), with ``norm="l1"`` for their preferred distance.

    Where `X` is ``ImageRetriever.iter_features()``, the levels are computed by the processes that
    ``joblib.parallel_config`` names, Dask's for example; the tree is the same.

    Distances are Euclidean, in float32; ties go to the child of the lowest number.

    References
    ----------
    .. [1] D. Nistér and H. Stewénius, "Scalable recognition with a vocabulary tree", CVPR 2006, sections 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import VocabularyTree
    >>> X = list(np.random.default_rng(0).normal(size=(4, 100, 8)))
    >>> tree = VocabularyTree(branching=3, depth=2, random_state=0).fit(X)
    >>> tree.n_words_, tree.n_nodes_
    (9, 12)
    >>> tree.path(X).shape
    (400, 2)
    """

    #: The descent, not the nearest centre, says which word a descriptor is.
    finds_own_words = True

    def __init__(
        self,
        branching: int = 10,
        depth: int = 6,
        *,
        max_samples: int | None = 10_000_000,
        max_iter: int = 10,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.branching = branching
        self.depth = depth
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> VocabularyTree:
        """Grow the tree from the descriptors of `X`.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays, or iterable of LocalFeatures
            Images, or chunks of them, of which one after the other is in memory, beside the sample.
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, or one of the sample is NaN or infinite; the message names the
            image.
        """
        check_number(self, "branching", self.branching, low=2, integer=True)
        check_number(self, "depth", self.depth, low=1, integer=True)
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        random_state = check_random_state(self.random_state)
        sample = spread_sample(X, self.max_samples, random_state, n_jobs=self.n_jobs, estimator=self)
        with sample as (rows, spread):
            tree = grow_tree(
                rows, int(self.branching), int(self.depth), int(self.max_iter), random_state, spread, self.verbose
            )
            self.n_samples_, self.n_dims_ = rows.shape
        self.nodes_, self.children_, self.words_, self.depth_ = tree
        self.n_nodes_ = len(self.nodes_)
        self.n_words_ = int(self.words_.max()) + 1
        most = int(self.branching) ** int(self.depth)
        if self.n_samples_ < most:
            warnings.warn(
                f"The tree has {self.n_words_} words of the {most} that branching={self.branching} and "
                f"depth={self.depth} allow: too many for this sample of {self.n_samples_} descriptors.",
                UserWarning,
                stacklevel=2,
            )
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Return the word of every descriptor of every image, int32 of shape (n_descriptors,).

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        X = self._check(X)
        words = np.empty(X.n_descriptors, dtype=np.int32)

        def descend(rows: slice) -> None:
            nodes = np.zeros(rows.stop - rows.start, dtype=np.int32)
            for level in self._levels(X, rows):
                nodes = np.where(level < 0, nodes, level)
            words[rows] = self.words_[nodes]

        self._map(descend, X)
        return words

    def path(self, X: Any) -> NDArray[np.int32]:
        """Return the nodes that every descriptor belongs to.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays

        Returns
        -------
        ndarray of shape (n_descriptors, depth)
            int32. Column l is the node on level l below the root, numbered as in ``nodes_``; −1 below a leaf.
        """
        X = self._check(X)
        path = np.empty((X.n_descriptors, self.depth_), dtype=np.int32)

        def descend(rows: slice) -> None:
            for level, nodes in enumerate(self._levels(X, rows)):
                path[rows, level] = nodes

        self._map(descend, X)
        return path

    @property
    def cluster_centers_(self) -> NDArray[np.float32]:
        """Centres of the words, float32 of shape (n_words, n_dims)."""
        # Unfitted, an AttributeError, as for any learned attribute.
        leaves = np.flatnonzero(self.words_ >= 0)
        centers = np.empty((len(leaves), self.nodes_.shape[1]), dtype=np.float32)
        centers[self.words_[leaves]] = self.nodes_[leaves]
        return centers

    def _check(self, X: Any) -> LocalFeatures:
        check_is_fitted(self, "nodes_")
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        # Derived, and so not stored; anew if somebody exchanged the nodes.
        if getattr(self, "_half_norms", (None, None))[0] is not self.nodes_:
            self._half_norms = (self.nodes_, half_norms(self.nodes_))
        return X

    def _map(self, descend: Any, X: LocalFeatures) -> None:
        blocks = block_slices(X.n_descriptors, _BLOCK_ROWS)
        weights = [block.stop - block.start for block in blocks]
        for _ in map_blocks(
            descend, blocks, n_jobs=self.n_jobs, weights=weights, description="VocabularyTree", unit="descriptor",
            verbose=self.verbose,
        ):  # fmt: skip
            pass

    def _levels(self, X: LocalFeatures, block: slice) -> Any:
        """Yield the nodes of some rows, level by level; −1 where the path has ended."""
        rows = X.descriptors[block].astype(np.float32, copy=False)
        finite = finite_rows(rows)
        if not finite.all():
            row = block.start + int(np.flatnonzero(~finite)[0])
            raise non_finite_descriptors(self, int(np.searchsorted(X.offsets, row, side="right")) - 1)
        norms, scores = self._half_norms[1], np.empty(len(rows), dtype=np.float32)
        # Numbers as in children_, where the root is 0.
        order, parents = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int32)
        for _ in range(self.depth_):
            nodes = np.full(len(rows), -1, dtype=np.int32)
            starts = np.flatnonzero(np.diff(parents, prepend=-1))
            bounds = np.append(starts, len(parents))
            nearest_children(rows, order, bounds, parents[starts], self.children_, self.nodes_, norms, nodes, scores)
            yield nodes
            reached = nodes[order] + 1
            goes_on = self.children_[reached, 0] < self.children_[reached, 1]
            order, reached = order[goes_on], reached[goes_on]
            sequence = np.argsort(reached, kind="stable")
            order, parents = order[sequence], reached[sequence]
