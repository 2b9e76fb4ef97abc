"""Principal directions and the projection on them, as all kinds of whitening have it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from cvretrieval._parallel import single_threaded

#: Directions with less than this share of the largest variance hold rounding errors; whitening would blow them up.
RELATIVE_FLOOR = 1e-10


def principal_directions(
    scatter: NDArray[np.float64], n_components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues, decreasing, and their eigenvectors as rows, of a symmetric matrix."""
    n_features = len(scatter)
    subset = None if n_components == n_features else (n_features - n_components, n_features - 1)
    with single_threaded():
        values, vectors = eigh(scatter, subset_by_index=subset)
    return np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors.T[::-1])


def fix_signs(directions: NDArray[Any]) -> NDArray[Any]:
    """Return rows whose component of largest magnitude is positive: the sign of an eigenvector is arbitrary."""
    largest = np.abs(directions).argmax(axis=1)
    return directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]


def project(X: NDArray[Any], mean: NDArray[Any], directions: NDArray[Any]) -> NDArray[Any]:
    """Return the rows directions (x − mean), in the precision of X."""
    directions = directions.astype(X.dtype, copy=False)
    centred = X - mean.astype(X.dtype, copy=False)
    with single_threaded():
        # Row by row: a product over many rows may round differently from one over few, and batches must not change a
        # bit.
        return np.stack([directions @ row for row in centred]) if len(X) else centred @ directions.T


def refuse_n_components(n_components: int, n_samples: int, n_features: int) -> ValueError:
    """More components than there can be."""
    return ValueError(
        f"n_components={n_components} exceeds min(n_samples, n_features) = {min(n_samples, n_features)}: X has "
        f"{n_samples} samples of {n_features} features. Give more samples or a smaller n_components."
    )
