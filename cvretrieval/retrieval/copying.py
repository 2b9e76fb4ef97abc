"""Copying the committed state of a store, whatever its writer is doing meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvretrieval._durable import copy_file
from cvretrieval.retrieval.description import write_description
from cvretrieval.retrieval.durable_folders import build_store
from cvretrieval.retrieval.manifest import Manifest
from cvretrieval.retrieval.model_file import MODEL_FILE
from cvretrieval.retrieval.records import StaleSnapshotError
from cvretrieval.retrieval.shards import shard_folder

if TYPE_CHECKING:
    from cvretrieval.retrieval.store import Store


def copy_store(
    store: Store, manifest: Manifest, path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> Path:
    """Copy an open store to a new folder; see `Store.copy`."""

    def fill(folder: Path) -> None:
        (folder / "shards").mkdir()
        if config is None:
            copy_file(store.path / "index.json", folder / "index.json")
        else:
            write_description(folder, config)
        manifest.backup(folder / "manifest.sqlite")
        with contextlib.closing(Manifest(folder / "manifest.sqlite", writable=False)) as copied:
            state = copied.snapshot()
        if state.model is not None:
            copy_file(store.path / MODEL_FILE, folder / MODEL_FILE)
        for number, shard in state.shards.items():
            source, target = (shard_folder(root / "shards", number) for root in (store.path, folder))
            target.mkdir()
            for name in shard.arrays:
                try:
                    copy_file(source / f"{name}.npy", target / f"{name}.npy")
                except FileNotFoundError as error:
                    if manifest.generation() != state.generation:
                        raise StaleSnapshotError(f"{source} was compacted by another process.") from error
                    raise

    while True:
        with contextlib.suppress(StaleSnapshotError):
            build_store(Path(path), fill)
            return Path(path)
