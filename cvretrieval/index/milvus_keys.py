"""An index whose vectors are in Milvus: which of them it holds, and where that is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from cvretrieval._validation import StoreError
from cvretrieval.index.checks import check_keys, name_keys
from cvretrieval.index.index_folder import ArrayFile, IndexFolder
from cvretrieval.index.milvus_collection import Collection, exists
from cvretrieval.index.milvus_search import Held
from cvretrieval.index.milvus_service import check_uri, disconnect
from cvretrieval.index.stored import StoredIndex

Self = TypeVar("Self", bound="KeysOfMilvus")

_NONE = np.empty(0, dtype=np.int64)


class KeysOfMilvus(StoredIndex):
    """The keys of vectors that are in a collection of Milvus; its class says what they are and how they are found."""

    uri: str | os.PathLike[str]
    collection: str | None

    _held: Held
    _n_dims: int | None
    _collection: Collection | None

    def _start(self) -> None:
        """Hold no vectors."""
        self._held = Held(_NONE, _NONE)
        # Keys under which Milvus may hold what is not in the index.
        self._gone = _NONE
        self._n_dims = None
        self._collection = None
        self._folder: IndexFolder | None = None

    def _new_collection(self, n_dims: int) -> Collection:
        """Return the collection as it would be made, under a new name if it has none."""
        raise NotImplementedError

    @property
    def n_dims(self) -> int | None:
        """Dimension of the vectors; None before the first ones."""
        return self._n_dims

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys of the vectors that can be found, ascending."""
        held = self._held
        return np.sort(np.concatenate([held.keys, held.zeros]))

    def __len__(self) -> int:
        """Return the number of vectors that can be found."""
        return len(self._held)

    def remove(self: Self, keys: Any) -> Self:
        """Remove vectors, which Milvus deletes with the next `flush`.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        MilvusIndex
            The index itself.

        Raises
        ------
        KeyError
            If a key is not in the index. Nothing is removed then.
        """
        wanted = np.unique(self._check_held(keys))
        held = self._held
        self._gone = np.union1d(self._gone, np.intersect1d(held.keys, wanted, assume_unique=True))
        left, zeros = (np.setdiff1d(own, wanted, assume_unique=True) for own in (held.keys, held.zeros))
        self._held = Held(left, zeros, held.longest)
        return self

    def compact(self: Self) -> Self:
        """Delete from Milvus whatever is in the collection and not in the index, such as a crash has left there."""
        if self._collection is not None:
            strays = np.setdiff1d(self._collection.list_keys(), self._held.keys, assume_unique=True)
            self._gone = np.union1d(self._gone, strays)
            self._sweep()
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write address and keys to a new folder; see `StoredIndex.save`. The vectors stay in Milvus."""
        written = super().save(path)
        self._sweep()
        return written

    def flush(self: Self) -> Self:
        """Commit what was added and removed, then delete what was removed from Milvus; return the index.

        Raises
        ------
        StoreError
            If the folder cannot be written, another process has written to it, or Milvus cannot be reached.
        """
        super().flush()
        if self._folder is not None:
            self._sweep()
        return self

    def claim(self: Self) -> Self:
        """Return this index, empty, with a collection that nobody has: a new name, or the given one if it is free.

        Raises
        ------
        ValueError
            If the collection exists.
        StoreError
            If Milvus cannot be reached.
        """
        own = clone(self)
        place = own._new_collection(0)
        if exists(place.uri, place.name):
            raise ValueError(
                f"Milvus at {place.uri} has a collection {place.name!r} already, which may belong to another index. "
                "Choose another name, or give none for a new one."
            )
        return own.set_params(collection=place.name)

    def drop(self) -> None:
        """Delete the collection from Milvus; the index is empty then."""
        place = self._collection
        if place is None and self.collection is not None:
            place = self._new_collection(0)
        if place is not None:
            place.drop()
        self._held, self._gone, self._collection = Held(_NONE, _NONE), _NONE, None

    def close(self) -> None:
        """Close the connection of this process; of Milvus Lite, so that another process may use it."""
        disconnect(check_uri(self.uri))

    def _sweep(self) -> None:
        """Delete from Milvus what is not in the index."""
        if self._collection is None:
            return
        if len(self._gone):
            self._collection.delete(self._gone)
            self._gone = _NONE
        self._collection.seal()

    def _check_held(self, keys: Any) -> NDArray[np.int64]:
        wanted = check_keys(keys)
        missing = wanted[~(np.isin(wanted, self._held.keys) | np.isin(wanted, self._held.zeros))]
        if len(missing):
            raise KeyError(f"Not in the index: {name_keys(np.unique(missing))}.")
        return wanted

    # -- storing it

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        held, place = self._held, self._collection
        params = {name: value for name, value in self.get_params(deep=False).items() if name != "n_jobs"}  # type: ignore[attr-defined]
        facts = {
            "params": {**params, "uri": check_uri(self.uri)},
            "place": None if place is None else place.name,
            "n_dims": self._n_dims,
            "longest": held.longest,
        }
        return {"keys": held.keys, "zeros": held.zeros, "gone": self._gone}, facts

    @classmethod
    def _from_facts(cls: type[Self], facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> Self:
        index = cls(**facts["params"])
        index._n_dims = facts["n_dims"]
        index._held = Held(shared["keys"], shared["zeros"], facts["longest"])
        index._gone = shared["gone"]
        if facts["place"] is not None:
            named = clone(index).set_params(collection=facts["place"])
            index._collection = named._new_collection(int(facts["n_dims"]))
        return index

    @classmethod
    def open(cls: type[Self], path: str | os.PathLike[str], *, n_jobs: int | None = None, verify: bool = True) -> Self:
        """Open a folder written by `save`.

        Parameters
        ----------
        path : path
            The folder.
        n_jobs : int, optional
            As for the index.
        verify : bool, default=True
            Read all keys from Milvus and see that none is missing; False compares their number only.

        Raises
        ------
        StoreError
            If it is no index of this class, damaged, or of a newer format; if Milvus cannot be reached, or has not (all
            of) the vectors.
        """
        index = super().open(path, n_jobs=n_jobs, verify=verify)
        place = index._collection
        if place is None:
            return index
        place.open()
        held = index._held.keys
        n_missing = len(held) - place.count()
        if n_missing <= 0 and verify:
            n_missing = len(np.setdiff1d(held, place.list_keys(), assume_unique=True))
        if n_missing > 0:
            # A writer commits before it deletes: if it has, the folder says so now.
            if index._folder is not None and index._folder.read().commit != index._folder.commit:
                return cls.open(path, n_jobs=n_jobs, verify=verify)
            raise StoreError(
                f"{n_missing} of {len(held)} vectors are missing in the collection {place.name!r} of Milvus at "
                f"{place.uri}. Build the index again."
            )
        return index

    def _keep_shared(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._held = Held(arrays["keys"], arrays["zeros"], self._held.longest)
        self._gone = arrays["gone"]

    def _segment_list(self) -> list[Any]:
        return []

    def _set_segments(
        self, stored: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, ArrayFile]]], facts: Mapping[str, Any]
    ) -> None:
        for keys in (self._held.keys, self._held.zeros, self._gone):
            if keys.ndim != 1 or keys.dtype != np.int64:
                raise ValueError(f"keys of type {keys.dtype} and shape {keys.shape}")

    def _replace_segments(self, segments: list[Any]) -> None:
        pass
