"""Several rerankers one after the other, as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.metaestimators import _BaseComposition

from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database import Database
from cvretrieval.reranking.ranking import Ranking


class RerankingPipeline(Reranker, _BaseComposition):
    """A chain of rerankers: the lists of each are where the next one starts.

    A step that changes the database (`DatabaseAugmentation`) changes it for the later steps, and one that changes the
    queries (the expansions) changes them.

    Parameters
    ----------
    steps : list of (str, reranker)
        Names and rerankers, in order. Parameters are set as in a scikit-learn Pipeline, ``qe__alpha=3``, also by
        `GridSearchCV`, which may replace a whole step by its name.
    n_jobs : int, optional
        Threads over blocks of queries; the number does not change any result. At `fit` each step uses its own.

    Attributes
    ----------
    labels_ : ndarray of shape (n_images,) or None

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV, KFold
    >>> from cvretrieval import AlphaQueryExpansion, DatabaseAugmentation, RerankingPipeline
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(np.arange(6), 8)
    >>> vectors = rng.normal(size=(6, 16))[labels] + rng.normal(size=(48, 16))
    >>> chain = RerankingPipeline([("dba", DatabaseAugmentation(3)), ("qe", AlphaQueryExpansion(5))])
    >>> folds = KFold(3, shuffle=True, random_state=0)
    >>> search = GridSearchCV(chain, {"qe__alpha": [0, 3], "dba__n_neighbors": [0, 3]}, cv=folds)
    >>> search.fit(vectors, labels).best_params_
    {'dba__n_neighbors': 3, 'qe__alpha': 3}
    """

    def __init__(self, steps: list[tuple[str, Any]], *, n_jobs: int | None = None) -> None:
        self.steps = steps
        self.n_jobs = n_jobs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep`` those of the steps, too, as ``name__parameter``."""
        return dict(self._get_params("steps", deep=deep))

    def set_params(self, **parameters: Any) -> RerankingPipeline:
        """Set parameters: ``steps``, a step by its name, or a parameter of a step as ``name__parameter``."""
        self._set_params("steps", **parameters)
        return self

    @property
    def needs_verification(self) -> bool:
        """Whether a step needs to know which images are verified."""
        return any(step.needs_verification for _, step in self.steps)

    @property
    def labels_(self) -> NDArray[Any] | None:
        """Labels of the database's images, given to `fit`."""
        return self._first.labels_

    @labels_.setter
    def labels_(self, labels: NDArray[Any] | None) -> None:
        self._first.labels_ = labels

    def _fit_database(self, database: Database) -> Database:
        for _, step in self.steps:
            database = step._fit_database(database)
        return database

    def _step(self, ranking: Ranking, k: int) -> Ranking:
        lengths = self._lengths(len(self._database), k, ranking.depth)
        for (_, step), length in zip(self.steps, lengths, strict=True):
            ranking = step._step(ranking, length).cut(length)
        return ranking

    def _lengths(self, n_images: int, k: int, depth: int) -> list[int]:
        """Return the length of the lists that each step has to make for the next one, from lists of some depth."""
        lengths = [k]
        for _, step in reversed(self.steps[1:]):
            needed = step._n_needed(n_images, lengths[-1])
            # Verified images may be anywhere in the list.
            lengths.append(max(1, min(max(needed, depth) if step.needs_verification else needed, n_images)))
        return lengths[::-1]

    def _n_needed(self, n_images: int, k: int) -> int:
        return int(self._first._n_needed(n_images, self._lengths(n_images, k, 1)[0]))

    def _queries_per_block(self, n_queries: int) -> int:
        return max(step._queries_per_block(n_queries) for _, step in self.steps)

    def _check_vectors(self, X: Any, *, reset: bool) -> NDArray[np.float32]:
        return self._first._check_vectors(X, reset=reset)

    @property
    def _database(self) -> Any:
        return self._first._database

    @property
    def _first(self) -> Any:
        return self.steps[0][1]

    def _check_parameters(self) -> None:
        steps = self.steps
        if not isinstance(steps, (list, tuple)) or not steps or not all(_is_step(step) for step in steps):
            raise ValueError(f"steps must be a list of at least one (name, reranker). Got {steps!r} instead.")
        self._validate_names([name for name, _ in steps])
        for _, step in steps:
            step._check_parameters()

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.steps) and all(hasattr(step, "vectors_") for _, step in self.steps)


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, (list, tuple))
        and len(step) == 2
        and isinstance(step[0], str)
        and isinstance(step[1], Reranker)
        and not isinstance(step[1], RerankingPipeline)
    )
