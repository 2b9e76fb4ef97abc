"""Posteriors of the components of a diagonal Gaussian mixture: what is left to do around the matrix product."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.exponential import SMALLEST_EXPONENT, exp_nonpositive

# So many descriptors of all components stay in the first-level cache between the passes.
_TILE = 128


@njit(fastmath=True)
def standardize_rows(descriptors, center, inverse_scale, features):
    """Write z = (x − center) · inverse_scale and z² side by side; return Σ z², not finite if a descriptor is not.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    center, inverse_scale : float32 (n_dims,)
    features : float32 (n_descriptors, 2 n_dims)
        [z, z²].  # OUT
    """
    n_descriptors, n_dims = descriptors.shape
    total = np.float32(0.0)
    for i in range(n_descriptors):
        # As two loops over slices, LLVM vectorises both; as one it takes more than twice as long.
        row, z, squares = descriptors[i], features[i, :n_dims], features[i, n_dims:]
        for d in range(n_dims):
            z[d] = (row[d] - center[d]) * inverse_scale[d]
        for d in range(n_dims):
            square = z[d] * z[d]
            squares[d] = square
            total += square
    return total


@njit(fastmath=True)
def normalize_log_densities(densities, constants, cut, floor, maxima, sums):
    """Turn log densities into posteriors, in place: γ_k = e^{l_k − m} / Σ_j e^{l_j − m} with m = max_j l_j.

    The log likelihood of a descriptor is m + log Σ_j e^{l_j − m}.

    Parameters
    ----------
    densities : float32 (n_components, n_descriptors)
        l_k − constants_k in, γ_k out; components are rows, so that no inner loop needs a horizontal reduction.  # OUT
    constants : float32 (n_components,)
        Added to the densities of each component.
    cut : float32
        Posteriors below become zero; the others are not normalised again.
    floor : float32
    maxima, sums : float32 (n_descriptors,)
        m and Σ_j e^{l_j − m}.  # OUT

    Returns
    -------
    n_far : int
        Number of descriptors whose m is below the floor, or NaN.
    """
    n_components, n_descriptors = densities.shape
    n_far = 0
    scales = np.empty(_TILE, dtype=np.float32)
    for start in range(0, n_descriptors, _TILE):
        n = min(_TILE, n_descriptors - start)
        top = maxima[start : start + n]
        total = sums[start : start + n]
        scale = scales[:n]
        for i in range(n):
            top[i] = np.float32(-np.inf)
            total[i] = np.float32(0.0)
        for k in range(n_components):
            row = densities[k, start : start + n]
            constant = constants[k]
            for i in range(n):
                # In this order of reading and writing LLVM makes vector selects of it, three times as fast.
                best = top[i]
                density = row[i] + constant
                row[i] = density
                is_better = density > best
                top[i] = density if is_better else best
        for k in range(n_components):
            row = densities[k, start : start + n]
            for i in range(n):
                value = exp_nonpositive(row[i] - top[i])
                row[i] = value
                total[i] += value
        for i in range(n):
            scale[i] = np.float32(1.0) / total[i]
            n_far += 0 if top[i] >= floor else 1
        for k in range(n_components):
            row = densities[k, start : start + n]
            for i in range(n):
                value = row[i] * scale[i]
                row[i] = value if value >= cut else np.float32(0.0)
    return n_far


@njit(fastmath=True)
def direct_densities(descriptors, components, means, inverse_deviations, densities):
    """Compute −½ Σ_d ((x_d − μ_kd) / σ_kd)² of some components in float64: nothing cancels, whatever the variances are.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    components : int64 (n,)
        The components to be computed.
    means, inverse_deviations : float64 (n_components, n_dims)
        μ and 1 / σ.
    densities : float32 (n_components, n_descriptors)
        Only the rows of `components` are written.  # OUT
    """
    n_descriptors, n_dims = descriptors.shape
    for k in components:
        for i in range(n_descriptors):
            square = 0.0
            for d in range(n_dims):
                deviation = (descriptors[i, d] - means[k, d]) * inverse_deviations[k, d]
                square += deviation * deviation
            densities[k, i] = -0.5 * square


@njit(fastmath=True)
def direct_posteriors(descriptors, means, inverse_deviations, constants, floor, cut, posteriors, maxima, sums):
    """Compute the posteriors of descriptors far from all components again, in float64 and without the matrix product.

    l_k = constants_k − ½ Σ_d ((x_d − μ_kd) / σ_kd)²; posteriors as in `normalize_log_densities`.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    means, inverse_deviations : float64 (n_components, n_dims)
        μ and 1 / σ.
    constants : float64 (n_components,)
        log π_k − ½ Σ_d log(2 π σ_kd²), all shifted by the same number.
    floor : float32
        Descriptors with maxima ≥ floor are left as they are.
    cut : float32
        Posteriors below become zero.
    posteriors : float32 (n_components, n_descriptors)
        # OUT
    maxima, sums : float32 (n_descriptors,)
        As of `normalize_log_densities`.  # IN and OUT
    """
    n_components, n_dims = means.shape
    densities = np.empty(n_components, dtype=np.float64)
    for i in range(len(maxima)):
        # NaN, the difference of two infinite terms, is no maximum.
        if maxima[i] >= floor:
            continue
        top = -np.inf
        for k in range(n_components):
            square = 0.0
            for d in range(n_dims):
                deviation = (descriptors[i, d] - means[k, d]) * inverse_deviations[k, d]
                square += deviation * deviation
            densities[k] = constants[k] - 0.5 * square
            top = max(top, densities[k])
        total = 0.0
        for k in range(n_components):
            below = densities[k] - top
            # As in `exp_nonpositive`.
            densities[k] = np.exp(below) if below > SMALLEST_EXPONENT else 0.0
            total += densities[k]
        for k in range(n_components):
            value = densities[k] / total
            posteriors[k, i] = value if value >= cut else 0.0
        maxima[i] = top
        sums[i] = total


@njit(fastmath=True)
def harden_posteriors(posteriors):
    """Set the largest posterior of each descriptor to 1 and the others to 0; ties go to the lowest component.

    Parameters
    ----------
    posteriors : float32 (n_components, n_descriptors)
        # OUT
    """
    n_components, n_descriptors = posteriors.shape
    for i in range(n_descriptors):
        best = 0
        for k in range(1, n_components):
            if posteriors[k, i] > posteriors[best, i]:
                best = k
        for k in range(n_components):
            posteriors[k, i] = 0.0
        posteriors[best, i] = 1.0
