"""Fisher vectors: gradients from the statistics of one image, and their normalisation."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def weight_gradients(zeroth, weights, n_descriptors, min_weight, gradients):
    """Write (S⁰_k / N − π_k) / √π_k; 0 for components with π_k < min_weight.

    Parameters
    ----------
    zeroth, weights : float64 (n_components,)
        S⁰ = Σ γ, and π.
    n_descriptors : int
        N.
    min_weight : float
    gradients : float32 (n_components,)
        # OUT

    References
    ----------
    Sánchez, Perronnin, Mensink and Verbeek, "Image classification with the Fisher vector: theory and practice", IJCV
    105(3), 2013, equation 16 divided by N.
    """
    for k in range(len(weights)):
        if weights[k] < min_weight:
            gradients[k] = 0.0
        else:
            gradients[k] = (zeroth[k] / n_descriptors - weights[k]) / np.sqrt(weights[k])


@njit(fastmath=True)
def mean_gradients(first, weights, n_descriptors, min_weight, gradients):
    """Write S¹_k / (N √π_k) = 1 / (N √π_k) Σ_i γ_ik (x_i − μ_k) / σ_k; 0 for components with π_k < min_weight.

    Parameters
    ----------
    first : float64 (n_components, n_dims)
        S¹ = Σ γ t.
    weights : float64 (n_components,)
    n_descriptors : int
    min_weight : float
    gradients : float32 (n_components * n_dims,)
        Component by component.  # OUT

    References
    ----------
    As `weight_gradients`, equation 17 divided by N.
    """
    n_components, n_dims = first.shape
    for k in range(n_components):
        scale = 0.0 if weights[k] < min_weight else 1.0 / (n_descriptors * np.sqrt(weights[k]))
        block = gradients[k * n_dims : (k + 1) * n_dims]
        for d in range(n_dims):
            block[d] = scale * first[k, d]


@njit(fastmath=True)
def variance_gradients(zeroth, second, weights, n_descriptors, min_weight, sign, gradients):
    """Write ± (S²_k − S⁰_k) / (N √(2 π_k)) = ± 1 / (N √(2 π_k)) Σ_i γ_ik [((x_i − μ_k) / σ_k)² − 1].

    Parameters
    ----------
    zeroth : float64 (n_components,)
    second : float64 (n_components, n_dims)
        S² = Σ γ t².
    weights : float64 (n_components,)
    n_descriptors : int
    min_weight : float
        Components with π_k below get 0.
    sign : float
        1 or -1.
    gradients : float32 (n_components * n_dims,)
        Component by component.  # OUT

    References
    ----------
    As `weight_gradients`, equation 18 divided by N.
    """
    n_components, n_dims = second.shape
    for k in range(n_components):
        scale = 0.0 if weights[k] < min_weight else sign / (n_descriptors * np.sqrt(2.0 * weights[k]))
        block = gradients[k * n_dims : (k + 1) * n_dims]
        for d in range(n_dims):
            block[d] = scale * (second[k, d] - zeroth[k])


@njit(fastmath=True)
def normalize_gradients(vector, power, l2_norm):
    """Normalise in place: signed power sign(z)|z|^power, then v / max(‖v‖, 1e-12).

    Parameters
    ----------
    vector : float32 (n,)
        # OUT
    power : float64
        1 leaves the values as they are.
    l2_norm : bool
    """
    n = len(vector)
    if power == 0.5:
        for i in range(n):
            vector[i] = np.copysign(np.sqrt(abs(vector[i])), vector[i])
    elif power != 1.0:
        for i in range(n):
            vector[i] = np.copysign(np.float32(abs(vector[i]) ** power), vector[i])
    if l2_norm:
        total = 0.0
        for i in range(n):
            total += np.float64(vector[i]) * np.float64(vector[i])
        scale = np.float32(1.0 / max(np.sqrt(total), 1e-12))
        for i in range(n):
            vector[i] *= scale
