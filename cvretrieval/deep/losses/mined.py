"""A loss of what a miner chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Mined(nn.Module):
    """A loss of the pairs or triplets of a batch that a miner chooses, as pytorch-metric-learning has both.

    Parameters
    ----------
    loss : callable
        From vectors (B, D), class numbers (B,) and what the miner chose to a number. Weights of a module are trained.
    miner : callable
        From vectors and class numbers to what it chooses: tuples of indices of anchors and others.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import Mined
    >>> def farthest_positives(vectors, labels):
    ...     between = torch.cdist(vectors, vectors) * (labels[:, None] == labels)
    ...     return torch.arange(len(vectors)), between.argmax(1)
    >>> def attraction(vectors, labels, pairs):
    ...     return (vectors[pairs[0]] - vectors[pairs[1]]).norm(dim=1).mean()
    >>> Mined(attraction, farthest_positives)(torch.tensor([[0.0], [2.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
    tensor(1.5000)
    """

    def __init__(self, loss: Callable[[Tensor, Tensor, Any], Tensor], miner: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors (B, D) of classes (B,)."""
        return self.loss(embeddings, labels, self.miner(embeddings, labels))

    def extra_repr(self) -> str:
        given = {"loss": self.loss, "miner": self.miner}
        return ", ".join(f"{k}={v.__qualname__}" for k, v in given.items() if hasattr(v, "__qualname__"))
