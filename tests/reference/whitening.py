"""PCA whitening by the eigenvectors of the covariance matrix, in float64."""

import numpy as np


def whiten_naive(X, rows, n_components, power=0.5, shrinkage=0.0, l2_norm=True):
    """Learn from X, apply to rows; signs of the components are arbitrary."""
    X = np.asarray(X, dtype=np.float64)
    mean = X.mean(axis=0)
    covariance = sum(np.outer(x - mean, x - mean) for x in X) / len(X)
    values, vectors = np.linalg.eigh(covariance)
    kept = np.argsort(-values)[:n_components]
    values, vectors = values[kept], vectors[:, kept]
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    whitened = []
    for row in np.asarray(rows, dtype=np.float64):
        z = np.array([vectors[:, j] @ (row - mean) / values[j] ** power for j in range(len(kept))])
        whitened.append(z / np.sqrt(sum(z**2)) if l2_norm else z)
    return np.array(whitened)


def learn_whitening_naive(X, pairs, n_components, shrinkage=0.0):
    """Mean and projection from matching pairs, by Cholesky factors as published; signs are arbitrary."""
    X = np.asarray(X, dtype=np.float64)
    mean = sum(X[i] for i, _ in pairs) / len(pairs)
    scatter = sum(np.outer(X[i] - X[j], X[i] - X[j]) for i, j in pairs) / len(pairs)
    n_features = len(scatter)
    scatter = (1 - shrinkage) * scatter + shrinkage * np.trace(scatter) / n_features * np.eye(n_features)
    whiten = np.linalg.inv(np.linalg.cholesky(scatter))
    total = sum(np.outer(whiten @ (x - mean), whiten @ (x - mean)) for x in X)
    values, vectors = np.linalg.eigh(total)
    return mean, vectors[:, np.argsort(-values)[:n_components]].T @ whiten
