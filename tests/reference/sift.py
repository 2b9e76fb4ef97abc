"""RootSIFT, row by row."""

import numpy as np


def root_sift_naive(descriptors):
    """L1-normalise each row, then take square roots; zero rows stay zero."""
    rows = []
    for row in np.asarray(descriptors, dtype=np.float64):
        total = sum(abs(value) for value in row)
        rows.append([(value / total) ** 0.5 if total else 0.0 for value in row])
    return np.array(rows)
