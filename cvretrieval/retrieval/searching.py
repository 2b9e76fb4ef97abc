"""Searching: describe the queries, ask the index, rerank, verify the best candidates, rank."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

from cvretrieval._validation import ImageReadError, StoreError
from cvretrieval.images import ImageRegion, check_images
from cvretrieval.local_features import ImageFeatures
from cvretrieval.retrieval import reranking
from cvretrieval.retrieval.describing import describe_images
from cvretrieval.retrieval.localization import localize, looks_at_images
from cvretrieval.retrieval.outline import query_outline
from cvretrieval.retrieval.records import ImageRecord, Snapshot, StaleSnapshotError
from cvretrieval.retrieval.reranking import Verdicts
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from cvretrieval.retrieval.rows import Rows, is_blank, join_rows
from cvretrieval.retrieval.stages import Stages, describe_query

# A search meets a compaction once at most; more often than this, something else is wrong.
_ATTEMPTS = 10


@dataclass(eq=False)
class _Query:
    """One query on its way through the stages."""

    name: str
    image: Any
    box: tuple[float, float, float, float] | None
    features: ImageFeatures | None
    vector: Rows | None
    key: int | None = None
    timings: dict[str, float] = field(default_factory=dict)
    hits: tuple[Hit, ...] = ()


def search(
    retriever: Any,
    X: Any,
    k: int,
    *,
    ids: Sequence[str] | None,
    boxes: Sequence[Any] | None,
    within: Sequence[str] | None,
) -> SearchResult:
    """Rank the indexed images for each query; see `ImageRetriever.search`."""
    if (X is None) == (ids is None):
        raise ValueError("search takes either X (images) or ids (of indexed images).")
    if ids is not None and boxes is not None:
        raise ValueError("boxes are regions of the images in X; they cannot be combined with ids.")
    _check_learned(retriever)
    queries: list[_Query] = []
    failures: list[tuple[str, str]] = []
    if ids is None:
        queries, failures = _image_queries(retriever, retriever._stages, X, boxes)
    for attempt in range(_ATTEMPTS):
        # What takes long for a million images, a list of them all included, is not done for each search.
        snapshot = retriever._store.snapshot
        try:
            if ids is not None:
                queries = _indexed_queries(retriever, snapshot, [ids] if isinstance(ids, str) else list(ids))
            allowed = None if within is None else _keys_of(snapshot, within)
            _rank(retriever, queries, k, snapshot.images, allowed)
            break
        except StaleSnapshotError:
            # Compacted by another process since the snapshot was taken: ask the new state of the index.
            if attempt == _ATTEMPTS - 1:
                raise
            retriever._reload()
    results = [
        QueryResult(
            query=query.name,
            hits=query.hits,
            seconds=sum(query.timings.values()),
            timings=query.timings,
            n_features=None if query.features is None else len(query.features.descriptors),
            box=query.box,
            image=query.image,
        )
        for query in queries
    ]
    info = {"path": str(retriever.path_), **snapshot.totals._asdict()}
    # A report must still say what was done when the defaults have changed.
    with config_context(print_changed_only=False):
        method = method_of(retriever)
    return SearchResult(results, method, info, failures, retriever._stages.reader)


def method_of(retriever: Any) -> dict[str, str]:
    """Describe the stages for reports, one printable line each."""
    stages = {
        "extractor": retriever._stages.extractor,
        "encoder": retriever._stages.encoder,
        "index": None if retriever.index is None else retriever._template(),
        "reranker": retriever.reranker,
        "verifier": retriever.verifier,
    }
    method = {name: " ".join(repr(stage).split()) for name, stage in stages.items() if stage is not None}
    method["metric"] = str(retriever._template().metric)
    if retriever.verifier is not None:
        method["n_verify"] = str(retriever.n_verify)
    return method


def _check_learned(retriever: Any) -> None:
    """Refuse to search an index whose making was cut off, rather than find nothing in it."""
    if not retriever._stages.is_learned and any(record.status == "ok" for record in retriever._store.records()):
        raise StoreError(
            f"{retriever.path_} holds features, but no vectors yet: it is being made, or that was interrupted. Run "
            "`cvretrieval index` again, or `add`, to finish it."
        )


def _image_queries(
    retriever: Any, stages: Stages, X: Any, boxes: Sequence[Any] | None
) -> tuple[list[_Query], list[tuple[str, str]]]:
    images = [X] if isinstance(X, (str, os.PathLike)) else list(check_images(X, estimator=retriever))
    if boxes is not None and len(boxes) != len(images):
        raise ValueError(f"There are {len(images)} queries, but {len(boxes)} boxes.")
    regions = [_region(image, None if boxes is None else boxes[i]) for i, image in enumerate(images)]
    queries: list[_Query] = []
    failures: list[tuple[str, str]] = []
    # The features of a query take longer than its search, so each query is a task of its own.
    blocks = describe_images(
        stages,
        regions,
        block_images=1,
        n_jobs=retriever.n_jobs,
        as_queries=True,
        description="queries",
        unit="query",
        verbose=retriever.verbose and len(regions) > 1,
    )
    described = (query for block in blocks for query in block)
    for image, region, (described_image, seconds) in zip(images, regions, described, strict=True):
        name = describe_query(image)
        if described_image.reason:
            if retriever.on_error == "raise":
                raise ImageReadError(name, described_image.reason)
            failures.append((name, described_image.reason))
            continue
        box = region.box if isinstance(region, ImageRegion) else None
        source = region.source if isinstance(region, ImageRegion) else region
        queries.append(
            _Query(name, source, box, described_image.features, described_image.vector, None, {"features": seconds})
        )
    return queries, failures


def _region(image: Any, box: Any) -> Any:
    if box is None:
        return image
    if isinstance(image, ImageRegion):
        raise ValueError("An ImageRegion has its own box; do not give another one in boxes.")
    if len(box) != 4:
        raise ValueError(f"A box is x1, y1, x2, y2. Got {box!r} instead.")
    return ImageRegion(image, (float(box[0]), float(box[1]), float(box[2]), float(box[3])))


def _indexed_queries(retriever: Any, snapshot: Snapshot, ids: list[str]) -> list[_Query]:
    keys = _keys_of(snapshot, ids)
    start = time.perf_counter()
    store, stages = retriever._store, retriever._stages
    queries = []
    for name, key in zip(ids, keys, strict=True):
        record = snapshot.images[key]
        features = store.features([key]) if stages.extractor is not None else None
        vector = None
        if record.status == "ok" and features is not None and stages.treats_queries_apart:
            vector = stages.encode(features, as_queries=True)
        elif record.status == "ok":
            vector = store.vectors([key])
        queries.append(_Query(name, record.path, None, None if features is None else features[0], vector, key))
    for query in queries:
        query.timings["features"] = (time.perf_counter() - start) / max(1, len(queries))
    return queries


def _keys_of(snapshot: Snapshot, ids: Sequence[str]) -> list[int]:
    records = [snapshot.find(name) for name in ids]
    keys = [record.key for record in records if record is not None and record.status != "failed"]
    if len(keys) < len(ids):
        held = {snapshot.images[key].id for key in keys}
        missing = [name for name in ids if name not in held]
        raise KeyError(f"Not in the index: {', '.join(map(repr, missing[:5]))}{', …' if len(missing) > 5 else ''}.")
    return keys


def _rank(
    retriever: Any, queries: list[_Query], k: int, by_key: Mapping[int, ImageRecord], allowed: Sequence[int] | None
) -> None:
    by_image = retriever._stages.takes_images
    searchable = [query for query in queries if _is_searchable(query, by_image)]
    if not searchable or not by_key:
        return
    start = time.perf_counter()
    index = retriever._current_engine()
    # One more than asked for: a query by id finds itself first.
    depth = max(k, retriever.n_verify if retriever.verifier is not None else 0) + 1
    n_images = max(1, len(index))
    vectors = join_rows([query.vector for query in searchable if query.vector is not None])
    within = None if allowed is None else np.asarray(allowed, dtype=np.int64)
    first_depth = min(max(depth, 1 + reranking.depth(retriever, n_images, depth)), n_images)
    found_keys, found_scores = index.search(vectors, first_depth, within=within)
    found_keys = _without_unknown(searchable, found_keys, by_key)
    _share(searchable, "search", start)
    reranker = retriever.reranker if len(index) else None
    # By verification each query for itself: the features of all candidates of all queries may not fit in memory.
    size = 1 if reranker is not None and reranker.needs_verification else len(searchable)
    for first in range(0, len(searchable), size):
        part = slice(first, first + size)
        keys, scores, verdicts = found_keys[part], found_scores[part], [Verdicts() for _ in searchable[part]]
        if reranker is not None:
            if reranker.needs_verification:
                _verify(retriever, searchable[first], keys[0], verdicts[0])
            start = time.perf_counter()
            keys, scores = reranking.rerank(
                retriever, index, searchable[part], vectors[part], keys, depth, within, verdicts
            )
            keys = _without_unknown(searchable[part], keys, by_key)
            _share(searchable[part], "reranking", start)
        for query, own_keys, own_scores, known in zip(searchable[part], keys, scores, verdicts, strict=True):
            if looks_at_images(retriever.verifier):
                query.hits = _localized_hits(retriever, query, own_keys, own_scores, k, by_key)
                continue
            if retriever.verifier is not None:
                _verify(retriever, query, own_keys, known)
            query.hits = _hits(query, own_keys, own_scores, k, by_key, known)
            known.clear()


def _is_searchable(query: _Query, by_image: bool) -> bool:
    """Whether there is anything to search by: an image without features has no word, and a vector of zeros."""
    if query.vector is None:
        return False
    if not by_image and query.features is not None and not len(query.features.descriptors):
        return False
    return not is_blank(query.vector)


def _without_unknown(
    queries: list[_Query], found: NDArray[np.int64], by_key: Mapping[int, ImageRecord]
) -> NDArray[np.int64]:
    """Return the keys with -1 in place of a query that finds itself, and of what is not in this state of the index."""
    return np.array(
        [
            [key if key in by_key and key != query.key else -1 for key in row]
            for query, row in zip(queries, found.tolist(), strict=True)
        ],
        dtype=np.int64,
    ).reshape(found.shape)


def _share(queries: list[_Query], stage: str, start: float) -> None:
    """Book the time since `start` to a stage, each query its share."""
    seconds = (time.perf_counter() - start) / len(queries)
    for query in queries:
        query.timings[stage] = query.timings.get(stage, 0.0) + seconds


def _verify(retriever: Any, query: _Query, found: NDArray[np.int64], verdicts: Verdicts) -> None:
    """Verify the best candidates that are not verified yet, and add what comes out."""
    start = time.perf_counter()
    candidates = [key for key in found[found >= 0][: retriever.n_verify].tolist() if key not in verdicts]
    if query.features is not None and candidates:
        features = retriever._store.features(candidates)
        results = retriever.verifier.verify_candidates(query.features, features, n_jobs=retriever.n_jobs)
        verdicts.update(zip(candidates, zip(features, results, strict=True), strict=True))
    query.timings["verification"] = query.timings.get("verification", 0.0) + time.perf_counter() - start


def _hits(
    query: _Query,
    keys: NDArray[np.int64],
    scores: NDArray[Any],
    k: int,
    by_key: Mapping[int, ImageRecord],
    verdicts: Verdicts,
) -> tuple[Hit, ...]:
    found = [(int(key), float(score)) for key, score in zip(keys, scores, strict=True) if key >= 0]

    def order(item: tuple[int, tuple[int, float]]) -> tuple[bool, int, int]:
        place, (key, _) = item
        result = verdicts[key][1] if key in verdicts else None
        if not result:
            return True, 0, place
        return False, -int(result.score), place

    hits = []
    for rank, (_, (key, score)) in enumerate(sorted(enumerate(found), key=order)[:k], start=1):
        features, result = verdicts.get(key, (None, None))
        record = by_key[key]
        matches = None
        if result is not None and result.inliers.any():
            matches = result.inlier_coordinates(query.features, features)
        hits.append(
            Hit(
                rank=rank,
                id=record.id,
                path=record.path,
                score=score,
                n_inliers=None if result is None else int(result.n_inliers),
                verified=bool(result),
                transform=None if result is None else result.transform,
                matches=matches,
                outline=query_outline(result, query.features, features, query.box),
                n_effective_inliers=None if result is None else int(result.n_effective_inliers),
            )
        )
    return tuple(hits)


def _localized_hits(
    retriever: Any,
    query: _Query,
    keys: NDArray[np.int64],
    scores: NDArray[Any],
    k: int,
    by_key: Mapping[int, ImageRecord],
) -> tuple[Hit, ...]:
    """Return the hits of which the best are ordered by the region of them that is most like the query."""
    start = time.perf_counter()
    found = [(int(key), float(score)) for key, score in zip(keys, scores, strict=True) if key >= 0]
    regions = localize(retriever, query.image, query.box, [by_key[key] for key, _ in found[: retriever.n_verify]])
    ordered: list[tuple[int, float, Any]] = [(key, *region) for key, region in regions.items()]
    ordered += [(key, score, None) for key, score in found if key not in regions]
    query.timings["localisation"] = time.perf_counter() - start
    return tuple(
        Hit(rank=rank, id=by_key[key].id, path=by_key[key].path, score=score, outline=outline)
        for rank, (key, score, outline) in enumerate(ordered[:k], start=1)
    )
