"""Learning from the features of a store without holding them all: chunk by chunk, a Pipeline step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse, vstack

from cvretrieval._base import LocalFeaturesInputMixin, input_kind
from cvretrieval._parallel import block_slices
from cvretrieval.feature_chunks import FeatureChunks, check_feature_chunks
from cvretrieval.local_features import LocalFeatures

# Images whose descriptors are in memory at once, as float32: some 200 MB of SIFT.
_CHUNK_IMAGES = 128


class StoredFeatures:
    """Features of indexed images in chunks; can be iterated over as often as one likes.

    Parameters
    ----------
    read : callable
        Returns the LocalFeatures of keys.
    keys : sequence of int
        The images.
    images_per_chunk : int
    """

    def __init__(
        self, read: Callable[[Sequence[int]], LocalFeatures], keys: Sequence[int], images_per_chunk: int = _CHUNK_IMAGES
    ) -> None:
        self._read = read
        self._keys = keys
        self._blocks = block_slices(len(keys), images_per_chunk)

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self._blocks)

    def __iter__(self) -> Iterator[LocalFeatures]:
        return (self._read(self._keys[block]) for block in self._blocks)


def learn(encoder: Any, features: StoredFeatures) -> None:
    """Fit an encoder or a Pipeline, as ``encoder.fit`` on all the features would."""
    steps = [step for _, step in getattr(encoder, "steps", [("", encoder)]) if step not in (None, "passthrough")]
    takes_features = [step for step in steps if input_kind(step) == LocalFeaturesInputMixin.input_kind]
    if getattr(encoder, "memory", None) is not None or not all(_takes_chunks(step) for step in takes_features):
        encoder.fit(LocalFeatures.concatenate(list(features)))
        return
    data: Any = check_feature_chunks(features, estimator=encoder)
    for i, step in enumerate(steps):
        is_last = i == len(steps) - 1
        if not isinstance(data, FeatureChunks):
            data = step.fit(data) if is_last else step.fit_transform(data)
            continue
        step.fit(data)
        if is_last:
            return
        if input_kind(steps[i + 1]) == LocalFeaturesInputMixin.input_kind:
            data = data.map(step.transform)
        else:
            parts = [step.transform(chunk) for chunk in data]
            data = vstack(parts, format="csr") if issparse(parts[0]) else np.concatenate(parts)


def _takes_chunks(estimator: Any) -> bool:
    """Whether `fit` is known to take chunks; an encoder within must, too."""
    within = getattr(estimator, "encoder", None)
    return isinstance(estimator, LocalFeaturesInputMixin) and (within is None or _takes_chunks(within))
