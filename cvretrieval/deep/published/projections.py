"""Learned projections of published models as fitted estimators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval import LearnedWhitening, PCAWhitening
from cvretrieval._validation import StoreError


def fitted_whitening(mean: NDArray[Any], components: NDArray[Any]) -> LearnedWhitening:
    """Return x ↦ components (x − mean), L2, as a fitted `LearnedWhitening`."""
    whitening = LearnedWhitening()
    whitening.mean_ = np.ascontiguousarray(mean, dtype=np.float64).reshape(-1)
    whitening.components_ = np.ascontiguousarray(components, dtype=np.float64)
    whitening.n_components_ = len(whitening.components_)
    whitening.n_features_in_ = whitening.components_.shape[1]
    return whitening


def linear_layer(weight: NDArray[Any], bias: NDArray[Any]) -> LearnedWhitening:
    """Return x ↦ weight x + bias, L2, as one: with the shortest mean for which −weight mean = bias."""
    rows = np.asarray(weight, dtype=np.float64)
    mean = -rows.T @ np.linalg.lstsq(rows @ rows.T, np.asarray(bias, dtype=np.float64).reshape(-1), rcond=None)[0]
    if not np.allclose(rows @ mean, -np.asarray(bias).reshape(-1), rtol=1e-3, atol=1e-5 * float(np.abs(bias).max())):
        raise StoreError("The whitening layer maps no vector to zero, so it is no whitening.")
    return fitted_whitening(mean, rows)


def fitted_pca(values: Mapping[str, Any], power: float, n_components: int | None) -> PCAWhitening:
    """Return the attributes of a fitted PCA as a `PCAWhitening`, L2 after it."""
    kept = slice(n_components)
    pca = PCAWhitening(n_components, power=power)
    pca.mean_ = np.asarray(values["mean_"], dtype=np.float64).reshape(-1)
    pca.components_ = np.ascontiguousarray(np.asarray(values["components_"], dtype=np.float64)[kept])
    pca.explained_variance_ = np.asarray(values["explained_variance_"], dtype=np.float64)[kept]
    pca.noise_variance_ = 0.0
    pca.n_components_ = len(pca.components_)
    pca.n_features_in_ = pca.components_.shape[1]
    pca.n_samples_seen_ = int(values.get("n_samples_", 0))
    return pca


def numbers(path: Path, name: str, value: Any, n_dims: int) -> NDArray[Any]:
    """Return an array or tensor of a file as an array of floats.

    Raises
    ------
    StoreError
        If it is none, has another number of axes, or values that are not finite.
    """
    array = np.asarray(getattr(value, "numpy", lambda: value)())
    if array.dtype.kind != "f" or array.ndim != n_dims or not np.isfinite(array).all():
        raise StoreError(f"{path}: {name} must be {n_dims}-dimensional finite floats. Got {array.dtype} {array.shape}.")
    return array


def field(path: Path, holder: Any, name: str, kind: type) -> Any:
    """Return an entry of a checkpoint.

    Raises
    ------
    StoreError
        If there is none, or one of another type.
    """
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, kind):
        raise StoreError(f"{path} has no {name!r} ({kind.__name__}), so it is no checkpoint of this program.")
    return value
