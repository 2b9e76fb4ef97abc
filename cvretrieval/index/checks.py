"""What index engines accept as keys, vectors and queries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import row_norms
from cvretrieval._validation import describe_array

#: Products of two vectors of this norm are far from overflowing in float32.
LARGEST_NORM = 1e18

_FIRST = 5


def check_keys(keys: Any) -> NDArray[np.int64]:
    """Return keys as int64 (n_keys,): the caller's own array where it is one already."""
    array = np.asarray(keys)
    if array.size == 0 and array.ndim == 1:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"Keys must be a 1-D sequence of integers. Got {describe_array(array)} instead.")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"Keys must fit in int64. Got {array.max()} instead.")
    return array.astype(np.int64, copy=False)


def check_new_keys(keys: Any, n_vectors: int) -> NDArray[np.int64]:
    """Return the keys of new vectors, a copy: one per vector, none twice, -1 for vectors never to be found."""
    array = np.array(check_keys(keys))
    if len(array) != n_vectors:
        raise ValueError(f"There are {n_vectors} vectors, but {len(array)} keys.")
    if array.size == 0:
        return array
    if array.min() < -1:
        raise ValueError(
            f"Keys must be 0 or more, or -1 for a vector that must not be found. Got {array.min()} instead."
        )
    if array.max() == np.iinfo(np.int64).max:
        raise ValueError(f"The key {array.max()} is reserved; keys must be smaller.")
    found, counts = np.unique(array[array >= 0], return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"Keys are given more than once: {name_keys(found[counts > 1])}.")
    return array


def check_matrix(name: str, vectors: Any, n_dims: int | None) -> NDArray[Any]:
    """Return vectors as an array of real numbers (n_vectors, n_dims), of whatever type."""
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers. Got {describe_array(array)} instead.")
    if array.ndim != 2:
        hint = f" One vector? Wrap it in a list: [{name.lower()}]." if array.ndim == 1 else ""
        raise ValueError(f"{name} must be 2-D, one row each. Got {describe_array(array)} instead.{hint}")
    if array.shape[1] == 0:
        raise ValueError(f"{name} must have at least one dimension. Got {describe_array(array)} instead.")
    if n_dims is not None and array.shape[1] != n_dims:
        raise ValueError(f"{name} have {array.shape[1]} dimensions, but the index holds {n_dims}-d vectors.")
    return array


def check_vectors(name: str, vectors: Any, n_dims: int | None) -> NDArray[np.float32]:
    """Return vectors as C-contiguous float32 (n_vectors, n_dims): a read-only view of the caller's where possible."""
    array = check_matrix(name, vectors, n_dims)
    # What is too large for float32 becomes infinite here and is refused by its norm.
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32).view()
    rows.setflags(write=False)
    return rows


def check_bytes(name: str, vectors: Any, n_dims: int | None) -> NDArray[np.uint8]:
    """Return binary vectors as C-contiguous uint8 (n_vectors, n_bytes): the caller's own memory if possible."""
    if np.asarray(vectors).dtype == np.bool_:
        raise TypeError(
            f"{name} must be bytes of eight bits each. Got booleans: pack them by numpy.packbits(…, axis=1)."
        )
    array = check_matrix(name, vectors, n_dims)
    rows = np.ascontiguousarray(array)
    if rows.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            rows = rows.astype(np.uint8)
        if not np.array_equal(rows, array):
            raise ValueError(
                f"{name} must be bytes, whole numbers from 0 to 255. Got {describe_array(array)} with others."
            )
    rows = rows.view()
    rows.setflags(write=False)
    return rows


def is_mapped(array: Any) -> bool:
    """Tell whether the memory of an array is a mapped file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def check_norms(name: str, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the norms of the rows, refusing NaN, infinity and what would overflow."""
    norms = measure_norms(vectors)
    refuse_norms(name, norms, np.arange(len(norms)), "row")
    return norms


def measure_norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the norms of the rows; not finite where the row is not."""
    norms = np.empty(len(vectors), dtype=np.float64)
    row_norms(vectors, norms)
    return norms


def refuse_norms(name: str, norms: NDArray[np.float64], labels: NDArray[np.int64], label: str) -> None:
    """Raise if a row is not finite or its norm is too large; `labels` name the rows."""
    wrong = np.flatnonzero(~(norms <= LARGEST_NORM))
    if not len(wrong):
        return
    if np.isfinite(norms[wrong[0]]):
        raise ValueError(
            f"{name} must have norms of at most {LARGEST_NORM:g}, so that float32 products do not overflow. "
            f"{label.capitalize()} {labels[wrong[0]]} has norm {norms[wrong[0]]:g}; scale the vectors down."
        )
    raise ValueError(f"{name} must be finite float32 numbers, but {label} {labels[wrong[0]]} has NaN or infinity.")


def name_keys(keys: NDArray[np.int64]) -> str:
    """Name the first few keys."""
    names = ", ".join(str(key) for key in keys[:_FIRST])
    return names if len(keys) <= _FIRST else f"{names}, … ({len(keys)} in all)"
