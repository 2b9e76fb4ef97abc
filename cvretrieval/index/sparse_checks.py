"""What an inverted file accepts: rows of counts or visual words with signatures, as one ragged form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import describe_array
from cvretrieval.visual_words import VisualWords

#: Sums of products of such numbers, weighted, are far from overflowing in float32.
LARGEST_VALUE = 1e15


@dataclass(frozen=True)
class WordRows:
    """Images row by row: row i has the words ``offsets[i]:offsets[i + 1]``, ascending, each with a value.

    Attributes
    ----------
    offsets : ndarray of shape (n_rows + 1,)
    words : ndarray of shape (n_entries,)
        int32.
    values : ndarray of shape (n_entries,) or (n_entries, n_columns)
        float32 above zero: counts; uint64 or float32 (n_entries, n_columns): signatures.
    n_words : int
    n_bits : int or None
        Of binary signatures.
    """

    offsets: NDArray[np.int64]
    words: NDArray[np.int32]
    values: NDArray[Any]
    n_words: int
    n_bits: int | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def like(self) -> WordRows:
        """Return no rows of the same form."""
        return replace(self, offsets=np.zeros(1, dtype=np.int64), words=self.words[:0].copy(),
                       values=self.values[:0].copy())  # fmt: skip

    @property
    def form(self) -> str:
        """What the rows are, in words: an index holds one form."""
        if self.values.ndim == 1:
            return f"sparse vectors of {self.n_words} dimensions"
        kind = f"{self.n_bits}-bit signatures" if self.n_bits else f"{self.values.shape[1]}-d residuals"
        return f"words of {self.n_words} with {kind}"


def check_word_rows(name: str, rows: Any, labels: NDArray[np.int64] | None = None) -> WordRows:
    """Return CSR or array-like rows of counts, or `VisualWords`, as `WordRows`; never the caller's own memory.

    `labels` are the keys that errors name, and -1 for rows that may hold anything; without them rows are named.
    """
    if isinstance(rows, VisualWords):
        return WordRows(rows.offsets, rows.words, rows.signatures, rows.n_words, rows.n_bits)
    from scipy.sparse import csr_array, issparse

    if not issparse(rows):
        rows = np.asarray(rows)
    if rows.dtype.kind not in "fiu":
        what = f"a sparse matrix of {rows.dtype}" if issparse(rows) else describe_array(rows)
        raise TypeError(f"{name} must be real numbers. Got {what} instead.")
    if rows.ndim != 2:
        hint = f" One vector? Wrap it in a list: [{name.lower()}]." if rows.ndim == 1 else ""
        raise ValueError(f"{name} must be 2-D, one row each. Got {describe_array(rows)} instead.{hint}")
    if rows.shape[1] == 0:
        raise ValueError(f"{name} must have at least one dimension. Got shape {rows.shape} instead.")
    if rows.shape[1] > np.iinfo(np.int32).max:
        raise ValueError(f"{name} must have fewer than 2^31 dimensions. Got {rows.shape[1]} instead.")
    if labels is not None and len(labels) == rows.shape[0] and (labels < 0).any():
        rows = _cleared(rows, labels < 0)
    with np.errstate(over="ignore"):
        csr = csr_array(rows if issparse(rows) else rows.astype(np.float32), copy=True).astype(np.float32, copy=False)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    wrong = np.flatnonzero(~((csr.data > 0) & (csr.data <= LARGEST_VALUE)))
    if len(wrong):
        _refuse(name, csr, int(wrong[0]), labels)
    return WordRows(csr.indptr.astype(np.int64), csr.indices.astype(np.int32, copy=False), csr.data, csr.shape[1])


def _cleared(rows: Any, cleared: NDArray[np.bool_]) -> Any:
    """Return rows with some of them empty."""
    from scipy.sparse import csr_array, issparse

    if not issparse(rows):
        rows = rows.copy()
        rows[cleared] = 0
        return rows
    rows = csr_array(rows, copy=True)
    rows.data[np.repeat(cleared, np.diff(rows.indptr))] = 0
    return rows


def _refuse(name: str, csr: Any, place: int, labels: NDArray[np.int64] | None) -> None:
    row = int(np.searchsorted(csr.indptr, place, side="right")) - 1
    where = f"row {row}" if labels is None else f"key {labels[row]}" if row < len(labels) else f"row {row}"
    value = float(csr.data[place])
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite float32 numbers, but {where} has NaN or infinity.")
    if value < 0:
        raise ValueError(
            f"{name} of an inverted file must not be negative: they count words. "
            f"{where.capitalize()} has {value:g} at word {csr.indices[place]}; use DenseIndex for such vectors."
        )
    raise ValueError(
        f"{name} must be at most {LARGEST_VALUE:g}, so that float32 sums do not overflow. "
        f"{where.capitalize()} has {value:g} at word {csr.indices[place]}; scale the vectors down."
    )
