"""The nearest neighbours of all images of a database."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_blocks
from cvretrieval.reranking.database import Database, passes

Block = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]


def nearest_neighbors(database: Database, k: int, n_jobs: int | None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the k nearest of each image, itself being the first.

    Parameters
    ----------
    database : Database
    k : int
    n_jobs : int or None

    Returns
    -------
    neighbors : ndarray of shape (n_images, k)
        int32, nearest first, among equals the lower number; -1 behind the last, and for images without features.
    similarities : ndarray of shape (n_images, k)
        float32 cosines; −inf where there is no neighbour.
    """
    neighbors = np.empty((len(database), k), dtype=np.int32)
    similarities = np.empty((len(database), k), dtype=np.float32)

    def find(rows: NDArray[np.int64]) -> Block:
        vectors = database.take(rows)
        indices, scores = database.search(vectors, k)
        # Copies of an image may have taken its place.
        others = np.where(indices == rows[:, None], np.inf, scores)
        others[(others == np.inf).sum(axis=1) == 0, -1] = np.inf
        indices = np.where(others == np.inf, rows[:, None], indices)
        order = np.argsort(others != np.inf, axis=1, kind="stable")
        indices = np.take_along_axis(indices, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        is_empty = ~vectors.any(axis=1)
        indices[is_empty], scores[is_empty] = -1, -np.inf
        return rows, indices.astype(np.int32), scores

    for rows, indices, scores in map_blocks(find, passes(database), n_jobs=n_jobs):
        neighbors[rows], similarities[rows] = indices, scores
    return neighbors, similarities
