"""Several nearest words of a descriptor among those of a few cells."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit
from cvretrieval._kernels.word_cells import squared_distance


@njit
def nearest_in_cells(rows, nodes, cells, centers, numbers, distances, words):
    """Find the r nearest words of each row in its cells, the nearest first, by ‖x − c‖²; ties to the lowest number.

    Parameters
    ----------
    rows : uint8 or float32 (n_rows, n_dims)
    nodes : int32 (n_rows, n_probes)
        Cells of each row, each at most once; −1 for none.
    cells : int64 (n_cells + 1,)
        Cell k holds the words at ``cells[k]`` to ``cells[k + 1] - 1`` of the next arrays.
    centers : float32 (n_words, n_dims)
    numbers : int32 (n_words,)
        What the word at a place is called.
    distances : float32 (n_rows, r)
        +∞ where the cells hold fewer words.  # OUT
    words : int32 (n_rows, r)
        −1 where the cells hold fewer words.  # OUT
    """
    last = words.shape[1] - 1
    for i in range(len(rows)):
        distances[i] = np.inf
        words[i] = -1
        for j in range(nodes.shape[1]):
            cell = nodes[i, j]
            if cell < 0:
                continue
            for k in range(cells[cell], cells[cell + 1]):
                found, number = squared_distance(rows, i, centers, k), numbers[k]
                if found > distances[i, last] or (found == distances[i, last] and number > words[i, last] >= 0):
                    continue
                place = last
                while place > 0 and (
                    found < distances[i, place - 1]
                    or (found == distances[i, place - 1] and number < words[i, place - 1])
                ):
                    distances[i, place], words[i, place] = distances[i, place - 1], words[i, place - 1]
                    place -= 1
                distances[i, place], words[i, place] = found, number
