"""What changes to the images of a store must satisfy, and their commit: a shard and its rows in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cvretrieval.remote_files import absolute
from cvretrieval.retrieval.manifest import Manifest
from cvretrieval.retrieval.records import ImageRecord, ShardRecord, Snapshot


def check_rows(records: Sequence[ImageRecord], arrays: Mapping[str, Any]) -> int:
    """Return how many rows a shard of these images has; refuse arrays of another number, and an id given twice."""
    n_rows = sum(record.status != "failed" for record in records)
    for name, array in arrays.items():
        if array is not None and array.shape[0] != n_rows:
            raise ValueError(f"There are {n_rows} readable images, but {name} of {array.shape[0]}.")
    if len({record.id for record in records}) < len(records):
        raise ValueError("Two of the images have the same id.")
    return n_rows


def commit(manifest: Manifest, snapshot: Snapshot, records: Sequence[ImageRecord], shard: ShardRecord | None) -> None:
    """Name images, and the shard that holds the readable ones in order, in the manifest and in the snapshot."""
    change = snapshot.change(records, shard)
    with manifest.transaction():
        if shard is not None:
            manifest.add_shard(shard)
        manifest.remove_images(record.key for record in change.replaced)
        manifest.set_reasons(change.kept)
        keyed = manifest.add_images(change.new)
    snapshot.apply(replace(change, new=keyed), shard)


def find_all(snapshot: Snapshot, names: Sequence[str]) -> set[int]:
    """Return the keys of images by id, or by the path of their file.

    Raises
    ------
    KeyError
        Naming those that are not there.
    """
    by_path = {record.path: record for record in snapshot.images.values() if record.path is not None}
    found = {name: snapshot.find(name) or by_path.get(absolute(name)) for name in names}
    missing = [name for name, record in found.items() if record is None]
    if missing:
        more = ", …" if len(missing) > 5 else ""
        raise KeyError(f"Not in the index: {', '.join(map(repr, missing[:5]))}{more}. Nothing was removed.")
    return {record.key for record in found.values() if record is not None}
