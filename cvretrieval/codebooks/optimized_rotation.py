"""Rotations before product quantisation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_blocks, single_threaded
from cvretrieval._spread import Threads
from cvretrieval.codebooks.assignment import NearestWord
from cvretrieval.codebooks.lloyd import lloyd

# Rounds of codewords and rotation; after these the error falls by less than a thousandth a round.
_ROUNDS = 20
# Iterations of k-means in each of them.
_ITERATIONS = 2
# Vectors that the rotation is learned from, at most.
_MOST_ROWS = 32_768


def random_rotation(n_dims: int, random_state: np.random.RandomState) -> NDArray[np.float32]:
    """Return a random orthogonal matrix, uniform over all of them (Haar)."""
    with single_threaded():
        orthogonal, triangle = np.linalg.qr(random_state.normal(size=(n_dims, n_dims)))
    return (orthogonal * np.sign(np.diag(triangle))).astype(np.float32)


def balanced_directions(rows: NDArray[np.float32], bounds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return principal directions, as columns, dealt to sub-vectors so that the products of their variances are alike.

    The parametric solution of OPQ: for normally distributed vectors it is the best.
    """
    lengths = np.diff(bounds)
    with single_threaded():
        centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        variances, directions = np.linalg.eigh(centered.T @ centered / len(rows))
    logs = np.log(np.maximum(variances, 1e-10 * max(float(variances.max()), np.finfo(np.float64).tiny)))
    dealt: list[list[int]] = [[] for _ in lengths]
    sums = np.zeros(len(lengths))
    # Relative to the smallest, so that a direction never makes a sub-vector look emptier.
    for i in np.argsort(-variances, kind="stable"):
        is_full = np.array([len(own) >= length for own, length in zip(dealt, lengths, strict=True)])
        least = int(np.argmin(np.where(is_full, np.inf, sums)))
        dealt[least].append(int(i))
        sums[least] += logs[i] - logs.min()
    rotation = directions[:, [i for own in dealt for i in own]]
    # A sign that does not depend on the solver.
    largest = np.abs(rotation).argmax(axis=0)
    return (rotation * np.sign(rotation[largest, np.arange(len(rotation))])).astype(np.float32)


def optimized_rotation(
    rows: NDArray[np.float32],
    bounds: NDArray[np.int64],
    learn: Callable[[NDArray[np.float32], np.random.RandomState], NDArray[np.float32]],
    random_state: np.random.RandomState,
    *,
    n_jobs: int | None,
    owner: Any,
) -> NDArray[np.float32]:
    """Learn the rotation R that, with codewords, makes Σ ‖x R − x̂‖² small (OPQ, non-parametric).

    In turn: codewords for the rotated vectors by k-means that goes on from those of the last round, and the rotation
    that brings the vectors nearest to their decoded selves, R = U Vᵀ of the singular value decomposition of Xᵀ X̂.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_dims)
        float32.
    bounds : ndarray of shape (n_subvectors + 1,)
    learn : callable
        Returns codewords (n_codewords, n_dims) to start with.
    random_state : RandomState
    n_jobs : int or None
    owner : object
        The estimator that errors name.

    Returns
    -------
    ndarray of shape (n_dims, n_dims)
        float32, orthogonal.

    References
    ----------
    T. Ge, K. He, Q. Ke and J. Sun, "Optimized product quantization", PAMI 2014, sections 3.1 and 3.2.
    """
    if len(rows) > _MOST_ROWS:
        rows = rows[np.sort(random_state.choice(len(rows), _MOST_ROWS, replace=False))]
    rotation = balanced_directions(rows, bounds)
    codewords = learn(_product(rows, rotation), random_state)

    def improve(part: NDArray[np.float32], old: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        centers = lloyd(part, old, max_iter=_ITERATIONS, tol=0, spread=Threads(1), owner=type(owner).__name__).centers
        return centers, centers[NearestWord(centers, owner).assign(part, image=0)]

    for _ in range(_ROUNDS):
        rotated = _product(rows, rotation)
        parts = [
            (np.ascontiguousarray(rotated[:, start:stop]), np.ascontiguousarray(codewords[:, start:stop]))
            for start, stop in pairwise(bounds)
        ]
        improved = list(map_blocks(lambda pair: improve(*pair), parts, n_jobs=n_jobs))
        codewords = np.concatenate([centers for centers, _ in improved], axis=1)
        decoded = np.concatenate([own for _, own in improved], axis=1)
        with single_threaded():
            left, _, right = np.linalg.svd(rows.astype(np.float64).T @ decoded.astype(np.float64))
            rotation = (left @ right).astype(np.float32)
    return rotation


def _product(rows: NDArray[np.float32], rotation: NDArray[np.float32]) -> NDArray[np.float32]:
    with single_threaded():
        return np.asarray(rows @ rotation)
