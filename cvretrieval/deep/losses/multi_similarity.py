"""Multi-similarity loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import check_batch, check_positive, mean_or_zero, positive_pairs


class MultiSimilarity(nn.Module):
    """Multi-similarity loss: informative pairs of a batch, weighted by how they compare with the others.

    Parameters
    ----------
    alpha, beta : float, default=2.0, 50.0
        Steepness for positives and for negatives.
    base : float, default=0.5
        λ, the similarity about which pairs are weighed.
    margin : float, default=0.1
        ε of the choice of pairs: a negative counts if it is more similar than the least similar positive less ε, a
        positive if it is less similar than the most similar negative plus ε.

    Notes
    -----
    L = mean_i (1/α log(1 + Σ_p exp(−α (s_ip − λ))) + 1/β log(1 + Σ_n exp(β (s_in − λ)))) with cosines s, over the
    chosen pairs; vectors without a positive or without a negative in the batch are left out.

    References
    ----------
    .. [1] X. Wang, X. Han, W. Huang, D. Dong and M. R. Scott, "Multi-similarity loss with general pair weighting for
       deep metric learning", CVPR 2019, equations 11 to 15.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import MultiSimilarity
    >>> right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> MultiSimilarity()(right, torch.tensor([0, 0, 1, 1])) < MultiSimilarity()(right, torch.tensor([0, 1, 0, 1]))
    tensor(True)
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, *, base: float = 0.5, margin: float = 0.1) -> None:
        super().__init__()
        self.alpha = check_positive("MultiSimilarity", "alpha", alpha)
        self.beta = check_positive("MultiSimilarity", "beta", beta)
        self.base = float(base)
        self.margin = check_positive("MultiSimilarity", "margin", margin, zero=True)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        x = F.normalize(check_batch(embeddings, labels), dim=1)
        positive, negative = positive_pairs(labels)
        similarities = x @ x.T
        seen = similarities.detach()
        least_positive = seen.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        most_negative = seen.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        hard_negative = negative & (seen > least_positive - self.margin)
        hard_positive = positive & (seen < most_negative + self.margin)
        anchors = positive.any(1) & negative.any(1)
        terms = _log1p_sum(-self.alpha * (similarities - self.base), hard_positive) / self.alpha
        terms = terms + _log1p_sum(self.beta * (similarities - self.base), hard_negative) / self.beta
        return mean_or_zero(terms[anchors], x)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, beta={self.beta:g}, base={self.base:g}, margin={self.margin:g}"


def _log1p_sum(exponents: Tensor, chosen: Tensor) -> Tensor:
    """Return log(1 + Σ exp) over the chosen of each row."""
    masked = exponents.masked_fill(~chosen, -torch.inf)
    return torch.cat([torch.zeros_like(masked[:, :1]), masked], dim=1).logsumexp(1)
