"""Reranking within a search: the vectors of the store as the database of a reranker, the verifier as its witness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from cvretrieval._state import to_config
from cvretrieval.local_features import ImageFeatures
from cvretrieval.reranking import Reranker, VerifiedMatches
from cvretrieval.retrieval.localization import verifies_features

#: For one query, key of an image → its features and the verification of the pair.
Verdicts = dict[int, tuple[ImageFeatures, Any]]


_HELD = {"sparse": "sparse ones", "words": "visual words", "binary": "bits"}


class NumberedVectors:
    """The vectors of an index under the numbers 0 to n − 1 instead of its keys, as rerankers want them.

    Parameters
    ----------
    index : VectorIndex
    store : Store
        Where the vectors themselves are, if the index does not keep them exactly.
    """

    def __init__(self, index: Any, store: Any) -> None:
        self.index = index
        self.keys: NDArray[np.int64] = store.vector_keys()
        self._store = store
        self.metric = index.metric
        self.n_dims = index.n_dims

    def __len__(self) -> int:
        return len(self.keys)

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return numbers and scores."""
        found, scores = self.index.search(queries, k, within=None if within is None else self.keys[within])
        return self.numbers(found), scores

    def reconstruct(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors under some numbers."""
        keys = self.keys[numbers]
        if self.index.exact or not len(keys):
            vectors: NDArray[np.float32] = self.index.reconstruct(keys)
            return vectors
        return np.asarray(self._store.vectors(keys))

    def numbers(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of keys, -1 for keys that are not in the index."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


def check_parameters(retriever: Any) -> None:
    """Refuse a reranker that cannot work with the other parameters."""
    reranker = retriever.reranker
    if reranker is None:
        return
    if not isinstance(reranker, Reranker):
        raise TypeError(
            "The 'reranker' parameter of ImageRetriever must be a reranker such as AlphaQueryExpansion() or None. Got "
            f"{reranker!r} instead."
        )
    index = retriever._template()
    if index.kind != "dense":
        raise ValueError(
            f"{type(reranker).__name__} computes with dense vectors, but the index is {type(index).__name__}, which "
            f"holds {_HELD[index.kind]}. Use reranker=None, or an index of dense vectors."
        )
    if index.metric != "cosine":
        raise ValueError(f"A reranker compares vectors by cosine, but metric={index.metric!r}. Use metric='cosine'.")
    if reranker.needs_verification and not verifies_features(retriever.verifier):
        raise ValueError(
            f"{type(reranker).__name__} as configured expands by verified images: give a verifier, such as "
            "SpatialVerifier()."
        )


def depth(retriever: Any, n_images: int, k: int) -> int:
    """Return how long the ranked lists must be from which the reranker, if there is one, makes some of length k."""
    check_parameters(retriever)
    return 0 if retriever.reranker is None else int(retriever.reranker._n_needed(n_images, k))


def fitted(retriever: Any, index: Any) -> tuple[Any, NumberedVectors]:
    """Return a copy of the retriever's reranker that is fitted to the index, and the database it is fitted to.

    A graph of neighbours takes long to build, so the copy is kept until the index or a parameter changes.
    """
    config = to_config(retriever.reranker)
    known = getattr(retriever, "_fitted_reranker", None)
    state = (retriever._store.generation, config)
    if known is None or known[0] is not index or known[1] != state:
        database = NumberedVectors(index, retriever._store)
        known = (index, state, clone(retriever.reranker).fit(database), database)
        retriever._fitted_reranker = known
    return known[2], known[3]


def rerank(
    retriever: Any,
    index: Any,
    queries: Sequence[Any],
    vectors: NDArray[np.float32],
    found: NDArray[np.int64],
    k: int,
    within: NDArray[np.int64] | None,
    verdicts: Sequence[Verdicts],
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return new ranked lists.

    Parameters
    ----------
    retriever : ImageRetriever
        With a reranker.
    index : VectorIndex
        Over the vectors of the store.
    queries : sequence of _Query
    vectors : ndarray of shape (n_queries, n_dims)
    found : ndarray of shape (n_queries, depth)
        Keys of the images found so far, best first; -1 behind the last.
    k : int
    within : ndarray or None
        The only keys that may be found.
    verdicts : sequence of mapping
        For each query, what is known of images by verification; empty if the reranker does not ask for it.

    Returns
    -------
    keys, scores : ndarray of shape (n_queries, k)
        -1 and −inf behind the last.
    """
    reranker, database = fitted(retriever, index)
    allowed = None
    if within is not None:
        allowed = database.numbers(within)
        allowed = allowed[allowed >= 0]
    verified = None
    if reranker.needs_verification:
        results = [
            {int(database.numbers(np.array([key]))[0]): verdict for key, verdict in known.items()} for known in verdicts
        ]
        verified = VerifiedMatches([query.features for query in queries], results, retriever._stages.encode)
    numbers, scores = reranker.rerank(
        vectors, database.numbers(found), k=min(k, len(database)), within=allowed, verified=verified
    )
    return np.where(numbers >= 0, database.keys[numbers], -1), scores
