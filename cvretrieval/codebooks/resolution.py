"""What a given codebook says of itself: how many words, of which dimension, and how they are found."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvretrieval.codebooks.kmeans import resolve_codebook


def has_euclidean_words(codebook: Any) -> bool:
    """Whether the word of a descriptor is the nearest of ``cluster_centers_`` by Euclidean distance.

    Codebooks with another distance say so by an attribute ``metric``, such as "hamming"; those that have centres, but
    find words in their own way, such as trees, by ``finds_own_words``.
    """
    is_euclidean = getattr(codebook, "metric", "euclidean") == "euclidean"
    return is_euclidean and not getattr(codebook, "finds_own_words", False) and hasattr(codebook, "cluster_centers_")


def resolve_words(codebook: Any, owner: Any) -> tuple[int, int | None]:
    """Return number of words and dimension of a given codebook; the dimension is None if it does not say.

    Raises
    ------
    TypeError, ValueError
        If it neither has centres nor predicts words, or is not fitted.
    """
    if has_euclidean_words(codebook) or not hasattr(codebook, "predict"):
        n_words, n_dims = np.shape(resolve_codebook(codebook, owner).cluster_centers_)
        return int(n_words), int(n_dims)
    is_fitted = any(name.endswith("_") and not name.startswith("_") for name in vars(codebook))
    if getattr(codebook, "finds_own_words", False):
        n_words = codebook.n_words_ if is_fitted else 0
    else:
        centers = getattr(codebook, "cluster_centers_", None)
        named = getattr(codebook, "n_words", getattr(codebook, "n_clusters", None))
        n_words = named if centers is None else len(centers)
    if n_words is None or not is_fitted:
        lacks = "says neither n_words nor n_clusters" if n_words is None else "is not fitted"
        raise ValueError(f"The codebook given to {type(owner).__name__}, {type(codebook).__name__}, {lacks}.")
    n_dims = getattr(codebook, "n_dims_", getattr(codebook, "n_features_in_", None))
    return int(n_words), None if n_dims is None else int(n_dims)
