"""Contrastive loss."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import check_batch, check_positive, distances, mean_or_zero, positive_pairs


class Contrastive(nn.Module):
    """Contrastive loss: pairs of one class are to coincide, pairs of two to be a margin apart.

    Parameters
    ----------
    margin : float, default=0.7
        Distance from which negatives no longer count; the GeM paper's for ResNet (0.75 for VGG).

    Notes
    -----
    L = mean_{positive} ½ d² + mean_{negative} ½ max(0, margin − d)², d the Euclidean distance of a pair of the batch.
    The paper adds up the pairs of mined tuples; means of both kinds weigh them alike, however many there are of each.

    References
    ----------
    .. [1] R. Hadsell, S. Chopra and Y. LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006,
       equation 4.
    .. [2] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       equation 5.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import Contrastive
    >>> vectors = torch.tensor([[0.0], [2.0], [3.0]])
    >>> Contrastive(margin=2)(vectors, torch.tensor([0, 0, 1]))  # 2²/2, and the mean of 0 and 1²/2
    tensor(2.2500)
    """

    def __init__(self, margin: float = 0.7) -> None:
        super().__init__()
        self.margin = check_positive("Contrastive", "margin", margin)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        x = check_batch(embeddings, labels)
        terms = []
        for pairs, is_positive in zip(positive_pairs(labels), (True, False), strict=True):
            one, other = pairs.triu(1).nonzero(as_tuple=True)
            between = distances(x[one], x[other])
            terms.append(mean_or_zero(0.5 * (between if is_positive else F.relu(self.margin - between)) ** 2, x))
        return terms[0] + terms[1]

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"
