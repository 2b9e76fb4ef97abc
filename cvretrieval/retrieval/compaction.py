"""Compaction: live rows into new shards, one commit, then the old shards go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cvretrieval._parallel import progress_bar
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.manifest import ImageRecord, Manifest, ShardRecord
from cvretrieval.retrieval.shards import write_shard

if TYPE_CHECKING:
    from cvretrieval.retrieval.store import Store

# Bounds the memory of a compaction, and of a reader's page faults when it opens one shard.
_SHARD_BYTES = 256_000_000


def compact(store: Store, manifest: Manifest, *, verbose: bool | int) -> None:
    """Rewrite the shards of an open, locked store; see `Store.compact`."""
    live: dict[int, list[ImageRecord]] = {}
    for record in store.records():
        if record.shard is not None:
            live.setdefault(record.shard, []).append(record)
    old = {shard.shard: shard for shard in store._shard_records.values()}
    places: list[tuple[int, int, int]] = []
    new: list[ShardRecord] = []
    number = manifest.next_shard()
    with progress_bar(total=sum(map(len, live.values())), description="compacting", verbose=verbose) as bar:
        for encoded in (True, False):
            numbers = [n for n, shard in sorted(old.items()) if shard.encoded == encoded and n in live]
            for batch in _batches(store, numbers, live):
                features, vectors = _gather(store, batch)
                write_shard(store.path / "shards", number, features, vectors)
                n_descriptors = 0 if features is None else features.n_descriptors
                new.append(ShardRecord(number, len(batch), n_descriptors, encoded))
                places += [(number, row, record.key) for row, record in enumerate(batch)]
                number += 1
                bar.update(len(batch))
    with manifest.transaction():
        for shard in new:
            manifest.add_shard(shard)
        manifest.move_images(places)
        manifest.remove_shards(old)


def _batches(store: Store, numbers: list[int], live: dict[int, list[ImageRecord]]) -> Any:
    """Yield lists of live records, each list about as large as a shard may be."""
    batch: list[ImageRecord] = []
    n_bytes = 0
    for number in numbers:
        shard = store._open_shard(number)
        per_descriptor = (
            0 if shard.features is None else shard.features.descriptors.dtype.itemsize * shard.features.n_dims
        )
        per_image = 0 if shard.vectors is None else shard.vectors.dtype.itemsize * shard.vectors.shape[1]
        for record in sorted(live[number], key=lambda record: record.row or 0):
            batch.append(record)
            n_bytes += per_image + record.n_features * (per_descriptor + 16)
            if n_bytes >= _SHARD_BYTES:
                yield batch
                batch, n_bytes = [], 0
    if batch:
        yield batch


def _gather(store: Store, batch: list[ImageRecord]) -> tuple[LocalFeatures | None, Any]:
    shards = {record.shard: store._open_shard(record.shard) for record in batch if record.shard is not None}
    features = vectors = None
    if all(shard.features is not None for shard in shards.values()):
        features = LocalFeatures.from_images(
            tuple(shards[record.shard].features[record.row])
            for record in batch  # type: ignore[index]
        )
    if all(shard.vectors is not None for shard in shards.values()):
        vectors = np.stack([shards[record.shard].vectors[record.row] for record in batch])  # type: ignore[index]
    return features, vectors
