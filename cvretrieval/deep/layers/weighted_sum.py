"""Sum pooling with learned or given weights of the pixels."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from cvretrieval.deep.layers.maps import check_map
from cvretrieval.deep.layers.spatial_weights import SpatialWeights, check_weights


class WeightedSumPool(nn.Module):
    """Weighted sum of each channel over the pixels, with weights learned from the map or given.

    Parameters
    ----------
    n_channels : int
        Channels of the map.

    Attributes
    ----------
    attention : SpatialWeights
        Predicts the weights; at the start they are all 1, and the layer is sum pooling.

    Notes
    -----
    f_c = Σ_{y,x} w(y, x) x_c(y, x); (B, C, H, W) → (B, C). Not normalised.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import WeightedSumPool
    >>> x = torch.arange(8.0).reshape(1, 2, 2, 2)
    >>> WeightedSumPool(2)(x, torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])).tolist()
    [[1.5, 7.5]]
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.attention = SpatialWeights(n_channels)

    def forward(self, x: Tensor, weights: Optional[Tensor] = None) -> Tensor:  # noqa: UP045 - TorchScript reads it
        """Pool a map (B, C, H, W) to (B, C); `weights`, (B, H, W) or (1, H, W), replace the learned ones."""
        x = check_map(x)
        w = check_weights(self.attention(x) if weights is None else weights, x)
        return torch.matmul(x.flatten(2), w.unsqueeze(2)).squeeze(2)
