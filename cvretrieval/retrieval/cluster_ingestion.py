"""Adding images by other processes: they write shards, this one numbers and commits them, in the order of the images.

The order makes the index the same however many processes there are, and after any interruption: what the encoder is
learned on is drawn from what is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

from cvretrieval._parallel import progress_bar
from cvretrieval._workers import ClusterError, Workers, map_parts
from cvretrieval.retrieval.description import description_digest
from cvretrieval.retrieval.outcomes import IndexingReport, Outcome, kept, note
from cvretrieval.retrieval.records import ShardRecord
from cvretrieval.retrieval.remote_tasks import StoreAddress, encode_shards, extract_images
from cvretrieval.retrieval.sources import Source
from cvretrieval.retrieval.stages import Stages
from cvretrieval.retrieval.store import Store

# A task is long enough for what is around it not to count, short enough to be lost.
_TASK_SECONDS = 20.0
_LEAST_IMAGES = 4
_MOST_IMAGES = 1024
# Of all images, what is handed out at once. Half of it waits for a worker: the other half is done again after a kill.
_UNDER_WAY = 0.06

_DIED = "every process that read it died: out of memory, killed, or crashed"


class _Pace:
    """How many images a task gets, by what those before took."""

    def __init__(self, n_images: int, n_under_way: int) -> None:
        share = int(_UNDER_WAY * n_images / n_under_way)
        self._most = min(max(_LEAST_IMAGES, share), _MOST_IMAGES)
        self._images, self._seconds = 0.0, 0.0

    def next_size(self) -> int:
        if not self._seconds:
            return min(_LEAST_IMAGES, self._most)
        return max(1, min(self._most, int(_TASK_SECONDS * self._images / self._seconds)))

    def note(self, n_images: int, seconds: float) -> None:
        # The latest count most: photos of one folder are alike, and machines differ.
        self._images, self._seconds = self._images / 2 + n_images, self._seconds / 2 + seconds


def extract_by_workers(
    workers: Workers,
    store: Store,
    stages: Stages,
    sources: Sequence[Source],
    report: IndexingReport,
    *,
    on_error: str,
    verbose: bool | int,
) -> None:
    """Have images described and commit them part by part; what is finished survives a later failure.

    Raises
    ------
    ClusterError
        If the cluster is gone.
    StoreError
        If a worker cannot read the index, or not write into it.
    """
    work = partial(extract_images, StoreAddress(str(store.path), description_digest(store.path), stages.model))
    pace = _Pace(len(sources), 2 * workers.n_workers)
    # Another machine knows no current folder.
    images = [source.image if source.path is None else source.path for source in sources]
    parts = map_parts(workers, work, images, pace.next_size)
    first = 0
    with (
        progress_bar(total=len(sources), description="features", verbose=verbose) as bar,
        closing(parts),
    ):
        for part, done in parts:
            own = sources[first : first + len(part)]
            first += len(part)
            outcomes = [Outcome("failed", _DIED)] if done is None else done.outcomes
            rows = kept(own, outcomes, on_error)
            if rows:
                store.adopt_shard(rows, None if done is None else done.shard)
            if done is not None:
                pace.note(len(part), done.seconds)
            note(store, own, outcomes, report, on_error)
            bar.update(len(part))


def encode_by_workers(workers: Workers, store: Store, *, verbose: bool | int) -> None:
    """Have the shards encoded that were committed before the encoder was learned."""
    pending: list[ShardRecord] = store.pending_shards()
    address = StoreAddress(str(store.path), description_digest(store.path), store.model)
    parts: Any = map_parts(workers, partial(encode_shards, address), pending, lambda: 1)
    with progress_bar(total=len(pending), description="encoding", unit="shard", verbose=verbose) as bar, closing(parts):
        for part, written in parts:
            if written is None:
                raise ClusterError(
                    f"Every process that encoded shard {part[0].shard} of {store.path} died: out of memory, killed, or "
                    "crashed. What is finished is kept; give the workers more memory and run the same again."
                )
            for shard, arrays in zip(part, written, strict=True):
                store.adopt_vectors(shard, arrays)
                bar.update(1)
