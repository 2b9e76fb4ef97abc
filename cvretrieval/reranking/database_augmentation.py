"""Database augmentation: every image is described with its neighbours, once, before any query comes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_blocks
from cvretrieval._validation import check_number
from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database import ArrayDatabase, Database, passes, unit_rows
from cvretrieval.reranking.query_expansion import weighted_sums
from cvretrieval.reranking.ranking import Ranking


class DatabaseAugmentation(Reranker):
    """Database-side feature augmentation (DBA): each image's vector becomes a weighted sum with its neighbours'.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of nearest images, itself not counted, that are added to each image.
    alpha : float, default=3.0
        Power of the similarity that a neighbour counts by, at least 0; 0 is the plain mean.
    n_jobs : int, optional
        Threads over blocks of images at `fit` and of queries afterwards; the number does not change any result.

    Attributes
    ----------
    vectors_ : ndarray of shape (n_images, n_features)
        The new vectors of the database, L2-normalised. They are in memory, also where the old ones are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    Notes
    -----
    With image d and its neighbours d_1, …, d_n, all of norm 1::

        d' ∝ d + Σ_i max(⟨d, d_i⟩, 0)^α d_i

    L2-normalised; the images are ranked by the cosine of the query and d'. The later rerankers of a chain work on the
    new vectors. An image without features stays without.

    References
    ----------
    .. [1] R. Arandjelović and A. Zisserman, "Three things everyone should know to improve object retrieval",
       CVPR 2012, section 4.
    .. [2] A. Gordo, J. Almazán, J. Revaud and D. Larlus, "End-to-end learning of deep visual representations for image
       retrieval", IJCV 2017, section 5.3: the weights.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import DatabaseAugmentation
    >>> images = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> augmentation = DatabaseAugmentation(n_neighbors=1, alpha=0).fit(images)
    >>> np.round(augmentation.vectors_, 3)
    array([[0.949, 0.316],
           [0.949, 0.316],
           [0.447, 0.894]], dtype=float32)
    """

    def __init__(self, n_neighbors: int = 10, alpha: float = 3.0, *, n_jobs: int | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.n_jobs = n_jobs

    def _learn(self, database: Database) -> Database:
        new = np.empty((len(database), database.n_dims), dtype=np.float32)

        def augment(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            vectors = database.take(rows)
            found, _ = database.search(vectors, min(self.n_neighbors + 1, len(database)))
            neighbors = without(found, rows)[:, : self.n_neighbors]
            neighbors[~vectors.any(axis=1)] = -1
            return rows, unit_rows(weighted_sums(database, vectors, neighbors, float(self.alpha)).astype(np.float32))

        for rows, vectors in map_blocks(augment, passes(database), n_jobs=self.n_jobs):
            new[rows] = vectors
        return ArrayDatabase(new)

    def _step(self, ranking: Ranking, k: int) -> Ranking:
        indices, scores = self._database.search(ranking.queries, k, ranking.within)
        return ranking.reordered(indices, scores)

    def _n_needed(self, n_images: int, k: int) -> int:
        return 0

    def _check_parameters(self) -> None:
        check_number(self, "n_neighbors", self.n_neighbors, low=0, integer=True)
        check_number(self, "alpha", self.alpha, low=0, high=np.finfo(np.float64).max)


def without(indices: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ranked lists without one image each, which is replaced by -1 at the end."""
    is_own = indices == own[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")
    return np.take_along_axis(np.where(is_own, -1, indices), order, axis=1)
