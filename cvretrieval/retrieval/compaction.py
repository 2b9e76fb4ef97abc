"""Compaction: live rows into new shards, a few old shards at a time; those go after the commit.

A compaction that is cut off keeps what it has done, and needs the space of one new shard at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cvretrieval._parallel import progress_bar
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.manifest import Manifest
from cvretrieval.retrieval.records import ImageRecord, ShardRecord
from cvretrieval.retrieval.rows import Rows, join_rows
from cvretrieval.retrieval.shards import Shard, shard_folder, write_shard

if TYPE_CHECKING:
    from cvretrieval.retrieval.store import Store

# Bounds the memory of a compaction, and of a reader's page faults when it opens one shard.
SHARD_BYTES = 256_000_000


def compact(store: Store, manifest: Manifest, *, verbose: bool | int) -> None:
    """Rewrite the shards of an open, locked store; see `Store.compact`."""
    live: dict[int, list[ImageRecord]] = {}
    for record in store.records():
        if record.shard is not None:
            live.setdefault(record.shard, []).append(record)
    for records in live.values():
        records.sort(key=lambda record: record.place)
    shards = store.shard_records()
    batches = _batches(shards, live)
    dead = [shard.shard for shard in shards if shard.shard not in live]
    if dead:
        with manifest.transaction():
            manifest.remove_shards(dead)
        _delete(store, dead)
    total = sum(len(live[shard.shard]) for batch in batches for shard in batch)
    with progress_bar(total=total, description="compacting", verbose=verbose) as bar:
        for batch in batches:
            records = [record for shard in batch for record in live[shard.shard]]
            features, vectors = _gather(store, batch, live)
            new = write_shard(store.path / "shards", manifest.next_shard(), len(records), features, vectors)
            moved = [record._replace(shard=new.shard, row=row) for row, record in enumerate(records)]
            old = [shard.shard for shard in batch]
            with manifest.transaction():
                manifest.add_shard(new)
                manifest.move_images(moved)
                manifest.remove_shards(old)
            _delete(store, old)
            bar.update(len(records))


def _batches(shards: Sequence[ShardRecord], live: dict[int, list[ImageRecord]]) -> list[list[ShardRecord]]:
    """List which shards are to be made one, among those with the same arrays.

    A shard without removed rows stays as it is if it is large, or alone.
    """
    batches: list[list[ShardRecord]] = []
    kinds = sorted({tuple(sorted(shard.arrays)) for shard in shards})
    for kind in kinds:
        n_bytes = np.inf
        for shard in shards:
            if shard.shard not in live or tuple(sorted(shard.arrays)) != kind:
                continue
            share = len(live[shard.shard]) / shard.n_images
            if share == 1 and shard.n_bytes > SHARD_BYTES / 2:
                continue
            if n_bytes + share * shard.n_bytes > SHARD_BYTES:
                batches.append([])
                n_bytes = 0.0
            batches[-1].append(shard)
            n_bytes += share * shard.n_bytes
    return [batch for batch in batches if len(batch) > 1 or len(live[batch[0].shard]) < batch[0].n_images]


def _gather(
    store: Store, batch: Sequence[ShardRecord], live: dict[int, list[ImageRecord]]
) -> tuple[LocalFeatures | None, Rows | None]:
    """Copy the live rows out of shards, which are open one at a time."""
    features: list[LocalFeatures] = []
    vectors: list[Rows] = []
    for record in batch:
        shard = Shard(store.path / "shards", record)
        rows = [image.place[1] for image in live[record.shard]]
        if shard.features is not None:
            features.append(shard.features[rows])
        if shard.vectors is not None:
            vectors.append(shard.vectors[rows])
    return LocalFeatures.concatenate(features) if features else None, join_rows(vectors) if vectors else None


def _delete(store: Store, numbers: Sequence[int]) -> None:
    # Readers that have the files open keep them; what cannot be deleted goes with the next writer.
    store.forget_shards(numbers)
    for number in numbers:
        shutil.rmtree(shard_folder(store.path / "shards", number), ignore_errors=True)
