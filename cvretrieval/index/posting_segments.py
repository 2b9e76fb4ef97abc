"""The posting lists of an index: blocks of images, merged as they grow, each one fast to search and small on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.posting_lists import copy_postings, count_images, count_kept
from cvretrieval._kernels.posting_scores import BLOCK_IMAGES
from cvretrieval.index.index_folder import ArrayFile

#: A segment with so many postings is not made longer.
MOST_POSTINGS = 2**25


@dataclass(frozen=True, eq=False)
class Postings:
    """The posting lists of a segment; arrays as in `cvretrieval._kernels.posting_lists`."""

    words: NDArray[np.int32]
    starts: NDArray[np.uint32]
    images: NDArray[np.uint16]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        # Also spares a second compilation of the kernels: numba tells read-only arrays from others.
        for array in (self.words, self.starts, self.images, self.values):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def of_rows(offsets: NDArray[np.int64], words: NDArray[np.int32], values: NDArray[Any]) -> Postings:
        """Return the lists of images given row by row: image i has the words ``offsets[i]:offsets[i + 1]``."""
        images = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint16), np.diff(offsets))
        rows = slice(offsets[0], offsets[-1])
        order = np.argsort(words[rows], kind="stable")
        ordered = words[rows][order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        starts = np.append(first, len(ordered)).astype(np.uint32)
        return Postings(ordered[first], starts, images[order], narrow(values[rows])[order])


def narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return counts in the smallest type that holds them exactly: uint8, uint16, float32; signatures as they are."""
    if values.ndim > 1 or values.dtype != np.float32:
        return values
    largest = values.max() if len(values) else 0
    if largest <= np.iinfo(np.uint16).max:
        kind = np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
        small = values.astype(kind)
        if np.array_equal(small, values):
            return small
    return values


@dataclass(frozen=True, eq=False)
class PostingSegment:
    """Consecutive images of an index and their posting lists.

    Attributes
    ----------
    keys : ndarray of shape (n_images,)
        int64; -1 for images that must not be found.
    postings : Postings
    files : mapping
        Files of the arrays that lie in the folder of the index.
    """

    keys: NDArray[np.int64]
    postings: Postings
    files: Mapping[str, ArrayFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys.setflags(write=False)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def n_live(self) -> int:
        """Number of images that can be found."""
        return int(np.count_nonzero(self.keys >= 0))

    @property
    def is_full(self) -> bool:
        """Whether it is not made longer."""
        return len(self) >= BLOCK_IMAGES or len(self.postings) >= MOST_POSTINGS

    @cached_property
    def frequency(self) -> NDArray[np.int64]:
        """Number of images that contain each word of the lists, removed ones left out."""
        frequency = np.empty(len(self.postings.words), dtype=np.int64)
        count_images(self.postings.starts, self.postings.images, self.keys, frequency)
        return frequency

    @cached_property
    def lookup(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys, ascending, and the images they belong to, or belonged to before they were removed."""
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], order

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the image of each key, -1 for keys that are not there."""
        own, images = self.lookup
        if not len(own):
            return np.full(len(keys), -1, dtype=np.int64)
        found = images[np.minimum(np.searchsorted(own, keys), len(own) - 1)]
        return np.where((self.keys[found] == keys) & (keys >= 0), found, -1)

    def without(self, images: NDArray[np.int64]) -> PostingSegment:
        """Return the same segment with images that cannot be found any more."""
        keys = self.keys.copy()
        keys[images] = -1
        files = {name: file for name, file in self.files.items() if name != "keys"}
        left = PostingSegment(keys, self.postings, files)
        left.__dict__["lookup"] = self.lookup
        return left

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        lists = self.postings
        return {
            "keys": self.keys, "words": lists.words, "starts": lists.starts, "images": lists.images,
            "values": lists.values,
        }  # fmt: skip

    @staticmethod
    def stored(arrays: Mapping[str, NDArray[Any]], files: Mapping[str, ArrayFile]) -> PostingSegment:
        """Return a segment of stored arrays; ValueError if they do not fit together."""
        lists = Postings(arrays["words"], arrays["starts"], arrays["images"], arrays["values"])
        kinds = [array.dtype for array in (arrays["keys"], lists.words, lists.starts, lists.images)]
        sizes = [len(lists.words) + 1, len(lists.images), int(lists.starts[-1]), len(arrays["keys"]) <= BLOCK_IMAGES]
        if kinds != [np.int64, np.int32, np.uint32, np.uint16] or sizes != [
            len(lists.starts), len(lists.values), len(lists.images), True,
        ]:  # fmt: skip
            raise ValueError(f"posting lists of {kinds} with sizes {sizes}")
        return PostingSegment(arrays["keys"], lists, files)

    @staticmethod
    def join(parts: Sequence[PostingSegment]) -> PostingSegment:
        """Return the images of all parts that can be found, renumbered; at most `BLOCK_IMAGES`."""
        numbers = np.full((len(parts), BLOCK_IMAGES), -1, dtype=np.int32)
        n_images = 0
        for part, own in zip(parts, numbers, strict=True):
            live = np.flatnonzero(part.keys >= 0)
            own[live] = np.arange(n_images, n_images + len(live))
            n_images += len(live)
        words = np.unique(np.concatenate([part.postings.words for part in parts]))
        places = [np.searchsorted(words, part.postings.words) for part in parts]
        sizes = np.zeros(len(words), dtype=np.int64)
        for part, place, own in zip(parts, places, numbers, strict=True):
            count_kept(part.postings.starts, part.postings.images, place, own, sizes)
        starts = np.append(np.zeros(1, dtype=np.int64), np.cumsum(sizes))
        ends = starts[:-1].copy()
        images = np.empty(starts[-1], dtype=np.uint16)
        widest = np.result_type(*(part.postings.values.dtype for part in parts))
        values = np.empty((int(starts[-1]), *parts[0].postings.values.shape[1:]), dtype=widest)
        for part, place, own in zip(parts, places, numbers, strict=True):
            lists = part.postings
            copy_postings(lists.starts, lists.images, _as_table(lists.values), place, own, ends, images,
                          _as_table(values))  # fmt: skip
        kept = sizes > 0
        lists = Postings(words[kept], starts[np.append(kept, True)].astype(np.uint32), images, values)
        return PostingSegment(np.concatenate([part.keys[part.keys >= 0] for part in parts]), lists)


def _as_table(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 2 else values.reshape(-1, 1)


class PostingSegments:
    """An immutable sequence of segments: what one search sees, whatever is added or removed meanwhile."""

    def __init__(self, segments: Sequence[PostingSegment] = ()) -> None:
        self.segments = tuple(segments)

    @cached_property
    def n_live(self) -> int:
        """Number of images that can be found."""
        return sum(segment.n_live for segment in self.segments)

    @property
    def n_images(self) -> int:
        """Number of images held, removed ones included."""
        return sum(len(segment) for segment in self.segments)

    @property
    def n_postings(self) -> int:
        """Number of postings held, those of removed images included."""
        return sum(len(segment.postings) for segment in self.segments)

    def room(self) -> tuple[int, int]:
        """Return how many images and postings may follow before the last segments are full together."""
        pending = self._pending()
        images = sum(len(segment) for segment in pending)
        postings = sum(len(segment.postings) for segment in pending)
        return BLOCK_IMAGES - images, max(1, MOST_POSTINGS - postings)

    def add(self, new: PostingSegment) -> PostingSegments:
        """Return these segments and a new one, whose keys are new and for which there is room.

        Segments are joined with following ones of at least their size, as a binary counter carries: each posting is
        copied a logarithmic number of times. When they are full together, they become one for good.
        """
        images, postings = self.room()
        if len(new) >= images or len(new.postings) >= postings:
            pending = self._pending()
            kept = self.segments[: len(self.segments) - len(pending)]
            return PostingSegments((*kept, PostingSegment.join([*pending, new]) if pending else new))
        segments, carried = list(self.segments), [new]
        size = len(new)
        while segments and not segments[-1].is_full and len(segments[-1]) <= size:
            carried.insert(0, segments.pop())
            size += len(carried[0])
        return PostingSegments((*segments, PostingSegment.join(carried) if len(carried) > 1 else new))

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the segment and image of each key, (n_keys, 2); -1, -1 for keys that are not there."""
        found = np.full((len(keys), 2), -1, dtype=np.int64)
        for number, segment in enumerate(self.segments):
            images = segment.find(keys)
            is_here = images >= 0
            found[is_here, 0], found[is_here, 1] = number, images[is_here]
        return found

    def remove(self, places: NDArray[np.int64]) -> PostingSegments:
        """Return these segments without images, given as by `find`; segments left empty go."""
        segments = list(self.segments)
        for number in np.unique(places[:, 0]):
            segments[number] = segments[number].without(places[places[:, 0] == number, 1])
        return PostingSegments([segment for segment in segments if segment.n_live])

    def compact(self) -> PostingSegments:
        """Return the images that can be found in as few segments as there can be, without joining full ones."""
        groups: list[list[PostingSegment]] = []
        images = postings = 0
        for segment in self.segments:
            images, postings = images + segment.n_live, postings + len(segment.postings)
            if not groups or images > BLOCK_IMAGES or postings > MOST_POSTINGS:
                groups.append([])
                images, postings = segment.n_live, len(segment.postings)
            groups[-1].append(segment)
        return PostingSegments(
            [
                group[0] if len(group) == 1 and group[0].n_live == len(group[0]) else PostingSegment.join(group)
                for group in groups
            ]
        )

    def _pending(self) -> list[PostingSegment]:
        """Return the last segments that are not full."""
        first = len(self.segments)
        while first and not self.segments[first - 1].is_full:
            first -= 1
        return list(self.segments[first:])
