"""Which images make up the batches of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_number


class ClassBalancedSampler:
    """Batches of so many classes with so many images each (P × K), the same for the same seed and epoch.

    Parameters
    ----------
    labels : array of shape (n_images,)
        The class of each image.
    n_classes : int, default=32
        Classes in a batch, P; all of them if there are fewer.
    n_per_class : int, default=4
        Images of each, K. A class with fewer images repeats them.
    seed : int, default=0

    Notes
    -----
    Classes, and images within a class, come in the order of decks that are shuffled anew when they are used up: none
    comes twice before all others came once, but that a batch never holds a class twice. Everything follows from seed
    and number of the epoch, so an epoch can be begun without those before it.

    Examples
    --------
    >>> from cvretrieval.deep.training import ClassBalancedSampler
    >>> sampler = ClassBalancedSampler(["a", "a", "b", "b", "b", "c", "c", "c"], n_classes=2, n_per_class=2)
    >>> [batch.shape for batch in sampler.batches(epoch=0)]
    [(4,), (4,)]
    """

    def __init__(self, labels: Any, *, n_classes: int = 32, n_per_class: int = 4, seed: int = 0) -> None:
        check_number(self, "n_classes", n_classes, low=1, integer=True)
        check_number(self, "n_per_class", n_per_class, low=1, integer=True)
        _, classes = np.unique(np.asarray(labels), return_inverse=True)
        self._members = [np.flatnonzero(classes == i) for i in range(int(classes.max(initial=-1)) + 1)]
        if not self._members:
            raise ValueError("ClassBalancedSampler has no images to draw from.")
        self.n_classes = min(int(n_classes), len(self._members))
        self.n_per_class = int(n_per_class)
        self.seed = int(seed)
        self.n_batches = max(1, round(len(classes) / (self.n_classes * self.n_per_class)))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch, about as many images as there are; images of one class are adjacent."""
        rng = np.random.default_rng([self.seed, epoch])
        classes = _Deck(np.arange(len(self._members)), rng)
        images = [_Deck(members, rng) for members in self._members]
        return [
            np.concatenate([images[i].draw(self.n_per_class) for i in classes.draw_distinct(self.n_classes)])
            for _ in range(self.n_batches)
        ]


def draw_in_turn(images: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of some images: none comes twice before all others came once."""
    decks = -(-n // len(images))
    return np.concatenate([rng.permutation(images) for _ in range(decks)])[:n]


class _Deck:
    def __init__(self, cards: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._cards = cards
        self._rng = rng
        self._rest = cards[:0]

    def draw(self, n: int) -> NDArray[np.int64]:
        while len(self._rest) < n:
            self._rest = np.concatenate([self._rest, self._rng.permutation(self._cards)])
        drawn, self._rest = self._rest[:n], self._rest[n:]
        return drawn

    def draw_distinct(self, n: int) -> NDArray[np.int64]:
        if len(self._rest) < n:
            shuffled = self._rng.permutation(self._cards)
            # Those that are left over go first, and again only after all others.
            left = np.isin(shuffled, self._rest)
            self._rest = np.concatenate([self._rest, shuffled[~left], shuffled[left]])
        return self.draw(n)
