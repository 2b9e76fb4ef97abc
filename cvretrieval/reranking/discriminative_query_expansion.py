"""Discriminative query expansion: a linear classifier of the best results against the worst."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from cvretrieval._validation import check_flag, check_number
from cvretrieval.reranking.query_expansion import QueryExpansion
from cvretrieval.reranking.ranking import Ranking


class DiscriminativeQueryExpansion(QueryExpansion):
    """Discriminative query expansion (DQE): images are ranked by a linear SVM, learned for each query.

    Parameters
    ----------
    n_positives : int, default=10
        The query and so many images of the ranked list are the positive examples.
    n_negatives : int, default=200
        So many images, the least similar ones of the database, are the negative examples.
    C : float, default=1.0
        Penalty of wrong examples, see `sklearn.svm.LinearSVC`.
    verified_only : bool, default=False
        Only verified images are positive examples, the first `n_positives` of them, as in the paper. In an
        `ImageRetriever` with a verifier the candidates are verified first.
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
    `LinearSVC` minimises ½(‖w‖² + b²) + C Σ max(0, 1 − y(⟨w, x⟩ + b))² in the primal, where nothing is random; images
    are ranked by ⟨w, x⟩ / ‖w‖. An image that is a positive example is no negative one; a query without any negative
    examples is expanded by the mean of the positive ones.

    References
    ----------
    .. [1] R. Arandjelović and A. Zisserman, "Three things everyone should know to improve object retrieval",
       CVPR 2012, section 3.

    Examples
    --------
    >>> from cvretrieval import DiscriminativeQueryExpansion
    >>> images = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6], [-1.0, 0.1], [-0.8, 0.6]]
    >>> expansion = DiscriminativeQueryExpansion(n_positives=2, n_negatives=2).fit(images)
    >>> expansion.rerank([[1.0, 0.1]], k=3)[0]
    array([[0, 3, 1]])
    """

    def __init__(
        self,
        n_positives: int = 10,
        n_negatives: int = 200,
        *,
        C: float = 1.0,
        verified_only: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.n_positives = n_positives
        self.n_negatives = n_negatives
        self.C = C
        self.verified_only = verified_only
        self.n_jobs = n_jobs

    @property
    def needs_verification(self) -> bool:
        """Whether the ranked lists must say which images are verified."""
        return bool(self.verified_only)

    def _expand(self, ranking: Ranking) -> NDArray[np.float64]:
        positives = self._positives(ranking, self.n_positives, self.verified_only)
        # The least similar images are the nearest ones of the opposite.
        farthest, _ = self._database.search(
            -ranking.queries, min(self.n_negatives, len(self._database)), ranking.within
        )
        return np.stack([self._direction(*lists) for lists in zip(ranking.queries, positives, farthest, strict=True)])

    def _direction(
        self, query: NDArray[np.float32], positives: NDArray[np.int64], negatives: NDArray[np.int64]
    ) -> NDArray[Any]:
        positives = positives[positives >= 0]
        negatives = negatives[(negatives >= 0) & ~np.isin(negatives, positives)]
        chosen = np.vstack([query[None], self._database.take(positives)]).astype(np.float64)
        if not len(negatives):
            return chosen.sum(axis=0)
        examples = np.vstack([chosen, self._database.take(negatives)])
        labels = np.arange(len(examples)) < len(chosen)
        if len(examples) >= examples.shape[1]:
            return LinearSVC(C=self.C, dual=False).fit(examples, labels).coef_[0]
        # The solution is a sum of examples: a basis of theirs has fewer dimensions, and distances are the same in it.
        basis, coordinates = np.linalg.qr(examples.T)
        return basis @ LinearSVC(C=self.C, dual=False).fit(coordinates.T, labels).coef_[0]

    def _n_needed(self, n_images: int, k: int) -> int:
        return int(self.n_positives)

    def _check_parameters(self) -> None:
        check_number(self, "n_positives", self.n_positives, low=0, integer=True)
        check_number(self, "n_negatives", self.n_negatives, low=1, integer=True)
        check_number(self, "C", self.C, low=0, low_open=True, high=np.finfo(np.float64).max)
        check_flag(self, "verified_only", self.verified_only)
