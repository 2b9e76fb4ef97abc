"""An index of posting lists: adding, removing, taking back and storing images, whatever they are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvretrieval.index.checks import check_keys, check_new_keys, name_keys
from cvretrieval.index.index_folder import ArrayFile, IndexFolder
from cvretrieval.index.posting_rows import gather
from cvretrieval.index.posting_segments import Postings, PostingSegment, PostingSegments
from cvretrieval.index.sparse_checks import WordRows, check_word_rows
from cvretrieval.index.stored import StoredIndex, n_bytes

Self = TypeVar("Self", bound="PostingIndex")


class PostingIndex(StoredIndex):
    """Images as posting lists, updatable; its class says what it takes (`_check_form`) and how it searches."""

    exact = True

    _large_arrays: ClassVar[tuple[str, ...]] = ("images", "values")

    _segments: PostingSegments
    #: No images, but of the form of those in the index; None before the first ones.
    _example: WordRows | None

    def _start(self) -> None:
        """Hold no images."""
        self._segments = PostingSegments()
        self._example = None
        self._folder: IndexFolder | None = None

    def __len__(self) -> int:
        """Return the number of images held, those without features included."""
        return self._segments.n_live

    @property
    def n_dims(self) -> int | None:
        """Number of words; None before the first images."""
        return None if self._example is None else self._example.n_words

    def add(self: Self, keys: Any, vectors: Any) -> Self:
        """Add images.

        Parameters
        ----------
        keys : array-like of shape (n_images,)
            Integers, each 0 or more and in the index at most once. A row with key -1 is not kept, whatever is in it.
        vectors : CSR matrix or array-like of shape (n_images, n_words), or VisualWords
            Bags of words: counts or other numbers, none negative; or words with signatures. By `metric`.

        Returns
        -------
        InvertedIndex
            The index itself.

        Raises
        ------
        ValueError
            If a key is in the index (remove it first), or the images are not as above. Nothing is added then.
        """
        self._check_parameters()
        labels = np.asarray(keys)
        rows = check_word_rows("Vectors", vectors, labels if labels.ndim == 1 and labels.dtype.kind in "iu" else None)
        new = check_new_keys(keys, len(rows))
        self._check_rows("Vectors", rows)
        self._refuse_known(new)
        segments = self._segments
        start = 0
        while start < len(rows):
            images, postings = segments.room()
            # The last image may have more postings than there is room for, so that there is always one.
            last = int(np.searchsorted(rows.offsets, rows.offsets[start] + postings))
            stop = min(start + images, max(last, start + 1), len(rows))
            part = Postings.of_rows(rows.offsets[start : stop + 1], rows.words, rows.values)
            segment = PostingSegment(new[start:stop].copy(), part)
            if segment.n_live < len(segment):
                segment = PostingSegment.join([segment])
            if len(segment):
                segments = segments.add(segment)
            start = stop
        self._example = rows.like()
        self._segments = segments
        return self

    def remove(self: Self, keys: Any) -> Self:
        """Remove images.

        Their postings are kept until `compact`, or until their segment is merged with another.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        InvertedIndex
            The index itself.

        Raises
        ------
        KeyError
            If a key is not in the index. Nothing is removed then.
        """
        places = np.unique(self._find(keys), axis=0)
        if len(places):
            self._segments = self._segments.remove(places)
        return self

    def compact(self: Self) -> Self:
        """Free the memory of removed images, and join segments that are not full."""
        self._segments = self._segments.compact()
        return self

    def reconstruct(self, keys: Any) -> Any:
        """Return stored images; the lists of their segments are read once from end to end.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        CSR array of shape (n_keys, n_words) or VisualWords
            float32, or words with signatures, in the order of the keys.

        Raises
        ------
        KeyError
            If a key is not in the index.
        """
        return gather(self._segments.segments, self._find(keys), self._example)

    def stats(self) -> dict[str, Any]:
        """Return facts.

        Returns
        -------
        dict
            ``n_vectors``, images held; ``n_removed``, those whose postings are still there; ``n_dims``; ``n_segments``;
            ``n_postings``; ``n_bytes`` of all arrays, in memory or on disk, and ``bytes_per_posting``.
        """
        segments = self._segments
        size = n_bytes(self._segment_list())
        return {
            "n_vectors": segments.n_live,
            "n_removed": segments.n_images - segments.n_live,
            "n_dims": self.n_dims,
            "n_segments": len(segments.segments),
            "n_postings": segments.n_postings,
            "n_bytes": size,
            "bytes_per_posting": size / segments.n_postings if segments.n_postings else 0.0,
        }

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _check_form(self, name: str, rows: WordRows) -> None:
        """Refuse rows that the index does not compare."""
        raise NotImplementedError

    def _check_rows(self, name: str, rows: WordRows) -> None:
        self._check_form(name, rows)
        held = self._example
        if held is None or rows.form == held.form:
            return
        if rows.values.ndim == held.values.ndim == 1:
            raise ValueError(f"{name} have {rows.n_words} dimensions, but the index holds {held.n_words}-d vectors.")
        raise ValueError(f"{name} are {rows.form}, but the index holds {held.form}.")

    def _find(self, keys: Any) -> NDArray[np.int64]:
        """Return the segment and image of keys that must be in the index."""
        wanted = check_keys(keys)
        places = self._segments.find(wanted)
        missing = places[:, 0] < 0
        if missing.any():
            raise KeyError(f"Not in the index: {name_keys(np.unique(wanted[missing]))}.")
        return places

    def _refuse_known(self, keys: NDArray[np.int64]) -> None:
        known = keys[self._segments.find(keys)[:, 0] >= 0]
        if len(known):
            raise ValueError(
                f"Keys are in the index already: {name_keys(np.sort(known))}. "
                "Remove them first to replace their vectors."
            )

    # -- storing it

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        params = {name: value for name, value in self.get_params().items() if name != "n_jobs"}  # type: ignore[attr-defined]
        shared = {name: np.asarray(value) for name, value in params.items() if not isinstance(value, _PLAIN)}
        params = {name: value for name, value in params.items() if name not in shared}
        example = self._example
        if example is not None:
            shared["example"] = example.values
        form = None if example is None else [example.n_words, example.n_bits]
        return shared, {"params": params, "form": form}

    @classmethod
    def _from_facts(cls: type[Self], facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> Self:
        arrays = {name: array for name, array in shared.items() if name != "example"}
        index = cls(**facts["params"], **arrays)
        if facts["form"] is not None:
            empty = np.empty(0, dtype=np.int32)
            index._example = WordRows(np.zeros(1, dtype=np.int64), empty, shared["example"], *facts["form"])
        return index

    def _segment_list(self) -> list[PostingSegment]:
        return list(self._segments.segments)

    def _set_segments(
        self, stored: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, ArrayFile]]], facts: Mapping[str, Any]
    ) -> None:
        segments = [PostingSegment.stored(arrays, files) for arrays, files in stored]
        for segment in segments:
            words, values = segment.postings.words, segment.postings.values
            if self._example is None or values.shape[1:] != self._example.values.shape[1:]:
                raise ValueError(f"posting lists with values of shape {values.shape}")
            if len(words) and not 0 <= words[0] <= words[-1] < self._example.n_words:
                raise ValueError(f"words from {words[0]} to {words[-1]} of {self._example.n_words}")
        self._replace_segments(segments)

    def _replace_segments(self, segments: list[PostingSegment]) -> None:
        self._segments = PostingSegments(segments)


_PLAIN = (str, int, float, bool, type(None))
