"""What a given Gaussian mixture says of itself, ours or scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import describe_array


def resolve_gmm(gmm: Any, owner: Any, parameter: str = "gmm") -> Any:
    """Check that `gmm` is a fitted mixture of Gaussians with diagonal covariances, and return it as it is.

    Errors name `owner` and its `parameter`.

    Raises
    ------
    TypeError, ValueError
        If it is no mixture, not fitted, of another kind of covariances, or its parameters are no mixture's.
    """
    name, kind = type(owner).__name__, type(gmm).__name__
    given = f"The {parameter} given to {name}"
    attributes = ("weights_", "means_", "covariances_")
    if any(getattr(gmm, attribute, None) is None for attribute in attributes):
        if not hasattr(gmm, "fit") or hasattr(gmm, "cluster_centers_") or not hasattr(gmm, "score_samples"):
            raise TypeError(
                f"The {parameter!r} parameter of {name} must be a fitted mixture with weights_, means_ and "
                f"covariances_, such as GMMCodebook or sklearn.mixture.GaussianMixture(covariance_type='diag'). "
                f"Got {kind} instead."
            )
        raise ValueError(f"{given} is not fitted: call {kind}.fit first, or give none to learn one.")
    covariance_type = getattr(gmm, "covariance_type", "diag")
    if covariance_type != "diag":
        raise ValueError(
            f"{name} needs a mixture with diagonal covariances. The {kind} given has "
            f"covariance_type={covariance_type!r}; fit it with covariance_type='diag'."
        )
    weights, means, variances = gmm_parameters(gmm)
    if means.ndim != 2 or not means.size or variances.shape != means.shape or weights.shape != means.shape[:1]:
        shapes = ", ".join(
            f"{attribute} is {describe_array(array)}"
            for attribute, array in zip(attributes, (weights, means, variances), strict=True)
        )
        raise ValueError(
            f"{given} must have weights_ (n_components,), means_ and covariances_ (n_components, n_dims). {shapes}."
        )
    if not all(np.isfinite(array).all() for array in (weights, means, variances)) or (variances <= 0).any():
        raise ValueError(
            f"{given} must have finite parameters and positive variances. The smallest variance is {variances.min():g}."
        )
    if (weights < 0).any() or abs(weights.sum() - 1) > 1e-3:
        raise ValueError(
            f"The weights_ of the {parameter} given to {name} must be probabilities. Their sum is {weights.sum():g}, "
            f"the smallest is {weights.min():g}."
        )
    return gmm


def gmm_parameters(gmm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (n_components,), means and variances (n_components, n_dims) of a mixture, in float64."""
    weights, means, variances = (
        np.ascontiguousarray(array, dtype=np.float64) for array in (gmm.weights_, gmm.means_, gmm.covariances_)
    )
    return weights, means, variances
