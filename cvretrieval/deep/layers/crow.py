"""Cross-dimensional weighting."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvretrieval.deep.layers.maps import check_map


class CroW(nn.Module):
    """Cross-dimensional weighting (CroW): sum pooling with weights of pixels and of channels taken from the map itself.

    Parameters
    ----------
    spatial_weighting : bool, default=True
        Pixels count more where all channels together respond more.
    channel_weighting : bool, default=True
        Channels count more that respond at fewer pixels. With neither weighting it is the paper's uCroW.
    norm_order : float, default=2.0
        a below.
    power : float, default=0.5
        b below.

    Notes
    -----
    With S(y, x) = Σ_c x_c(y, x), the weight of a pixel is (S / (Σ S^a)^{1/a})^b. With q_c the fraction of pixels where
    channel c is not zero, its weight is ln(Σ q / q_c), 0 if it is zero everywhere. f_c is the product of the channel's
    weight with the weighted sum of its pixels; (B, C, H, W) → (B, C). Not normalised: the paper applies L2, PCA
    whitening, L2 to it. Meant for maps after a ReLU: where S is negative a pixel has no weight.

    The authors' program is followed in that silent channels weigh 0; the paper adds ε to the fraction instead. No
    gradient flows through the channel weights, which are counts.

    References
    ----------
    .. [1] Y. Kalantidis, C. Mellina and S. Osindero, "Cross-dimensional weighting for aggregated deep convolutional
       features", ECCV Workshops 2016, equations 1, 3 and 5.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import CroW
    >>> x = torch.tensor([[[[3.0, 0.0]], [[1.0, 4.0]]]])
    >>> CroW(spatial_weighting=False, channel_weighting=False)(x)
    tensor([[3., 5.]])
    >>> CroW()(x).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        *,
        spatial_weighting: bool = True,
        channel_weighting: bool = True,
        norm_order: float = 2.0,
        power: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value in (("norm_order", norm_order), ("power", power)):
            if not value > 0:
                raise ValueError(f"The {name!r} parameter of CroW must be a number in (0, inf). Got {value!r} instead.")
        self.spatial_weighting = spatial_weighting
        self.channel_weighting = channel_weighting
        self.norm_order = norm_order
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, C, H, W) to (B, C)."""
        columns = check_map(x).flatten(2)
        pooled = columns.sum(2)
        if self.spatial_weighting:
            pooled = torch.matmul(columns, self.spatial_weights(x).flatten(1).unsqueeze(2)).squeeze(2)
        return pooled * self.channel_weights(x) if self.channel_weighting else pooled

    @torch.jit.export
    def spatial_weights(self, x: Tensor) -> Tensor:
        """Return the weights of the pixels, (B, H, W)."""
        # A floor far below any sum: pixels at it are zero in all channels, and the root keeps a finite slope.
        total = check_map(x).sum(1).clamp(min=1e-12)
        norm = total.pow(self.norm_order).sum((1, 2), keepdim=True).pow(1.0 / self.norm_order)
        return (total / norm).pow(self.power)

    @torch.jit.export
    def channel_weights(self, x: Tensor) -> Tensor:
        """Return the weights of the channels, (B, C)."""
        x = check_map(x)
        density = (x != 0).to(x.dtype).mean((2, 3))
        is_silent = density == 0
        idf = torch.log(density.sum(1, keepdim=True) / density.masked_fill(is_silent, 1.0))
        return idf.masked_fill(is_silent, 0.0)

    def extra_repr(self) -> str:
        return f"spatial_weighting={self.spatial_weighting}, channel_weighting={self.channel_weighting}"
