"""Maximum activations of convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from cvretrieval.deep.layers.maps import check_map


class MAC(nn.Module):
    """Maximum activations of convolutions (MAC): the largest value of each channel.

    Notes
    -----
    f_c = max_{y,x} x_c(y, x); (B, C, H, W) → (B, C). Not normalised: the papers apply L2, whitening, L2 to it.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, equation 1.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import MAC
    >>> MAC()(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[3., 7.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, C, H, W) to (B, C)."""
        return check_map(x).amax((2, 3))
