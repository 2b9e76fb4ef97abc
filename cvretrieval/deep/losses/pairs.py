"""What the losses share: checks of a batch, which of its pairs are positive, and distances between rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_batch(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the vectors in the precision a loss works in: float64 as it is, all else as float32.

    Raises
    ------
    ValueError
        If they are not one row for each label.
    """
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "A loss takes vectors (B, D) and one class number for each, (B,). Got shapes "
            f"{list(embeddings.shape)} and {list(labels.shape)} instead."
        )
    return embeddings if embeddings.dtype == torch.float64 else embeddings.to(torch.float32)


def check_positive(owner: str, name: str, value: float, *, zero: bool = False) -> float:
    """Return a finite parameter above zero, or from zero on."""
    value = float(value)
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        interval = "[0, inf)" if zero else "(0, inf)"
        raise ValueError(f"The {name!r} parameter of {owner} must be a number in {interval}. Got {value!r} instead.")
    return value


def positive_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pairs (B, B) are of one class, an item and itself left out, and which are of two."""
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same & ~itself, ~same


def squared_distances(embeddings: Tensor) -> Tensor:
    """Return squared Euclidean distances (B, B) for choosing pairs: without gradient, with the rounding of a product.

    Pairs that are chosen are measured again, by `distances`.
    """
    rows = embeddings.detach()
    norms = (rows * rows).sum(1)
    return norms.unsqueeze(0) + norms.unsqueeze(1) - 2 * rows @ rows.T


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distances between the rows of two arrays; the gradient of a distance of zero is zero."""
    return torch.linalg.vector_norm(one - other, dim=-1)


def mean_or_zero(terms: Tensor, embeddings: Tensor) -> Tensor:
    """Return the mean of terms; where a batch has none, a zero that can be differentiated."""
    return terms.mean() if terms.numel() else embeddings.sum() * 0
