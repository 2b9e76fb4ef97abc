"""The objects that `make_scenes` photographs, in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from cvretrieval.datasets._boxes import paint_book, paint_package
from cvretrieval.datasets._drawing import Supplies
from cvretrieval.datasets._prints import paint_map, paint_photograph, paint_poster, paint_sign, paint_street
from cvretrieval.datasets._solids import PaintedObject


@lru_cache(maxsize=1)
def load_photographs() -> tuple[Image.Image, ...]:
    """Return crops without overlap of the two photographs that scikit-learn ships, then the same mirrored."""
    from sklearn.datasets import load_sample_image

    china, flower = (Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))
    crops = [china.crop((0, 30, 300, 420)), flower.crop((70, 20, 570, 407)), china.crop((300, 30, 640, 300))]
    # SIFT does not survive mirroring, so a mirrored print is another object.
    crops += [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
    scaled = []
    for crop in crops:
        ratio = 1000 / max(crop.size)
        size = tuple(round(side * ratio) // 2 * 2 for side in crop.size)
        scaled.append(crop.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    return tuple(scaled)


#: In turn; "photograph" falls back to postcards when all crops are used.
PAINTERS: tuple[Callable[[np.random.Generator, Supplies], PaintedObject] | None, ...] = (
    paint_poster,
    paint_package,
    None,
    paint_sign,
    paint_book,
    paint_map,
)


def paint_object(index: int, rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """Paint the object of a scene: kinds take turns, everything else is random."""
    painter = PAINTERS[index % len(PAINTERS)]
    if painter is not None:
        return painter(rng, supplies)
    crops = load_photographs()
    turn = index // len(PAINTERS)
    return paint_photograph(rng, crops[turn]) if turn < len(crops) else paint_street(rng, supplies)
