"""What encoders give for a sequence of images: dense rows, sparse rows or visual words; joined, chosen from, stored.

A store holds them as plain arrays in its shards:

- dense: ``vectors``, float32 or, for binary vectors, uint8, of shape (n_images, n_dims);
- sparse: ``vector_offsets``, ``vector_words`` (int32) and ``vector_values``, those of a CSR matrix, with
  ``vector_form``, [n_dims, 0]; values in the smallest of uint8, uint16 and float32 that holds them exactly;
- words: the same, with a row of ``vector_values`` for each word (uint64 or float32), and [n_words, n_bits or 0].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import describe_array
from cvretrieval.visual_words import VisualWords

#: ndarray (n_images, n_dims), CSR array or `VisualWords`.
Rows = Any

#: Arrays of a shard that hold its rows, in any form.
ROW_ARRAYS = ("vectors", "vector_offsets", "vector_words", "vector_values", "vector_form")


def as_rows(encoded: Any, kind: str, owner: Any) -> Rows:
    """Return what an encoder gave in the form that an index of this kind takes.

    Parameters
    ----------
    encoded : ndarray, sparse matrix or VisualWords
    kind : {"dense", "sparse", "binary", "words"}
        As `VectorIndex` says.
    owner : object
        The encoder that errors name.

    Raises
    ------
    ValueError
        If the index cannot hold it, saying which encoders or indexes would do.
    """
    name = type(owner).__name__
    if isinstance(encoded, VisualWords) != (kind == "words"):
        raise ValueError(wrong_kind(name, isinstance(encoded, VisualWords)))
    if kind == "words":
        return encoded
    if kind == "sparse":
        return _as_sparse(encoded, name)
    if hasattr(encoded, "toarray"):
        encoded = encoded.toarray()
    if kind == "binary":
        rows = np.asarray(encoded)
        if rows.dtype != np.uint8:
            raise ValueError(
                f"A binary index holds rows of bytes, uint8 with eight bits each, but {name} gives "
                f"{describe_array(rows)}."
            )
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(encoded, dtype=np.float32)


def wrong_kind(encoder: str, gives_words: bool) -> str:
    """Say that visual words meet an index of vectors, or the other way round."""
    if gives_words:
        return (
            f"{encoder} gives visual words with signatures, which only an inverted file compares: give "
            'ImageRetriever(index=InvertedIndex("hamming_embedding")) or InvertedIndex("asmk").'
        )
    return (
        f"The index compares visual words with signatures, but {encoder} gives vectors: use HammingEmbedding or ASMK "
        "as the encoder, or InvertedIndex() as the index of sparse vectors."
    )


def _as_sparse(encoded: Any, name: str) -> Rows:
    from scipy.sparse import csr_array

    rows = csr_array(encoded, dtype=np.float32)
    if rows.data is getattr(encoded, "data", None):
        rows = rows.copy()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    if not np.all(rows.data > 0):
        raise ValueError(
            f"An inverted file holds vectors that count words, but {name} gives negative numbers or NaN. Use "
            "BagOfWords as the encoder, or DenseIndex as the index."
        )
    return rows


def n_rows(rows: Rows) -> int:
    """Return the number of images."""
    return int(rows.shape[0])


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts; at least one part."""
    if isinstance(parts[0], VisualWords):
        return VisualWords.concatenate(parts)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def size_of(rows: Rows) -> int:
    """Return the bytes of rows in memory, or in the files they are mapped from."""
    return sum(int(array.nbytes) for array in rows_to_arrays(rows).values())


def is_blank(rows: Rows) -> bool:
    """Whether rows are such as nothing is found by: no words, or zeros."""
    if isinstance(rows, VisualWords):
        return not len(rows.words)
    if isinstance(rows, np.ndarray):
        return rows.dtype != np.uint8 and not np.any(rows)
    return not rows.nnz


def rows_to_arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    """Return the arrays that stand for rows in a shard, by name."""
    if isinstance(rows, np.ndarray):
        return {"vectors": rows}
    if isinstance(rows, VisualWords):
        offsets, words, values, form = rows.offsets, rows.words, rows.signatures, [rows.n_words, rows.n_bits or 0]
    else:
        offsets, words, form = rows.indptr, rows.indices, [rows.shape[1], 0]
        values = _smallest(rows.data)
    return {
        "vector_offsets": np.asarray(offsets, dtype=np.int64),
        "vector_words": np.asarray(words, dtype=np.int32),
        "vector_values": values,
        "vector_form": np.array(form, dtype=np.int64),
    }


def rows_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Rows:
    """Return the rows that `rows_to_arrays` was given.

    Raises
    ------
    ValueError, TypeError, IndexError
        If the arrays do not fit together.
    """
    if "vectors" in arrays:
        vectors = arrays["vectors"]
        if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.uint8):
            raise ValueError(describe_array(vectors))
        return vectors
    offsets, words, values = (arrays[f"vector_{name}"] for name in ("offsets", "words", "values"))
    n_words, n_bits = map(int, arrays["vector_form"])
    if values.ndim == 2:
        return VisualWords(words, values, offsets, n_words, n_bits or None)
    from scipy.sparse import csr_array

    rows = csr_array((values.astype(np.float32), words, offsets), shape=(len(offsets) - 1, n_words))
    rows.check_format(full_check=True)
    rows.has_sorted_indices = rows.has_canonical_format = True
    return rows


def _smallest(values: NDArray[np.float32]) -> NDArray[Any]:
    for dtype in (np.uint8, np.uint16):
        if not len(values) or (values.max() <= np.iinfo(dtype).max and np.array_equal(values, np.rint(values))):
            return values.astype(dtype)
    return values
