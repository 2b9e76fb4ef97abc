"""Spatially verified query expansion: features of verified results, seen from the query, are encoded with its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_choice, check_number
from cvretrieval.local_features import ImageFeatures, LocalFeatures
from cvretrieval.reranking.back_projection import project_keypoints
from cvretrieval.reranking.query_expansion import QueryExpansion
from cvretrieval.reranking.ranking import Ranking


class SpatialQueryExpansion(QueryExpansion):
    """Query expansion by local features: those of verified results are projected into the query and encoded with it.

    Parameters
    ----------
    n_results : int, default=10
        At most so many verified images are used, the first ones of the ranked list.
    features : {"inliers", "region"}, default="inliers"
        Which features of a verified image are added: those matched to the query consistently, or all that the
        transform moves into the frame of the query, which the query itself may lack.
    n_jobs : int, optional
        Threads over blocks of queries; the number does not change any result.

    Attributes
    ----------
    vectors_ : ndarray of shape (n_images, n_features) or None
        Vectors of the database, L2-normalised; None if they are in an index.
    labels_ : ndarray of shape (n_images,) or None
    n_features_in_ : int

    See Also
    --------
    AverageQueryExpansion : The same with vectors, ``verified_only=True``.

    Notes
    -----
    The transform T of a verification maps pixels of the query to those of the result, so T⁻¹ brings back a feature of
    the result: its place, its scale and its angle by the Jacobian of T⁻¹ there. The query's features and the projected
    ones together are encoded as one image, by the encoder that the database is from, and the whole database is ranked
    by cosine with the new vector. Queries without a verified result stay as they are.

    In an `ImageRetriever` with a verifier all this happens by itself. Elsewhere give `rerank` a `VerifiedMatches`, or
    take the features of `expand` and encode them yourself.

    References
    ----------
    .. [1] O. Chum, J. Philbin, J. Sivic, M. Isard and A. Zisserman, "Total recall: automatic query expansion with a
       generative feature model for object retrieval", ICCV 2007, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SpatialQueryExpansion
    >>> from cvretrieval.local_features import ImageFeatures
    >>> from cvretrieval.verification import Verification
    >>> place = np.array([[10.0, 20.0, 2.0, 0.0]], dtype=np.float32)
    >>> query = ImageFeatures(np.ones((1, 128), np.float32), place, (100, 100))
    >>> result = ImageFeatures(np.ones((1, 128), np.float32), 2 * place, (200, 200))
    >>> match = Verification(1, np.array([[0, 0]]), np.array([True]), np.diag([2.0, 2.0, 1.0]))
    >>> SpatialQueryExpansion().expand(query, [(result, match)]).keypoints
    array([[10., 20.,  2.,  0.],
           [10., 20.,  2.,  0.]], dtype=float32)
    """

    def __init__(self, n_results: int = 10, *, features: str = "inliers", n_jobs: int | None = None) -> None:
        self.n_results = n_results
        self.features = features
        self.n_jobs = n_jobs

    @property
    def needs_verification(self) -> bool:
        """Whether the ranked lists must say which images are verified: always."""
        return True

    def expand(self, query: ImageFeatures, results: Any) -> ImageFeatures:
        """Return the query's features with those of verified images.

        Parameters
        ----------
        query : ImageFeatures
            With keypoints.
        results : sequence of (ImageFeatures, Verification)
            Images and their verifications, best first; those that were rejected are left out.

        Returns
        -------
        ImageFeatures
            In the frame of the query.
        """
        self._check_parameters()
        accepted = [(image, match) for image, match in results if match and match.transform is not None]
        parts = [self._project(query, image, match) for image, match in accepted[: self.n_results]]
        return ImageFeatures(
            np.concatenate([query.descriptors, *(part.descriptors for part in parts)]),
            np.concatenate([_keypoints(query), *(_keypoints(part) for part in parts)]),
            query.image_size,
        )

    def _project(self, query: ImageFeatures, image: ImageFeatures, match: Any) -> ImageFeatures:
        inliers = np.unique(match.matches[match.inliers, 1])
        keypoints = _keypoints(image)
        rows = inliers if self.features == "inliers" else np.arange(len(keypoints))
        visible = keypoints[inliers, :2].astype(np.float64).mean(axis=0)
        moved = project_keypoints(keypoints[rows], np.linalg.inv(match.transform), visible)
        kept = np.isfinite(moved).all(axis=1)
        if self.features == "region":
            low, high = _frame(query)
            kept &= ((moved[:, :2] >= low) & (moved[:, :2] <= high)).all(axis=1)
        return ImageFeatures(image.descriptors[rows[kept]], moved[kept], query.image_size)

    def _expand(self, ranking: Ranking) -> NDArray[np.float64]:
        matches = ranking.matches
        if matches is None:
            raise ValueError(
                "SpatialQueryExpansion needs the features of the verified images, not only which ones are verified: "
                "give verified=VerifiedMatches(...), or use it in an ImageRetriever with a verifier."
            )
        new = ranking.queries.astype(np.float64)
        chosen, features = [], []
        for i, (query, results) in enumerate(zip(matches.queries, matches.results, strict=True)):
            verified = [results[int(index)] for index in ranking.indices[i] if int(index) in results]
            if query is not None and any(match for _, match in verified):
                chosen.append(i)
                features.append(self.expand(query, verified))
        if chosen:
            vectors = np.asarray(matches.encode(LocalFeatures.from_images(features)), dtype=np.float64)
            # Where nothing can be encoded, nothing is known better than the query.
            chosen_rows = np.array(chosen)[vectors.any(axis=1)]
            new[chosen_rows] = vectors[vectors.any(axis=1)]
        return new

    def _n_needed(self, n_images: int, k: int) -> int:
        return int(self.n_results)

    def _check_parameters(self) -> None:
        check_number(self, "n_results", self.n_results, low=0, integer=True)
        check_choice(self, "features", self.features, ("inliers", "region"))


def _keypoints(image: ImageFeatures) -> NDArray[np.float32]:
    if image.keypoints is None:
        raise ValueError("SpatialQueryExpansion projects features and needs their keypoints.")
    return image.keypoints


def _frame(query: ImageFeatures) -> tuple[Any, Any]:
    """Return the corners of the query, or of the extent of its features where its size is not known."""
    if query.image_size is not None and max(query.image_size) > 0:
        return np.array([-0.5, -0.5]), np.asarray(query.image_size, dtype=np.float64) - 0.5
    places = _keypoints(query)[:, :2]
    return places.min(axis=0), places.max(axis=0)
