"""How many cells to look into: the fewest with which a wanted share of descriptors finds its nearest word."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval.codebooks.word_cells import WordCells

# Descriptors per task; also bounds the memory of their scores with all cells.
_BLOCK_ROWS = 256

# Work of looking at a cell, in words looked at, beside that for its words; and work of ranking one cell.
_PER_CELL = 40
_PER_RANKED = 2

# Standard errors by which the share must be above the wanted one, so that it is on other descriptors, too (95 %).
_MARGIN = 1.645


class Probes(NamedTuple):
    """Groups and cells that a descriptor looks into, and the share of descriptors that finds its nearest word."""

    n_groups: int
    n_cells: int
    recall: float


def choose_probes(
    cells: WordCells, rows: NDArray[Any], recall: float, n_probes: int | None, n_jobs: int | None
) -> Probes:
    """Choose the cheapest numbers of groups and cells that reach a recall, or that lose little of `n_probes` cells.

    Parameters
    ----------
    cells : WordCells
    rows : ndarray of shape (n_rows, n_dims)
        Descriptors, uint8 or float32, that the words were not learned from.
    recall : float
        Wanted; 1 takes all cells.
    n_probes : int, optional
        Number of cells, if it is given.
    n_jobs : int or None

    Returns
    -------
    Probes
        With the recall measured on the rows: a word counts if none is nearer, so of equal ones each does.
    """
    everything = Probes(cells.n_groups, cells.n_cells, 1.0)
    if (n_probes is None and recall >= 1) or (n_probes is not None and n_probes >= cells.n_cells) or cells.n_cells == 1:
        return everything
    blocks = block_slices(len(rows), _BLOCK_ROWS)
    choices = [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n < cells.n_groups] + [cells.n_groups]
    parts = list(map_blocks(lambda block: _measure(cells, rows[block], choices), blocks, n_jobs=n_jobs))
    distances = np.concatenate([part[0] for part in parts])
    places = np.concatenate([part[1] for part in parts], axis=1)
    size = float(np.mean([part[2] for part in parts]))
    ranked = np.array(choices) * cells.n_cells / cells.n_groups
    if n_probes is not None:
        found = (places < n_probes).mean(axis=1)
        few_enough = int(np.argmax(found >= found[-1] - 0.002))
        return _measured(cells, rows, distances, choices[few_enough], int(n_probes), n_jobs)
    best, cheapest = everything, np.inf
    for n_groups, own, n_ranked in zip(choices, places, ranked, strict=True):
        needed = _fewest(own, recall)
        cost = n_ranked * _PER_RANKED + needed * (size + _PER_CELL)
        if cost < cheapest:
            best, cheapest = Probes(n_groups, int(needed), 1.0), cost
    while best.n_cells < cells.n_cells:
        best = _measured(cells, rows, distances, best.n_groups, best.n_cells, n_jobs)
        if best.recall - _error(best.recall, len(rows)) >= recall:
            return best
        best = best._replace(n_cells=best.n_cells + max(best.n_cells // 10, 1))
    return everything


def _error(share: float, n: int) -> float:
    return float(_MARGIN * np.sqrt(max(share * (1 - share), 1 / n) / n))


def _fewest(places: NDArray[np.float64], recall: float) -> float:
    """Return the least number of cells of which a wanted share of descriptors, and the margin, needs no more."""
    reached = np.arange(1, len(places) + 1) / len(places)
    enough = np.flatnonzero([share - _error(share, len(places)) >= recall for share in reached])
    return float(np.sort(places)[enough[0]]) + 1 if len(enough) else np.inf


def _measure(
    cells: WordCells, rows: NDArray[Any], choices: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float64], float]:
    """Return distances to the nearest words, places of their cells in so many groups, and the mean size of cells."""
    words, distances = cells.search_all(rows)
    own = cells.cells[words]
    scores, group_scores = cells.scores(rows)
    above = scores > np.take_along_axis(scores, own[:, None].astype(np.int64), axis=1)
    group_places = np.argsort(np.argsort(-group_scores, axis=1, kind="stable"), axis=1)
    cell_places = np.repeat(group_places, cells.group_sizes, axis=1)
    places = np.empty((len(choices), len(rows)))
    for place, n_groups in zip(places, choices, strict=True):
        inside = cell_places < n_groups
        reached = np.take_along_axis(inside, own[:, None].astype(np.int64), axis=1)[:, 0]
        place[:] = np.where(reached, (above & inside).sum(axis=1), np.inf)
    nearest = np.argsort(-scores, axis=1)[:, :4]
    return distances, places, float(cells.sizes[nearest].mean())


def _measured(
    cells: WordCells,
    rows: NDArray[Any],
    distances: NDArray[np.float32],
    n_groups: int,
    n_cells: int,
    n_jobs: int | None,
) -> Probes:
    def count(block: slice) -> int:
        return int((cells.search(rows[block], n_groups, n_cells)[1] <= distances[block]).sum())

    hits = sum(map_blocks(count, block_slices(len(rows), _BLOCK_ROWS), n_jobs=n_jobs))
    return Probes(n_groups, n_cells, hits / len(rows))
