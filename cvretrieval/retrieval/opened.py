"""The open index behind a retriever: the snapshot it reads, the learned stages, the engine."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from cvretrieval.index import DenseIndex
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval import configuration, moving
from cvretrieval.retrieval.engine import Engine
from cvretrieval.retrieval.records import StaleSnapshotError
from cvretrieval.retrieval.stages import Stages
from cvretrieval.retrieval.store import Store


class OpenedIndex:
    """What `ImageRetriever` holds while its index is open, and how that follows what writers commit."""

    location: str | os.PathLike[str] | None
    index: Any
    metric: str
    n_jobs: int | None

    path_: Path
    encoder_: Any
    _store: Store
    _stages: Stages
    _engine: Engine

    def close(self) -> None:
        """Release the files of the index; a temporary index is deleted."""
        if hasattr(self, "_store"):
            self._engine.close(is_temporary=getattr(self, "_cleanup", None) is not None)
            self._store.close()
            del self._store
        if getattr(self, "_cleanup", None) is not None:
            self._cleanup()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_store")

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_store"):
            raise TypeError("A fitted ImageRetriever cannot be pickled; use save(path) and ImageRetriever.load(path).")
        return dict(super().__getstate__())  # type: ignore[misc]

    def change_index(self, index: Any) -> Any:
        """Move the vectors to another engine, of the same kind; the images are not touched.

        Parameters
        ----------
        index : VectorIndex
            Without vectors: `DenseIndex`, `FaissIndex` or `MilvusIndex` for dense ones, `InvertedIndex` or
            `MilvusIndex` for bags of words.

        Returns
        -------
        ImageRetriever
            The retriever itself.

        Raises
        ------
        ValueError
            If the engine does not hold vectors of this kind.
        StoreError
            If the index is being written to, or the engine cannot be reached. An interruption later than that leaves
            the engine to be filled by the next search or `add`.
        """
        self._check_open()
        configuration.check_engine(index)
        with Store.open(self.path_, mode="w") as store:
            own = moving.change_engine(store, self._template(), index)
            self._store.config = store.config
            self.index = None if store.config["index"] is None else own
            self.metric = store.config["metric"]
            self._engine.clear(store)
            self._write_engine(store)
        self._reload()
        return self

    def _check_open(self) -> None:
        check_is_fitted(self)

    def _new_location(self) -> tuple[Path, Any]:
        if self.location is not None:
            return Path(self.location), None
        folder = tempfile.mkdtemp(prefix="cvretrieval-")
        return Path(folder, "index.cvr"), weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def _attach(self, path: Path, stages: Stages, cleanup: Any, store: Store | None = None) -> None:
        """Be an index from now on: that at `path`, opened for reading unless the open store is given."""
        self.close()
        self.path_ = Path(os.path.abspath(path))
        self.encoder_ = stages.encoder
        self._stages = stages
        self._cleanup = cleanup
        self._store = Store.open(path, mode="r") if store is None else store
        self._engine = Engine()
        self._learn_from(self._store)

    def _template(self) -> Any:
        """Return the engine as it is configured, without vectors."""
        if self.index is None:
            return DenseIndex(metric=self.metric)
        return moving.template(self.index, getattr(self, "_store", None))

    def _current_engine(self) -> Any:
        """Return the engine as of the snapshot that is read."""
        return self._engine.current(self._store, self._template(), self.n_jobs)

    def _write_engine(self, store: Store, *, compact: bool = False) -> None:
        """Bring the stored engine up to date with what was committed to an open, locked store."""
        self._engine.write(store, self._template(), self.n_jobs, compact=compact)

    def _read_features(self, keys: Sequence[int]) -> LocalFeatures:
        try:
            return self._stages.decode(self._store.features(keys))
        except StaleSnapshotError:
            # Compacted by another process since; one of the images may also have been removed, which is said then.
            self._reload()
            return self._stages.decode(self._store.features(keys))

    def _reload(self) -> None:
        """See what writers committed meanwhile."""
        if self._store.reload():
            self._learn_from(self._store)

    def _learn_from(self, store: Store) -> None:
        """Take over what the encoder has learned in another process."""
        if self._stages.model != store.model:
            self._stages = configuration.learned_stages(store, self._stages.extractor, self._stages.kind)
            self.encoder_ = self._stages.encoder
