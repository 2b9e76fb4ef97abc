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
