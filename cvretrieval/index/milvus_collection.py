"""One collection of Milvus: its schema, and vectors that go in, out and away by key, or are found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._optional import import_optional
from cvretrieval._validation import StoreError
from cvretrieval.index.milvus_forms import Form
from cvretrieval.index.milvus_service import call, disconnect, is_embedded

#: Searches and queries see every write that was acknowledged before them, from whatever client.
CONSISTENCY = "Strong"
#: Milvus returns no longer lists.
LONGEST_LIST = 16_384

_KEY, _VECTOR = "image", "vector"
# A message to a server may have 64 MiB; vectors are about twice their size in it.
_BATCH_BYTES = 2**23
_BATCH_ROWS = 5000
# Keys that a filter or a deletion names: some 20 bytes each.
_NAMED_KEYS = 10_000


@dataclass(frozen=True)
class Structure:
    """What Milvus builds over the vectors, and how it is searched.

    Attributes
    ----------
    index_type : str
        Milvus's name.
    build, search : dict
        Milvus's parameters; of `search` ``ef`` is at least the length of the list.
    """

    index_type: str
    build: dict[str, Any]
    search: dict[str, Any]


@dataclass(frozen=True)
class Hits:
    """What a search has proposed for some queries.

    Attributes
    ----------
    keys : list of ndarray of shape (n_hits,)
        int64, of each query, best first.
    last : ndarray of shape (n_queries,)
        float64, Milvus's value of the last hit.
    rows : list
        The vectors of all hits, as Milvus returns them.
    """

    keys: list[NDArray[np.int64]]
    last: NDArray[np.float64]
    rows: list[Any]


@dataclass(frozen=True)
class Collection:
    """Vectors of one form and dimension in Milvus.

    Attributes
    ----------
    uri, name : str
    form : Form
    structure : Structure
    n_dims : int
    """

    uri: str
    name: str
    form: Form
    structure: Structure
    n_dims: int

    def ensure(self) -> None:
        """Make the collection, unless it is there as it would be made.

        Raises
        ------
        ValueError
            If it is there, and holds other vectors.
        StoreError
        """
        if exists(self.uri, self.name):
            self._check()
            return
        pymilvus = import_optional("pymilvus", "MilvusIndex")
        schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_KEY, pymilvus.DataType.INT64, is_primary=True)
        size = {"dim": self.n_dims} if self.form.has_fixed_size else {}
        schema.add_field(_VECTOR, getattr(pymilvus.DataType, self.form.data_type), **size)
        indexes = pymilvus.MilvusClient.prepare_index_params()
        indexes.add_index(
            _VECTOR, index_type=self.structure.index_type, metric_type=self.form.metric_type,
            params=dict(self.structure.build),
        )  # fmt: skip
        call(self.uri, "create_collection", self.name, schema=schema, consistency_level=CONSISTENCY)
        # Without waiting for it, which pymilvus does by the half second.
        call(self.uri, "create_index", self.name, indexes, sync=False)
        call(self.uri, "load_collection", self.name)

    def open(self) -> None:
        """Check that the collection is there, as it was made, and have it in Milvus's memory.

        Raises
        ------
        StoreError
        """
        if not exists(self.uri, self.name):
            raise StoreError(f"Milvus at {self.uri} has no collection {self.name!r} (any more). Build the index again.")
        try:
            self._check()
        except ValueError as error:
            raise StoreError(str(error)) from error
        call(self.uri, "load_collection", self.name)

    def upsert(self, keys: NDArray[np.int64], rows: Any) -> None:
        """Put vectors under keys, in batches, in place of what is there."""
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * len(keys) // max(1, self.form.n_bytes(rows))))
        for start in range(0, len(keys), size):
            part = slice(start, start + size)
            values = self.form.to_milvus(rows, part)
            data = [{_KEY: key, _VECTOR: value} for key, value in zip(keys[part].tolist(), values, strict=True)]
            call(self.uri, "upsert", self.name, data)

    def delete(self, keys: NDArray[np.int64]) -> None:
        """Delete what is under keys, those that are there."""
        for part in _parts(keys, _NAMED_KEYS):
            call(self.uri, "delete", self.name, ids=part.tolist())

    def seal(self) -> None:
        """Have an embedded Milvus write its newest vectors to their files, which it searches faster.

        A server does so by itself, and asks not to be told.
        """
        if is_embedded(self.uri):
            call(self.uri, "flush", self.name)

    def count(self) -> int:
        """Return the number of vectors that Milvus holds."""
        found = call(self.uri, "query", self.name, filter="", output_fields=["count(*)"], consistency_level=CONSISTENCY)
        return int(found[0]["count(*)"])

    def list_keys(self) -> NDArray[np.int64]:
        """Return all keys that Milvus holds, ascending: reads them all."""
        options = {"batch_size": _NAMED_KEYS, "output_fields": [_KEY], "consistency_level": CONSISTENCY}
        pages = call(self.uri, "query_iterator", self.name, **options)
        keys: list[int] = []
        try:
            while page := pages.next():
                keys += [int(row[_KEY]) for row in page]
        finally:
            pages.close()
        return np.unique(np.array(keys, dtype=np.int64))

    def fetch(self, keys: NDArray[np.int64], *, skip_missing: bool = False) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Yield keys, in their order, and their vectors, in parts.

        Raises
        ------
        StoreError
            If one is not there, unless those are to be skipped.
        """
        size = max(1, min(_NAMED_KEYS, _BATCH_BYTES // self.form.row_bytes(self.n_dims)))
        for part in _parts(keys, size):
            options = {"output_fields": [_KEY, _VECTOR], "consistency_level": CONSISTENCY}
            found = call(self.uri, "query", self.name, filter=_among(part), limit=len(part), **options)
            by_key = {int(row[_KEY]): row[_VECTOR] for row in found}
            missing = [key for key in part.tolist() if key not in by_key]
            if missing and skip_missing:
                part = part[np.isin(part, missing, invert=True)]  # noqa: PLW2901
            elif missing:
                raise StoreError(
                    f"{len(missing)} vectors (the first of key {missing[0]}) are gone from the collection "
                    f"{self.name!r} of Milvus at {self.uri}: something else has deleted them. Build the index again."
                )
            yield part, self.form.from_milvus([by_key[key] for key in part.tolist()], self.n_dims)

    def search(self, queries: list[Any], n: int, among: NDArray[np.int64] | None) -> Hits:
        """Return the best `n` for each query, of those vectors that Milvus holds, or of those under some keys."""
        parameters = dict(self.structure.search)
        if "ef" in parameters:
            parameters["ef"] = max(parameters["ef"], n)
        found = call(
            self.uri, "search", self.name, data=queries, anns_field=_VECTOR, limit=n,
            filter="" if among is None else _among(among), output_fields=[_VECTOR], consistency_level=CONSISTENCY,
            search_params={"metric_type": self.form.metric_type, "params": parameters},
        )  # fmt: skip
        keys = [np.array([hit[_KEY] for hit in hits], dtype=np.int64) for hits in found]
        last = np.array([hits[-1]["distance"] if len(hits) else -np.inf for hits in found], dtype=np.float64)
        return Hits(keys, last, [hit["entity"][_VECTOR] for hits in found for hit in hits])

    def drop(self) -> None:
        """Delete the collection with all that is in it."""
        if exists(self.uri, self.name):
            call(self.uri, "drop_collection", self.name)

    def close(self) -> None:
        """Close the connection."""
        disconnect(self.uri)

    def _check(self) -> None:
        where = f"The collection {self.name!r} of Milvus at {self.uri}"
        found = call(self.uri, "describe_collection", self.name)
        fields = {field["name"]: field for field in found["fields"]}
        if fields.keys() != {_KEY, _VECTOR} or not fields[_KEY].get("is_primary"):
            raise ValueError(f"{where} was not made by MilvusIndex. Choose another name, or give none for a new one.")
        held = getattr(fields[_VECTOR]["type"], "name", "")
        if held != self.form.data_type:
            raise ValueError(f"{where} holds vectors of type {held}, not {self.form.data_type}. Choose another name.")
        n_dims = int(fields[_VECTOR]["params"].get("dim", self.n_dims))
        if n_dims != self.n_dims:
            raise ValueError(
                f"{where} holds {n_dims}-d vectors, but these have {self.n_dims} dimensions. Choose another name, or "
                "drop it."
            )
        index = call(self.uri, "describe_index", self.name, index_name=_VECTOR) or {}
        made = index.get("index_type"), index.get("metric_type")
        if made != (self.structure.index_type, self.form.metric_type):
            raise ValueError(
                f"{where} was made with {made[0]} and {made[1]}, but this index has {self.structure.index_type} and "
                f"{self.form.metric_type}. Choose another name, or drop it."
            )


def exists(uri: str, name: str) -> bool:
    """Whether Milvus has a collection of this name."""
    return bool(call(uri, "has_collection", name))


def _among(keys: NDArray[np.int64]) -> str:
    return f"{_KEY} in [{','.join(map(str, keys.tolist()))}]"


def _parts(keys: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
