"""Describing many images: the features of some by each worker, and the vectors that a network gives batch by batch."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from cvretrieval._parallel import block_slices, map_blocks, progress_bar
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.rows import join_rows
from cvretrieval.retrieval.stages import Described, Stages

# What a network is given at once, to be put into batches of one size: so many images, or so many of its batches if
# that is more.
_CHUNK_IMAGES = 64
_CHUNK_BATCHES = 4


def describe_images(
    stages: Stages,
    sources: Sequence[Any],
    *,
    block_images: int,
    n_jobs: int | None,
    as_queries: bool = False,
    description: str = "features",
    unit: str = "image",
    verbose: bool | int = False,
) -> Generator[list[tuple[Described, float]], None, None]:
    """Yield what the stages say of images, some at a time, in order, each with the seconds it took.

    Parameters
    ----------
    stages : Stages
        Images get vectors once the encoder is learned.
    sources : sequence
        The images.
    block_images : int
        Images described by one task of a worker.
    n_jobs : int or None
        Workers. A network runs in the calling thread alone, with the threads that torch gives it, after the workers
        have found the features of the same images.
    as_queries : bool
        Describe them as queries.
    description, unit, verbose
        Of the progress bar.
    """
    encode = stages.is_learned
    extracts, encodes = stages.extracts_in_batches, encode and stages.encodes_in_batches
    if extracts or encodes:
        stages.prepare()  # here, where it is kept for the next call, and not in a copy
    serial = stages.serial()
    if not (extracts or encodes):
        yield from _by_workers(serial, sources, block_images, n_jobs, as_queries, encode, description, unit, verbose)
        return
    with progress_bar(total=len(sources), description=description, unit=unit, verbose=verbose) as bar:
        for block in block_slices(len(sources), max(_CHUNK_IMAGES, _CHUNK_BATCHES * serial.batch_size)):
            chunk = sources[block]
            if extracts:
                described = _describe_block(serial, chunk, encode=encode and not encodes, as_queries=as_queries)
            elif serial.extractor is not None:
                with closing(_by_workers(serial, chunk, block_images, n_jobs, as_queries, False)) as parts:
                    described = [image for part in parts for image in part]
            else:
                described = [(Described(), 0.0)] * len(chunk)
            yield _with_vectors(serial, chunk, described, as_queries) if encodes else described
            bar.update(len(chunk))


def _by_workers(
    serial: Stages,
    sources: Sequence[Any],
    block_images: int,
    n_jobs: int | None,
    as_queries: bool,
    encode: bool,
    description: str = "",
    unit: str = "image",
    verbose: bool | int = False,
) -> Generator[list[tuple[Described, float]], None, None]:
    blocks = block_slices(len(sources), block_images)
    return map_blocks(
        partial(_describe_block, serial, encode=encode, as_queries=as_queries),
        (sources[block] for block in blocks),
        n_jobs=n_jobs,
        weights=[block.stop - block.start for block in blocks],
        description=description,
        unit=unit,
        verbose=verbose,
    )


def _describe_block(
    stages: Stages, sources: Sequence[Any], *, encode: bool, as_queries: bool
) -> list[tuple[Described, float]]:
    start = time.perf_counter()
    described = stages.describe(sources, encode=encode, as_queries=as_queries)
    seconds = (time.perf_counter() - start) / len(described)
    return [(image, seconds) for image in described]


def _with_vectors(
    serial: Stages, sources: Sequence[Any], described: list[tuple[Described, float]], as_queries: bool
) -> list[tuple[Described, float]]:
    """Add the vectors of the images that could be read."""
    start = time.perf_counter()
    readable = [i for i, (image, _) in enumerate(described) if not image.reason]
    encoded = serial.without_extractor().describe([sources[i] for i in readable], encode=True, as_queries=as_queries)
    seconds = (time.perf_counter() - start) / max(1, len(readable))
    found = list(described)
    for i, by_network in zip(readable, encoded, strict=True):
        image, before = described[i]
        if by_network.reason:
            found[i] = (by_network, before + seconds)
        else:
            found[i] = (replace(image, vector=by_network.vector, size=by_network.size), before + seconds)
    return found


def features_of(images: Sequence[Described]) -> LocalFeatures | None:
    """Gather the features of images; None where the stages find none."""
    described = [image.features for image in images]
    if not described or described[0] is None:
        return None
    return LocalFeatures.from_images([tuple(one) for one in described if one is not None])


def vectors_of(images: Sequence[Described]) -> Any:
    """Gather the vectors of images; None before the encoder is learned."""
    vectors = [image.vector for image in images]
    return None if not vectors or vectors[0] is None else join_rows([v for v in vectors if v is not None])
