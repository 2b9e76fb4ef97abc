"""The mutual nearest-neighbour graph, and conjugate gradients on it."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def count_mutual_neighbors(neighbors, counts):
    """Write how many neighbours of every vector have it as a neighbour, too, itself not counted.

    Parameters
    ----------
    neighbors : int32 (n_vectors, k)
        Rows of the k nearest of each vector; -1 for none.
    counts : int64 (n_vectors,)
        # OUT
    """
    n_vectors, k = neighbors.shape
    for i in range(n_vectors):
        n_mutual = 0
        for p in range(k):
            j = neighbors[i, p]
            if j >= 0 and j != i and _place_of(i, neighbors[j]) >= 0:
                n_mutual += 1
        counts[i] = n_mutual


@njit
def fill_mutual_affinities(neighbors, similarities, gamma, indptr, indices, data):
    """Write the affinities of mutual neighbours as the rows of a symmetric CSR matrix with zero diagonal.

        A_ij = max(s_ij, 0)^γ   if i ∈ N_k(j) and j ∈ N_k(i) and i ≠ j, else 0

    Parameters
    ----------
    neighbors : int32 (n_vectors, k)
    similarities : float32 (n_vectors, k)
        s of each vector and its neighbours. Of the two for i and j, that of the lower row counts for both.
    gamma : float
    indptr : int64 (n_vectors + 1,)
        Running totals of the counts by `count_mutual_neighbors`.
    indices : int32 (indptr[-1],)
        Ascending within a row.  # OUT
    data : float64 (indptr[-1],)
        # OUT

    References
    ----------
    A. Iscen, G. Tolias, Y. Avrithis, T. Furon and O. Chum, "Efficient diffusion on region manifolds: recovering small
    objects with compact CNN representations", CVPR 2017, equations 1 and 2.
    """
    n_vectors, k = neighbors.shape
    for i in range(n_vectors):
        start = indptr[i]
        size = 0
        for p in range(k):
            j = neighbors[i, p]
            if j < 0 or j == i:
                continue
            back = _place_of(i, neighbors[j])
            if back < 0:
                continue
            similarity = similarities[i, p] if i < j else similarities[j, back]
            affinity = max(np.float64(similarity), 0.0) ** gamma
            place = start + size
            while place > start and indices[place - 1] > j:
                indices[place] = indices[place - 1]
                data[place] = data[place - 1]
                place -= 1
            indices[place] = j
            data[place] = affinity
            size += 1


@njit
def _place_of(value, values):
    """Return the first place of a value, -1 if it is not there."""
    for p in range(values.size):
        if values[p] == value:
            return p
    return -1


@njit
def conjugate_gradient(indptr, indices, data, alpha, targets, max_iter, tol, solutions, n_iter):
    """Solve (I − α S) f = y for several y at once, from f = 0.

    Per column, with r = d = y, until ‖r‖ ≤ tol ‖y‖ or max_iter steps are done::

        a = rᵀr / dᵀ(I − αS)d,   f ← f + a d,   r' = r − a (I − αS) d,   d ← r' + (r'ᵀr' / rᵀr) d

    Every sum of a column runs over the rows in order, so a column does not depend on the others.

    Parameters
    ----------
    indptr, indices, data : int64 (n_rows + 1,), int32 (n_values,), float64 (n_values,)
        S, symmetric, as CSR, with eigenvalues in [-1, 1].
    alpha : float
        In [0, 1).
    targets : float64 (n_rows, n_columns)
        y
    max_iter : int
    tol : float
    solutions : float64 (n_rows, n_columns)
        f  # OUT
    n_iter : int64 (n_columns,)
        Steps done.  # OUT

    References
    ----------
    J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition, Springer 2006, algorithm 5.2.
    """
    n_rows, n_columns = targets.shape
    residuals = targets.copy()
    directions = targets.copy()
    products = np.empty((n_rows, n_columns))
    energies = np.zeros(n_columns)
    _add_products(residuals, residuals, energies)
    limits = tol * tol * energies
    is_active = energies > limits
    curvatures, new_energies = np.empty(n_columns), np.empty(n_columns)
    steps, ratios = np.empty(n_columns), np.empty(n_columns)
    solutions[:] = 0.0
    n_iter[:] = 0
    for _ in range(max_iter):
        if not is_active.any():
            break
        _apply(indptr, indices, data, alpha, directions, products)
        curvatures[:] = 0.0
        _add_products(directions, products, curvatures)
        for b in range(n_columns):
            steps[b] = energies[b] / curvatures[b] if is_active[b] else 0.0
        for i in range(n_rows):
            for b in range(n_columns):
                solutions[i, b] += steps[b] * directions[i, b]
                residuals[i, b] -= steps[b] * products[i, b]
        new_energies[:] = 0.0
        _add_products(residuals, residuals, new_energies)
        for b in range(n_columns):
            ratios[b] = 0.0
            if is_active[b]:
                ratios[b] = new_energies[b] / energies[b]
                energies[b] = new_energies[b]
                n_iter[b] += 1
                is_active[b] = energies[b] > limits[b]
        for i in range(n_rows):
            for b in range(n_columns):
                directions[i, b] = residuals[i, b] + ratios[b] * directions[i, b]


@njit
def _apply(indptr, indices, data, alpha, columns, products):
    """Write (I − αS) X."""
    n_rows, n_columns = columns.shape
    sums = np.empty(n_columns)
    for i in range(n_rows):
        sums[:] = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            value = data[p]
            row = columns[indices[p]]
            for b in range(n_columns):
                sums[b] += value * row[b]
        for b in range(n_columns):
            products[i, b] = columns[i, b] - alpha * sums[b]


@njit
def _add_products(X, Y, totals):
    """Add Σ_i X_ib Y_ib to the totals."""
    n_rows, n_columns = X.shape
    for i in range(n_rows):
        for b in range(n_columns):
            totals[b] += X[i, b] * Y[i, b]
