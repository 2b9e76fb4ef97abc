"""The rectangle of a map that is most similar to a vector: a coarse grid of all, then its borders moved one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cvretrieval.deep.localization.integral_map import IntegralMap

Box = tuple[int, int, int, int]

# Rectangles that are compared at once: 2,048 channels of them are 64 MB in float64.
_BLOCK = 4096


def best_region(
    found: IntegralMap,
    query: Tensor,
    aspect: float,
    *,
    step: int,
    max_aspect_change: float,
    n_refinements: int,
    max_shift: int,
) -> tuple[Box, float]:
    """Return the rectangle whose approximate maxima have the largest cosine with `query`, and that cosine.

    Parameters
    ----------
    found : IntegralMap
    query : Tensor of shape (C,)
        L2-normalised.
    aspect : float
        Width over height of what is looked for.
    step : int
        Spacing of the corners of the rectangles that are tried first.
    max_aspect_change : float
        Rectangles wider or higher than `aspect` by more than this factor are left out. The whole map never is.
    n_refinements : int
        Rounds in which each border is moved.
    max_shift : int
        Pixels a border is moved by at most, each way, in a round.
    """
    whole = (0, 0, found.width, found.height)

    def allowed(boxes: Tensor) -> Tensor:
        width, height = (boxes[:, 2] - boxes[:, 0]).double(), (boxes[:, 3] - boxes[:, 1]).double()
        change = width / (height * aspect)
        # The factor may be met exactly.
        fits = (change <= max_aspect_change * (1 + 1e-9)) & (change * max_aspect_change >= 1 - 1e-9)
        return fits | (boxes == torch.tensor(whole, device=boxes.device)).all(1)

    boxes = _grid(found.width, found.height, step, found.x.device)
    box, score = _best(found, query, boxes[allowed(boxes)])
    for _ in range(n_refinements):
        before = box
        for border in range(4):
            moved = _moved(box, border, max_shift, found, allowed)
            box, score = _best(found, query, moved)
        if box == before:
            break
    return box, score


def _grid(width: int, height: int, step: int, device: torch.device) -> Tensor:
    """Return all rectangles with corners on the grid or on the border of the map; the whole map is among them."""
    xs, ys = (sorted({*range(0, size, step), size}) for size in (width, height))
    columns = [(x1, x2) for x1 in xs for x2 in xs if x1 < x2]
    rows = [(y1, y2) for y1 in ys for y2 in ys if y1 < y2]
    columns_, rows_ = torch.tensor(columns, device=device), torch.tensor(rows, device=device)
    n_columns, n_rows = len(columns), len(rows)
    across = columns_.repeat(n_rows, 1)
    down = rows_.repeat_interleave(n_columns, 0)
    return torch.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], 1)


def _moved(box: Box, border: int, max_shift: int, found: IntegralMap, allowed: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the rectangle and those with one of its borders elsewhere."""
    low = 0 if border < 2 else box[border - 2] + 1
    high = box[border + 2] - 1 if border < 2 else (found.width, found.height)[border - 2]
    places = range(max(low, box[border] - max_shift), min(high, box[border] + max_shift) + 1)
    rows = [[*box[:border], place, *box[border + 1 :]] for place in places]
    # The present one first: a border is moved only where that is better.
    rows.sort(key=lambda row: abs(row[border] - box[border]))
    boxes = torch.tensor(rows, device=found.x.device)
    keep = allowed(boxes)
    keep[0] = True
    return boxes[keep]


def _best(found: IntegralMap, query: Tensor, boxes: Tensor) -> tuple[Box, float]:
    scores = torch.cat([F.normalize(found.maxima(part), dim=1) @ query for part in boxes.split(_BLOCK)])
    best = int(scores.argmax())
    x1, y1, x2, y2 = (int(value) for value in boxes[best])
    return (x1, y1, x2, y2), float(scores[best])
