"""Exact kernels between histograms, for ``SVC(kernel=histogram_intersection)`` and for precomputed matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.metrics.pairwise import check_pairwise_arrays

from cvretrieval._kernels.histogram_kernels import add_chi2_distances, add_intersections
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_number

#: Histograms per tile: 64 of 4,200 float32 components are 1 MB, about the second-level cache.
_TILE = 64


def histogram_intersection(X: Any, Y: Any = None, *, n_jobs: int | None = None) -> NDArray[Any]:
    """Histogram intersection kernel, Σ_d min(x_d, y_d).

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_images, n_features)
        Histograms. Usually L1-normalised; counts are as good a kernel.
    Y : array-like or sparse matrix of shape (n_other_images, n_features), optional
        Default: `X`.
    n_jobs : int, optional
        Threads over tiles of the matrix; the number does not change a bit of the result.

    Returns
    -------
    ndarray of shape (n_images, n_other_images)
        float32 if both inputs are, otherwise float64.

    Raises
    ------
    ValueError
        If an entry is negative, NaN or infinite, or the lengths differ.

    Notes
    -----
    Positive definite on non-negative vectors. Sparse matrices are made dense tile by tile.

    The explicit feature map of this kernel is ``HomogeneousKernelMap("intersection")``, for linear classifiers.

    References
    ----------
    .. [1] M. Swain and D. Ballard, "Color indexing", IJCV 1991.
    .. [2] S. Maji, A. Berg and J. Malik, "Classification using intersection kernel support vector machines is
       efficient", CVPR 2008.

    Examples
    --------
    >>> from cvretrieval.recognition import histogram_intersection
    >>> histogram_intersection([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    array([[1. , 0.2],
           [0.2, 1. ]])
    """
    X, Y = _check_histograms("histogram_intersection", X, Y)
    zero = X.dtype.type(0)

    def add(rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float64]) -> None:
        add_intersections(rows, columns, zero, values)

    return _tiled(add, X, Y, n_jobs)


def additive_chi2_kernel(X: Any, Y: Any = None, *, n_jobs: int | None = None) -> NDArray[Any]:
    """Additive χ² kernel, −Σ_d (x_d − y_d)² / (x_d + y_d): scikit-learn's of that name, faster.

    Parameters
    ----------
    X, Y, n_jobs
        As in `histogram_intersection`.

    Returns
    -------
    ndarray of shape (n_images, n_other_images)
        Not positive; conditionally positive definite. Components that are both zero add nothing.

    Examples
    --------
    >>> from cvretrieval.recognition import additive_chi2_kernel
    >>> additive_chi2_kernel([[3.0, 1.0]], [[1.0, 1.0]])
    array([[-1.]])
    """
    values = _chi2_distances("additive_chi2_kernel", X, Y, n_jobs)
    return np.negative(values, out=values)


def chi2_kernel(X: Any, Y: Any = None, gamma: float = 1.0, *, n_jobs: int | None = None) -> NDArray[Any]:
    """Exponential χ² kernel, exp(−gamma Σ_d (x_d − y_d)² / (x_d + y_d)): scikit-learn's of that name, faster.

    Parameters
    ----------
    X, Y, n_jobs
        As in `histogram_intersection`.
    gamma : float, default=1.0
        Positive. Zhang et al. take the reciprocal of the mean distance between the training images, which is
        ``-1 / additive_chi2_kernel(X_train).mean()``. Hand it over with ``functools.partial(chi2_kernel, gamma=…)``.

    Returns
    -------
    ndarray of shape (n_images, n_other_images)

    References
    ----------
    .. [1] J. Zhang, M. Marszałek, S. Lazebnik and C. Schmid, "Local features and kernels for classification of
       texture and object categories", IJCV 2007, equations 1 and 2.

    Examples
    --------
    >>> from cvretrieval.recognition import chi2_kernel
    >>> chi2_kernel([[3.0, 1.0]], [[1.0, 1.0], [3.0, 1.0]]).round(4)
    array([[0.3679, 1.    ]])
    """
    check_number("chi2_kernel", "gamma", gamma, low=0, low_open=True)
    values = _chi2_distances("chi2_kernel", X, Y, n_jobs)
    values *= -gamma
    return np.exp(values, out=values)


def hellinger_kernel(X: Any, Y: Any = None, *, n_jobs: int | None = None) -> NDArray[Any]:
    """Hellinger kernel (Bhattacharyya coefficient), Σ_d √(x_d y_d).

    Parameters
    ----------
    X, Y, n_jobs
        As in `histogram_intersection`.

    Returns
    -------
    ndarray of shape (n_images, n_other_images)

    Notes
    -----
    Its explicit feature map is exact and no longer than the histogram: the square root, ``PowerNormalizer(norm=None)``.
    A linear classifier on that is the same machine and faster to train.

    Examples
    --------
    >>> from cvretrieval.recognition import hellinger_kernel
    >>> hellinger_kernel([[0.25, 0.75], [1.0, 0.0]])
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    X, Y = _check_histograms("hellinger_kernel", X, Y)
    return _tiled(_add_hellinger, X, Y, n_jobs)


def _chi2_distances(name: str, X: Any, Y: Any, n_jobs: int | None) -> NDArray[Any]:
    X, Y = _check_histograms(name, X, Y)
    zero, smallest = X.dtype.type(0), np.finfo(X.dtype).tiny

    def add(rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float64]) -> None:
        add_chi2_distances(rows, columns, zero, smallest, values)

    return _tiled(add, X, Y, n_jobs)


def _add_hellinger(X: NDArray[Any], Y: NDArray[Any], values: NDArray[np.float64]) -> None:
    np.matmul(np.sqrt(X, dtype=np.float64), np.sqrt(Y, dtype=np.float64).T, out=values)


def _check_histograms(name: str, X: Any, Y: Any) -> tuple[Any, Any]:
    same = Y is None or Y is X
    X, Y = check_pairwise_arrays(X, None if same else Y, accept_sparse="csr", dtype=None)
    X, Y = (part if part.dtype in (np.float32, np.float64) else part.astype(np.float64) for part in (X, Y))
    if X.dtype != Y.dtype:
        X, Y = X.astype(np.float64), Y.astype(np.float64)
    for part in (X,) if same else (X, Y):
        lowest = part.min() if part.shape[0] and part.shape[1] else 0
        if lowest < 0:
            raise ValueError(
                f"{name} takes histograms, which are not negative. Got a smallest value of {lowest:g}. For signed "
                "vectors (VLAD, Fisher vectors) use a linear kernel."
            )
    return X, X if same else Y


def _tiled(add: Callable[..., None], X: Any, Y: Any, n_jobs: int | None) -> NDArray[Any]:
    """Compute the matrix tile by tile; a symmetric one by its upper half."""
    values = np.empty((X.shape[0], Y.shape[0]), dtype=X.dtype)
    columns = block_slices(Y.shape[0], _TILE)
    work = partial(_fill_rows, add, X, Y, columns, values)
    for _ in map_blocks(work, block_slices(X.shape[0], _TILE), n_jobs=n_jobs):
        pass
    return values


def _fill_rows(
    add: Callable[..., None], X: Any, Y: Any, columns: list[slice], values: NDArray[Any], rows: slice
) -> None:
    tile = _dense(X, rows)
    for other in columns:
        if Y is X and other.start < rows.start:
            continue
        found = np.empty((rows.stop - rows.start, other.stop - other.start), dtype=np.float64)
        add(tile, _dense(Y, other), found)
        values[rows, other] = found
        if Y is X and other.start > rows.start:
            values[other, rows] = found.T


def _dense(X: Any, rows: slice) -> NDArray[Any]:
    part = X[rows]
    return np.ascontiguousarray(part.toarray() if issparse(part) else part)
