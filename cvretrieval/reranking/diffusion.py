"""Diffusion: similarity spreads from the query over the graph of mutual neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvretrieval._kernels.neighbor_graph import conjugate_gradient, count_mutual_neighbors, fill_mutual_affinities
from cvretrieval._parallel import block_slices
from cvretrieval._validation import check_number
from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database import Database
from cvretrieval.reranking.neighbors import nearest_neighbors
from cvretrieval.reranking.ranking import Ranking

# The solver reads its vectors in random order, so they should fit in cache; each of some columns costs less than one
# alone. How they are cut does not change the result.
_CACHED_VALUES = 500_000
_MOST_COLUMNS = 16

# Numbers in the right-hand sides of one block of queries.
_MOST_VALUES = 16_000_000


class Diffusion(Reranker):
    """Diffusion on the graph of mutual nearest neighbours: images are ranked along the manifold they lie on.

    Parameters
    ----------
    n_neighbors : int, default=50
        Neighbours of an image in the graph, itself counted. The paper takes 50 for one vector per image and 200 where
        there are several, of its regions.
    n_query_neighbors : int, default=10
        Nearest images that the query is connected to; in the paper 10 and, for regions, 200.
    gamma : float, default=3.0
        Power of the similarities.
    alpha : float, default=0.99
        In [0, 1): how far similarity spreads; 0 leaves it with the neighbours of the query.
    max_iter : int, default=20
        Most steps of the conjugate gradient method.
    tol : float, default=1e-6
        The solver stops at this norm of the residual, relative to y.
    n_truncate : int or None, default=10_000
        In larger databases, the graph is restricted to so many images that are most similar to the query; None never
        restricts it.
    n_jobs : int, optional
        Threads over blocks of images at `fit` and of queries afterwards; the number does not change any result.

    Attributes
    ----------
    graph_ : scipy.sparse.csr_array of shape (n_images, n_images)
        The affinities A, float64.
    vectors_ : ndarray of shape (n_images, n_features) or None
        Vectors of the database, L2-normalised; None if they are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    Notes
    -----
    With cosine similarities s, k = `n_neighbors` and k_q = `n_query_neighbors`::

        A_ij = max(s_ij, 0)^γ  if i ∈ N_k(j) and j ∈ N_k(i) and i ≠ j, else 0
        S    = D^-½ A D^-½,    D = diag(A 1)
        y_i  = max(s_qi, 0)^γ  for the k_q images nearest to the query, else 0
        f    : (I − α S) f = y

    Images are ranked by f. Those that nothing reaches, with f ≤ 0, follow in the order of their cosine; their score is
    the cosine minus 1. The graph is computed once, at `fit`, by comparing all images with each other; its at most
    n · `n_neighbors` entries take 20 bytes each. Restricted to some images, A is normalised anew.

    References
    ----------
    .. [1] A. Iscen, G. Tolias, Y. Avrithis, T. Furon and O. Chum, "Efficient diffusion on region manifolds: recovering
       small objects with compact CNN representations", CVPR 2017, sections 3 and 4.

    Examples
    --------
    On a circle, the image at 40° is reached in small steps, the one at −25° is not.

    >>> import numpy as np
    >>> from cvretrieval import Diffusion
    >>> angles = np.deg2rad([0, 10, 20, 30, 40, -25, -70])
    >>> images = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> diffusion = Diffusion(n_neighbors=3, n_query_neighbors=1).fit(images)
    >>> diffusion.rerank([[1.0, 0.0]])[0]
    array([[1, 2, 3, 0, 4, 5, 6]])
    """

    def __init__(
        self,
        n_neighbors: int = 50,
        n_query_neighbors: int = 10,
        *,
        gamma: float = 3.0,
        alpha: float = 0.99,
        max_iter: int = 20,
        tol: float = 1e-6,
        n_truncate: int | None = 10_000,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_query_neighbors = n_query_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.n_truncate = n_truncate
        self.n_jobs = n_jobs

    def _learn(self, database: Database) -> Database:
        neighbors, similarities = nearest_neighbors(database, min(self.n_neighbors, len(database)), self.n_jobs)
        self.graph_ = mutual_graph(neighbors, similarities, float(self.gamma))
        return database

    def _step(self, ranking: Ranking, k: int) -> Ranking:
        n_images = len(self._database)
        targets = self._targets(ranking)
        n_truncate = n_images if self.n_truncate is None else min(int(self.n_truncate), n_images)
        depth = min(k, n_images) if n_truncate == n_images else max(min(k, n_images), n_truncate)
        nearest, cosines = self._database.search(ranking.queries, depth, ranking.within)
        if n_truncate < n_images:
            parts = [self._truncated(row[:n_truncate], *y) for row, y in zip(nearest, targets, strict=True)]
        else:
            parts = self._whole(targets, n_images, ranking.within)
        indices = np.full((len(targets), k), -1, dtype=np.int64)
        scores = np.full((len(targets), k), -np.inf)
        for i, (images, values) in enumerate(parts):
            order = np.lexsort((images, -values))[:k]
            is_other = (nearest[i] >= 0) & ~np.isin(nearest[i], images)
            others = np.flatnonzero(is_other)[: k - len(order)]
            n_found = len(order) + len(others)
            indices[i, :n_found] = np.concatenate([images[order], nearest[i][others]])
            scores[i, :n_found] = np.concatenate([values[order], cosines[i][others].astype(np.float64) - 1.0])
        return ranking.reordered(indices, scores)

    def _targets(self, ranking: Ranking) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return for each query the images where y is not 0, and y there."""
        targets = []
        for query, row in zip(ranking.queries, ranking.indices[:, : self.n_query_neighbors], strict=True):
            images = row[row >= 0]
            similarities = np.einsum(
                "ij,j->i", self._database.take(images).astype(np.float64), query.astype(np.float64)
            )
            targets.append((images, np.maximum(similarities, 0.0) ** self.gamma))
        return targets

    def _whole(
        self, targets: list[tuple[NDArray[np.int64], NDArray[np.float64]]], n_images: int, within: Any
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return the images that are reached from each query, and f there, in the whole graph."""
        allowed = np.ones(n_images, dtype=np.bool_) if within is None else np.zeros(n_images, dtype=np.bool_)
        if within is not None:
            allowed[within] = True
        y = np.zeros((n_images, len(targets)))
        for column, (images, values) in enumerate(targets):
            y[images, column] = values
        found = []
        for f in solve(self._transitions, y, self.alpha, self.max_iter, self.tol)[0].T:
            reached = np.flatnonzero(allowed & (f > 0))
            found.append((reached, f[reached]))
        return found

    def _truncated(
        self, nearest: NDArray[np.int64], images: NDArray[np.int64], values: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the images that are reached from one query, and f there, in the graph of its nearest images."""
        nodes = np.union1d(nearest[nearest >= 0], images)
        transitions = normalized(self.graph_[nodes][:, nodes])
        y = np.zeros((len(nodes), 1))
        y[np.searchsorted(nodes, images), 0] = values
        f = solve(transitions, y, self.alpha, self.max_iter, self.tol)[0][:, 0]
        return nodes[f > 0], f[f > 0]

    @property
    def _transitions(self) -> sparse.csr_array:
        known: tuple[Any, sparse.csr_array] | None = getattr(self, "_known_transitions", None)
        if known is None or known[0] is not self.graph_:
            self._known_transitions = known = (self.graph_, normalized(self.graph_))
        return known[1]

    def _queries_per_block(self, n_queries: int) -> int:
        # Two arrays of a column per query and a row per image are held.
        rows = len(self._database) if self.n_truncate is None else min(len(self._database), self.n_truncate)
        return max(1, min(super()._queries_per_block(n_queries), _MOST_VALUES // rows))

    def _n_needed(self, n_images: int, k: int) -> int:
        return int(self.n_query_neighbors)

    def _check_parameters(self) -> None:
        check_number(self, "n_neighbors", self.n_neighbors, low=1, integer=True)
        check_number(self, "n_query_neighbors", self.n_query_neighbors, low=1, integer=True)
        check_number(self, "gamma", self.gamma, low=0, high=np.finfo(np.float64).max, low_open=True)
        check_number(self, "alpha", self.alpha, low=0, high=np.nextafter(1, 0))
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        check_number(self, "tol", self.tol, low=0)
        check_number(self, "n_truncate", self.n_truncate, low=1, integer=True, optional=True)


def mutual_graph(neighbors: NDArray[np.int32], similarities: NDArray[np.float32], gamma: float) -> sparse.csr_array:
    """Return the affinities of mutual neighbours; see `fill_mutual_affinities`."""
    counts = np.empty(len(neighbors), dtype=np.int64)
    count_mutual_neighbors(neighbors, counts)
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    indices = np.empty(indptr[-1], dtype=np.int32)
    data = np.empty(indptr[-1], dtype=np.float64)
    fill_mutual_affinities(neighbors, similarities, gamma, indptr, indices, data)
    return sparse.csr_array((data, indices, indptr), shape=(len(neighbors), len(neighbors)))


def normalized(affinities: Any) -> sparse.csr_array:
    """Return D^-½ A D^-½, where a row of zeros stays one."""
    affinities = sparse.csr_array(affinities)
    degrees = np.asarray(affinities.sum(axis=1)).reshape(-1)
    scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    data = affinities.data * np.repeat(scale, np.diff(affinities.indptr)) * scale[affinities.indices]
    return sparse.csr_array((data, affinities.indices, affinities.indptr), shape=affinities.shape)


def solve(
    transitions: sparse.csr_array, y: NDArray[np.float64], alpha: float, max_iter: int, tol: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return f with (I − αS) f = y, column by column, and the number of steps; see `conjugate_gradient`."""
    solutions = np.empty_like(y)
    n_iter = np.empty(y.shape[1], dtype=np.int64)
    indptr = transitions.indptr.astype(np.int64, copy=False)
    indices = transitions.indices.astype(np.int32, copy=False)
    for columns in block_slices(y.shape[1], max(1, min(_MOST_COLUMNS, _CACHED_VALUES // max(1, len(y))))):
        part = np.ascontiguousarray(y[:, columns])
        solved = np.empty_like(part)
        conjugate_gradient(
            indptr, indices, transitions.data, float(alpha), part, int(max_iter), float(tol), solved, n_iter[columns]
        )
        solutions[:, columns] = solved
    return solutions, n_iter
