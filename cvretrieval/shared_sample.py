"""Samples of descriptors that processes draw from chunks which they can read themselves, into a file that all see."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import block_slices
from cvretrieval._spread import Processes, Spread, Threads
from cvretrieval._validation import non_finite_descriptors
from cvretrieval._workers import active_workers
from cvretrieval.feature_chunks import (
    FeatureChunks,
    check_feature_chunks,
    different_dimensions,
    finite_rows,
    nothing_to_learn,
    sample_descriptors,
)
from cvretrieval.local_features import LocalFeatures

# Keys in memory at once, beside those of the sample.
_BLOCK_KEYS = 2**22


@contextmanager
def spread_sample(
    X: Any, max_samples: int | None, random_state: np.random.RandomState, *, n_jobs: int | None, estimator: Any
) -> Iterator[tuple[NDArray[Any], Spread]]:
    """Give a sample of descriptors, and who computes what is learned from it.

    Those are the processes that the caller's ``joblib.parallel_config`` names, where they can read the chunks, as
    those of ``ImageRetriever.iter_features()``; else `n_jobs` threads. The sample is the same. That of processes lies
    in a file, and is gone with the context.

    Parameters
    ----------
    X, max_samples, random_state, estimator
        As `sample_descriptors` takes them.
    n_jobs : int or None

    Raises
    ------
    ValueError
        As `sample_descriptors`.
    ClusterError, StoreError
        If the processes are gone, or cannot read the chunks.
    """
    chunks = check_feature_chunks(X, estimator=estimator)
    if chunks.elsewhere is None:
        yield sample_descriptors(chunks, max_samples, random_state, estimator=estimator), Threads(n_jobs)
        return
    with active_workers(n_jobs) as workers:
        if workers is None:
            yield sample_descriptors(chunks, max_samples, random_state, estimator=estimator), Threads(n_jobs)
            return
        with chunks.elsewhere.scratch() as folder:
            spread = Processes(workers, folder)
            yield _sample(chunks, max_samples, random_state, spread, estimator), spread


class _Measure(NamedTuple):
    n_descriptors: int
    n_dims: int
    n_images: int
    dtype: str


class _Piece(NamedTuple):
    """What one chunk gives to the sample.

    Attributes
    ----------
    read : callable
        Returns the chunk.
    picks : ndarray or None
        Its rows that are drawn; None is all of them.
    first : int
        Row of the sample that the first of them is.
    """

    read: Callable[[], LocalFeatures]
    picks: NDArray[np.uint32] | None
    first: int


def _sample(
    chunks: FeatureChunks, size: int | None, random_state: np.random.RandomState, spread: Processes, estimator: Any
) -> NDArray[Any]:
    """Do what `sample_descriptors` does, for a sample in a file: every process writes the rows of its chunks."""
    readers = chunks.elsewhere.readers if chunks.elsewhere is not None else []
    measures = [_Measure(*measure) for measure in spread.each(_measured, readers)]
    filled = [measure for measure in measures if measure.n_descriptors]
    if not filled:
        raise nothing_to_learn(estimator)
    n_dims = filled[0].n_dims
    for measure in filled:
        if measure.n_dims != n_dims:
            raise different_dimensions(type(estimator).__name__, n_dims, measure.n_dims)
    ends = np.cumsum([measure.n_descriptors for measure in measures])
    drawn = _draw(int(ends[-1]), size, random_state)
    bounds = ends if drawn is None else np.searchsorted(drawn, ends)
    pieces, first = [], 0
    for i, read in enumerate(readers):
        stop = int(bounds[i])
        picks = None
        if drawn is not None:
            picks = (drawn[first:stop] - (ends[i] - measures[i].n_descriptors)).astype(np.uint32)
        if stop > first:
            pieces.append((i, _Piece(read, picks, first)))
        first = stop
    path = spread.folder / "sample.npy"
    dtype = np.result_type(*(np.dtype(measure.dtype) for measure in filled))
    # Of its full length from the start: each process writes where its rows belong.
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(first, n_dims)).flush()
    header = path.stat().st_size - first * n_dims * dtype.itemsize
    written = spread.each(_write, [piece for _, piece in pieces], str(path), header, dtype.str)
    for (i, _), bad_image in zip(pieces, list(written), strict=True):
        if bad_image >= 0:
            before = sum(measure.n_images for measure in measures[:i])
            raise non_finite_descriptors(estimator, before + bad_image)
    return spread.adopt(path)


def _draw(n_rows: int, size: int | None, random_state: np.random.RandomState) -> NDArray[np.int64] | None:
    """Return the rows with the smallest random keys, as `sample_descriptors` draws them; None for all rows."""
    if size is None or n_rows <= size:
        return None
    keys, places = np.empty(0), np.empty(0, dtype=np.int64)
    for block in block_slices(n_rows, _BLOCK_KEYS):
        keys = np.concatenate([keys, random_state.random_sample(block.stop - block.start)])
        places = np.concatenate([places, np.arange(block.start, block.stop)])
        if len(keys) > size:
            kept = np.argpartition(keys, size - 1)[:size]
            keys, places = keys[kept], places[kept]
    return np.sort(places)


def _measured(read: Callable[[], LocalFeatures]) -> tuple[int, int, int, str]:
    chunk = read()
    return chunk.n_descriptors, chunk.n_dims, len(chunk), chunk.descriptors.dtype.str


def _write(piece: _Piece, path: str, header: int, dtype: str) -> int:
    """Write the drawn rows of a chunk to their place in the sample; return the first image with a bad one, or −1."""
    chunk = piece.read()
    picks = np.arange(chunk.n_descriptors) if piece.picks is None else piece.picks.astype(np.int64)
    rows = np.ascontiguousarray(chunk.descriptors[picks], dtype=dtype)
    finite = finite_rows(rows)
    if not finite.all():
        return int(chunk.image_index()[picks[~finite]].min())
    with Path(path).open("r+b") as file:
        file.seek(header + piece.first * rows.shape[1] * rows.itemsize)
        file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())
    return -1
