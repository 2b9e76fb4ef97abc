"""VLAD, residual by residual, in float64."""

import numpy as np


def sum_residuals_naive(descriptors, words, centers, unit=False):
    """Return the sum of residuals and the number of descriptors of each word; `unit`: of residuals over their norm."""
    centers = np.asarray(centers, dtype=np.float64)
    sums, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for x, k in zip(np.asarray(descriptors, dtype=np.float64), words, strict=True):
        residual = x - centers[k]
        if unit:
            residual = residual / max(np.sqrt(sum(residual**2)), 1e-12)
        sums[k] += residual
        counts[k] += 1
    return sums, counts


def sum_weighted_residuals_naive(descriptors, assignments, centers, unit=False):
    """Return the sums Σ_i q_ik (x_i − c_k) and the masses Σ_i q_ik; assignments are q, (n_descriptors, n_words)."""
    centers, assignments = np.asarray(centers, dtype=np.float64), np.asarray(assignments, dtype=np.float64)
    sums = np.zeros(centers.shape)
    for x, row in zip(np.asarray(descriptors, dtype=np.float64), assignments, strict=True):
        for k, weight in enumerate(row):
            residual = x - centers[k]
            if unit:
                residual = residual / max(np.sqrt(sum(residual**2)), 1e-12)
            sums[k] += weight * residual
    return sums, assignments.sum(axis=0)


def soft_assignments_naive(descriptors, centers, n_nearest, sigma):
    """Return exp(−d²/2σ²) of the `n_nearest` words of each descriptor over its sum, zero for the others."""
    centers = np.asarray(centers, dtype=np.float64)
    assignments = np.zeros((len(descriptors), len(centers)))
    for row, x in zip(assignments, np.asarray(descriptors, dtype=np.float64), strict=True):
        squares = ((x - centers) ** 2).sum(axis=1)
        nearest = np.argsort(squares, kind="stable")[:n_nearest]
        shares = np.exp(-(squares[nearest] - squares.min()) / (2 * sigma**2))
        row[nearest] = shares / shares.sum()
    return assignments


def rotate_naive(sums, rotations):
    """Rotate the sum of each word; the rows of its rotation are the new axes."""
    return np.array([np.asarray(r, dtype=np.float64) @ v for r, v in zip(rotations, sums, strict=True)])


def learn_rotations_naive(descriptors, words, centers, unit=False):
    """Return the principal directions of the residuals of each word, as rows, by decreasing variance.

    Words with fewer descriptors than dimensions take those of the deviations of all residuals from their word's mean.
    """
    n_words, n_dims = np.shape(centers)
    residuals = np.asarray(descriptors, dtype=np.float64) - np.asarray(centers, dtype=np.float64)[words]
    if unit:
        residuals = np.array([r / max(np.sqrt(sum(r**2)), 1e-12) for r in residuals])
    deviations = np.array([r - residuals[words == k].mean(axis=0) for r, k in zip(residuals, words, strict=True)])
    rotations = np.empty((n_words, n_dims, n_dims))
    for k in range(n_words):
        own = deviations[words == k]
        learned_from = own if len(own) >= n_dims else deviations
        _, directions = np.linalg.eigh(learned_from.T @ learned_from)
        rotations[k] = directions.T[::-1]
    return rotations


def normalize_naive(sums, counts, mass_norm, power, intra_norm, l2_norm):
    """Mass, signed power, per-word L2, global L2, in this order; norms are at least 1e-12."""
    rows = []
    for total, count in zip(np.asarray(sums, dtype=np.float64), counts, strict=True):
        row = total / count if mass_norm and count else total
        if power != 1:
            row = np.array([np.sign(z) * abs(z) ** power for z in row])
        if intra_norm:
            row = row / max(np.sqrt(sum(row**2)), 1e-12)
        rows.append(row)
    vlad = np.array(rows)
    if l2_norm:
        vlad = vlad / max(np.sqrt(sum(vlad.ravel() ** 2)), 1e-12)
    return vlad


def vlad_naive(descriptors, words, centers, *, unit=False, mass_norm=False, power=1, intra_norm=False, l2_norm=True):
    """Encode one image whose words are known."""
    sums, counts = sum_residuals_naive(descriptors, words, centers, unit)
    return normalize_naive(sums, counts, mass_norm, power, intra_norm, l2_norm).ravel()
