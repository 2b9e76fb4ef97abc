"""Query expansion: ask again with the query and its best results."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_flag, check_number
from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database import Database, unit_rows
from cvretrieval.reranking.ranking import Ranking


class QueryExpansion(Reranker):
    """Base of the methods that search anew with other query vectors."""

    def _step(self, ranking: Ranking, k: int) -> Ranking:
        queries = unit_rows(self._expand(ranking).astype(np.float32))
        indices, scores = self._database.search(queries, k, ranking.within)
        # What cancels out to nothing is like nothing.
        indices[~queries.any(axis=1)], scores[~queries.any(axis=1)] = -1, -np.inf
        return replace(ranking.reordered(indices, scores), queries=queries)

    @abstractmethod
    def _expand(self, ranking: Ranking) -> NDArray[np.float64]:
        """Return the new query vectors, of any norm."""

    def _positives(self, ranking: Ranking, n: int, verified_only: bool) -> NDArray[np.int64]:
        """Return the first n images of each list, or those that are verified among the first n verified; else -1."""
        if not verified_only or ranking.verified is None:
            return ranking.indices[:, :n]
        chosen = ranking.verified & (np.cumsum(ranking.verified, axis=1) <= n)
        return np.where(chosen, ranking.indices, -1)[:, : ranking.depth if n else 0]


class AverageQueryExpansion(QueryExpansion):
    """Average query expansion (AQE): the new query is the mean of the query and its nearest images.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of images of the ranked list that are averaged with the query; 0 leaves it as it is.
    verified_only : bool, default=False
        Average the first `n_neighbors` images that are verified, as Chum et al. do; without any the query stays as it
        is. In an `ImageRetriever` with a verifier the candidates are verified first.
    n_jobs : int, optional
        Threads over blocks of queries; the number does not change any result.

    Attributes
    ----------
    vectors_ : ndarray of shape (n_images, n_features) or None
        Vectors of the database, L2-normalised; None if they are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    Notes
    -----
    With query q and results d_1, …, d_n, all of norm 1::

        q' = (q + Σ_i d_i) / ‖q + Σ_i d_i‖

    and the whole database is ranked by cosine with q'.

    References
    ----------
    .. [1] O. Chum, J. Philbin, J. Sivic, M. Isard and A. Zisserman, "Total recall: automatic query expansion with a
       generative feature model for object retrieval", ICCV 2007, section 4.

    Examples
    --------
    >>> from cvretrieval import AverageQueryExpansion
    >>> images = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6]]
    >>> expansion = AverageQueryExpansion(n_neighbors=2).fit(images)
    >>> indices, scores = expansion.rerank([[1.0, 0.1]], k=3)
    >>> indices
    array([[0, 1, 2]])
    """

    def __init__(self, n_neighbors: int = 10, *, verified_only: bool = False, n_jobs: int | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.verified_only = verified_only
        self.n_jobs = n_jobs

    @property
    def needs_verification(self) -> bool:
        """Whether the ranked lists must say which images are verified."""
        return bool(self.verified_only)

    def _expand(self, ranking: Ranking) -> NDArray[np.float64]:
        positives = self._positives(ranking, self.n_neighbors, self.verified_only)
        return weighted_sums(self._database, ranking.queries, positives, self._alpha())

    def _alpha(self) -> float:
        return 0.0

    def _n_needed(self, n_images: int, k: int) -> int:
        return int(self.n_neighbors)

    def _check_parameters(self) -> None:
        check_number(self, "n_neighbors", self.n_neighbors, low=0, integer=True)
        check_flag(self, "verified_only", self.verified_only)


class AlphaQueryExpansion(AverageQueryExpansion):
    """Weighted query expansion (αQE): each image counts by a power of its similarity.

    Parameters
    ----------
    n_neighbors : int, default=50
        Number of images of the ranked list that are added to the query.
    alpha : float, default=3.0
        Power of the similarity, at least 0: 0 is average query expansion, and the larger, the less is added.
    verified_only : bool, default=False
        Add the first `n_neighbors` images that are verified only.
    n_jobs : int, optional
        Threads over blocks of queries; the number does not change any result.

    Attributes
    ----------
    vectors_ : ndarray of shape (n_images, n_features) or None
        Vectors of the database, L2-normalised; None if they are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    Notes
    -----
    With query q and results d_1, …, d_n, all of norm 1::

        q' ∝ q + Σ_i max(⟨q, d_i⟩, 0)^α d_i

    L2-normalised. As 0⁰ = 1, α = 0 is `AverageQueryExpansion` exactly.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       section 5.3.

    Examples
    --------
    >>> from cvretrieval import AlphaQueryExpansion
    >>> images = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6]]
    >>> expansion = AlphaQueryExpansion(n_neighbors=2, alpha=1.0).fit(images)
    >>> expansion.rerank([[1.0, 0.1]], k=3)[0]
    array([[0, 1, 2]])
    """

    def __init__(
        self, n_neighbors: int = 50, alpha: float = 3.0, *, verified_only: bool = False, n_jobs: int | None = None
    ) -> None:
        super().__init__(n_neighbors, verified_only=verified_only, n_jobs=n_jobs)
        self.alpha = alpha

    def _alpha(self) -> float:
        return float(self.alpha)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "alpha", self.alpha, low=0, high=np.finfo(np.float64).max)


def weighted_sums(
    database: Database, vectors: NDArray[np.float32], neighbors: NDArray[np.int64], alpha: float
) -> NDArray[np.float64]:
    """Return x + Σ_i max(⟨x, d_i⟩, 0)^α d_i for each vector and its neighbours; -1 is none.

    Parameters
    ----------
    database : Database
    vectors : ndarray of shape (n_vectors, n_dims)
    neighbors : ndarray of shape (n_vectors, n_neighbors)
    alpha : float

    Returns
    -------
    ndarray of shape (n_vectors, n_dims)
    """
    own = vectors.astype(np.float64)
    sums = own.copy()
    # One neighbour of each at a time: all of them together may be many times the vectors.
    for column in neighbors.T:
        rows = np.flatnonzero(column >= 0)
        images = database.take(column[rows]).astype(np.float64)
        similarities = np.einsum("ij,ij->i", own[rows], images)
        sums[rows] += (np.maximum(similarities, 0.0) ** alpha)[:, None] * images
    return sums
