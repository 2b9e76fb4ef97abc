"""Bayes' rule on mixtures of diagonal Gaussians, descriptor by descriptor."""

from __future__ import annotations

import numpy as np


def log_density(x, weights, means, variances):
    """log Σ_k w_k N(x; μ_k, diag σ²_k)."""
    terms = []
    for weight, mean, variance in zip(weights, means, variances, strict=True):
        if weight > 0:
            exponent = -0.5 * np.sum((x - mean) ** 2 / variance)
            terms.append(np.log(weight) + exponent - 0.5 * np.sum(np.log(2 * np.pi * variance)))
    largest = max(terms)
    return largest + np.log(sum(np.exp(term - largest) for term in terms))


def log_posteriors(images, priors, weights, means, variances, mean):
    """log p(class | image) from the sum or mean of the log-densities of its descriptors."""
    rows = []
    for image in images:
        joint = np.log(np.asarray(priors, dtype=np.float64))
        for c in range(len(priors)):
            total = sum(log_density(np.asarray(x, np.float64), weights[c], means[c], variances[c]) for x in image)
            joint[c] += total / max(len(image), 1) if mean else total
        rows.append(joint - joint.max() - np.log(np.exp(joint - joint.max()).sum()))
    return np.array(rows)
