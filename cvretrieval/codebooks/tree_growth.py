"""Hierarchical k-means: a tree of words grown level by level, over rows that may lie on disk."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.nearest_center import center_means, distinct_rows, move_empty_centers, nearest_center
from cvretrieval._parallel import block_slices, single_threaded
from cvretrieval._spread import Spread

#: A node is split by k-means on at most so many of its descriptors for each child; more change the centres little.
SAMPLES_PER_CHILD = 256

# Descriptors in one task, and in memory as float32 at once.
_BLOCK_ROWS = 65_536


class Tree(NamedTuple):
    """A tree; nodes are numbered level by level, children of a node in sequence. The root is not counted.

    Attributes
    ----------
    centers : ndarray of shape (n_nodes, n_dims)
        float32.
    children : ndarray of shape (n_nodes + 1, 2)
        int32. Row 0 is the root, row i + 1 node i: its first child, and the node after its last. Equal ones: a leaf.
    words : ndarray of shape (n_nodes,)
        int32. Number of each leaf, from left to right; −1 for inner nodes.
    depth : int
        Number of levels.
    """

    centers: NDArray[np.float32]
    children: NDArray[np.int32]
    words: NDArray[np.int32]
    depth: int


def half_norms(centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ½‖c‖² of every centre."""
    # In float64: the difference of two near-equal distances decides.
    return (0.5 * np.einsum("ij,ij->i", centers, centers, dtype=np.float64)).astype(np.float32)


def grow_tree(
    rows: NDArray[Any],
    branching: int,
    depth: int,
    max_iter: int,
    random_state: np.random.RandomState,
    spread: Spread,
    verbose: bool | int,
) -> Tree:
    """Split the rows by k-means into `branching` groups, these again, and so on, `depth` times.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_dims)
        uint8 or float32, finite; read block by block.
    branching, depth, max_iter : int
    random_state : RandomState
        Drawn from once, for the order of the rows.
    spread : Spread
        Who splits the nodes of a level, and the rows of large ones.
    verbose : bool or int
        Whether to show progress.
    """
    # In this order the first rows of every node are a random sample of its rows.
    order = random_state.permutation(len(rows)).astype(np.int64)
    bounds = np.array([0, len(rows)])
    levels: list[NDArray[np.float32]] = []
    spans = [np.zeros((1, 2), dtype=np.int64)]
    n_nodes = 0
    for level in range(depth):
        is_root = level == 0
        split = [
            part if part is not None else (np.empty((0, rows.shape[1]), dtype=np.float32), np.empty(0, dtype=np.int64))
            for part in _split_all(rows, order, bounds, branching, max_iter, is_root, spread, verbose)
        ]
        n_children = np.array([len(counts) for _, counts in split], dtype=np.int64)
        if not n_children.any():
            break
        stops = n_nodes + np.cumsum(n_children)
        spans[-1] = np.stack([stops - n_children, stops], axis=1)
        levels.append(np.concatenate([centers for centers, _ in split]))
        # A leaf passes no rows on, so the bounds of the next level are those of its own nodes.
        order, bounds = _compact(order, bounds, split)
        n_nodes += len(levels[-1])
        spans.append(np.zeros((len(levels[-1]), 2), dtype=np.int64))
    children = np.concatenate(spans)
    words = _number_leaves(children, [len(centers) for centers in levels])
    return Tree(np.concatenate(levels), children.astype(np.int32), words, len(levels))


Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def _split_all(
    rows: NDArray[Any],
    order: NDArray[np.int64],
    bounds: NDArray[np.int64],
    branching: int,
    max_iter: int,
    is_root: bool,
    spread: Spread,
    verbose: bool | int,
) -> list[Split | None]:
    """Split the nodes of a level: centres and sizes of the children of each, or None where it stays a leaf.

    The rows of each node in `order` are put in the order of its children.
    """
    sizes = np.diff(bounds)
    # Tasks of about equal numbers of rows.
    cuts = np.unique(np.searchsorted(np.cumsum(sizes), np.arange(0, sizes.sum(), _BLOCK_ROWS), side="left"))
    blocks = [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(sizes)], strict=True)]
    found: list[Split | None] = []
    parts = spread.each(
        _split_small, blocks, rows, order, bounds, branching, max_iter, is_root,
        description="tree", unit="block", verbose=verbose,
    )  # fmt: skip
    for block, (members, splits) in zip(blocks, parts, strict=True):
        order[bounds[block.start] : bounds[block.stop]] = members
        found += splits
    for i in np.flatnonzero(sizes > _BLOCK_ROWS):
        # Few, and each too large for one thread: these are spread over threads by rows.
        members = order[bounds[i] : bounds[i + 1]]
        members[:], found[i] = _split_large(rows, members, branching, max_iter, is_root, spread)
    return found


def _split_small(
    block: slice,
    rows: NDArray[Any],
    order: NDArray[np.int64],
    bounds: NDArray[np.int64],
    branching: int,
    max_iter: int,
    is_root: bool,
) -> tuple[NDArray[np.int64], list[Split | None]]:
    """Split those of some nodes that are small enough for one task; return their members, in order, and the splits."""
    first = bounds[block.start]
    members = order[first : bounds[block.stop]].copy()
    splits: list[Split | None] = []
    for start, stop in pairwise(bounds[block.start : block.stop + 1] - first):
        split = None
        if stop - start <= _BLOCK_ROWS:
            members[start:stop], split = _split(rows, members[start:stop], branching, max_iter, is_root)
        splits.append(split)
    return members, splits


def _split(
    rows: NDArray[Any], members: NDArray[np.int64], branching: int, max_iter: int, is_root: bool
) -> tuple[NDArray[np.int64], Split | None]:
    """Split one node; return its members in the order of its children, and the split."""
    if len(members) <= branching and not is_root:
        return members, None
    gathered = rows[members].astype(np.float32, copy=False)
    centers = cluster(gathered[: SAMPLES_PER_CHILD * branching], branching, max_iter)
    words, scores = np.empty(len(members), dtype=np.int32), np.empty(len(members), dtype=np.float32)
    nearest_center(gathered, np.arange(len(members)), centers, half_norms(centers), words, scores)
    return _part(members, words, centers, is_root)


def _split_large(
    rows: NDArray[Any], members: NDArray[np.int64], branching: int, max_iter: int, is_root: bool, spread: Spread
) -> tuple[NDArray[np.int64], Split | None]:
    sample = rows[members[: SAMPLES_PER_CHILD * branching]].astype(np.float32, copy=False)
    with single_threaded():
        centers = cluster(sample, branching, max_iter)
    blocks = block_slices(len(members), _BLOCK_ROWS)
    words = np.concatenate(list(spread.each(_nearest, blocks, rows, members, centers)))
    return _part(members, words, centers, is_root)


def _nearest(
    block: slice, rows: NDArray[Any], members: NDArray[np.int64], centers: NDArray[np.float32]
) -> NDArray[np.int32]:
    gathered = rows[members[block]].astype(np.float32, copy=False)
    words, scores = np.empty(len(gathered), dtype=np.int32), np.empty(len(gathered), dtype=np.float32)
    nearest_center(gathered, np.arange(len(gathered)), centers, half_norms(centers), words, scores)
    return words


def _part(
    members: NDArray[np.int64], words: NDArray[np.int32], centers: NDArray[np.float32], is_root: bool
) -> tuple[NDArray[np.int64], Split | None]:
    counts = np.bincount(words, minlength=len(centers))
    taken = np.flatnonzero(counts)
    if len(taken) < 2 and not is_root:
        return members, None
    return members[np.argsort(words, kind="stable")], (centers[taken], counts[taken])


def cluster(rows: NDArray[np.float32], n_centers: int, max_iter: int) -> NDArray[np.float32]:
    """Return at most `n_centers` centres of the rows by Lloyd's k-means; fewer where fewer rows are distinct.

    It begins with the first distinct rows, and moves centres without rows to the row that is farthest from its own.
    """
    chosen = np.empty(n_centers, dtype=np.int64)
    centers = rows[chosen[: distinct_rows(rows, n_centers, chosen)]]
    sums, counts = np.empty(centers.shape), np.empty(len(centers), dtype=np.int64)
    words, scores = np.empty(len(rows), dtype=np.int32), np.empty(len(rows), dtype=np.float32)
    previous, every_row = np.full(len(rows), -1, dtype=np.int32), np.arange(len(rows))
    for _ in range(max_iter):
        nearest_center(rows, every_row, centers, half_norms(centers), words, scores)
        if np.array_equal(words, previous):
            break
        center_means(rows, words, sums, counts, centers)
        move_empty_centers(rows, scores, counts, centers)
        previous, words = words, previous
    return centers


def _compact(
    order: NDArray[np.int64], bounds: NDArray[np.int64], split: list[Split]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out the rows of leaves; return the others, and the bounds of the new nodes."""
    is_inner = np.array([len(counts) > 0 for _, counts in split])
    if not is_inner.all():
        order = order[np.repeat(is_inner, np.diff(bounds))]
    counts = np.concatenate([counts for _, counts in split])
    return order, np.concatenate([[0], np.cumsum(counts)])


def _number_leaves(children: NDArray[np.int64], level_sizes: list[int]) -> NDArray[np.int32]:
    """Number the leaves from left to right: neighbours in the tree are neighbours in number."""
    n_nodes = len(children) - 1
    is_leaf = children[1:, 0] == children[1:, 1]
    n_leaves = is_leaf.astype(np.int64)
    ends = np.cumsum(level_sizes)
    for start, stop in zip((ends - level_sizes)[::-1], ends[::-1], strict=True):
        inner = start + np.flatnonzero(~is_leaf[start:stop])
        below = np.concatenate([[0], np.cumsum(n_leaves)])
        n_leaves[inner] = below[children[inner + 1, 1]] - below[children[inner + 1, 0]]
    first = np.zeros(n_nodes, dtype=np.int64)
    below = np.concatenate([[0], np.cumsum(n_leaves)])
    first[: level_sizes[0]] = below[: level_sizes[0]]
    for start, stop in zip(ends - level_sizes, ends, strict=True):
        inner = start + np.flatnonzero(~is_leaf[start:stop])
        n_children = children[inner + 1, 1] - children[inner + 1, 0]
        nodes = np.repeat(children[inner + 1, 0] - np.cumsum(n_children) + n_children, n_children)
        nodes = nodes + np.arange(len(nodes))
        first[nodes] = (
            np.repeat(first[inner], n_children) + below[nodes] - np.repeat(below[children[inner + 1, 0]], n_children)
        )
    return np.where(is_leaf, first, -1).astype(np.int32)
