"""Words in cells: an inverted file of words, in which the nearest is looked for in the most likely cells only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.nearest_in_cells import nearest_in_cells
from cvretrieval._kernels.word_cells import group_pairs, project, rank_children, scan_cells
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._spread import Threads
from cvretrieval.codebooks.tree_growth import grow_tree, half_norms

#: Descriptors that are searched together: the words of a cell are read once for all of them.
BLOCK_ROWS = 131_072

# Share of the words' variance that lies in the subspace where distances are bounded. With less, more words must be
# measured in full; with more, the bounds themselves cost more.
_VARIANCE = 0.92

# Words that the subspace is learned from, at most.
_VARIANCE_WORDS = 50_000

# Groups of cells that a word looks into for the cell it belongs to.
_WORD_GROUPS = 8

_BUILD_ITERATIONS = 10


class Layout(NamedTuple):
    """How words are arranged: what is learned. Everything else follows from it and the words.

    Attributes
    ----------
    origin : ndarray of shape (n_dims,)
    basis : ndarray of shape (n_kept, n_dims)
        Orthonormal rows: the principal axes of the words.
    group_centers : ndarray of shape (n_groups, n_dims)
    cell_centers : ndarray of shape (n_cells, n_dims)
        Those of one group in sequence.
    group_bounds : ndarray of shape (n_groups + 1,)
        int64. Cells of each group.
    cells : ndarray of shape (n_words,)
        int32. The cell of each word.
    """

    origin: NDArray[np.float32]
    basis: NDArray[np.float32]
    group_centers: NDArray[np.float32]
    cell_centers: NDArray[np.float32]
    group_bounds: NDArray[np.int64]
    cells: NDArray[np.int32]


def default_branching(n_words: int) -> int:
    """Return the number of groups, and of cells in each: about 8 √n_words cells together, 1 for very few words."""
    return max(int(np.sqrt(min(8 * np.sqrt(n_words), n_words / 4))), 1)


def arrange(
    words: NDArray[np.float32], branching: int, random_state: np.random.RandomState, n_jobs: int | None
) -> Layout:
    """Group words into cells by two levels of k-means; every word goes to the nearest cell of a few groups."""
    sample = words[np.sort(random_state.permutation(len(words))[:_VARIANCE_WORDS])].astype(np.float64)
    origin = sample.mean(axis=0).astype(np.float32)
    centered = sample - origin
    variances, axes = np.linalg.eigh(centered.T @ centered)
    share = np.cumsum(variances[::-1]) / max(variances.sum(), np.finfo(np.float64).tiny)
    # With the two columns that bounds need, a multiple of the eight numbers of a vector.
    n_kept = min(-(-(int(np.searchsorted(share, _VARIANCE)) + 3) // 8) * 8 - 2, words.shape[1])
    basis = np.ascontiguousarray(axes[:, ::-1][:, :n_kept].T, dtype=np.float32)
    if branching < 2:
        groups = cells = origin[None].copy()
        bounds = np.array([0, 1], dtype=np.int64)
    else:
        tree = grow_tree(words, branching, 2, _BUILD_ITERATIONS, random_state, Threads(n_jobs), False)
        n_groups = int(tree.children[0, 1])
        groups = tree.centers[:n_groups]
        own = [
            tree.centers[first:stop] if first < stop else groups[k : k + 1]
            for k, (first, stop) in enumerate(tree.children[1 : n_groups + 1])
        ]
        cells = np.concatenate(own)
        bounds = np.concatenate([[0], np.cumsum([len(part) for part in own])]).astype(np.int64)
    layout = Layout(origin, basis, groups, cells, bounds, np.zeros(0, dtype=np.int32))
    ranking = CellRanking(layout)
    found = np.empty(len(words), dtype=np.int32)

    def place(block: slice) -> None:
        found[block] = ranking.rank(ranking.project(words[block])[0], _WORD_GROUPS, 1)[:, 0]

    for _ in map_blocks(place, block_slices(len(words), BLOCK_ROWS), n_jobs=n_jobs):
        pass
    return layout._replace(cells=found)


class CellRanking:
    """Finds the likely cells of descriptors in two levels; may be shared by threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._groups, self._group_norms = self._flat(layout.group_centers)
        self._cells, self._cell_norms = self._flat(layout.cell_centers)

    @property
    def n_groups(self) -> int:
        return len(self._groups)

    @property
    def n_cells(self) -> int:
        return len(self._cells)

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        """Cells of each group."""
        return np.diff(self._layout.group_bounds)

    def scores(self, rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the scores of all cells and of all groups: the higher, the nearer in the subspace."""
        short, _ = self.project(rows)
        return short @ self._cells.T - self._cell_norms, short @ self._groups.T - self._group_norms

    def project(self, rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (x', ‖x_r‖, −1) and ‖x − o‖² of descriptors in bytes or float32."""
        short = np.empty((len(rows), len(self._layout.basis) + 2), dtype=np.float32)
        squares = np.empty(len(rows), dtype=np.float32)
        project(rows, self._layout.origin, self._layout.basis, short, squares)
        return short, squares

    def rank(self, short: NDArray[np.float32], n_groups: int, n_cells: int) -> NDArray[np.int32]:
        """Return the nearest cells in the nearest groups by distance in the subspace, nearest first; −1 for none."""
        groups = np.zeros((len(short), 1), dtype=np.int32)
        whole = np.array([0, self.n_groups])
        if n_groups < self.n_groups:
            groups = self._best(short, groups, whole, self._groups, self._group_norms, n_groups)
            return self._best(short, groups, self._layout.group_bounds, self._cells, self._cell_norms, n_cells)
        return self._best(short, groups, np.array([0, self.n_cells]), self._cells, self._cell_norms, n_cells)

    def _best(
        self, short: NDArray[np.float32], nodes: NDArray[np.int32], children: NDArray[np.int64],
        centers: NDArray[np.float32], norms: NDArray[np.float32], n_kept: int,
    ) -> NDArray[np.int32]:  # fmt: skip
        order, bounds = pairs(nodes, len(children) - 1)
        best = np.empty((len(short), min(n_kept, len(centers))), dtype=np.int32)
        scores = np.empty(best.shape, dtype=np.float32)
        rank_children(short, order, bounds, children, centers, norms, scores, best)
        return best

    def _flat(self, centers: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Project centres; the columns after the projection, which bounds need, must not count."""
        short, _ = self.project(np.ascontiguousarray(centers))
        short[:, -2:] = 0
        return short, half_norms(short)


def pairs(nodes: NDArray[np.int32], n_nodes: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the rows of each node one after the other, and where each begins."""
    order, bounds = np.empty(nodes.size, dtype=np.int32), np.empty(n_nodes + 1, dtype=np.int64)
    group_pairs(nodes, bounds, order)
    return order, bounds


class WordCells(CellRanking):
    """Finds the nearest word in the likely cells; may be shared by threads.

    Parameters
    ----------
    words : ndarray of shape (n_words, n_dims)
        float32.
    layout : Layout
    """

    def __init__(self, words: NDArray[np.float32], layout: Layout) -> None:
        super().__init__(layout)
        order = np.argsort(layout.cells, kind="stable")
        self.cells = layout.cells
        self.sizes = np.bincount(layout.cells, minlength=self.n_cells)
        self._bounds = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self._numbers = order.astype(np.int32)
        is_sorted = bool((np.diff(layout.cells) >= 0).all())
        self._words = words if is_sorted else words[order]
        self._short, squares = self.project(self._words)
        self._short[:, -1] = np.float32(0.5) * squares

    def search(
        self, rows: NDArray[Any], n_groups: int, n_probes: int, start: NDArray[np.int32] | None = None,
        distances: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:  # fmt: skip
        """Return the nearest word in the `n_probes` nearest cells of the `n_groups` nearest groups.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_dims)
            uint8 or float32, finite, C-contiguous.
        n_groups, n_probes : int
        start, distances : ndarray of shape (n_rows,), optional
            A word of each descriptor to begin with, and its squared distance; nothing worse is returned.

        Returns
        -------
        words, distances : ndarray of shape (n_rows,)
            int32 and float32, squared.
        """
        if n_probes >= self.n_cells:
            return self.search_all(rows)
        return self._search_few(rows, n_groups, n_probes, start, distances)

    def search_several(self, rows: NDArray[Any], n_groups: int, n_probes: int, n_nearest: int) -> NDArray[np.int32]:
        """Return the nearest words in the `n_probes` nearest cells of the `n_groups` nearest groups, nearest first.

        int32 of shape (n_rows, n_nearest); −1 where these cells hold fewer words. `rows` as for `search`.
        """
        words = np.empty((len(rows), n_nearest), dtype=np.int32)
        distances = np.empty(words.shape, dtype=np.float32)
        nodes = self.rank(self.project(rows)[0], n_groups, n_probes)
        nearest_in_cells(rows, nodes, self._bounds, self._words, self._numbers, distances, words)
        return words

    def _search_few(
        self, rows: NDArray[Any], n_groups: int, n_probes: int, start: NDArray[np.int32] | None,
        distances: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:  # fmt: skip
        short, squares = self.project(rows)
        nodes = self.rank(short, n_groups, n_probes)
        words = np.full(len(rows), -1, dtype=np.int32) if start is None else start.copy()
        best = np.full(len(rows), np.inf, dtype=np.float32) if distances is None else distances.copy()
        # A good word first, so that the bounds of most others do not reach it.
        for columns in (nodes[:, :1], nodes[:, 1:]):
            order, bounds = pairs(columns, self.n_cells)
            self._scan(rows, short, squares, order, bounds, best, words)
        return words, best

    def search_all(self, rows: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the nearest of all words, and its squared distance."""
        words, best = self._search_few(rows, 1, 1, None, None)
        # Every row looks into every cell, so these lists are long.
        for block in block_slices(len(rows), max(2**24 // self.n_cells, 1)):
            part = rows[block]
            short, squares = self.project(part)
            order = np.tile(np.arange(len(part), dtype=np.int32), self.n_cells)
            bounds = len(part) * np.arange(self.n_cells + 1, dtype=np.int64)
            self._scan(part, short, squares, order, bounds, best[block], words[block])
        return words, best

    def _scan(
        self, rows: NDArray[Any], short: NDArray[np.float32], squares: NDArray[np.float32], order: NDArray[np.int32],
        bounds: NDArray[np.int64], best: NDArray[np.float32], words: NDArray[np.int32],
    ) -> None:  # fmt: skip
        scan_cells(
            short, squares, rows, order, bounds, self._bounds, self._short, self._words,
            self._numbers, best, words,
        )  # fmt: skip
