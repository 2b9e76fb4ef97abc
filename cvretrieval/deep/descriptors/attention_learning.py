"""Learning which pixels of a feature map count, while the network stays as it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cvretrieval.deep.layers.spatial_weights import BIAS_OF_ONE

_TEMPERATURE = 0.1
# Weaker, it learns the training images by heart: on groceries, without labels, mAP fell from 0.47 to 0.39.
_PENALTY = 1e-2
_MAX_ITER = 50


def split_pixels(n_pixels: int, n_drawn: int, random_state: Any) -> NDArray[np.int64]:
    """Draw pixels of a map for each of two views of it that share none, (2, n_drawn); few pixels come repeatedly."""
    order = random_state.permutation(n_pixels)
    halves = (order[: (n_pixels + 1) // 2], order[n_pixels // 2 :])
    return np.stack([np.resize(half, n_drawn) for half in halves])


def learn_attention(
    rows: NDArray[np.float32],
    labels: NDArray[Any] | None,
    p: float,
    eps: float,
    device: torch.device,
    *,
    penalty: float = _PENALTY,
) -> tuple[NDArray[np.float32], float]:
    """Return direction a and bias b of weights softplus(⟨a, x⟩ + b) of pixels that tell images apart.

    Parameters
    ----------
    rows : ndarray of shape (n_images, 2, n_drawn, n_channels)
        Pixels of two views of each image.
    labels : array of shape (n_images,), optional
        What the images show; None: something else each.
    p, eps : float
        Of the generalised mean.
    device : device
        Where to compute.
    penalty : float
        λ below.

    Notes
    -----
    With u_i and v_j the normalised weighted generalised means of the first view of image i and the second of j, the
    loss is the mean over i of −log of the share of the images that show the same as i, other than i itself if there are
    any, in Σ_j exp(⟨u_i, v_j⟩ / 0.1), plus λ (‖a‖² + (b − b₀)²), with pixels scaled to unit mean square. L-BFGS
    from a = 0 and b = b₀, where all weights are 1.
    """
    x = torch.as_tensor(rows, device=device)
    scale = float(x.square().sum(3).mean().sqrt()) or 1.0
    highest = x.amax(2, keepdim=True).clamp(min=eps)
    powers = (x.clamp(min=eps) / highest).pow(p)
    matches = torch.as_tensor(_matches(len(rows), labels), device=device)
    direction = torch.zeros(x.shape[3], device=device, requires_grad=True)
    bias = torch.tensor(BIAS_OF_ONE, device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([direction, bias], max_iter=_MAX_ITER, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        weights = F.softplus((x @ direction) / scale + bias)
        shares = weights / weights.sum(2, keepdim=True)
        pooled = highest.squeeze(2) * (shares.unsqueeze(2) @ powers).squeeze(2).pow(1 / p)
        first, second = F.normalize(pooled, dim=2).unbind(1)
        scores = (first @ second.T / _TEMPERATURE).log_softmax(1)
        shared = scores.masked_fill(~matches, -math.inf).logsumexp(1)
        effort = direction.square().sum() + (bias - BIAS_OF_ONE).square()
        return penalty * effort - shared.mean()

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call, unused-ignore]
        return float(value.detach())

    optimizer.step(closure)
    found = (direction.detach() / scale).cpu().numpy()
    return found.astype(np.float32), float(bias.detach())


def _matches(n_images: int, labels: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Return which images match which: those of the same label but for themselves; where there is none, themselves."""
    own = np.eye(n_images, dtype=bool)
    if labels is None:
        return own
    others = (labels[:, None] == labels[None, :]) & ~own
    return np.where(others.any(1, keepdims=True), others, own)
