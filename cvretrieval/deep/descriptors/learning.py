"""What the descriptors that learn from images share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state


class SameObject:
    """Equal to itself alone; holds on to the object, so that no other can take its place in memory."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameObject) and other._thing is self._thing

    def __hash__(self) -> int:
        return id(self._thing)


def draw_images(n_images: int, most: int | None, random_state: Any) -> NDArray[np.int64]:
    """Return so many image numbers at most, in order, drawn without replacement."""
    if most is None or n_images <= most:
        return np.arange(n_images)
    return np.sort(check_random_state(random_state).choice(n_images, most, replace=False))
