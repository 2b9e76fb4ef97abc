"""Generalised mean with learned or given weights of the pixels."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from cvretrieval.deep.layers.gem import check_exponent
from cvretrieval.deep.layers.maps import check_map
from cvretrieval.deep.layers.spatial_weights import SpatialWeights, check_weights


class WeightedGeM(nn.Module):
    """Generalised-mean pooling in which pixels have weights, learned from the map or given (weighted GeM).

    Parameters
    ----------
    n_channels : int
        Channels of the map.
    p : float, default=3.0
        Exponent at the start, shared and trainable.
    eps : float, default=1e-6
        Smaller values of the map are replaced by this.

    Attributes
    ----------
    p : Parameter of shape (1,)
    attention : SpatialWeights
        Predicts the weights; at the start they are all 1, and the layer is `GeM`.

    Notes
    -----
    f_c = (Σ w(y, x) max(x_c(y, x), eps)^p / Σ w(y, x))^{1/p}; (B, C, H, W) → (B, C). Not normalised. Pixels of weight 0
    do not count; where all weights of an image are 0 the result is 0.

    References
    ----------
    .. [1] X. Wu, G. Irie, K. Hiramatsu and K. Kashino, "Weighted generalized mean pooling for deep image retrieval",
       ICIP 2018.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import WeightedGeM
    >>> x = torch.tensor([[[[1.0, 7.0, 7.0]]]])
    >>> round(WeightedGeM(1, p=2)(x, torch.tensor([[[1.0, 0.5, 0.5]]])).item(), 3)
    5.0
    """

    def __init__(self, n_channels: int, p: float = 3.0, *, eps: float = 1e-6) -> None:
        super().__init__()
        check_exponent("WeightedGeM", p, eps)
        self.p = nn.Parameter(torch.full((1,), float(p)))
        self.eps = eps
        self.attention = SpatialWeights(n_channels)

    def forward(self, x: Tensor, weights: Optional[Tensor] = None) -> Tensor:  # noqa: UP045 - TorchScript reads it
        """Pool a map (B, C, H, W) to (B, C); `weights`, (B, H, W) or (1, H, W), replace the learned ones."""
        x = check_map(x)
        w = check_weights(self.attention(x) if weights is None else weights, x)
        p = self.p.to(x.dtype)
        # Weights of zero have no logarithm: such pixels are left out by a weight too small to be seen.
        log_w = w.clamp(min=1e-30).log()
        scaled = x.flatten(2).clamp(min=self.eps).log() * p + log_w.unsqueeze(1)
        log_mean = torch.logsumexp(scaled, 2) - torch.logsumexp(log_w, 1, keepdim=True)
        return torch.exp(log_mean / p) * (w.amax(1, keepdim=True) > 0).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p.item():g}, eps={self.eps:g}"
