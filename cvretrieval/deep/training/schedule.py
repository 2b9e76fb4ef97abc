"""Learning rates."""

from __future__ import annotations

from collections.abc import Sequence


def step_decay(progress: float, decay_at: Sequence[float], decay: float) -> float:
    """Return the factor of the learning rate after a share of the training: `decay` for each share that is reached."""
    return float(decay ** sum(progress >= share for share in decay_at))
