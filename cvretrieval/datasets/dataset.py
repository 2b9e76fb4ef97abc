"""The type every loader returns: database images, query images, and what is relevant to each query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvretrieval.image_decoding import ImageRegion

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Query:
    """A query image and its ground truth; the metrics take it as it is.

    Attributes
    ----------
    id : str
        Name of the query, unique in the data set: the POSIX path of its image relative to the data set's folder, or
        the name the benchmark gives it.
    path : Path
        Its image.
    relevant : frozenset of str
        Ids of the database images that should be found.
    junk : frozenset of str
        Ids that count neither way; the query itself, where it is in the database and not listed as relevant.
    hard : frozenset of str
        The part of `relevant` that is hard to find; empty where the data set does not say.
    own_id : str or None
        Id of the query image in the database, None if it is not there.
    box : tuple of 4 floats or None
        Region x1, y1, x2, y2 of the query image to search for, in its pixels; None for the whole image.
    panorama_of : mapping of str to str
        Id → panorama of the database images that were cut out of panoramas; one mapping for all queries.
    """

    id: str
    path: Path
    relevant: frozenset[str]
    junk: frozenset[str] = frozenset()
    hard: frozenset[str] = frozenset()
    own_id: str | None = None
    box: Box | None = None
    panorama_of: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class RetrievalDataset:
    """A labelled set of images for measuring retrieval.

    Parameters
    ----------
    name : str
        Shown beside figures.
    database : mapping of str to Path
        Id → file of every image that is searched, in a fixed order. Ids are POSIX paths relative to the data set's
        folder unless the benchmark names its images.
    queries : tuple of Query
    form : str
        How the ground truth was found, e.g. ``"folder_per_class"``.
    protocols : tuple of str, default=("oxford",)
        The protocols that the form is usually measured with; see `cvretrieval.metrics.get_protocol`.
    boxes : mapping of str to tuple of 4 floats, default={}
        Id → region x1, y1, x2, y2 that a database image is cut to; images that are not named are taken whole.

    Raises
    ------
    ValueError
        If a query is named twice, or the ground truth or the boxes name images that are not in the database.
    """

    name: str
    database: Mapping[str, Path]
    queries: tuple[Query, ...]
    form: str
    protocols: tuple[str, ...] = field(default=("oxford",))
    boxes: Mapping[str, Box] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.database or not self.queries:
            raise ValueError(
                f"The data set {self.name!r} has {len(self.database)} database images and {len(self.queries)} queries; "
                "it needs some of both."
            )
        boxed = sorted(self.boxes.keys() - self.database.keys())
        if boxed:
            raise ValueError(f"There is a box for {boxed[0]!r}, which is not in the database.")
        seen = set()
        for query in self.queries:
            if query.id in seen:
                raise ValueError(f"The query {query.id!r} is in the data set {self.name!r} twice.")
            seen.add(query.id)
            named = query.relevant | query.junk | ({query.own_id} if query.own_id is not None else set())
            # Not `named - keys`: that goes through all keys for each query.
            unknown = sorted(name for name in named if name not in self.database)
            if unknown:
                raise ValueError(
                    f"The ground truth of query {query.id!r} names {unknown[0]!r}, which is not in the database"
                    + (f" (nor are {len(unknown) - 1} others)." if len(unknown) > 1 else ".")
                )
            both = sorted(query.relevant & query.junk)
            if both:
                raise ValueError(f"In the ground truth of query {query.id!r}, {both[0]!r} is both relevant and junk.")
            if not query.hard <= query.relevant:
                raise ValueError(f"In the ground truth of query {query.id!r}, hard images are not all relevant.")

    @property
    def database_ids(self) -> list[str]:
        return list(self.database)

    @property
    def database_paths(self) -> list[Path]:
        return list(self.database.values())

    @property
    def database_images(self) -> list[Any]:
        """What is indexed: a path, or an `ImageRegion` where the image is cut to its box."""
        return [
            ImageRegion(path, self.boxes[image_id]) if image_id in self.boxes else path
            for image_id, path in self.database.items()
        ]

    @property
    def query_ids(self) -> list[str]:
        return [query.id for query in self.queries]

    @property
    def query_paths(self) -> list[Path]:
        return [query.path for query in self.queries]

    @property
    def query_in_database(self) -> bool:
        """Whether some query image is itself in the database."""
        return any(query.own_id is not None for query in self.queries)

    @property
    def ground_truth(self) -> dict[str, Query]:
        """Query id → `Query`, as `cvretrieval.metrics.evaluate_rankings` takes it."""
        return {query.id: query for query in self.queries}

    def __str__(self) -> str:
        n_boxes = sum(query.box is not None for query in self.queries)
        boxes = f", {n_boxes} with a region" if n_boxes else ""
        own = ", queries in the database" if self.query_in_database else ""
        counts = f"{len(self.database):,} database images, {len(self.queries):,} queries"
        return f"{self.name} ({self.form}): {counts}{boxes}{own}"
