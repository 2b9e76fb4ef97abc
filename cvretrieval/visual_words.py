"""`VisualWords`: the words of each image with a signature or residual each, what inverted files compare by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import describe_array


class ImageWords(NamedTuple):
    """The words of one image: views into a `VisualWords`."""

    words: NDArray[np.int32]
    signatures: NDArray[Any]


class VisualWords:
    """The visual words of a sequence of images, each with a signature; immutable by convention.

    Image ``i`` owns entries ``offsets[i]:offsets[i + 1]``. In Hamming embedding an entry is a feature, so a word may
    come several times; in aggregated match kernels it is a word. An image without features is two equal offsets.

    Parameters
    ----------
    words : ndarray of shape (n_entries,)
        int32, from 0 to ``n_words - 1``, ascending within each image (else they are sorted, entries of one word staying
        in their order).
    signatures : ndarray of shape (n_entries, n_columns)
        uint64, bits compared by Hamming distance, unused ones zero; or float32, finite, compared by inner product.
    offsets : ndarray of shape (n_images + 1,)
        int64, starting at 0, non-decreasing, ending at ``n_entries``.
    n_words : int
        Words of the codebook.
    n_bits : int, optional
        Bits of a binary signature, 64 per column if not given. Similarities are relative to it.

    Attributes
    ----------
    shape : tuple
        ``(n_images,)``.
    lengths : ndarray of shape (n_images,)
        Number of entries of each image.
    is_binary : bool
        Whether signatures are bits.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import VisualWords
    >>> X = VisualWords([4, 2, 2], np.array([[1], [7], [0]], dtype=np.uint64), [0, 2, 3], n_words=5)
    >>> X[0].words
    array([2, 4], dtype=int32)
    >>> X[[1, 1, 0]].lengths
    array([1, 1, 2])
    """

    def __init__(self, words: Any, signatures: Any, offsets: Any, n_words: int, n_bits: int | None = None) -> None:
        words, offsets = np.asarray(words), np.ascontiguousarray(offsets, dtype=np.int64)
        signatures = np.asarray(signatures)
        if signatures.dtype.kind == "f":
            signatures = np.ascontiguousarray(signatures, dtype=np.float32)
        if signatures.dtype not in (np.uint64, np.float32) or signatures.ndim != 2 or not signatures.shape[1]:
            raise ValueError(
                "signatures must be 2-D, uint64 (bits) or float32 (residuals), one row for each word. "
                f"Got {describe_array(signatures)} instead."
            )
        if words.ndim != 1 or len(words) != len(signatures) or (words.size and words.dtype.kind not in "iu"):
            raise ValueError(
                f"words must be a 1-D array of {len(signatures)} integers, one for each signature. "
                f"Got {describe_array(words)} instead."
            )
        if words.size and not 0 <= words.min() <= words.max() < n_words:
            raise ValueError(f"words must be from 0 to {n_words - 1}. Got {words.min()} to {words.max()} instead.")
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise ValueError("offsets must be a non-decreasing 1-D array of integers that starts with 0.")
        if offsets[-1] != len(words):
            raise ValueError(f"offsets end at {offsets[-1]}, but there are {len(words)} words.")
        if signatures.dtype == np.float32 and not np.isfinite(signatures).all():
            raise ValueError("signatures must be finite float32 numbers. Got NaN or infinity.")
        most = 64 * signatures.shape[1]
        if signatures.dtype == np.uint64 and n_bits is not None and not 0 < n_bits <= most:
            raise ValueError(f"n_bits must be from 1 to {most}, which the signatures have. Got {n_bits} instead.")
        words = np.ascontiguousarray(words, dtype=np.int32)
        signatures = np.ascontiguousarray(signatures)
        images = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if np.any((np.diff(words) < 0) & (np.diff(images) == 0)):
            order = np.lexsort((words, images))
            words, signatures = words[order], signatures[order]
        self.words = words
        self.signatures = signatures
        self.offsets = offsets
        self.n_words = int(n_words)
        self.n_bits = (int(n_bits) if n_bits else most) if self.is_binary else None

    @property
    def is_binary(self) -> bool:
        return bool(self.signatures.dtype == np.uint64)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.offsets) - 1,)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return int(self.words.nbytes + self.signatures.nbytes + self.offsets.nbytes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[ImageWords]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Select images: an integer gives an `ImageWords` of views, everything else a container."""
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"There is no image {key}: the container holds {len(self)}.")
            i = int(key) % len(self)
            own = slice(self.offsets[i], self.offsets[i + 1])
            return ImageWords(self.words[own], self.signatures[own])
        numbers = np.arange(len(self))[np.asarray(key, dtype=np.int64) if isinstance(key, list) and not key else key]
        lengths = self.lengths[numbers]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        rows = np.repeat(self.offsets[:-1][numbers] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return VisualWords(self.words[rows], self.signatures[rows], offsets, self.n_words, self.n_bits)

    @classmethod
    def concatenate(cls, parts: Sequence[VisualWords]) -> VisualWords:
        """Join containers of one codebook, image after image; at least one."""
        kinds = {(part.n_words, part.n_bits, part.signatures.dtype.name, part.signatures.shape[1]) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"The parts must be of one codebook and kind. Got {sorted(map(str, kinds))}.")
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            np.concatenate([part.words for part in parts]),
            np.concatenate([part.signatures for part in parts]),
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            parts[0].n_words,
            parts[0].n_bits,
        )

    def __repr__(self) -> str:
        kind = f"{self.n_bits} bits" if self.is_binary else f"{self.signatures.shape[1]} dimensions"
        return f"VisualWords({len(self)} images, {len(self.words)} words of {self.n_words}, {kind})"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"VisualWords of {len(self)} images is ragged and cannot become an array. Give it to an InvertedIndex, or "
            "take .words and .signatures for the stacked rows."
        )
