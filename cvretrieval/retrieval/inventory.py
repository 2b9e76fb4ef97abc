"""What is in a store, counted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvretrieval.retrieval.description import read_description
from cvretrieval.retrieval.rows import ROW_ARRAYS

if TYPE_CHECKING:
    from cvretrieval.retrieval.store import Store

#: Folder of a store that holds its index engine.
ENGINE_FOLDER = "engine"


def take(store: Store) -> dict[str, Any]:
    """Return counts, bytes, format and versions of an open store; see `Store.info`."""
    description = read_description(store.path)
    shards = store.shard_records()
    pending = {shard.shard for shard in shards if not shard.encoded}
    held = [record for record in store.records() if record.shard is not None]
    sizes = {"descriptors": 0, "keypoints": 0, "vectors": 0}
    for shard in shards:
        for name, array in shard.arrays.items():
            group = "vectors" if name in ROW_ARRAYS else name
            if group in sizes:
                sizes[group] += array.n_bytes
    sizes["engine"] = n_bytes(store.path / ENGINE_FOLDER)
    return {
        "path": str(store.path),
        "n_images": len(held),
        "n_empty": sum(record.status == "empty" for record in held),
        "n_failed": len(store.failures()),
        "n_removed": sum(shard.n_images for shard in shards) - len(held),
        "n_pending": sum(record.status == "ok" and record.shard in pending for record in held),
        "n_features": sum(record.n_features for record in held),
        "n_shards": len(shards),
        "n_bytes": n_bytes(store.path),
        **{f"n_bytes_{name}": size for name, size in sizes.items()},
        "format": description["format"],
        "versions": description["versions"],
    }


def n_bytes(folder: Path) -> int:
    """Return the size of all files in a folder; 0 if it does not exist."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # a writer is at work
                total += os.stat(os.path.join(parent, name)).st_size
    return total
