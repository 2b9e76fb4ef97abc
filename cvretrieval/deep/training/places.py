"""Batches of tuples for place recognition: what was taken near a query, and what was taken far away and looks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_number
from cvretrieval.deep.training.sampling import draw_in_turn


class PlaceSampler:
    """Batches of tuples by position: a query, the potential positive most like it, and hard negatives.

    Parameters
    ----------
    positions : array of shape (n_images, 2)
        Where each image was taken, in metres (easting and northing, such as UTM), not in degrees.
    describe : callable
        Returns the vectors, of unit length, of the images of these numbers, as the network is when an epoch begins.
    positive_radius : float, default=10
        Images within so many metres are potential positives: they may look another way.
    negative_radius : float, default=25
        Images farther away are negatives.
    n_tuples : int, default=4
        Tuples in a batch.
    n_negatives : int, default=10
        Negatives of a query; fewer for all if some query has fewer.
    pool_size : int, default=1000
        Images that hard negatives are looked for among, drawn anew in each epoch.
    seed : int, default=0

    Attributes
    ----------
    tuple_size : int
        Images in a tuple: query, positive, negatives.

    Notes
    -----
    As in the training of NetVLAD: of the potential positives the one whose vector is nearest, of 1,000 random negatives
    those that are nearest. Both are found anew before each epoch; the paper does so after every 1,000 queries, and adds
    the hard negatives that it found before. Queries are images that have both. Everything follows from seed, epoch and
    the vectors.

    References
    ----------
    .. [1] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016, section 4 and appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep.training import PlaceSampler
    >>> positions = [[0, 0], [3, 4], [6, 8], [0, 90], [0, 99]]
    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]])
    >>> sampler = PlaceSampler(positions, lambda images: vectors[images], n_tuples=5, n_negatives=1)
    >>> sorted(batch.tolist() for batch in sampler.batches(epoch=0)[0].reshape(-1, 3))
    [[0, 2, 3], [1, 2, 3], [2, 0, 3], [3, 4, 2], [4, 3, 1]]
    """

    def __init__(
        self,
        positions: Any,
        describe: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        positive_radius: float = 10.0,
        negative_radius: float = 25.0,
        n_tuples: int = 4,
        n_negatives: int = 10,
        pool_size: int = 1000,
        seed: int = 0,
    ) -> None:
        from scipy.spatial import cKDTree

        check_number(self, "positive_radius", positive_radius, low=0)
        check_number(self, "negative_radius", negative_radius, low=positive_radius)
        for name, value in (("n_tuples", n_tuples), ("n_negatives", n_negatives), ("pool_size", pool_size)):
            check_number(self, name, value, low=1, integer=True)
        self._positions = check_positions(positions)
        self._tree = cKDTree(self._positions)
        self._describe = describe
        self.positive_radius, self.negative_radius = float(positive_radius), float(negative_radius)
        # Itself is within any radius.
        n_near, n_around = (
            self._tree.query_ball_point(self._positions, radius, return_length=True)
            for radius in (self.positive_radius, self.negative_radius)
        )
        n_images = len(self._positions)
        self._queries = np.flatnonzero((n_near > 1) & (n_around < n_images))
        if not len(self._queries):
            raise ValueError(
                f"None of {n_images} images has another within {self.positive_radius:g} m and one farther away than "
                f"{self.negative_radius:g} m. Positions are metres, such as UTM; change positive_radius or "
                "negative_radius."
            )
        self.n_negatives = min(int(n_negatives), int(n_images - n_around[self._queries].max()))
        self.tuple_size = 2 + self.n_negatives
        self.n_tuples = int(n_tuples)
        self.pool_size = int(pool_size)
        self.seed = int(seed)
        self.n_batches = max(1, round(n_images / (self.n_tuples * self.tuple_size)))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch, about as many images as there are; those of a tuple are adjacent."""
        rng = np.random.default_rng([self.seed, epoch])
        n_queries = self.n_batches * self.n_tuples
        queries = draw_in_turn(self._queries, n_queries, rng)
        near = self._tree.query_ball_point(self._positions[queries], self.positive_radius)
        positives = [np.setdiff1d(images, [query]) for images, query in zip(near, queries, strict=True)]
        n_images = len(self._positions)
        pool = np.sort(rng.choice(n_images, min(self.pool_size, n_images), replace=False))
        needed = np.unique(np.concatenate([pool, queries, *positives]))
        vectors = self._describe(needed)
        of_pool = vectors[np.searchsorted(needed, pool)]
        tuples = []
        for query, candidates in zip(queries, positives, strict=True):
            own = vectors[np.searchsorted(needed, query)]
            best = candidates[(vectors[np.searchsorted(needed, candidates)] @ own).argmax()]
            ranked = pool[np.argsort(-(of_pool @ own), kind="stable")]
            hard = ranked[self._is_far(query, ranked)][: self.n_negatives]
            if len(hard) < self.n_negatives:
                others = np.setdiff1d(np.flatnonzero(self._is_far(query, np.arange(n_images))), hard)
                more = rng.choice(others, self.n_negatives - len(hard), replace=False)
                hard = np.concatenate([hard, more])
            tuples.append(np.concatenate([[query, best], hard]))
        return [np.concatenate(tuples[i : i + self.n_tuples]) for i in range(0, n_queries, self.n_tuples)]

    def _is_far(self, query: int, images: NDArray[np.int64]) -> NDArray[np.bool_]:
        between = np.linalg.norm(self._positions[images] - self._positions[query], axis=1)
        far: NDArray[np.bool_] = between > self.negative_radius
        return far


def check_positions(positions: Any) -> NDArray[np.float64]:
    """Return positions in metres as an array (n_images, 2).

    Raises
    ------
    ValueError
        If they are not two finite numbers for each image.
    """
    found = np.asarray(positions, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        bad = "NaN or infinite ones among them" if found.ndim == 2 and found.shape[1] == 2 else f"shape {found.shape}"
        raise ValueError(f"Positions must be two finite numbers for each image, east and north in metres. Got {bad}.")
    return found


def classes_as_positions(classes: NDArray[np.int64], negative_radius: float) -> NDArray[np.float64]:
    """Return positions at which images of one class are in one place, and classes beyond a radius of each other."""
    return np.stack([classes * max(3.0 * negative_radius, 1.0), np.zeros(len(classes))], axis=1)
