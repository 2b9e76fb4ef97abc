"""faiss's graph over words (HNSW), for comparison and for those who have it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._optional import import_optional
from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval.codebooks.probe_choice import Probes

# Neighbours of each word, and words kept in mind while the graph is built: faiss's usual values for high recall.
_NEIGHBORS = 32
_BUILD_LIST = 80

_BLOCK_ROWS = 1024


class WordGraph:
    """Finds near words by a walk through a hierarchical graph of neighbours (Malkov & Yashunin 2018), by faiss.

    Parameters
    ----------
    words : ndarray of shape (n_words, n_dims)
        float32. The graph is built in one thread, so that it is always the same: minutes for a million words.
    """

    def __init__(self, words: NDArray[np.float32]) -> None:
        self._faiss = import_optional("faiss", "Assignment to words by method='hnsw'")
        self._index = self._faiss.IndexHNSWFlat(words.shape[1], _NEIGHBORS)
        self._index.hnsw.efConstruction = _BUILD_LIST
        with single_threaded():
            self._index.add(np.ascontiguousarray(words))

    def search(self, rows: NDArray[Any], n_kept: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the nearest word found with `n_kept` words in mind, and its squared distance."""
        parameters = self._faiss.SearchParametersHNSW(efSearch=int(n_kept))
        distances, words = self._index.search(rows.astype(np.float32, copy=False), 1, params=parameters)
        return words[:, 0].astype(np.int32), distances[:, 0]

    def choose(
        self, rows: NDArray[Any], nearest: NDArray[np.float32], recall: float, n_kept: int | None, n_jobs: int | None
    ) -> Probes:
        """Choose how many words to keep in mind: 8, 16, … until a recall is reached, 4,096 at most."""
        size = 8 if n_kept is None else int(n_kept)
        while True:

            def count(block: slice, size: int = size) -> int:
                # Of equal words each counts; faiss and the exact search round differently.
                return int((self.search(rows[block], size)[1] <= nearest[block] * (1 + 1e-5)).sum())

            hits = sum(map_blocks(count, block_slices(len(rows), _BLOCK_ROWS), n_jobs=n_jobs))
            if n_kept is not None or hits >= recall * len(rows) or size >= 4096:
                return Probes(1, size, hits / len(rows))
            size *= 2
