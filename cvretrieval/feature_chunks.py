"""Local features that come in chunks: more images than fit in memory, and seeded samples of their descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import dimension_mismatch, non_finite_descriptors
from cvretrieval.local_features import LocalFeatures, check_local_features


@dataclass(frozen=True)
class ChunksElsewhere:
    """Chunks as other processes can read them: what an iterable of chunks may have as its ``elsewhere``.

    Attributes
    ----------
    readers : list of callable
        Each returns a chunk, as the iterable gives it; to be pickled, and called in another process.
    scratch : callable
        Gives a context, and within it an empty folder that all processes see.
    """

    readers: list[Callable[[], LocalFeatures]]
    scratch: Callable[[], AbstractContextManager[Path]]

    def map(self, function: Callable[[LocalFeatures], LocalFeatures]) -> ChunksElsewhere:
        return ChunksElsewhere([partial(_composed, function, read) for read in self.readers], self.scratch)


def _composed(function: Callable[[LocalFeatures], LocalFeatures], read: Callable[[], LocalFeatures]) -> LocalFeatures:
    return function(read())


class FeatureChunks:
    """Local features in chunks, as `check_feature_chunks` returns them; iterating yields `LocalFeatures`.

    Attributes
    ----------
    n_dims : int
        Dimension of the descriptors; 0 if there are none.
    is_empty : bool
        Whether no image has a descriptor.
    container : LocalFeatures or None
        All features, if they came as one container.
    elsewhere : ChunksElsewhere or None
        How other processes read the chunks, if they can.

    Notes
    -----
    Chunks that come from an iterator, such as a generator, can be passed over once; a second pass says so. A list of
    `LocalFeatures`, or any object whose ``iter()`` begins anew, can be passed over as often as a fit likes.
    """

    def __init__(self, chunks: Iterable[LocalFeatures], name: str) -> None:
        self._chunks = chunks
        self._name = name
        self._is_iterator = iter(chunks) is chunks
        self.container: LocalFeatures | None = None
        self.elsewhere: ChunksElsewhere | None = getattr(chunks, "elsewhere", None)
        self._is_used = False
        self._head: list[LocalFeatures] = []
        # Up to the first descriptor: that tells the dimension, and no chunk is held longer than it takes to reach it.
        source = iter(chunks)
        for chunk in source:
            self._head.append(self._check(chunk, 0))
            if chunk.n_descriptors:
                break
        self.is_empty = not (self._head and self._head[-1].n_descriptors)
        self.n_dims = 0 if not self._head else self._head[-1].n_dims
        self._rest = source
        if not self._is_iterator:
            self._head = []

    def __iter__(self) -> Iterator[LocalFeatures]:
        if not self._is_iterator:
            source = iter(self._chunks)
        else:
            if self._is_used:
                raise ValueError(
                    f"{self._name} passes over the features more than once, but was given an iterator, which ends "
                    "after one pass. Give a list of LocalFeatures, or an object whose iter() begins anew, such as "
                    "ImageRetriever.iter_features() returns."
                )
            self._is_used = True
            head, self._head = self._head, []
            source = chain(head, self._rest)
        for chunk in source:
            yield self._check(chunk, self.n_dims)

    def map(self, function: Callable[[LocalFeatures], LocalFeatures]) -> FeatureChunks:
        """Return chunks that are this function of these ones, computed chunk by chunk when they are passed over."""
        return FeatureChunks(
            (function(chunk) for chunk in self) if self._is_iterator else _Mapped(function, self), self._name
        )

    def _check(self, chunk: Any, n_dims: int) -> LocalFeatures:
        if not isinstance(chunk, LocalFeatures):
            raise TypeError(
                f"{self._name} was given chunks of images: each must be LocalFeatures. Got {type(chunk).__name__}."
            )
        if chunk.n_descriptors and n_dims and chunk.n_dims != n_dims:
            raise different_dimensions(self._name, n_dims, chunk.n_dims)
        return chunk


class _Mapped:
    def __init__(self, function: Callable[[LocalFeatures], LocalFeatures], chunks: FeatureChunks) -> None:
        self._function = function
        self._chunks = chunks
        self.elsewhere = None if chunks.elsewhere is None else chunks.elsewhere.map(function)

    def __iter__(self) -> Iterator[LocalFeatures]:
        return (self._function(chunk) for chunk in self._chunks)


def different_dimensions(name: str, first: int, other: int) -> ValueError:
    """Chunks that do not belong together."""
    return ValueError(f"The chunks given to {name} have descriptors of different dimensions: {first} and {other}.")


def nothing_to_learn(estimator: Any) -> ValueError:
    """A fit without any descriptor."""
    name = type(estimator).__name__ if estimator is not None else "This function"
    return ValueError(f"{name} cannot be fitted: none of the images has any descriptor.")


def check_feature_chunks(X: Any, *, n_dims: int | None = None, estimator: Any = None) -> FeatureChunks:
    """Validate features that may come in chunks.

    Parameters
    ----------
    X : LocalFeatures, or iterable of LocalFeatures
        Chunks of images: a list, a generator, ``ImageRetriever.iter_features()``. What `check_local_features` takes
        is one chunk.
    n_dims : int, optional
        Required dimension of the descriptors.
    estimator : object, optional
        The caller, named in messages.

    Returns
    -------
    FeatureChunks

    Raises
    ------
    TypeError, ValueError
        If `X` is nothing of the kind, or its descriptors have another dimension.
    """
    name = type(estimator).__name__ if estimator is not None else "This function"
    if isinstance(X, FeatureChunks):
        chunks = X
    else:
        first, X = _peek(X)
        if isinstance(first, LocalFeatures):
            chunks = FeatureChunks(X, name)
        else:
            container = check_local_features(X, estimator=estimator)
            chunks = FeatureChunks([container], name)
            chunks.container = container
    if n_dims is not None and not chunks.is_empty and chunks.n_dims != n_dims:
        raise dimension_mismatch(name, chunks.n_dims, n_dims)
    return chunks


def _peek(X: Any) -> tuple[Any, Any]:
    """Return the first item of an iterable and the iterable, begun anew; None for what is no iterable of chunks."""
    if isinstance(X, (LocalFeatures, str, bytes, np.ndarray)) or not isinstance(X, Iterable):
        return None, X
    if iter(X) is not X:
        return next(iter(X), None), X
    head = list(islice(X, 1))
    return head[0] if head else None, chain(head, X)


def sample_descriptors(
    X: Any, max_samples: int | None, random_state: np.random.RandomState, *, estimator: Any = None
) -> NDArray[Any]:
    """Draw descriptors without replacement, in one pass and in memory bounded by the sample.

    Parameters
    ----------
    X : LocalFeatures, iterable of LocalFeatures, or FeatureChunks
        See `check_feature_chunks`.
    max_samples : int or None
        Size of the sample; None takes all descriptors.
    random_state : RandomState
        Drawn from only if there are more descriptors than `max_samples`: once for each.
    estimator : object, optional
        The caller, named in messages.

    Returns
    -------
    ndarray of shape (n_samples, n_dims)
        In the order of the rows, uint8 or float32 as they are; a view of the descriptors if `X` is one container and
        all are taken.

    Raises
    ------
    ValueError
        If there are no descriptors, or one of the sample is NaN, infinite or too large to be squared in float32; the
        message names the image.

    Notes
    -----
    Every descriptor gets a uniform number; those with the smallest are the sample (a reservoir with random keys). So
    the sample depends on the seed and on the order of the descriptors, not on how they are cut into chunks.

    References
    ----------
    .. [1] J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 11(1), 1985. The keys, which let a reservoir be
       filled by whole arrays, are those of P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir",
       Information Processing Letters 97(5), 2006, with equal weights.
    """
    chunks = check_feature_chunks(X, estimator=estimator)
    if chunks.is_empty:
        raise nothing_to_learn(estimator)
    reservoir = _Reservoir(max_samples, random_state)
    for chunk in chunks:
        reservoir.add(chunk)
    rows, images = reservoir.finish()
    finite = finite_rows(rows)
    if not finite.all():
        raise non_finite_descriptors(
            estimator if estimator is not None else "This function", int(images[~finite].min())
        )
    return rows


def finite_rows(descriptors: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell for each descriptor whether it is finite, and so is its squared norm in float32."""
    if descriptors.dtype == np.uint8:
        return np.ones(len(descriptors), dtype=bool)
    rows = descriptors.astype(np.float32, copy=False)
    return np.asarray(np.isfinite(np.einsum("ij,ij->i", rows, rows)))


class _Reservoir:
    """The rows with the smallest random keys so far."""

    def __init__(self, size: int | None, random_state: np.random.RandomState) -> None:
        self._size = size
        self._random = random_state
        self._n_seen = 0
        self._n_images = 0
        # Until there are more rows than places: the chunks as they came, and no key drawn.
        self._parts: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        self._n_filled = -1

    def add(self, chunk: LocalFeatures) -> None:
        images = self._n_images + chunk.image_index()
        self._n_images += len(chunk)
        if not chunk.n_descriptors:
            return
        first, self._n_seen = self._n_seen, self._n_seen + chunk.n_descriptors
        if self._size is None or self._n_seen <= self._size:
            self._parts.append((chunk.descriptors, images))
            return
        if self._n_filled < 0:
            self._overflow(self._size, chunk.descriptors, first)
        places, keys = np.arange(first, self._n_seen), self._random.random_sample(chunk.n_descriptors)
        self._put(slice(self._n_filled, self._size), slice(self._size - self._n_filled), chunk, images, places, keys)
        self._merge(chunk, images, places, keys, self._size - self._n_filled)
        self._n_filled = self._size

    def finish(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows in their order, and their images."""
        if self._n_filled >= 0:
            order = np.argsort(self._places)
            return self._rows[order], self._images[order]
        if len(self._parts) == 1:
            return self._parts[0]
        rows, images = zip(*self._parts, strict=True)
        return np.concatenate(rows), np.concatenate(images)

    def _overflow(self, size: int, rows: NDArray[Any], n_before: int) -> None:
        """Give every row seen so far a key and a place of its own."""
        dtype = np.result_type(rows, *(part for part, _ in self._parts))
        self._rows = np.empty((size, rows.shape[1]), dtype=dtype)
        self._images = np.empty(size, dtype=np.int64)
        self._keys = np.empty(size)
        self._places = np.arange(size, dtype=np.int64)
        self._keys[:n_before] = self._random.random_sample(n_before)
        self._n_filled = 0
        while self._parts:
            part, images = self._parts.pop(0)
            filled = slice(self._n_filled, self._n_filled + len(part))
            self._rows[filled], self._images[filled] = part, images
            self._n_filled = filled.stop

    def _merge(self, chunk: LocalFeatures, images: Any, places: Any, keys: Any, first: int) -> None:
        """Let rows of a chunk, from the given one on, take the places of those with larger keys."""
        candidates = first + np.flatnonzero(keys[first:] < self._keys.max())
        if not len(candidates):
            return
        size = len(self._keys)
        stays = np.zeros(size + len(candidates), dtype=bool)
        stays[np.argpartition(np.concatenate([self._keys, keys[candidates]]), size - 1)[:size]] = True
        self._put(np.flatnonzero(~stays[:size]), candidates[stays[size:]], chunk, images, places, keys)

    def _put(self, into: Any, taken: Any, chunk: LocalFeatures, images: Any, places: Any, keys: Any) -> None:
        if chunk.descriptors.dtype != self._rows.dtype:
            self._rows = self._rows.astype(np.result_type(self._rows, chunk.descriptors), copy=False)
        self._rows[into] = chunk.descriptors[taken]
        self._images[into], self._places[into], self._keys[into] = images[taken], places[taken], keys[taken]
