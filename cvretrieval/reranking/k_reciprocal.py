"""Re-ranking by k-reciprocal neighbours: two images are alike if they are among the nearest of the same images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.k_reciprocal import jaccard_distances
from cvretrieval._parallel import map_blocks
from cvretrieval._validation import check_flag, check_number
from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database import Database, passes
from cvretrieval.reranking.neighbors import nearest_neighbors
from cvretrieval.reranking.ranking import Ranking
from cvretrieval.reranking.reciprocal_encoding import Encodings, Graph, Neighborhoods, encode


class KReciprocal(Reranker):
    """k-reciprocal re-ranking: the ranked list is sorted anew by the Jaccard distance of neighbourhoods.

    Parameters
    ----------
    n_neighbors : int, default=20
        k1: images that are among the `n_neighbors` nearest of each other are reciprocal neighbours.
    n_expansion : int, default=6
        k2: the encoding of an image is the mean over so many images, itself and its nearest; 1 leaves it as it is.
    distance_weight : float, default=0.3
        λ in [0, 1]: weight of the original distance; 1 is the original ranking.
    n_candidates : int or None, default=200
        So many images of the ranked list are sorted anew, and are the ones that the query may become a neighbour of;
        the others follow in their order. None means all images.
    joint_queries : bool, default=False
        Count the other queries of a call as neighbours, too, as the original program does. The lists then depend on
        which queries are asked together.
    n_jobs : int, optional
        Threads over blocks of images at `fit` and of queries afterwards; the number does not change any result.

    Attributes
    ----------
    neighbors_ : ndarray of shape (n_images, n_neighbors + 1)
        int32: each image, then its nearest; -1 behind the last.
    similarities_ : ndarray of shape (n_images, n_neighbors + 1)
        float32 cosines; −inf behind the last.
    smallest_ : ndarray of shape (n_images,)
        float32: cosine of the least similar image.
    vectors_ : ndarray of shape (n_images, n_features) or None
        Vectors of the database, L2-normalised; None if they are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    Notes
    -----
    With d_ij = 2 − 2 s_ij, the squared distance, divided by the largest d_ij of image i; N(i, k) image i and its k
    nearest; and R*(i, k1) the expanded set of its k-reciprocal neighbours (equation 4)::

        V_ij    = exp(−d_ij) / Σ_l exp(−d_il)   for j ∈ R*(i, k1), else 0
        V̄_i     = mean of V_j over i and its k2 − 1 nearest
        d_J(q,i) = 1 − Σ_j min(V̄_qj, V̄_ij) / Σ_j max(V̄_qj, V̄_ij)
        d*(q,i)  = (1 − λ) d_J(q,i) + λ d_qi

    and the score is −d*; among equals the nearer image comes first. The query is a node of the graph like any image.
    Encodings are sparse, and only those of the candidates and their neighbours are computed; nothing of size n_images²
    is held.

    References
    ----------
    .. [1] Z. Zhong, L. Zheng, D. Cao and S. Li, "Re-ranking person re-identification with k-reciprocal encoding",
       CVPR 2017.

    Examples
    --------
    On a circle, the image at 15° has more neighbours in common with the query at 0° than the nearer one at −8°.

    >>> import numpy as np
    >>> from cvretrieval import KReciprocal
    >>> angles = np.deg2rad([5, 10, 15, -8, -60, -65, -70])
    >>> images = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> reranker = KReciprocal(n_neighbors=3, n_expansion=2).fit(images)
    >>> reranker.rerank([[1.0, 0.0]], k=4)[0]
    array([[0, 1, 2, 3]])
    """

    def __init__(
        self,
        n_neighbors: int = 20,
        n_expansion: int = 6,
        distance_weight: float = 0.3,
        *,
        n_candidates: int | None = 200,
        joint_queries: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_expansion = n_expansion
        self.distance_weight = distance_weight
        self.n_candidates = n_candidates
        self.joint_queries = joint_queries
        self.n_jobs = n_jobs

    def _learn(self, database: Database) -> Database:
        self.neighbors_, self.similarities_ = nearest_neighbors(database, int(self.n_neighbors) + 1, self.n_jobs)
        self.smallest_ = np.empty(len(database), dtype=np.float32)

        def find(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            # The least similar image is the nearest one of the opposite.
            return rows, -database.search(-database.take(rows), 1)[1][:, 0]

        for rows, smallest in map_blocks(find, passes(database), n_jobs=self.n_jobs):
            self.smallest_[rows] = smallest
        return database

    def _step(self, ranking: Ranking, k: int) -> Ranking:
        database = self._database
        n_candidates = len(database) if self.n_candidates is None else int(self.n_candidates)
        graph = Graph(database, self.neighbors_, self.similarities_, self.smallest_)
        n_near = min(max(n_candidates, self.neighbors_.shape[1]), len(database))
        found, cosines = database.search(ranking.queries, n_near)
        smallest = -database.search(-ranking.queries, 1)[1][:, 0]
        rows = np.arange(len(found))
        groups = [rows] if self.joint_queries else [rows[i : i + 1] for i in rows]
        indices, scores = ranking.indices.copy(), np.full(ranking.indices.shape, -np.inf)
        for group in groups:
            neighborhoods = Neighborhoods.of(
                graph, ranking.queries[group], found[group], cosines[group], smallest[group]
            )
            candidates = ranking.indices[group, :n_candidates]
            encodings = encode(neighborhoods, np.unique(candidates[candidates >= 0]), int(self.n_expansion))
            for query, row in enumerate(group):
                images = ranking.indices[row][ranking.indices[row] >= 0]
                original = neighborhoods.query_distances(query, images)
                distances = self._distances(encodings, query, images[:n_candidates], original)
                order = np.arange(len(images))
                ties = images[:n_candidates], original[:n_candidates]
                order[:n_candidates] = np.lexsort((*ties, distances[:n_candidates]))
                indices[row, : len(images)] = images[order]
                # Behind the candidates the order is kept, whatever it was by.
                scores[row, : len(images)] = np.minimum.accumulate(-distances[order])
        return ranking.reordered(indices, scores)

    def _distances(
        self, encodings: Encodings, query: int, candidates: NDArray[np.int64], original: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return d* of a query and its ranked images; behind the candidates, none shares a neighbour with it."""
        jaccard = np.ones(len(original))
        jaccard_distances(
            encodings.row_of_query(query), encodings.rows_of(candidates), encodings.offsets, encodings.members,
            encodings.weights, jaccard[: len(candidates)],
        )  # fmt: skip
        return (1.0 - self.distance_weight) * jaccard + self.distance_weight * original

    def _n_needed(self, n_images: int, k: int) -> int:
        return n_images if self.n_candidates is None else max(k, int(self.n_candidates))

    def _queries_per_block(self, n_queries: int) -> int:
        return n_queries if self.joint_queries else super()._queries_per_block(n_queries)

    def _check_parameters(self) -> None:
        check_number(self, "n_neighbors", self.n_neighbors, low=1, integer=True)
        check_number(self, "n_expansion", self.n_expansion, low=1, high=self.n_neighbors + 1, integer=True)
        check_number(self, "distance_weight", self.distance_weight, low=0, high=1)
        check_number(self, "n_candidates", self.n_candidates, low=1, integer=True, optional=True)
        check_flag(self, "joint_queries", self.joint_queries)
