"""Lloyd's algorithm over blocks of descriptors and several threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from cvretrieval._kernels.lloyd import add_to_words, center_rows
from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval.codebooks.assignment import BLOCK, NearestWord

# Descriptors of one task. Fixed: the order in which partial sums are added must not depend on the number of threads.
_TASK_ROWS = 8192

# The start: k-means++ on the first few descriptors for each word, then iterations on a sample, and on one four times as
# large, while that is less than half of all. On a million descriptors and 1,024 words this costs as much as four
# iterations on all of them, and three more then come as far as thirteen from a random start.
_FIRST_ROWS_EACH = 16
_ROWS_EACH = 64
_START_ITERATIONS = 8


class KMeansResult(NamedTuple):
    """Words, descriptors of each, the sum of the squared distances, and the number of iterations."""

    centers: NDArray[np.float32]
    counts: NDArray[np.int64]
    inertia: float
    n_iter: int


class _Sums(NamedTuple):
    residuals: NDArray[np.float64]
    counts: NDArray[np.int64]
    words: NDArray[np.int32]
    distances: NDArray[np.float32]


def lloyd(
    rows: NDArray[np.float32],
    centers: NDArray[np.float32],
    *,
    max_iter: int,
    tol: float,
    n_jobs: int | None,
    owner: Any,
) -> KMeansResult:
    """Move centres to the means of their descriptors until they rest.

    Parameters
    ----------
    rows : ndarray of shape (n_descriptors, n_dims)
        float32, finite.
    centers : ndarray of shape (n_words, n_dims)
        To start with.
    max_iter : int
    tol : float
        The iterations end when no descriptor changes its word, or the squared lengths of all moves add up to at most
        `tol` times the mean variance of the dimensions, as in scikit-learn.
    n_jobs : int or None
        Threads; the number does not change a bit of the result.
    owner : object
        The estimator that errors name.

    Notes
    -----
    Distances are computed relative to the mean of the descriptors, sums in float64. A word without descriptors moves to
    the descriptor farthest from its word; several take the farthest ones in turn.
    """
    mean, variance = _mean_and_variance(rows, n_jobs)
    centers = centers - mean
    n_iter, words = 0, None
    while n_iter < max_iter:
        n_iter += 1
        sums = _sum_up(rows, mean, centers, n_jobs, owner)
        if words is not None and np.array_equal(words, sums.words):
            break
        moved = _moved(rows, mean, centers, sums)
        shift = float(((moved - centers).astype(np.float64) ** 2).sum())
        centers, words = moved, sums.words
        if shift <= tol * variance:
            break
    found = _sum_up(rows, mean, centers, n_jobs, owner)
    return KMeansResult(centers + mean, found.counts, float(found.distances.sum(dtype=np.float64)), n_iter)


def start_of_lloyd(
    rows: NDArray[np.float32], n_words: int, random_state: np.random.RandomState, *, n_jobs: int | None, owner: Any
) -> NDArray[np.float32]:
    """Return words to start with: k-means++ on a sample, then iterations on growing samples."""
    order = random_state.permutation(len(rows))
    with single_threaded():
        sample = rows[np.sort(order[: _FIRST_ROWS_EACH * n_words])]
        # One trial for each word: several cost as much as iterations, which gain more.
        centers, _ = kmeans_plusplus(sample, n_words, random_state=random_state, n_local_trials=1)
    size = _ROWS_EACH * n_words
    while size < len(rows) // 2:
        sample = rows[np.sort(order[:size])]
        centers = lloyd(sample, centers, max_iter=_START_ITERATIONS, tol=0, n_jobs=n_jobs, owner=owner).centers
        size *= 4
    return np.ascontiguousarray(centers, dtype=np.float32)


def _mean_and_variance(rows: NDArray[np.float32], n_jobs: int | None) -> tuple[NDArray[np.float32], float]:
    """Return the mean of every dimension, and the mean of their variances."""

    def add_up(task: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        part = rows[task].astype(np.float64)
        return part.sum(axis=0), ((part - part.mean(axis=0)) ** 2).sum(axis=0)

    tasks = block_slices(len(rows), _TASK_ROWS)
    parts = list(map_blocks(add_up, tasks, n_jobs=n_jobs))
    sizes = np.array([task.stop - task.start for task in tasks], dtype=np.float64)
    mean = sum(total for total, _ in parts) / len(rows)
    within = sum(squares for _, squares in parts)
    between = sum(size * (total / size - mean) ** 2 for size, (total, _) in zip(sizes, parts, strict=True))
    return np.asarray(mean, dtype=np.float32), float(np.mean((within + between) / len(rows)))


def _sum_up(
    rows: NDArray[np.float32], mean: NDArray[np.float32], centers: NDArray[np.float32], n_jobs: int | None, owner: Any
) -> _Sums:
    """Add up the residuals of each word's descriptors, count them, and measure their distances."""
    all_words, distances = np.empty(len(rows), dtype=np.int32), np.empty(len(rows), dtype=np.float32)

    def add_up(task: slice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        nearest = NearestWord(centers, owner)
        residuals, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
        scratch = np.empty((BLOCK, rows.shape[1]), dtype=np.float32)
        for start in range(task.start, task.stop, BLOCK):
            stop = min(start + BLOCK, task.stop)
            centered = scratch[: stop - start]
            center_rows(rows[start:stop], mean, centered)
            for block, words in nearest.blocks(centered, 0):
                add_to_words(block, words, centers, residuals, counts, distances[start:stop])
                all_words[start:stop] = words
        return residuals, counts

    residuals, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for some_residuals, some_counts in map_blocks(add_up, block_slices(len(rows), _TASK_ROWS), n_jobs=n_jobs):
        residuals += some_residuals
        counts += some_counts
    return _Sums(residuals, counts, all_words, distances)


def _moved(
    rows: NDArray[np.float32], mean: NDArray[np.float32], centers: NDArray[np.float32], sums: _Sums
) -> NDArray[np.float32]:
    """Return the centres at the means of their descriptors; those without any at the descriptors farthest off."""
    moved = (centers + sums.residuals / np.maximum(sums.counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(sums.counts == 0)
    if len(empty):
        # Stable, so that equal distances have one order on all machines.
        farthest = np.argsort(-sums.distances, kind="stable")[: len(empty)]
        moved[empty[: len(farthest)]] = rows[farthest] - mean
    return moved
