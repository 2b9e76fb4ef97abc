"""Means and scatter matrices of vectors in float64, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import block_slices, single_threaded

# Numbers of one block in float64: 32 MiB, whose product takes far longer than adding it.
_BLOCK_SIZE = 1 << 22


def scatter_of(rows_of: Callable[[slice], NDArray[np.float64]], n_rows: int, n_features: int) -> NDArray[np.float64]:
    """Return Σ_i r_i r_iᵀ, (n_features, n_features), over the rows that `rows_of` computes for slices of them."""
    scatter = np.zeros((n_features, n_features))
    with single_threaded():
        for block in row_blocks(n_rows, n_features):
            rows = rows_of(block)
            scatter += rows.T @ rows
    return scatter


def add_to_moments(
    X: NDArray[np.floating],
    n_seen: int,
    mean: NDArray[np.float64],
    scatter: NDArray[np.float64],  # OUT
) -> int:
    """Add rows to the mean, (n_features,), and Σ (x − mean)(x − mean)ᵀ of those seen before; return the new number.

    The mean of a block and the rows about it are computed first, and merged by the formula of Chan, Golub and LeVeque
    ("Updating formulae and a pairwise algorithm for computing sample variances", COMPSTAT 1982): nothing cancels,
    however far from zero the vectors lie.
    """
    with single_threaded():
        for block in row_blocks(*X.shape):
            rows = X[block].astype(np.float64)
            n_new = len(rows)
            offset = rows.mean(axis=0)
            rows -= offset
            offset -= mean
            between = np.sqrt(n_seen * n_new / (n_seen + n_new)) * offset
            scatter += rows.T @ rows
            if n_seen:
                scatter += np.outer(between, between)
            mean += offset * (n_new / (n_seen + n_new))
            n_seen += n_new
    return n_seen


def row_blocks(n_rows: int, n_features: int) -> list[slice]:
    """Return the slices of rows that are computed at once."""
    return block_slices(n_rows, max(1, _BLOCK_SIZE // max(1, n_features)))
