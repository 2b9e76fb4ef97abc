"""What a process of a cluster does for an index: it writes files into its folder, and returns their digests.

Features and vectors never pass the scheduler, nor do the stages: a task names the folder, which all machines see under
the same path, and each process reads the stages from it once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvretrieval._parallel import block_slices, single_threaded
from cvretrieval._validation import StoreError
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.configuration import stages_in
from cvretrieval.retrieval.describing import describe_images, features_of, vectors_of
from cvretrieval.retrieval.description import description_digest
from cvretrieval.retrieval.outcomes import Outcome, outcome_of
from cvretrieval.retrieval.records import ArrayRecord, ShardRecord
from cvretrieval.retrieval.rows import join_rows
from cvretrieval.retrieval.shards import Shard, StagedShard, stage_shard, write_vectors
from cvretrieval.retrieval.stages import Described, Stages

#: Images described at a time by a worker.
BLOCK_IMAGES = 2
#: Images encoded at once: their descriptors are in memory as float32.
ENCODE_IMAGES = 64


@dataclass(frozen=True)
class StoreAddress:
    """An index as other processes find it.

    Attributes
    ----------
    path : str
        Its folder.
    description : bytes
        Digest of its ``index.json``: a folder of the same name on another machine may be another one.
    model : bytes or None
        Digest of what the encoder has learned.
    """

    path: str
    description: bytes
    model: bytes | None


@dataclass(frozen=True)
class Extracted:
    """What became of some images.

    Attributes
    ----------
    outcomes : list of Outcome
        For each of them.
    shard : StagedShard or None
        The arrays of those that could be read.
    seconds : float
        What they took.
    """

    outcomes: list[Outcome]
    shard: StagedShard | None
    seconds: float


def extract_images(address: StoreAddress, images: Sequence[Any]) -> Extracted:
    """Describe images and write them as a shard that has no number yet."""
    start = time.perf_counter()
    stages = _stages(address)
    found: list[Described] = []
    with single_threaded(), closing(describe_images(stages, images, block_images=BLOCK_IMAGES, n_jobs=1)) as described:
        for block in described:
            found += [image for image, _ in block]
    outcomes = [outcome_of(image, stages.takes_images) for image in found]
    readable = [image for image in found if not image.reason]
    shard = None
    if readable:
        shard = stage_shard(Path(address.path) / "shards", len(readable), features_of(readable), vectors_of(readable))
    return Extracted(outcomes, shard, time.perf_counter() - start)


def encode_shards(address: StoreAddress, shards: Sequence[ShardRecord]) -> list[dict[str, ArrayRecord]]:
    """Encode the features of shards and write their vectors beside them."""
    stages, root = _stages(address), Path(address.path) / "shards"
    written = []
    for shard in shards:
        features = Shard(root, shard).features
        if features is None:
            raise StoreError(f"Shard {shard.shard} of {address.path} holds no local features to encode.")
        with single_threaded():
            blocks = block_slices(len(features), ENCODE_IMAGES)
            vectors = join_rows([stages.encode(features[block]) for block in blocks])
        written.append(write_vectors(root, shard.shard, vectors))
    return written


def read_images(address: StoreAddress, places: Sequence[tuple[ShardRecord, Sequence[int]]]) -> LocalFeatures:
    """Return the features of images as the encoder gets them; see `Store.places`."""
    stages, root = _stages(address), Path(address.path) / "shards"
    images: list[Any] = []
    for record, rows in places:
        features = Shard(root, record).features
        if features is None:
            raise StoreError(f"Shard {record.shard} of {address.path} holds no local features.")
        images += [tuple(features[row]) for row in rows]
    return stages.decode(LocalFeatures.from_images(images))


_known: dict[StoreAddress, Stages] = {}


def _stages(address: StoreAddress) -> Stages:
    stages = _known.get(address)
    if stages is not None:
        return stages
    folder = Path(address.path)
    try:
        if description_digest(folder) != address.description:
            raise StoreError("another index lies there")
        stages = stages_in(folder, address.model).serial()
    except StoreError as error:
        raise StoreError(
            f"A worker on {socket.gethostname()} cannot use the index {folder} ({error}). All workers must see it "
            "under the same path, on a file system that they share."
        ) from error
    stages.prepare()
    _known.clear()  # one index after the other
    _known[address] = stages
    return stages
