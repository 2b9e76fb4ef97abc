"""Expectation-maximisation of diagonal Gaussian mixtures in float64, by the definitions."""

from __future__ import annotations

import numpy as np


def log_joint_naive(X, weights, means, covariances):
    """log w_k + log N(x_i; μ_k, diag σ²_k), of shape (n, K)."""
    X, weights, means, covariances = (np.asarray(a, dtype=np.float64) for a in (X, weights, means, covariances))
    joint = np.empty((len(X), len(weights)))
    for k, (weight, mean, variance) in enumerate(zip(weights, means, covariances, strict=True)):
        distances = ((X - mean) ** 2 / variance).sum(axis=1)
        joint[:, k] = np.log(weight) - 0.5 * (distances + np.log(2 * np.pi * variance).sum())
    return joint


def posteriors_naive(X, weights, means, covariances):
    """Posteriors γ (n, K) and log-likelihoods (n,)."""
    joint = log_joint_naive(X, weights, means, covariances)
    top = joint.max(axis=1, keepdims=True)
    log_likelihoods = top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
    return np.exp(joint - log_likelihoods), log_likelihoods[:, 0]


def maximize_naive(X, posteriors, means, covariances, *, min_covariance=1e-6, min_weight=1e-6, min_posterior=0.0):
    """Weights, means, covariances that the posteriors give; a component below the least weight keeps the last two."""
    X = np.asarray(X, dtype=np.float64)
    kept = np.where(posteriors >= min_posterior / posteriors.shape[1], posteriors, 0)
    mass = kept.sum(axis=0)
    weights = mass / mass.sum()
    means, covariances = np.array(means, dtype=np.float64), np.array(covariances, dtype=np.float64)
    for k in np.flatnonzero(weights >= min_weight):
        means[k] = kept[:, k] @ X / mass[k]
        covariances[k] = np.maximum(kept[:, k] @ (X - means[k]) ** 2 / mass[k], min_covariance)
    weights = np.maximum(weights, min_weight)
    return weights / weights.sum(), means, covariances


def stepwise_naive(batches, weights, means, covariances, decay, first_step=0):
    """Stepwise EM: after each batch s ← (1 − η) s + η ŝ with η = (t + 2)^−decay, and the mixture that s stands for."""
    weights, means, covariances = (np.asarray(a, dtype=np.float64) for a in (weights, means, covariances))
    for t, batch in enumerate(batches, first_step):
        X = np.asarray(batch, dtype=np.float64)
        posteriors, _ = posteriors_naive(X, weights, means, covariances)
        step = (t + 2.0) ** -decay
        mass = (1 - step) * weights + step * posteriors.mean(axis=0)
        sums = (1 - step) * weights[:, None] * means + step * posteriors.T @ X / len(X)
        squares = (1 - step) * weights[:, None] * (covariances + means**2) + step * posteriors.T @ X**2 / len(X)
        weights = mass / mass.sum()
        means = sums / mass[:, None]
        covariances = squares / mass[:, None] - means**2
    return weights, means, covariances
