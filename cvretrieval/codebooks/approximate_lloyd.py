"""Approximate k-means: Lloyd's algorithm with approximately nearest words, over rows that may lie on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.lloyd import distances_to_words, means_of_rows
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval.codebooks.lloyd import KMeansResult
from cvretrieval.codebooks.probe_choice import choose_probes
from cvretrieval.codebooks.word_cells import BLOCK_ROWS, WordCells, arrange, default_branching, pairs

# Share of descriptors that find their nearest word in one iteration. More is not needed: a descriptor never leaves its
# word for a farther one, so those that miss it have another chance in the next iteration, in other cells.
_RECALL = 0.8

# Descriptors on which the number of probes is chosen.
_MEASURED = 2048

# Words whose means are one task.
_WORD_BLOCK = 8192


def approximate_lloyd(
    rows: NDArray[Any],
    left_out: NDArray[np.int64],
    n_words: int,
    *,
    max_iter: int,
    tol: float,
    n_jobs: int | None,
    random_state: np.random.RandomState,
) -> KMeansResult:
    """Move random descriptors to the means of those that find them, until they rest.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_dims)
        uint8 or float32, finite; may be memory-mapped, and is read block by block.
    left_out : ndarray
        Rows that do not take part.
    n_words : int
    max_iter : int
    tol : float
        The iterations end when the squared lengths of all moves add up to at most `tol` times the mean variance of the
        dimensions of the words, for each word, or no descriptor changes its word.
    n_jobs : int or None
        Threads; the number does not change a bit of the result.
    random_state : RandomState
    """
    takes_part = np.ones(len(rows), dtype=bool)
    takes_part[left_out] = False
    chosen = random_state.permutation(np.flatnonzero(takes_part))
    centers = _start(rows, chosen, n_words)
    measured = np.ascontiguousarray(rows[np.sort(chosen[-_MEASURED:])])
    words = np.where(takes_part, 0, -1).astype(np.int32)
    distances = np.where(takes_part, np.inf, 0).astype(np.float32)
    n_iter, probes = 0, None
    while True:
        layout = arrange(centers, default_branching(n_words), random_state, n_jobs)
        cells = WordCells(centers, layout)
        if probes is None:
            # The first words are far apart, as the last ones are, so the number holds for all iterations.
            probes = choose_probes(cells, measured, _RECALL, None, n_jobs)
        n_changed = _assign(rows, cells, centers, probes.n_groups, probes.n_cells, words, distances, n_jobs)
        # Before the next ones are made: of a million words they are a gigabyte.
        del cells, layout
        if n_iter == max_iter or not n_changed:
            break
        n_iter += 1
        moved = _moved(rows, words, distances, centers, n_jobs)
        shift = float(np.einsum("ij,ij->", moved - centers, moved - centers, dtype=np.float64))
        spread = float(np.mean(np.var(moved, axis=0, dtype=np.float64)))
        centers = moved
        if shift <= tol * spread * n_words:
            # Once more, so that counts and distances are those of the words returned.
            max_iter = n_iter
    counts = np.bincount(words[takes_part], minlength=n_words)
    return KMeansResult(centers, counts, float(distances.sum(dtype=np.float64)), n_iter)


def _start(rows: NDArray[Any], chosen: NDArray[np.int64], n_words: int) -> NDArray[np.float32]:
    """Return the first of the chosen rows that are distinct, as far as there are any among a tenth more than needed."""
    candidates = chosen[: n_words + n_words // 10 + 100]
    _, first = np.unique(rows[np.sort(candidates)], axis=0, return_index=True)
    distinct = np.sort(candidates)[first]
    if len(distinct) > n_words:
        distinct = candidates[np.isin(candidates, distinct)][:n_words]
    surplus = candidates[~np.isin(candidates, distinct)][: n_words - len(distinct)]
    return np.ascontiguousarray(rows[np.sort(np.concatenate([distinct, surplus]))], dtype=np.float32)


def _assign(
    rows: NDArray[Any], cells: WordCells, centers: NDArray[np.float32], n_groups: int, n_cells: int,
    words: NDArray[np.int32], distances: NDArray[np.float32], n_jobs: int | None,
) -> int:  # fmt: skip
    """Find a word of each descriptor, none farther than the one it has; return how many have changed theirs."""

    def assign(block: slice) -> int:
        taking_part = np.flatnonzero(words[block] >= 0)
        part = np.ascontiguousarray(rows[block][taking_part])
        before, best = words[block][taking_part], distances[block][taking_part]
        if np.isfinite(best).all():
            distances_to_words(part, centers, before, best)
        found, best = cells.search(part, n_groups, n_cells, before, best)
        words[block][taking_part], distances[block][taking_part] = found, best
        return int((found != before).sum())

    return sum(map_blocks(assign, block_slices(len(rows), BLOCK_ROWS), n_jobs=n_jobs))


def _moved(
    rows: NDArray[Any], words: NDArray[np.int32], distances: NDArray[np.float32], centers: NDArray[np.float32],
    n_jobs: int | None,
) -> NDArray[np.float32]:  # fmt: skip
    """Return the means of the words' descriptors; words without any go to the descriptors farthest from theirs."""
    moved = centers.copy()
    order, bounds = pairs(words[:, None], len(centers))

    def average(block: slice) -> None:
        means_of_rows(rows, order, bounds[block.start : block.stop + 1], moved[block])

    for _ in map_blocks(average, block_slices(len(centers), _WORD_BLOCK), n_jobs=n_jobs):
        pass
    empty = np.flatnonzero(np.diff(bounds) == 0)
    if len(empty):
        # Stable, so that equal distances have one order on all machines.
        farthest = np.argsort(-distances, kind="stable")[: len(empty)]
        farthest = farthest[distances[farthest] > 0]
        moved[empty[: len(farthest)]] = rows[farthest]
    return moved
