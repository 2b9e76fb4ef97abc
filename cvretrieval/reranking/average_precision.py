"""Mean average precision of ranked lists against labels: the score of a reranker."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import describe_array


def mean_average_precision(indices: NDArray[np.int64], labels: NDArray[Any], image_labels: NDArray[Any]) -> float:
    """Return the mean, over the queries with relevant images, of ``1/R Σ_i (i + 1) / (r_i + 1)``.

    R is the number of relevant images of the database, those of the query's label, and r_i the 0-based rank of the
    i-th of them in the list; those that the list does not hold add nothing.
    """
    if labels.shape != (len(indices),):
        raise ValueError(f"y must have one label for each of {len(indices)} queries. Got {describe_array(labels)}.")
    values = []
    for row, label in zip(indices, labels, strict=True):
        n_relevant = int(np.count_nonzero(image_labels == label))
        if n_relevant:
            ranks = np.flatnonzero((image_labels[row] == label) & (row >= 0))
            values.append(float((np.arange(1, len(ranks) + 1) / (ranks + 1)).sum()) / n_relevant)
    if not values:
        raise ValueError(f"None of the {len(labels)} queries has an image of its label: the mean is undefined.")
    return float(np.mean(values))
