"""Normalisation of images as a network's training had it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Normalization(NamedTuple):
    """Mean and standard deviation of red, green and blue in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


#: Of the photographs of ImageNet; what networks are trained with unless they say otherwise.
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class NormalizedNetwork(nn.Module):
    """A network behind the normalisation it was trained with: images (B, 3, H, W), RGB in [0, 1] → its output."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise the images and run the network."""
        return self.network((images - self.mean) / self.std)
