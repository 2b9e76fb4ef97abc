"""Learning from the features of a store without holding them all: chunk by chunk, a Pipeline step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse, vstack

from cvretrieval._base import LocalFeaturesInputMixin, input_kind
from cvretrieval._parallel import block_slices
from cvretrieval.feature_chunks import ChunksElsewhere, FeatureChunks, check_feature_chunks
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.description import description_digest
from cvretrieval.retrieval.durable_folders import scratch_folder
from cvretrieval.retrieval.records import ShardRecord, Snapshot
from cvretrieval.retrieval.remote_tasks import StoreAddress, read_images
from cvretrieval.retrieval.store import Store

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
    store : Store, optional
        Theirs: other processes can read from it.
    model : bytes, optional
        Digest of what the encoder has learned.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int]], LocalFeatures],
        keys: Sequence[int],
        images_per_chunk: int = _CHUNK_IMAGES,
        *,
        store: Store | None = None,
        model: bytes | None = None,
    ) -> None:
        self._read = read
        self._keys = keys
        self._store = store
        self._model = model
        self._blocks = block_slices(len(keys), images_per_chunk)

    @property
    def elsewhere(self) -> ChunksElsewhere | None:
        """The same chunks as other processes read them, from the shards."""
        if self._store is None:
            return None
        address = StoreAddress(str(self._store.path), description_digest(self._store.path), self._model)
        snapshot = self._store.snapshot
        readers: list[Callable[[], LocalFeatures]] = [
            partial(read_images, address, _places(snapshot, self._keys[block])) for block in self._blocks
        ]
        return ChunksElsewhere(readers, partial(scratch_folder, self._store.path))

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self._blocks)

    def __iter__(self) -> Iterator[LocalFeatures]:
        return (self._read(self._keys[block]) for block in self._blocks)


def _places(snapshot: Snapshot, keys: Sequence[int]) -> list[tuple[ShardRecord, list[int]]]:
    """Return where images lie: shards, and rows of each."""
    found: list[tuple[ShardRecord, list[int]]] = []
    for key in keys:
        shard, row = snapshot.images[key].place
        if not found or found[-1][0].shard != shard:
            found.append((snapshot.shards[shard], []))
        found[-1][1].append(row)
    return found


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
