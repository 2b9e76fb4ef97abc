"""Images taken back out of posting lists, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.posting_lists import count_rows, gather_rows
from cvretrieval._kernels.posting_scores import BLOCK_IMAGES
from cvretrieval.index.posting_segments import PostingSegment
from cvretrieval.index.sparse_checks import WordRows
from cvretrieval.visual_words import VisualWords


def gather(segments: Sequence[PostingSegment], places: NDArray[np.int64], example: WordRows | None) -> Any:
    """Return images, given by segment and number (n_images, 2), as what was added: a CSR array or `VisualWords`."""
    from scipy.sparse import csr_array

    if example is None:
        return csr_array((0, 0), dtype=np.float32)
    distinct, inverse = np.unique(places, axis=0, return_inverse=True)
    parts = [(np.zeros(1, dtype=np.int64), example.words, example.values)]
    for number in np.unique(distinct[:, 0]):
        parts.append(_gather(segments[number], distinct[distinct[:, 0] == number, 1]))
    sizes, words, values = zip(*parts, strict=True)
    rows: Any
    offsets = np.cumsum(np.concatenate(sizes))
    if example.values.ndim == 2:
        rows = VisualWords(np.concatenate(words), np.concatenate(values), offsets, example.n_words, example.n_bits)
    else:
        shape = (len(distinct), example.n_words)
        rows = csr_array((np.concatenate(values), np.concatenate(words), offsets), shape=shape)
    return rows[inverse.reshape(-1)]


def _gather(
    segment: PostingSegment, images: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """Return the number of words of each image, its words and their values."""
    lists = segment.postings
    rows = np.full(BLOCK_IMAGES, -1, dtype=np.int32)
    rows[images] = np.arange(len(images))
    sizes = np.zeros(len(images), dtype=np.int64)
    count_rows(lists.starts, lists.images, rows, sizes)
    ends = np.cumsum(sizes) - sizes
    words = np.empty(int(sizes.sum()), dtype=np.int32)
    sources = np.empty(len(words), dtype=np.int64)
    gather_rows(lists.words, lists.starts, lists.images, rows, ends, words, sources)
    values = lists.values[sources]
    return sizes, words, values.astype(np.float32) if values.ndim == 1 else values
