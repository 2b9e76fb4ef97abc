"""Ranking losses by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from cvretrieval._validation import check_choice
from cvretrieval.deep import losses

#: Name → loss; all but the last have a margin.
RANKING_LOSSES: dict[str, Any] = {
    "batch_hard": losses.BatchHardTriplet,
    "semi_hard": losses.SemiHardTriplet,
    "contrastive": losses.Contrastive,
    "multi_similarity": losses.MultiSimilarity,
    "smooth_ap": losses.SmoothAP,
}


def make_ranking_loss(
    owner: Any, loss: Any, margin: float | None, more: tuple[str, ...] = ()
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a name with its margin, or the callable that was given; `more` are names made elsewhere."""
    if callable(loss):
        if margin is not None:
            raise ValueError(
                f"{type(owner).__name__} does not know the margin of a given ranking_loss; set it there. "
                "Leave margin=None."
            )
        made: Callable[[Tensor, Tensor], Tensor] = loss
        return made
    check_choice(owner, "ranking_loss", loss, (*RANKING_LOSSES, *more))
    if loss == "smooth_ap" and margin is not None:
        raise ValueError("ranking_loss='smooth_ap' has no margin; set margin=None.")
    return RANKING_LOSSES[loss]() if margin is None else RANKING_LOSSES[loss](margin=margin)  # type: ignore[no-any-return]
