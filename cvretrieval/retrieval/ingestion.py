"""Adding images: extract in parallel, commit shard by shard, learn the encoder once, encode what is pending."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._state import get_state, set_state
from cvretrieval._validation import ImageReadError
from cvretrieval._workers import active_workers, lending
from cvretrieval.images import describe_source
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.cluster_ingestion import encode_by_workers, extract_by_workers
from cvretrieval.retrieval.describing import describe_images, features_of, vectors_of
from cvretrieval.retrieval.learning import StoredFeatures, learn
from cvretrieval.retrieval.outcomes import IndexingReport, kept, note, outcome_of
from cvretrieval.retrieval.records import ShardRecord
from cvretrieval.retrieval.remote_tasks import BLOCK_IMAGES, ENCODE_IMAGES
from cvretrieval.retrieval.rows import Rows, join_rows
from cvretrieval.retrieval.sources import Source, plan
from cvretrieval.retrieval.stages import Described, Stages
from cvretrieval.retrieval.store import Store

# Images committed at once: a crash costs the images of one commit, but a process may open only some thousand files.
_SHARD_IMAGES = 128
_MOST_SHARD_IMAGES = 1024
_SHARDS = 100


def add(
    store: Store,
    stages: Stages,
    X: Any,
    ids: Sequence[str] | None,
    *,
    on_error: str,
    accept: Callable[[Rows], object],
    max_train_images: int,
    random_state: Any,
    n_jobs: int | None,
    verbose: bool | int,
) -> IndexingReport:
    """Bring the images of `X` into the store; see `ImageRetriever.add`.

    `accept` raises if the index cannot hold rows of this kind; it is asked once the encoder is learned.

    Features are committed before the encoder is learned, so a run that is cut off at any instant resumes without
    extracting anything twice.
    """
    start = time.perf_counter()
    work = plan(X, ids, store.records())
    report = IndexingReport(n_unchanged=work.n_unchanged, failures=list(work.failures))
    if report.failures and on_error == "raise":
        raise ImageReadError(*report.failures[0])
    with active_workers(n_jobs) as workers, lending(workers):
        if stages.takes_images and not stages.is_learned:
            # The images themselves are not stored, so what encodes them is learned first.
            _learn_from_images(store, stages, accept, work.sources, max_train_images, random_state, on_error)
        if workers is None:
            _extract(store, stages, work.sources, report, on_error=on_error, n_jobs=n_jobs, verbose=verbose)
        else:
            extract_by_workers(workers, store, stages, work.sources, report, on_error=on_error, verbose=verbose)
        if not stages.is_learned and not stages.takes_images:
            _learn(store, stages, accept, max_train_images, random_state)
        if stages.is_learned and workers is None:
            _encode_pending(store, stages, n_jobs, verbose)
        elif stages.is_learned and workers is not None:
            encode_by_workers(workers, store, verbose=verbose)
    report.seconds = time.perf_counter() - start
    return report


def _extract(
    store: Store,
    stages: Stages,
    sources: list[Source],
    report: IndexingReport,
    *,
    on_error: str,
    n_jobs: int | None,
    verbose: bool | int,
) -> None:
    """Describe images in parallel and commit them shard by shard; what is finished survives a later failure."""
    images = [source.image for source in sources]
    results = describe_images(stages, images, block_images=BLOCK_IMAGES, n_jobs=n_jobs, verbose=verbose)
    shard_images = min(max(_SHARD_IMAGES, len(sources) // _SHARDS), _MOST_SHARD_IMAGES)
    first = 0
    shard: list[Described] = []
    try:
        with closing(results):
            for described in results:
                shard += [image for image, _ in described]
                if len(shard) >= shard_images or (on_error == "raise" and any(image.reason for image in shard)):
                    ready, shard = shard, []
                    ready_sources = sources[first : first + len(ready)]
                    first += len(ready)
                    _commit(store, ready_sources, ready, report, on_error, stages.takes_images)
    except BaseException:
        # Interrupted between two commits: keep what is finished, then let the interruption go on.
        _commit(store, sources[first : first + len(shard)], shard, report, "skip", stages.takes_images)
        raise
    _commit(store, sources[first : first + len(shard)], shard, report, on_error, stages.takes_images)


def _commit(
    store: Store,
    sources: list[Source],
    described: list[Described],
    report: IndexingReport,
    on_error: str,
    by_image: bool,
) -> None:
    """Write one shard and commit its rows; then report, or raise for, the images that could not be read."""
    outcomes = [outcome_of(image, by_image) for image in described]
    rows = kept(sources, outcomes, on_error)
    if rows:
        images = [image for image in described if not image.reason]
        store.write_shard(rows, features_of(images), vectors_of(images))
    note(store, sources, outcomes, report, on_error)


def _learn(
    store: Store, stages: Stages, accept: Callable[[Rows], object], max_train_images: int, random_state: Any
) -> None:
    """Fit the encoder on a seeded draw of the committed images, unless there is nothing to learn from."""
    records = [record for record in store.records() if record.status == "ok"]
    if not records:
        return
    if len(records) > max_train_images:
        drawn = check_random_state(random_state).choice(len(records), max_train_images, replace=False)
        records = [records[i] for i in np.sort(drawn)]
    keys = [record.key for record in records]
    read = partial(_decoded, store, stages)
    learn(stages.encoder, StoredFeatures(read, keys, store=store, model=stages.model))
    accept(stages.encode(store.features(keys[:1])))
    _keep_learned(store, stages)


def _decoded(store: Store, stages: Stages, keys: Sequence[int]) -> LocalFeatures:
    return stages.decode(store.features(keys))


def _learn_from_images(
    store: Store,
    stages: Stages,
    accept: Callable[[Rows], object],
    sources: Sequence[Source],
    max_train_images: int,
    random_state: Any,
    on_error: str,
) -> None:
    """Fit an encoder of images on a seeded draw of them; unreadable ones are left out, to be named later."""
    drawn = np.arange(len(sources))
    if len(sources) > max_train_images:
        drawn = np.sort(check_random_state(random_state).choice(len(sources), max_train_images, replace=False))
    images = [sources[i].image for i in drawn.tolist()]
    while images:
        try:
            stages.encoder.fit(images, None)  # a frozen one insists on labels
            accept(np.ascontiguousarray(stages.encoder.transform(images[:1]), dtype=np.float32))
        except ImageReadError as error:
            readable = [image for image in images if describe_source(image) != error.source]
            if on_error == "raise" or len(readable) == len(images):
                raise
            images = readable
            continue
        _keep_learned(store, stages)
        return


def _keep_learned(store: Store, stages: Stages) -> None:
    """Write what the encoder has learned."""
    arrays, meta = get_state(stages.encoder)
    # As they will be read back: a matrix product in another memory order differs in the last bits.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    store.write_model(arrays, meta)
    set_state(stages.encoder, arrays, meta)
    stages.model = store.model


def _encode_pending(store: Store, stages: Stages, n_jobs: int | None, verbose: bool | int) -> None:
    """Encode the shards that were committed before the encoder was learned."""
    serial = stages.serial()

    def encode(shard: ShardRecord) -> tuple[ShardRecord, Any]:
        features = store.shard_features(shard.shard)
        blocks = block_slices(len(features), ENCODE_IMAGES)
        return shard, join_rows([serial.encode(features[block]) for block in blocks])

    results = map_blocks(
        encode, store.pending_shards(), n_jobs=n_jobs, description="encoding", unit="shard", verbose=verbose
    )
    with closing(results):
        for shard, vectors in results:
            store.write_vectors(shard, vectors)
