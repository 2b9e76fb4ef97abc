"""Soft assignment of descriptors to words by a Gaussian kernel (kernel codebook)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks import NearestWords
from cvretrieval.feature_chunks import FeatureChunks, sample_descriptors

# Enough for the median of the gaps: its standard error is about 1 % of it.
_SIGMA_SAMPLES = 10_000


def soft_weights(gaps: NDArray[np.float32], sigma: float, axis: int) -> NDArray[np.float32]:
    """Return exp(−d²/2σ²) over its sum along an axis, float32.

    Parameters
    ----------
    gaps : ndarray
        Squared distances d² beyond the nearest word's, which cancels: the weights depend on differences only.
    sigma : float
    axis : int
        The axis of the words.
    """
    weights = np.exp(gaps * np.float32(-0.5 / sigma**2))
    weights /= weights.sum(axis=axis, keepdims=True)
    return weights


def learn_sigma(X: FeatureChunks, centers: NDArray[Any], owner: Any) -> float:
    """Return σ with 2σ² = median of d₂² − d₁², the gap between the squared distances to the two nearest words.

    Over a sample of 10,000 descriptors of `X`; gaps of zero (equal words) are left out. 1 if no gap is left.

    Raises
    ------
    ValueError
        If `X` has no descriptors, or one of the sample is NaN or infinite; the message names `owner`.
    """
    if X.is_empty:
        raise ValueError(
            f"{type(owner).__name__} cannot learn sigma: none of the images has any descriptor. Give the 'sigma' "
            "parameter."
        )
    if len(centers) == 1:
        return 1.0
    rows = sample_descriptors(X, _SIGMA_SAMPLES, np.random.RandomState(0), estimator=owner)
    with single_threaded():
        gaps = NearestWords(centers, 2, owner).assign(rows, image=0)[1][:, 1]
    gaps = gaps[gaps > 0]
    return float(np.sqrt(np.median(gaps) / 2)) if len(gaps) else 1.0
