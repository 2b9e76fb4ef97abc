"""Lloyd's algorithm over blocks of descriptors, by several threads or processes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from cvretrieval._kernels.lloyd import add_to_words, center_rows
from cvretrieval._parallel import block_slices, single_threaded
from cvretrieval._spread import Spread
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
    inertia: float
    #: Of the words of all descriptors.
    digests: bytes


def lloyd(
    rows: NDArray[Any],
    centers: NDArray[np.float32],
    *,
    max_iter: int,
    tol: float,
    spread: Spread,
    owner: str,
) -> KMeansResult:
    """Move centres to the means of their descriptors until they rest.

    Parameters
    ----------
    rows : ndarray of shape (n_descriptors, n_dims)
        float32 or uint8, finite; read block by block.
    centers : ndarray of shape (n_words, n_dims)
        To start with.
    max_iter : int
    tol : float
        The iterations end when no descriptor changes its word, or the squared lengths of all moves add up to at most
        `tol` times the mean variance of the dimensions, as in scikit-learn.
    spread : Spread
        Who computes the sums over blocks of descriptors.
    owner : str
        The estimator that errors name.

    Notes
    -----
    Distances are computed relative to the mean of the descriptors, sums in float64. A word without descriptors moves to
    the descriptor farthest from its word; several take the farthest ones in turn.
    """
    mean, variance = _mean_and_variance(rows, spread)
    centers = centers - mean
    tasks = block_slices(len(rows), _TASK_ROWS)
    n_iter, digests = 0, None
    while n_iter < max_iter:
        n_iter += 1
        sums = _Sums(*spread.total(_sum_up, tasks, rows, mean, centers, owner))
        if sums.digests == digests:
            break
        moved = _moved(rows, mean, centers, sums, spread, owner)
        shift = float(((moved - centers).astype(np.float64) ** 2).sum())
        centers, digests = moved, sums.digests
        if shift <= tol * variance:
            break
    found = _Sums(*spread.total(_sum_up, tasks, rows, mean, centers, owner))
    return KMeansResult(centers + mean, found.counts, found.inertia, n_iter)


def start_of_lloyd(
    rows: NDArray[Any], n_words: int, random_state: np.random.RandomState, *, spread: Spread, owner: str
) -> NDArray[np.float32]:
    """Return words to start with: k-means++ on a sample, then iterations on growing samples."""
    order = random_state.permutation(len(rows))
    with single_threaded():
        sample = rows[np.sort(order[: _FIRST_ROWS_EACH * n_words])].astype(np.float32, copy=False)
        # One trial for each word: several cost as much as iterations, which gain more.
        centers, _ = kmeans_plusplus(sample, n_words, random_state=random_state, n_local_trials=1)
    size = _ROWS_EACH * n_words
    while size < len(rows) // 2:
        sample = spread.keep(rows[np.sort(order[:size])])
        centers = lloyd(sample, centers, max_iter=_START_ITERATIONS, tol=0, spread=spread, owner=owner).centers
        size *= 4
    return np.ascontiguousarray(centers, dtype=np.float32)


def _mean_and_variance(rows: NDArray[Any], spread: Spread) -> tuple[NDArray[np.float32], float]:
    """Return the mean of every dimension, and the mean of their variances."""
    tasks = block_slices(len(rows), _TASK_ROWS)
    mean = spread.total(_column_sums, tasks, rows)[0] / len(rows)
    squares = spread.total(_column_squares, tasks, rows, mean)[0]
    return mean.astype(np.float32), float(np.mean(squares / len(rows)))


def _column_sums(task: slice, rows: NDArray[Any]) -> tuple[NDArray[np.float64]]:
    return (rows[task].sum(axis=0, dtype=np.float64),)


def _column_squares(task: slice, rows: NDArray[Any], mean: NDArray[np.float64]) -> tuple[NDArray[np.float64]]:
    return (((rows[task] - mean) ** 2).sum(axis=0),)


def _sum_up(
    task: slice, rows: NDArray[Any], mean: NDArray[np.float32], centers: NDArray[np.float32], owner: str
) -> _Sums:
    """Add up the residuals of each word's descriptors, count them, and measure their distances."""
    residuals, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    words, distances = _assign(task, rows, mean, centers, owner, residuals, counts)
    digest = blake2b(words.tobytes(), digest_size=16).digest()
    return _Sums(residuals, counts, float(distances.sum(dtype=np.float64)), digest)


def _farthest(
    task: slice, rows: NDArray[Any], mean: NDArray[np.float32], centers: NDArray[np.float32], n_rows: int, owner: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the squared distances of the descriptors farthest from their words, and which they are."""
    residuals, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    _, distances = _assign(task, rows, mean, centers, owner, residuals, counts)
    farthest = np.argsort(-distances, kind="stable")[:n_rows]
    return distances[farthest], task.start + farthest


def _assign(
    task: slice, rows: NDArray[Any], mean: NDArray[np.float32], centers: NDArray[np.float32], owner: str,
    residuals: NDArray[np.float64], counts: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:  # fmt: skip
    """Return the words of descriptors and their squared distances; add to the words' residuals and counts."""
    nearest = NearestWord(centers, owner)
    n_rows = task.stop - task.start
    words, distances = np.empty(n_rows, dtype=np.int32), np.empty(n_rows, dtype=np.float32)
    scratch = np.empty((BLOCK, rows.shape[1]), dtype=np.float32)
    for block in block_slices(n_rows, BLOCK):
        part = rows[task.start + block.start : task.start + block.stop].astype(np.float32, copy=False)
        centered = scratch[: len(part)]
        center_rows(part, mean, centered)
        for some, found in nearest.blocks(centered, 0):
            add_to_words(some, found, centers, residuals, counts, distances[block])
            words[block] = found
    return words, distances


def _moved(
    rows: NDArray[Any],
    mean: NDArray[np.float32],
    centers: NDArray[np.float32],
    sums: _Sums,
    spread: Spread,
    owner: str,
) -> NDArray[np.float32]:
    """Return the centres at the means of their descriptors; those without any at the descriptors farthest off."""
    moved = (centers + sums.residuals / np.maximum(sums.counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(sums.counts == 0)
    if len(empty):
        # Rare, so their distances are computed once more instead of kept.
        tasks = block_slices(len(rows), _TASK_ROWS)
        found = list(spread.each(_farthest, tasks, rows, mean, centers, len(empty), owner))
        distances, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
        # Stable, so that equal distances have one order on all machines.
        farthest = places[np.argsort(-distances, kind="stable")[: len(empty)]]
        moved[empty[: len(farthest)]] = rows[farthest] - mean
    return moved
