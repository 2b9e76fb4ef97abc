"""How well clusters of vectors are their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def clustering_nmi(vectors: ArrayLike, labels: ArrayLike, *, random_state: Any = None) -> float:
    """Cluster vectors by k-means, with as many clusters as there are classes, and compare clusters with classes (NMI).

    Parameters
    ----------
    vectors : array-like of shape (n_images, n_features)
        By custom of unit length.
    labels : array-like of shape (n_images,)
        The class of each.
    random_state : int, RandomState or None, default=None
        Seed of k-means, which changes the figure by some tenths of a percent.

    Returns
    -------
    float
        Mutual information over the mean of the two entropies: 1 for clusters that are the classes, about 0 for clusters
        by chance, though small classes raise that.

    Raises
    ------
    ValueError
        If there is not one class for each vector, or none.

    References
    ----------
    H. O. Song, Y. Xiang, S. Jegelka and S. Savarese. Deep metric learning via lifted structured feature embedding.
    CVPR 2016.

    Examples
    --------
    >>> from cvretrieval.metrics import clustering_nmi
    >>> round(clustering_nmi([[0.0], [0.1], [9.0], [9.1]], ["a", "a", "b", "b"], random_state=0), 3)
    1.0
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    rows, classes = np.asarray(vectors), np.asarray(labels)
    if rows.ndim != 2 or classes.shape != rows.shape[:1] or not len(rows):
        raise ValueError(
            "clustering_nmi takes vectors (n_images, n_features) and one class for each. Got shapes "
            f"{rows.shape} and {classes.shape}."
        )
    n_clusters = len(np.unique(classes))
    found = KMeans(n_clusters, n_init=1, random_state=random_state).fit_predict(rows)
    return float(normalized_mutual_info_score(classes, found))
