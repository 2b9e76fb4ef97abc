"""NetVLAD's weakly supervised ranking loss."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import check_positive


class WeaklySupervisedRanking(nn.Module):
    """Ranking loss of a query whose positives are potential ones: the best of them, against every negative.

    Parameters
    ----------
    margin : float, default=0.1
        By how much the squared distance of negatives must be larger.

    Notes
    -----
    L = Σ_j max(0, min_i ‖q − p_i‖² + margin − ‖q − n_j‖²): positives were taken near the query, but may look elsewhere;
    negatives were taken far away.

    References
    ----------
    .. [1] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016, equation 7.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import WeaklySupervisedRanking
    >>> query, positives, negatives = torch.zeros(1), torch.tensor([[1.0], [5.0]]), torch.tensor([[0.5], [2.0]])
    >>> WeaklySupervisedRanking(margin=0)(query, positives, negatives)
    tensor(0.7500)
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = check_positive("WeaklySupervisedRanking", "margin", margin, zero=True)

    def forward(self, query: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the loss of a query (D,), its potential positives (n, D) and negatives (m, D)."""
        if not len(positives) or not len(negatives):
            raise ValueError(
                f"A query needs potential positives and negatives. Got {len(positives)} and {len(negatives)}."
            )
        nearest = ((positives - query) ** 2).sum(1).amin()
        return F.relu(nearest + self.margin - ((negatives - query) ** 2).sum(1)).sum()

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"
