"""Weights of pixels, learned from their features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.layers.maps import check_channels, check_map

#: softplus of it is 1
BIAS_OF_ONE = math.log(math.e - 1)


class SpatialWeights(nn.Module):
    """Predicts a positive weight for each pixel of a map from its features, by a 1 × 1 convolution and softplus.

    Parameters
    ----------
    n_channels : int
        Channels of the map.

    Notes
    -----
    w(y, x) = ln(1 + exp(⟨a, x(y, x)⟩ + b)); (B, C, H, W) → (B, H, W). At the start a = 0 and all weights are 1.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import SpatialWeights
    >>> weights = SpatialWeights(5)(torch.rand(2, 5, 3, 4))
    >>> weights.shape, bool((weights - 1).abs().max() < 1e-6)
    (torch.Size([2, 3, 4]), True)
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.weight = nn.Parameter(torch.zeros(n_channels))
        self.bias = nn.Parameter(torch.tensor(BIAS_OF_ONE))

    def forward(self, x: Tensor) -> Tensor:
        """Return the weights of the pixels of a map (B, C, H, W), (B, H, W)."""
        x = check_map(x)
        check_channels(x, self.n_channels)
        scores = torch.einsum("bchw,c->bhw", x, self.weight.to(x.dtype))
        return F.softplus(scores + self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        return str(self.n_channels)


def check_weights(weights: Tensor, x: Tensor) -> Tensor:
    """Return given weights as (B, H · W) or (1, H · W), in the precision of the map."""
    if weights.dim() != 3 or weights.shape[1:] != x.shape[2:] or weights.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"The weights of a map of shape {list(x.shape)} have the axes (B, H, W). Got shape {list(weights.shape)}."
        )
    return weights.to(x.dtype).flatten(1)
