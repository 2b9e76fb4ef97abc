"""Triplet losses that choose their triplets within a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import (
    check_batch,
    check_positive,
    distances,
    mean_or_zero,
    positive_pairs,
    squared_distances,
)


class BatchHardTriplet(nn.Module):
    """Triplet loss of the farthest positive and the nearest negative of each vector in a batch (batch hard).

    Parameters
    ----------
    margin : float, default=0.1
        By how much the negative must be farther away than the positive.

    Notes
    -----
    L = mean_a max(0, margin + max_p ‖a − p‖ − min_n ‖a − n‖), plain Euclidean distances of the vectors as they are.
    The mean is over all vectors, satisfied ones included; those without a positive (other than themselves) or without a
    negative in the batch are left out. pytorch-metric-learning divides by the number of unsatisfied ones by default.

    References
    ----------
    .. [1] A. Hermans, L. Beyer and B. Leibe, "In defense of the triplet loss for person re-identification",
       arXiv:1703.07737, equation 5.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import BatchHardTriplet
    >>> vectors = torch.tensor([[0.0], [2.0], [3.0], [9.0]])
    >>> BatchHardTriplet(margin=1)(vectors, torch.tensor([0, 0, 1, 1]))  # terms 0, 2, 6 and 0
    tensor(2.)
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = check_positive("BatchHardTriplet", "margin", margin, zero=True)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        x = check_batch(embeddings, labels)
        positive, negative = positive_pairs(labels)
        between = squared_distances(x)
        anchors = (positive.any(1) & negative.any(1)).nonzero().squeeze(1)
        farthest = between.masked_fill(~positive, -torch.inf).argmax(1)[anchors]
        nearest = between.masked_fill(~negative, torch.inf).argmin(1)[anchors]
        a = x[anchors]
        return mean_or_zero(F.relu(self.margin + distances(a, x[farthest]) - distances(a, x[nearest])), x)

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"


class SemiHardTriplet(nn.Module):
    """Triplet loss of each pair of one class and the nearest negative that is farther away than the positive.

    Parameters
    ----------
    margin : float, default=0.2
        By how much the negative must be farther away than the positive.

    Notes
    -----
    L = mean_{a, p} max(0, margin + ‖a − p‖² − ‖a − n‖²), squared Euclidean distances. n is the nearest negative with
    ‖a − n‖ > ‖a − p‖, where there is none the farthest of all.

    References
    ----------
    .. [1] F. Schroff, D. Kalenichenko and J. Philbin, "FaceNet: a unified embedding for face recognition and
       clustering", CVPR 2015, equations 3 and 4.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import SemiHardTriplet
    >>> vectors = torch.tensor([[0.0], [2.0], [1.0], [3.0]])
    >>> SemiHardTriplet(margin=1)(vectors, torch.tensor([0, 0, 1, 2]))  # 0 with 2 and 3; 2 with 0, none is farther
    tensor(2.)
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = check_positive("SemiHardTriplet", "margin", margin, zero=True)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        x = check_batch(embeddings, labels)
        positive, negative = positive_pairs(labels)
        anchors, positives = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        between = squared_distances(x)
        to_all, is_negative = between[anchors], negative[anchors]
        farther = is_negative & (to_all > between[anchors, positives].unsqueeze(1))
        nearest = to_all.masked_fill(~farther, torch.inf).argmin(1)
        farthest = to_all.masked_fill(~is_negative, -torch.inf).argmax(1)
        negatives = torch.where(farther.any(1), nearest, farthest)
        a = x[anchors]
        gaps = ((a - x[positives]) ** 2).sum(1) - ((a - x[negatives]) ** 2).sum(1)
        return mean_or_zero(F.relu(self.margin + gaps), x)

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"
