"""Generalised mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cvretrieval.deep.layers.maps import check_channels, check_map


class GeM(nn.Module):
    """Generalised-mean pooling (GeM): the mean of p-th powers, p-th root taken, with a trainable p.

    Parameters
    ----------
    p : float, default=3.0
        Exponent at the start. 1 is average pooling; the larger, the closer to max pooling.
    n_channels : int, optional
        An exponent for each of so many channels (GeMmp); None shares one.
    eps : float, default=1e-6
        Smaller values of the map are replaced by this.

    Attributes
    ----------
    p : Parameter of shape (1,) or (n_channels,)

    Notes
    -----
    f_c = (mean_{y,x} max(x_c(y, x), eps)^p)^{1/p}; (B, C, H, W) → (B, C). Not normalised: the paper applies L2 to it,
    then learned whitening, L2. Computed through logarithms, so that no power overflows, however large p is.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       equation 3.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import GeM
    >>> x = torch.tensor([[[[1.0, 7.0]]]])
    >>> [round(GeM(p)(x).item(), 3) for p in (1, 2, 1000)]
    [4.0, 5.0, 6.995]
    """

    def __init__(self, p: float = 3.0, *, n_channels: int | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        check_exponent(type(self).__name__, p, eps)
        self.p = nn.Parameter(torch.full((1 if n_channels is None else n_channels,), float(p)))
        self.n_channels = n_channels
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, C, H, W) to (B, C)."""
        x = check_map(x)
        n_channels = self.n_channels
        if n_channels is not None:
            check_channels(x, n_channels)
        p = self.p.to(x.dtype)
        scaled = x.flatten(2).clamp(min=self.eps).log() * p.unsqueeze(-1)
        # The logarithm of a mean, not of a sum less that of the number of pixels, which exporters take for a constant.
        largest = scaled.detach().amax(2, keepdim=True)
        log_mean = torch.exp(scaled - largest).mean(2).log() + largest.squeeze(2)
        return torch.exp(log_mean / p)

    def extra_repr(self) -> str:
        p = f"p={self.p.item():g}" if self.n_channels is None else f"n_channels={self.n_channels}"
        return f"{p}, eps={self.eps:g}"


def check_exponent(owner: str, p: float, eps: float) -> None:
    """Refuse exponents that have no power mean, and floors that have no logarithm."""
    if not (0 < p < math.inf):
        raise ValueError(
            f"The 'p' parameter of {owner} must be a number in (0, inf); use MAC for inf. Got {p!r} instead."
        )
    if not (0 < eps < math.inf):
        raise ValueError(f"The 'eps' parameter of {owner} must be a number in (0, inf). Got {eps!r} instead.")
