"""Exact search of binary vectors."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import BaseEstimator

from cvretrieval.index.binary_rows import BinaryRows
from cvretrieval.index.row_index import RowIndex

_BINARY_ROWS = BinaryRows()


class BinaryIndex(RowIndex, BaseEstimator):
    """Exact search of binary vectors by Hamming distance: every query meets every vector.

    For image signatures of bits: binarised vectors (`ITQ`), hashes of whole images, or single ORB and BRISK descriptors
    under keys of one's own.

    Parameters
    ----------
    metric : {"hamming"}, default="hamming"
        The score is −h, with h the number of bits in which query and vector differ.
    n_jobs : int, optional
        Threads over queries and, if these are few, over vectors; the number does not change the result.

    Attributes
    ----------
    n_dims : int or None
        Bytes of a vector, eight bits each; None before the first ones.

    Notes
    -----
    Vectors are bytes, uint8 or whole numbers from 0 to 255, held in words of 64 bits; missing bytes of a last word are
    zero in all of them and differ from nothing. A memory-mapped array of uint8 whose rows fill words (8, 16, 24, …
    bytes) is kept where it is; its file must stay unchanged. Everything else is copied.

    Distances are small whole numbers: each query counts how many vectors it has met at each distance, so it knows the
    largest one that can still matter, and collects what is not beyond it. Among equal distances the lower key comes
    first, at the k-th place too.

    A search sees the index as it was when the search began; one thread at a time may change it.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import BinaryIndex
    >>> vectors = np.array([[0b1111_0000, 0], [0b1111_0001, 0], [0, 0b1]], dtype=np.uint8)
    >>> index = BinaryIndex().add([10, 20, 30], vectors)
    >>> keys, scores = index.search(vectors[:1], k=4)
    >>> keys
    array([[10, 20, 30, -1]])
    >>> scores
    array([[  0.,  -1.,  -5., -inf]], dtype=float32)
    """

    kind = "binary"
    exact = True

    _metrics = ("hamming",)
    _large_arrays: ClassVar[tuple[str, ...]] = ("vectors",)

    def __init__(self, metric: str = "hamming", *, n_jobs: int | None = None) -> None:
        self.metric = metric
        self.n_jobs = n_jobs
        self._start()

    @property
    def _rows(self) -> BinaryRows:
        return _BINARY_ROWS
