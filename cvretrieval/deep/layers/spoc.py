"""Sum-pooled convolutional features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvretrieval.deep.layers.maps import check_map


class SPoC(nn.Module):
    """Sum-pooled convolutional features (SPoC): the sum of each channel, pixels near the centre counting more.

    Parameters
    ----------
    center_prior : bool, default=True
        Weight pixels by a Gaussian about the centre of the map.
    reduction : {"sum", "mean"}, default="sum"
        "mean" divides by H · W, whatever the weights: the two differ by a factor that L2 normalisation takes away.
        ``SPoC(center_prior=False, reduction="mean")`` is average pooling.

    Notes
    -----
    f_c = Σ_{y,x} α(y, x) x_c(y, x) with α = exp(−((y − (H−1)/2)² + (x − (W−1)/2)²) / 2σ²) and σ = min(H, W) / 6, a
    third of the way from the centre to the nearest border; (B, C, H, W) → (B, C). Not normalised: the paper applies L2,
    PCA whitening, L2 to it. Rotated photographs (INRIA Holidays) are better off without the prior.

    References
    ----------
    .. [1] A. Babenko and V. Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015,
       equations 1 and 4.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import SPoC
    >>> SPoC(center_prior=False)(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[ 6., 22.]])
    """

    def __init__(self, *, center_prior: bool = True, reduction: str = "sum") -> None:
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f"The 'reduction' parameter of SPoC must be 'sum' or 'mean'. Got {reduction!r} instead.")
        self.center_prior = center_prior
        self.reduction = reduction

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, C, H, W) to (B, C)."""
        x = check_map(x)
        height, width = x.shape[2], x.shape[3]
        if self.center_prior:
            sigma = min(height, width) / 6.0
            # The Gaussian is separable: one product with a column, one with a row.
            column = _gaussian(height, sigma, x)
            pooled = torch.matmul(torch.matmul(column, x), _gaussian(width, sigma, x))
        else:
            pooled = x.sum((2, 3))
        return pooled / (height * width) if self.reduction == "mean" else pooled

    def extra_repr(self) -> str:
        return f"center_prior={self.center_prior}, reduction={self.reduction!r}"


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """Return exp(−(i − (size−1)/2)² / 2σ²) for i < size."""
    offset = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2.0
    return torch.exp(-(offset * offset) / (2.0 * sigma * sigma))
