"""What a manifest says: the images of a store, its shards and their files, as of one commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cvretrieval._validation import StoreError


class ImageRecord(NamedTuple):
    """One image of an index; a tuple, because an index may have millions.

    Attributes
    ----------
    id : str
        Its name, unique.
    path : str or None
        Absolute path of the file; None for images that were no files.
    size, mtime_ns : int
        Of the file when it was read, to tell whether it changed.
    status : {"ok", "empty", "failed"}
        "empty": no features, never found. "failed": could not be read, see `reason`.
    reason : str
        Why a failed image could not be read; of another image, why a later version of its file could not.
    width, height : int
        Pixels of the original image; 0 if unknown.
    n_features : int
        Number of its local features.
    key : int
        Number given by the store, never used twice; -1 before.
    shard, row : int or None
        Where its features and vector lie; None for failed images.
    """

    id: str
    path: str | None = None
    size: int = 0
    mtime_ns: int = 0
    status: str = "ok"
    reason: str = ""
    width: int = 0
    height: int = 0
    n_features: int = 0
    key: int = -1
    shard: int | None = None
    row: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Shard and row.

        Raises
        ------
        KeyError
            If the image could not be read and so lies nowhere.
        """
        if self.shard is None or self.row is None:
            raise KeyError(f"{self.id!r} could not be read and has no features.")
        return self.shard, self.row


@dataclass(frozen=True)
class ArrayRecord:
    """One file of a shard as it was written: its size, and its BLAKE2b digest of 16 bytes."""

    n_bytes: int
    digest: bytes


@dataclass(frozen=True)
class ShardRecord:
    """One shard: its number, its rows, and its files by name without suffix."""

    shard: int
    n_images: int
    n_descriptors: int
    arrays: Mapping[str, ArrayRecord] = field(default_factory=dict)

    @property
    def encoded(self) -> bool:
        """Whether its images have vectors, or the like."""
        return "vectors" in self.arrays or "vector_offsets" in self.arrays

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(array.n_bytes for array in self.arrays.values())


class Totals(NamedTuple):
    """What the images of a snapshot sum up to.

    Attributes
    ----------
    n_images : int
        Images that could be read.
    n_failed : int
        Images that could not, in their present version or at all.
    n_features : int
        Local features of all.
    """

    n_images: int
    n_failed: int
    n_features: int


@dataclass(frozen=True)
class Change:
    """What a commit does to the images of a store.

    Attributes
    ----------
    new : list of ImageRecord
        Inserted.
    kept : list of ImageRecord
        Given a reason, for a later version of their file could not be read.
    replaced : list of ImageRecord
        Deleted, for `new` holds another image of their id.
    """

    new: list[ImageRecord] = field(default_factory=list)
    kept: list[ImageRecord] = field(default_factory=list)
    replaced: list[ImageRecord] = field(default_factory=list)


class Snapshot:
    """The committed state of a store: everything its manifest says at one instant.

    Attributes
    ----------
    generation : int
        Grows with every commit.
    model : bytes or None
        Digest of the file with what the encoder learned; None before.
    images : dict of int to ImageRecord
        By key, in the order they were added.
    shards : dict of int to ShardRecord
        By number.
    """

    def __init__(
        self, generation: int, model: bytes | None, images: Iterable[ImageRecord], shards: Iterable[ShardRecord]
    ) -> None:
        self.generation = generation
        self.model = model
        self.images = {record.key: record for record in images}
        self.shards = {shard.shard: shard for shard in shards}
        self._known: dict[str, int] | None = None
        self._totals: Totals | None = None

    @property
    def totals(self) -> Totals:
        """Counts of all images; taken once, for it takes longer than a search."""
        if self._totals is None:
            images = self.images.values()
            self._totals = Totals(
                sum(record.status != "failed" for record in images),
                sum(record.reason != "" for record in images),
                sum(record.n_features for record in images),
            )
        return self._totals

    def find(self, name: str) -> ImageRecord | None:
        """Return the image of an id."""
        key = self._keys.get(name)
        return None if key is None else self.images[key]

    @property
    def _keys(self) -> dict[str, int]:
        if self._known is None:
            self._known = {record.id: record.key for record in self.images.values()}
        return self._known

    def change(self, records: Iterable[ImageRecord], shard: ShardRecord | None) -> Change:
        """Say what adding images does, whose readable ones fill the rows of a new shard in order."""
        change = Change()
        row = 0
        for record in records:
            old = self.find(record.id)
            if record.status == "failed" and old is not None and old.shard is not None:
                change.kept.append(old._replace(reason=f"{record.reason}; its earlier version stays in the index"))
                continue
            if old is not None:
                change.replaced.append(old)
            if shard is None or record.status == "failed":
                change.new.append(record)
            else:
                change.new.append(record._replace(shard=shard.shard, row=row))
                row += 1
        return change

    def apply(self, change: Change, shard: ShardRecord | None) -> None:
        """Take over one commit of this process: reading a large manifest again would take longer than writing it."""
        self.generation += 1
        self._totals = None
        if shard is not None:
            self.shards[shard.shard] = shard
        for record in change.replaced:
            del self.images[record.key]
        for record in (*change.kept, *change.new):
            self.images[record.key] = record
            self._keys[record.id] = record.key


class StaleSnapshotError(StoreError):
    """Another process compacted away what the snapshot names: take a new one and ask again."""
