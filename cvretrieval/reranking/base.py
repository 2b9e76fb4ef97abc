"""What every reranker offers: `fit` to the vectors of a database, `rerank` queries, `score` itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_number, describe_array
from cvretrieval.reranking.average_precision import mean_average_precision
from cvretrieval.reranking.database import ArrayDatabase, Database, IndexDatabase, is_index, unit_rows
from cvretrieval.reranking.ranking import Ranking, VerifiedMatches

Self = TypeVar("Self", bound="Reranker")

# Queries of one task.
_QUERIES_PER_BLOCK = 64


class Reranker(SavableMixin, BaseEstimator, ABC):
    """Base of the rerankers: ranked lists of images in, better ones out.

    Vectors are compared by cosine, so they are L2-normalised first; images whose vector is zero (images without
    features) are never found. Images are numbered by their rows at `fit`. Among equal scores the lower number comes
    first.
    """

    @property
    def needs_verification(self) -> bool:
        """Whether the ranked lists must say which images are verified."""
        return False

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Take over the vectors of the database, and learn what the method needs of them.

        Parameters
        ----------
        X : array-like of shape (n_images, n_features), or index
            Vectors of the images; or a dense `VectorIndex` of metric "cosine" that holds them under the keys 0 to
            n − 1, and in which they stay.
        y : array-like of shape (n_images,), optional
            What each image shows, for `score`.

        Returns
        -------
        self
        """
        self._check_parameters()
        database = self._check_database(X)
        labels = None if y is None else np.asarray(y)
        if labels is not None and labels.shape != (len(database),):
            raise ValueError(f"y must have one label for each of {len(database)} images. Got {describe_array(labels)}.")
        self.labels_ = labels
        self._fit_database(database)
        return self

    def rerank(
        self,
        X: Any,
        indices: Any = None,
        *,
        k: int | None = None,
        within: Any = None,
        verified: Any = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rank the images for each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Vectors of the queries.
        indices : array-like of shape (n_queries, depth), optional
            The ranked lists to start from, best first, -1 behind the last; default: ranked by cosine.
        k : int, optional
            Length of the new lists; default: as long as `indices`, or all images.
        within : array-like of shape (n_allowed,), optional
            The numbers of the only images that may be found.
        verified : array-like of bool of shape (n_queries, depth), or VerifiedMatches, optional
            Which images of `indices` show the same thing as the query for sure, for the rerankers that ask for it.

        Returns
        -------
        indices : ndarray of shape (n_queries, k)
            int64, best first; -1 where there are no more images.
        scores : ndarray of shape (n_queries, k)
            float64, decreasing; −inf where there are no more images. What they measure depends on the reranker.
        """
        check_is_fitted(self)
        self._check_parameters()
        queries = self._check_vectors(X, reset=False)
        database = self._database
        given = None if indices is None else _check_indices(indices, len(queries), len(database))
        allowed = None if within is None else _check_numbers("within", np.asarray(within).reshape(-1), len(database))
        known = _check_verified(verified, queries, given)
        if k is None:
            k = len(database) if given is None else given.shape[1]
        check_number("rerank", "k", k, low=1, integer=True)
        if self.needs_verification and known is None:
            raise ValueError(
                f"{type(self).__name__} as configured expands by verified images: give verified=, which of the images "
                "in indices are, or use it in an ImageRetriever with a verifier."
            )
        new_indices = np.full((len(queries), int(k)), -1, dtype=np.int64)
        new_scores = np.full((len(queries), int(k)), -np.inf)
        # A query without features is like nothing.
        rows = np.flatnonzero(queries.any(axis=1))
        blocks = [rows[block] for block in block_slices(len(rows), max(1, self._queries_per_block(len(rows))))]

        depth = min(self._n_needed(len(database), int(k)), len(database))

        def work(block: NDArray[np.int64]) -> Ranking:
            lists = None if given is None else given[block]
            start = _start(queries[block], lists, _rows_of(known, block), allowed, database, depth)
            return self._step(start, int(k)).cut(int(k))

        results = map_blocks(work, blocks, n_jobs=getattr(self, "n_jobs", None))
        for block, ranking in zip(blocks, results, strict=True):
            new_indices[block], new_scores[block] = ranking.indices, ranking.scores
        return new_indices, new_scores

    def score(self, X: Any, y: Any) -> float:
        """Return the mean average precision of queries, the images of the same label being the relevant ones.

        With it, `GridSearchCV` finds the parameters: of each split, the training part is the database and the test
        part the queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
        y : array-like of shape (n_queries,)

        Returns
        -------
        float
            Mean over the queries with any relevant image of the finite sum, see `metrics.average_precision`.
        """
        check_is_fitted(self)
        if self.labels_ is None:
            raise ValueError(f"{type(self).__name__} was fitted without labels; use fit(X, y) before score.")
        return mean_average_precision(self.rerank(X)[0], np.asarray(y), self.labels_)

    def _fit_database(self, database: Database) -> Database:
        """Learn from a database, keep it, and return the one that the next reranker of a chain works on."""
        database = self._learn(database)
        self._known_database = database
        #: None if the vectors are in an index, which is not saved with the reranker.
        self.vectors_ = database.vectors if isinstance(database, ArrayDatabase) else None
        self.n_features_in_ = database.n_dims
        return database

    def _learn(self, database: Database) -> Database:
        """Learn from a database; return it, or another one that takes its place."""
        return database

    @abstractmethod
    def _step(self, ranking: Ranking, k: int) -> Ranking:
        """Return new lists, of length k if they are lists of a new search."""

    @abstractmethod
    def _n_needed(self, n_images: int, k: int) -> int:
        """Return how many places of the old lists the method looks at to make lists of length k."""

    def _queries_per_block(self, n_queries: int) -> int:
        """Return how many queries are ranked at once."""
        return _QUERIES_PER_BLOCK

    @abstractmethod
    def _check_parameters(self) -> None: ...

    @property
    def _database(self) -> Any:
        database = getattr(self, "_known_database", None)
        if database is None:
            if self.vectors_ is None:
                raise NotFittedError(
                    f"This {type(self).__name__} was fitted on an index, which is not saved with it; fit it again."
                )
            self._known_database = database = ArrayDatabase(self.vectors_)
        return database

    def _check_database(self, X: Any) -> Database:
        if is_index(X):
            return IndexDatabase(X)
        return ArrayDatabase(self._check_vectors(X, reset=True))

    def _check_vectors(self, X: Any, *, reset: bool) -> NDArray[np.float32]:
        """Return vectors as float32 of norm 1, a copy."""
        # What is too large for float32 becomes infinite here, and is refused.
        with np.errstate(over="ignore"):
            rows = validate_data(self, X, dtype=np.float32, order="C", reset=reset, ensure_min_samples=int(reset))
        return unit_rows(rows)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if state.get("vectors_") is not None:
            state.pop("_known_database", None)  # a second copy of the vectors
        return state


def _start(
    queries: NDArray[np.float32],
    given: NDArray[np.int64] | None,
    known: NDArray[np.bool_] | VerifiedMatches | None,
    within: NDArray[np.int64] | None,
    database: Database,
    depth: int,
) -> Ranking:
    """Return the lists to start from: those given, without images that may not be found, or those by cosine."""
    if given is None:
        found, cosines = database.search(queries, depth, within)
        return Ranking(queries, found, cosines.astype(np.float64), within)
    mask = known.mask(given) if isinstance(known, VerifiedMatches) else known
    allowed = given >= 0 if within is None else np.isin(given, within)
    # What may be found moves to the front, in its order.
    order = np.argsort(~allowed, axis=1, kind="stable")
    indices = np.take_along_axis(np.where(allowed, given, -1), order, axis=1)
    scores = np.where(indices >= 0, -np.arange(indices.shape[1], dtype=np.float64), -np.inf)
    verified = None if mask is None else np.take_along_axis(mask & allowed, order, axis=1)
    matches = known if isinstance(known, VerifiedMatches) else None
    return Ranking(queries, indices, scores, within, verified, matches)


def _rows_of(known: Any, rows: NDArray[np.int64]) -> Any:
    if known is None:
        return None
    return known.take(rows) if isinstance(known, VerifiedMatches) else known[rows]


def _check_indices(indices: Any, n_queries: int, n_images: int) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 2 or len(array) != n_queries or array.shape[1] == 0:
        raise ValueError(
            f"indices must hold one ranked list for each of {n_queries} queries. Got {describe_array(array)} instead."
        )
    array = _check_numbers("indices", array, n_images, low=-1)
    in_order = np.sort(array, axis=1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any():
        raise ValueError("indices must hold each image at most once per query.")
    return array


def _check_numbers(name: str, array: NDArray[Any], n_images: int, low: int = 0) -> NDArray[np.int64]:
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be numbers of images, integers. Got {describe_array(array)} instead.")
    if array.min() < low or array.max() >= n_images:
        raise ValueError(
            f"{name} must be in [{low}, {n_images - 1}]: there are {n_images} images. "
            f"Got numbers from {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def _check_verified(
    verified: Any, queries: NDArray[np.float32], indices: NDArray[np.int64] | None
) -> NDArray[np.bool_] | VerifiedMatches | None:
    if verified is None:
        return None
    if indices is None:
        raise ValueError("verified says which images of indices are: give indices, too.")
    if isinstance(verified, VerifiedMatches):
        if not len(queries) == len(verified.queries) == len(verified.results):
            raise ValueError(f"verified is for {len(verified.queries)} queries, but there are {len(queries)}.")
        return verified
    mask = check_array(verified, dtype=None, ensure_min_samples=0)
    if mask.dtype != np.bool_ or mask.shape != indices.shape:
        raise ValueError(f"verified must be bool of shape {indices.shape}. Got {describe_array(mask)} instead.")
    return np.asarray(mask)
