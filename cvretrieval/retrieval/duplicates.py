"""Near-duplicates in a collection: the same picture again, however it was saved, scaled, cut or turned."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils.validation import check_is_fitted

from cvretrieval._durable import file_digest
from cvretrieval._parallel import map_blocks
from cvretrieval._validation import check_number
from cvretrieval.retrieval.localization import verifies_features
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.verification import SpatialVerifier

# Queries of one search, so that their ranked lists need little memory.
_BLOCK_QUERIES = 64


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same picture.

    Attributes
    ----------
    a, b : str
        Their ids.
    identical : bool
        The files are equal byte by byte.
    n_inliers : int
        Features that agree in what they look like and where they are; 0 where the files alone were compared.
    share : float
        That number over the features of the image with fewer of them; 1 for identical files.
    """

    a: str
    b: str
    identical: bool
    n_inliers: int
    share: float


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are connected by pairs.

    Attributes
    ----------
    ids : tuple of str
        In the order they were indexed.
    paths : tuple of (str or None)
        Their files.
    pairs : tuple of DuplicatePair
        The surest first.
    """

    ids: tuple[str, ...]
    paths: tuple[str | None, ...]
    pairs: tuple[DuplicatePair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        images = [{"id": name, "path": path} for name, path in zip(self.ids, self.paths, strict=True)]
        return {"images": images, "pairs": [{**vars(pair), "share": round(pair.share, 4)} for pair in self.pairs]}


def find_duplicates(
    retriever: Any,
    *,
    between: tuple[Iterable[str], Iterable[str]] | None = None,
    min_share: float = 0.25,
    n_candidates: int = 20,
) -> list[DuplicateGroup]:
    """Find groups of near-duplicates among the indexed images.

    Parameters
    ----------
    retriever : ImageRetriever
        Fitted, with local features and cosine vectors.
    between : (ids, ids), optional
        Only pairs of an image of the first with one of the second: photos of a test set that are in the training set.
    min_share : float, default=0.25
        Share of the features, of the image with fewer, that must agree in place. Measured on 40 photos, 95 % of the
        copies have at least: 0.74 in grey, 0.67 at half the contrast, 0.64 cut to half the area, 0.54 at half the
        size, 0.28 much brighter, 0.23 as JPEG of quality 10; of photos of one object from four sides (UKBench), 5 %
        have more than 0.34 and half have more than 0.16; unrelated photos at most 0.08.
    n_candidates : int, default=20
        So many of the most similar images of each are verified.

    Returns
    -------
    list of DuplicateGroup
        The largest first, then in the order the images were indexed.

    Notes
    -----
    Every image is searched for in the index, the geometry of the candidates is verified (`SpatialVerifier`, with the
    parameters of the retriever's own if it has one). Files of the same size are also compared byte by byte, so that
    identical ones are found even if they are blank. Mirror images are not found: their features look different.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import VLAD, ImageRetriever
    >>> from cvretrieval.datasets import make_scenes
    >>> from cvretrieval.retrieval import find_duplicates
    >>> a, b = make_scenes(n_scenes=2, n_views=1, random_state=0).images
    >>> retriever = ImageRetriever(encoder=VLAD(4, random_state=0)).fit([a, b, np.rot90(a)], ids=["a", "b", "turned a"])
    >>> [group.ids for group in find_duplicates(retriever)]
    [('a', 'turned a')]
    """
    check_is_fitted(retriever)
    check_number("find_duplicates", "min_share", min_share, low=0, high=1, low_open=True)
    check_number("find_duplicates", "n_candidates", n_candidates, low=1, integer=True)
    if retriever._stages.extractor is None:
        raise ValueError("find_duplicates compares local features, and this index has none: it has no extractor.")
    records = {record.id: record for record in retriever._store.records() if record.status != "failed"}
    sides = [set(records)] * 2 if between is None else [set(side) for side in between]
    unknown = sorted((sides[0] | sides[1]) - records.keys())
    if unknown:
        raise ValueError(f"Not in the index: {unknown[0]!r}{f' and {len(unknown) - 1} more' if unknown[1:] else ''}.")
    order = {name: i for i, name in enumerate(records)}

    def belongs(a: str, b: str) -> bool:
        return (a in sides[0] and b in sides[1]) or (b in sides[0] and a in sides[1])

    pairs = {}
    for names in _identical(list(records.values())):
        a_side, b_side = ([name for name in names if name in side] for side in sides)
        # Each with the first of the other side: all pairs of a thousand blank images would be half a million.
        for a, b in [(a, b_side[0]) for a in a_side if b_side] + [(a_side[0], b) for b in b_side if a_side]:
            if a != b:
                pair = (a, b) if order[a] < order[b] else (b, a)
                pairs[pair] = DuplicatePair(*pair, True, 0, 1.0)
    similar = _candidates(retriever, records, sides, order, n_candidates)
    wanted = [(records[a], [records[b] for b in others if belongs(a, b)]) for a, others in similar.items()]
    agreeing = map_blocks(partial(_agreeing, retriever), wanted, n_jobs=1, weights=[1] * len(wanted),
                          description="geometry", verbose=retriever.verbose)  # fmt: skip
    for found in agreeing:
        for a, b, n_inliers, share in found:
            if share >= min_share:
                pairs[a, b] = DuplicatePair(a, b, (a, b) in pairs, n_inliers, share)
    return _groups(list(pairs.values()), records, order)


def _identical(records: Sequence[ImageRecord]) -> list[list[str]]:
    """Return the ids of files with the same bytes, where there are several."""
    by_size: dict[int, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if record.path is not None and record.size > 0:
            by_size[record.size].append(record)
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for record in (record for same_size in by_size.values() if len(same_size) > 1 for record in same_size):
        # A file may be gone since it was indexed; its features are still compared.
        with contextlib.suppress(OSError):
            by_digest[file_digest(Path(str(record.path)))].append(record.id)
    return [names for names in by_digest.values() if len(names) > 1]


def _candidates(
    retriever: Any, records: dict[str, ImageRecord], sides: list[set[str]], order: dict[str, int], n_candidates: int
) -> dict[str, list[str]]:
    """Return first image → similar ones, each pair once."""
    found: dict[str, set[str]] = defaultdict(set)
    asked = [name for name, record in records.items() if record.status == "ok" and name in sides[0]]
    if not asked:
        return {}
    within = None if len(sides[1]) == len(records) else sorted(sides[1], key=order.__getitem__)
    plain = retriever.load(retriever.path_, verifier=None, reranker=None, n_jobs=retriever.n_jobs)

    def search(names: list[str]) -> list[list[str]]:
        return list(plain.search(ids=names, k=n_candidates, within=within).ids)

    blocks = [asked[i : i + _BLOCK_QUERIES] for i in range(0, len(asked), _BLOCK_QUERIES)]
    try:
        weights = [len(block) for block in blocks]
        lists = list(
            map_blocks(search, blocks, n_jobs=1, weights=weights, description="candidates", verbose=retriever.verbose)
        )
    finally:
        plain.close()
    for names, ids in zip(blocks, lists, strict=True):
        for name, similar in zip(names, ids, strict=True):
            for other in similar:
                first, second = sorted((name, other), key=order.__getitem__)
                found[first].add(second)
    return {name: sorted(others, key=order.__getitem__) for name, others in found.items()}


def _agreeing(retriever: Any, task: tuple[ImageRecord, list[ImageRecord]]) -> list[tuple[str, str, int, float]]:
    """Return both ids, inliers and their share for the images that the verifier accepts."""
    record, others = task[0], [other for other in task[1] if other.n_features]
    if not others or not record.n_features:
        return []
    verifier = retriever.verifier if verifies_features(retriever.verifier) else SpatialVerifier()
    features = retriever._store.features([record.key, *(other.key for other in others)])
    results = verifier.verify_candidates(features[0], features[1:], n_jobs=retriever.n_jobs)
    return [
        (record.id, other.id, int(result.n_inliers), result.n_inliers / min(record.n_features, other.n_features))
        for other, result in zip(others, results, strict=True)
        if result
    ]


def _groups(pairs: list[DuplicatePair], records: dict[str, ImageRecord], order: dict[str, int]) -> list[DuplicateGroup]:
    if not pairs:
        return []
    names = list(records)
    rows, columns = (np.array([order[getattr(pair, side)] for pair in pairs]) for side in "ab")
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (rows, columns)), shape=(len(names), len(names)))
    labels = connected_components(graph, directed=False)[1]
    members: dict[int, list[str]] = defaultdict(list)
    of_group: dict[int, list[DuplicatePair]] = defaultdict(list)
    for place in np.unique(np.concatenate([rows, columns])):
        members[int(labels[place])].append(names[place])
    for pair in pairs:
        of_group[int(labels[order[pair.a]])].append(pair)
    groups = [
        DuplicateGroup(
            tuple(ids),
            tuple(records[name].path for name in ids),
            tuple(sorted(of_group[label], key=lambda pair: (-pair.share, order[pair.a], order[pair.b]))),
        )
        for label, ids in members.items()
    ]
    return sorted(groups, key=lambda group: (-len(group.ids), order[group.ids[0]]))
