"""Sufficient statistics of a diagonal Gaussian mixture: sums of whitened descriptors, weighted by posteriors."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def add_posteriors(posteriors, zeroth):
    """Add S⁰_k += Σ_i γ_ik.

    Parameters
    ----------
    posteriors : float32 (n_components, n_descriptors)
    zeroth : float64 (n_components,)
        # OUT, added to
    """
    n_components, n_descriptors = posteriors.shape
    for k in range(n_components):
        total = np.float32(0.0)
        for i in range(n_descriptors):
            total += posteriors[k, i]
        zeroth[k] += total


@njit(fastmath=True)
def add_direct_statistics(descriptors, posteriors, components, means, inverse_deviations, first, second):
    """Add statistics of t = (x − μ_k) / σ_k of some components in float64: S¹_k += Σ_i γ_ik t, S²_k += Σ_i γ_ik t².

    Skips posteriors of zero.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    posteriors : float32 (n_components, n_descriptors)
    components : int64 (n,)
        The components whose statistics are computed.
    means, inverse_deviations : float64 (n_components, n_dims)
        μ and 1 / σ.
    first, second : float64 (n_components, n_dims)
        # OUT, added to
    """
    n_descriptors, n_dims = descriptors.shape
    for k in components:
        for i in range(n_descriptors):
            posterior = np.float64(posteriors[k, i])
            if posterior == 0.0:
                continue
            for d in range(n_dims):
                deviation = (descriptors[i, d] - means[k, d]) * inverse_deviations[k, d]
                weighted = posterior * deviation
                first[k, d] += weighted
                second[k, d] += weighted * deviation


@njit(fastmath=True)
def add_products(products, sums):
    """Add float32 products to float64 sums of the same shape (n_components, 2 n_dims)."""
    n_components, n_columns = products.shape
    for k in range(n_components):
        for d in range(n_columns):
            sums[k, d] += products[k, d]


@njit(fastmath=True)
def whiten_statistics(zeroth, sums, components, means, inverse_deviations, first, second):
    """Move statistics from z to t = (z − μ) / σ: S¹ = (Σγz − μ S⁰) / σ, S² = (Σγz² − 2 μ Σγz + μ² S⁰) / σ², in float64.

    Parameters
    ----------
    zeroth : float64 (n_components,)
        S⁰ = Σ γ.
    sums : float64 (n_components, 2 n_dims)
        [Σ γ z, Σ γ z²].
    components : int64 (n,)
        The components whose statistics are moved.
    means, inverse_deviations : float64 (n_components, n_dims)
        μ and 1 / σ in the coordinates of z.
    first, second : float64 (n_components, n_dims)
        S¹ and S² of these components.  # OUT
    """
    n_dims = means.shape[1]
    for k in components:
        for d in range(n_dims):
            mean, inverse = means[k, d], inverse_deviations[k, d]
            centered = sums[k, d] - mean * zeroth[k]
            first[k, d] = centered * inverse
            # Σγz² − μΣγz − μ(Σγz − μS⁰)
            second[k, d] = (sums[k, n_dims + d] - mean * (sums[k, d] + centered)) * inverse * inverse
