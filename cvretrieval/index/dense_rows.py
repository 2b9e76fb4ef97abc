"""Rows of float32, with their norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.top_k import COSINE, INNER_PRODUCT, L2
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval.index.checks import check_norms, check_vectors, is_mapped, measure_norms, refuse_norms
from cvretrieval.index.row_index import Queries
from cvretrieval.index.scan import Scan
from cvretrieval.index.segments import RowSegment, Segment, Segments

#: The metrics by name.
METRICS = {"cosine": COSINE, "inner_product": INNER_PRODUCT, "l2": L2}

# Rows per task when norms are measured.
_BLOCK_ROWS = 65_536


class DenseRows:
    """Dense vectors, as `Rows` describes."""

    segment_type: type[RowSegment] = Segment

    def n_columns(self, n_dims: int) -> int:
        """Return the dimension."""
        return n_dims

    def read(self, name: str, vectors: Any, n_dims: int | None) -> NDArray[np.float32]:
        """Return checked vectors; whether they are finite says their norm."""
        return check_vectors(name, vectors, n_dims)

    def segment(self, rows: NDArray[np.float32], keys: NDArray[np.int64], n_jobs: int | None) -> Segment:
        """Return a segment of vectors; ValueError if their norms are not as they should."""
        in_file = is_mapped(rows)
        if not in_file:
            # A copy even where the conversion made one: what is behind an array-like cannot be known.
            rows = rows.copy()
        norms = _norms(rows, n_jobs)
        refuse_norms("Vectors", norms[keys >= 0], keys[keys >= 0], "key")
        norms[keys < 0] = 0.0
        return Segment(rows, keys, norms, in_file)

    def queries(self, rows: NDArray[np.float32]) -> Queries:
        """Return queries; ValueError if their norms are not as they should."""
        return Queries(rows, check_norms("Queries", rows))

    def search(
        self, segments: Segments[Segment], chosen: NDArray[np.int64] | None, metric: str, k: int, queries: Queries
    ) -> Scan:
        """Return the search by matrix products."""
        norms = queries.norms if queries.norms is not None else measure_norms(queries.rows)
        return Scan(segments, chosen, METRICS[metric], k, queries.rows, norms)

    def vectors(self, segment: RowSegment, n_dims: int) -> NDArray[np.float32]:
        """Return the vectors as they are held."""
        return segment.vectors[:, :n_dims]


def _norms(vectors: NDArray[np.float32], n_jobs: int | None) -> NDArray[np.float64]:
    blocks = block_slices(len(vectors), _BLOCK_ROWS)
    if len(blocks) == 1:
        return measure_norms(vectors)
    parts = map_blocks(measure_norms, (vectors[block] for block in blocks), n_jobs=n_jobs)
    return np.concatenate([np.empty(0), *parts])
