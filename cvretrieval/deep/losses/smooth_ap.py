"""Smooth average precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import check_batch, check_positive, mean_or_zero, positive_pairs


class SmoothAP(nn.Module):
    """One minus the average precision of each vector's ranking of the batch, with ranks made differentiable.

    Parameters
    ----------
    temperature : float, default=0.01
        τ: how steeply the similarity of two items decides which comes first; towards 0 it is the average precision.

    Notes
    -----
    L = mean_q (1 − mean_{i ∈ P} (1 + Σ_{j ∈ P} σ((s_j − s_i) / τ)) / (1 + Σ_j σ((s_j − s_i) / τ))) with cosines s to
    the query, P the others of its class, j ≠ i. The query itself is not ranked; vectors without a positive are left
    out. The memory grows with the cube of the batch.

    References
    ----------
    .. [1] A. Brown, W. Xie, V. Kalogeiton and A. Zisserman, "Smooth-AP: smoothing the path towards large-scale image
       retrieval", ECCV 2020, equation 6.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import SmoothAP
    >>> vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> round(SmoothAP()(vectors, torch.tensor([0, 0, 1])).item(), 3)  # both queries find their positive first
    0.0
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        self.temperature = check_positive("SmoothAP", "temperature", temperature)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        x = F.normalize(check_batch(embeddings, labels), dim=1)
        positive, _ = positive_pairs(labels)
        similarities = x @ x.T
        # before[q, i, j]: to what extent j comes before i in the ranking of q.
        before = torch.sigmoid((similarities.unsqueeze(1) - similarities.unsqueeze(2)) / self.temperature)
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        before = before.masked_fill(itself.unsqueeze(0) | itself.unsqueeze(1), 0)
        shares = (1 + (before * positive.unsqueeze(1)).sum(2)) / (1 + before.sum(2))
        queries = positive.any(1)
        precision = (shares * positive).sum(1)[queries] / positive.sum(1)[queries]
        return mean_or_zero(1 - precision, x)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"
