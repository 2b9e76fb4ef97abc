"""Looking for damage: every byte of a store is read and compared with the checksums in its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvretrieval._parallel import progress_bar
from cvretrieval._validation import StoreError
from cvretrieval.retrieval.manifest import Manifest

if TYPE_CHECKING:
    from cvretrieval.retrieval.store import Store


@dataclass(frozen=True)
class Damage:
    """One damaged file of a store.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        What is wrong with it.
    ids : tuple of str
        The images whose features or vectors lie in it; empty for files of the whole store.
    """

    path: Path
    reason: str
    ids: tuple[str, ...] = ()


def find_damage(store: Store, manifest: Manifest, *, verbose: bool | int) -> list[Damage]:
    """Check an open store; see `Store.check`."""
    found = []
    complaint = manifest.damage()
    if complaint:
        found.append(Damage(manifest.path, complaint))
    try:
        store.read_model()
    except StoreError as error:
        found.append(Damage(store.model_path, str(error)))
    ids: dict[int, list[str]] = {}
    for record in store.records():
        if record.shard is not None:
            ids.setdefault(record.shard, []).append(record.id)
    # A shard whose images have all been removed may be as damaged as it likes.
    shards = [shard for shard in store.shard_records() if shard.shard in ids]
    with progress_bar(total=len(shards), description="checking", unit="shard", verbose=verbose) as bar:
        for shard in shards:
            for path, reason in store.open_shard(shard.shard).damage():
                found.append(Damage(path, reason, tuple(ids[shard.shard])))
            bar.update()
    return found
