"""What the poolings share: the check of a feature map and the precision they work in."""

from __future__ import annotations

import torch
from torch import Tensor


def check_map(x: Tensor) -> Tensor:
    """Return a feature map (B, C, H, W) in the precision it is pooled in: float64 as it is, all else as float32.

    Raises
    ------
    ValueError
        If it has not four axes, or no pixel or channel.
    """
    if x.dim() != 4:
        raise ValueError(f"A feature map has the axes (B, C, H, W). Got shape {list(x.shape)} instead.")
    if x.shape[1] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"A feature map needs at least one channel and one pixel. Got shape {list(x.shape)} instead.")
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def check_channels(x: Tensor, n_channels: int) -> None:
    """Refuse a map with another number of channels than the layer was made for."""
    if x.shape[1] != n_channels:
        raise ValueError(f"The map has {x.shape[1]} channels, but the layer was made for {n_channels} channels.")
