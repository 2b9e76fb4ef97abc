"""Posteriors of a Gaussian mixture and Fisher vectors, component by component, in float64."""

import numpy as np


def posteriors_naive(descriptors, weights, means, variances, cut=0.0):
    """Return posteriors (n_descriptors, n_components), those below `cut` zero, and log likelihoods."""
    descriptors, means, variances = (np.asarray(array, dtype=np.float64) for array in (descriptors, means, variances))
    densities = np.full((len(descriptors), len(means)), -np.inf)
    for k in range(len(means)):
        if weights[k] > 0:
            squares = ((descriptors - means[k]) ** 2 / variances[k]).sum(axis=1)
            densities[:, k] = np.log(weights[k]) - 0.5 * (np.log(2 * np.pi * variances[k]).sum() + squares)
    top = densities.max(axis=1, keepdims=True)
    shares = np.exp(densities - top)
    total = shares.sum(axis=1, keepdims=True)
    posteriors = shares / total
    return np.where(posteriors < cut, 0, posteriors), (top + np.log(total))[:, 0]


def statistics_naive(descriptors, posteriors, means, variances):
    """Return Σ γ, Σ γ t and Σ γ t² of each component with t = (x − μ) / σ."""
    descriptors, means, variances = (np.asarray(array, dtype=np.float64) for array in (descriptors, means, variances))
    posteriors = np.asarray(posteriors, dtype=np.float64)
    first, second = np.zeros(means.shape), np.zeros(means.shape)
    for k in range(len(means)):
        deviations = (descriptors - means[k]) / np.sqrt(variances[k])
        first[k] = posteriors[:, k] @ deviations
        second[k] = posteriors[:, k] @ deviations**2
    return posteriors.sum(axis=0), first, second


def fisher_naive(
    descriptors, weights, means, variances, *, gradients=("means", "variances"), sign=1, fast=False, cut=1e-6,
    min_weight=1e-6, power=0.5, l2_norm=True,
):  # fmt: skip
    """Encode one image."""
    weights = np.asarray(weights, dtype=np.float64)
    alive = weights >= min_weight
    posteriors, _ = posteriors_naive(descriptors, np.where(alive, weights, 0), means, variances, cut)
    if fast:
        posteriors = np.eye(len(weights))[posteriors.argmax(axis=1)]
    zeroth, first, second = statistics_naive(descriptors, posteriors, means, variances)
    n = len(descriptors)
    scale = np.where(alive, 1 / np.sqrt(weights), 0)
    parts = {
        "weights": scale * (zeroth / n - weights),
        "means": scale[:, None] * first / n,
        "variances": sign * scale[:, None] * (second - zeroth[:, None]) / (np.sqrt(2) * n),
    }
    vector = np.concatenate([parts[name].ravel() for name in parts if name in gradients])
    return normalize_gradients_naive(vector, power, l2_norm)


def normalize_gradients_naive(vector, power, l2_norm):
    """Signed power, then L2; the norm is at least 1e-12."""
    vector = np.array([np.sign(z) * abs(z) ** power for z in np.asarray(vector, dtype=np.float64)])
    return vector / max(np.sqrt((vector**2).sum()), 1e-12) if l2_norm else vector
