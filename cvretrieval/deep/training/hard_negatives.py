"""Batches of queries with the images of other classes that are taken for theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_number
from cvretrieval.deep.training.sampling import draw_in_turn

# Rows of products that are computed at once.
_ROWS = 256


class HardNegativeSampler:
    """Batches of tuples: a query, another image of its class, and the most similar images of other classes.

    Parameters
    ----------
    labels : array of shape (n_images,)
        The class of each image.
    describe : callable
        Returns the vectors, of unit length, of the images of these numbers, as the network is when an epoch begins.
    n_tuples : int, default=5
        Tuples in a batch.
    n_negatives : int, default=5
        Negatives of a query, each of another class; fewer where there are fewer classes.
    pool_size : int, default=20000
        Images that negatives are looked for among, drawn anew in each epoch.
    seed : int, default=0

    Notes
    -----
    As in the training of GeM: hard negatives are found anew before each epoch, and one class gives one at most, since
    images of one class are much the same. Everything follows from seed, epoch and the vectors.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep.training import HardNegativeSampler
    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> sampler = HardNegativeSampler([0, 0, 1, 2], lambda images: vectors[images], n_tuples=1, n_negatives=1)
    >>> int(sampler.batches(epoch=0)[0][2])  # the image that is most like those of class 0
    2
    """

    def __init__(
        self,
        labels: Any,
        describe: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        n_tuples: int = 5,
        n_negatives: int = 5,
        pool_size: int = 20000,
        seed: int = 0,
    ) -> None:
        for name, value in (("n_tuples", n_tuples), ("n_negatives", n_negatives), ("pool_size", pool_size)):
            check_number(self, name, value, low=1, integer=True)
        _, self._classes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        self._queries = np.flatnonzero(counts[self._classes] > 1)
        if len(counts) < 2 or not len(self._queries):
            raise ValueError("Hard negatives need two classes at least, one of them with two images.")
        self._describe = describe
        self.n_negatives = min(int(n_negatives), len(counts) - 1)
        self.n_tuples = int(n_tuples)
        self.pool_size = int(pool_size)
        self.seed = int(seed)
        self.n_batches = max(1, round(len(self._classes) / (self.n_tuples * (2 + self.n_negatives))))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch, about as many images as there are; those of a tuple are adjacent."""
        rng = np.random.default_rng([self.seed, epoch])
        n_queries = self.n_batches * self.n_tuples
        queries = draw_in_turn(self._queries, n_queries, rng)
        positives = np.array([self._positive(query, rng) for query in queries])
        n_images = len(self._classes)
        pool = np.arange(n_images)
        if n_images > self.pool_size:
            pool = np.sort(rng.choice(n_images, self.pool_size, replace=False))
        needed = np.union1d(pool, queries)
        vectors = self._describe(needed)
        rows, columns = np.searchsorted(needed, queries), np.searchsorted(needed, pool)
        tuples = []
        for start in range(0, n_queries, _ROWS):
            part = slice(start, start + _ROWS)
            order = np.argsort(-(vectors[rows[part]] @ vectors[columns].T), axis=1, kind="stable")
            for query, positive, ranked in zip(queries[part], positives[part], pool[order], strict=True):
                tuples.append(np.concatenate([[query, positive], self._negatives(query, ranked)]))
        return [np.concatenate(tuples[i : i + self.n_tuples]) for i in range(0, n_queries, self.n_tuples)]

    def _positive(self, query: int, rng: np.random.Generator) -> int:
        others = np.flatnonzero(self._classes == self._classes[query])
        return int(rng.choice(others[others != query]))

    def _negatives(self, query: int, ranked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first image of each of the classes that come first, the query's own left out."""
        foreign = ranked[self._classes[ranked] != self._classes[query]]
        _, first = np.unique(self._classes[foreign], return_index=True)
        return foreign[np.sort(first)[: self.n_negatives]]
