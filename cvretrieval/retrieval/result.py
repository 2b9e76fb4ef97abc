"""What a search returns: ranked hits per query, with everything a report needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Hit:
    """One image of a ranked list.

    Attributes
    ----------
    rank : int
        1 for the best.
    id : str
        Identifier of the image in the index.
    path : str or None
        File it was indexed from; None for images given as arrays.
    score : float
        Similarity of the index (cosine by default), before verification; of the region, where `AML` has looked for it.
    n_inliers : int or None
        Geometrically consistent matches; None where no verification ran.
    verified : bool
        Whether the verifier accepted the match.
    transform : ndarray of shape (3, 3) or None
        Maps homogeneous pixel coordinates of the query to those of this image. None for a fundamental matrix, too.
    matches : ndarray of shape (n_inliers, 4) or None
        Inlier correspondences x, y in the query and x, y in this image, in original pixels.
    outline : ndarray of shape (n_corners, 2) or None
        Where the query, or the region of it that was asked for, lies in this image: a convex polygon in pixels, cut off
        at the edges of the image; or the region that `AML` has found. None where the match was not accepted, where the
        transform leaves nothing of it, and for a fundamental matrix.
    n_effective_inliers : int or None
        Inliers that do not crowd; see `Verification`.
    """

    rank: int
    id: str
    path: str | None
    score: float
    n_inliers: int | None = None
    verified: bool = False
    transform: NDArray[np.float64] | None = None
    matches: NDArray[np.float32] | None = None
    outline: NDArray[np.float64] | None = None
    n_effective_inliers: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form used by ``cvretrieval search --json``."""
        return {
            "rank": self.rank,
            "id": self.id,
            "path": self.path,
            "score": round(self.score, 6),
            "n_inliers": self.n_inliers,
            "verified": self.verified,
            "n_effective_inliers": self.n_effective_inliers,
            "transform": None if self.transform is None else self.transform.tolist(),
            "outline": None if self.outline is None else np.round(self.outline, 1).tolist(),
        }


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The ranked list of one query.

    Attributes
    ----------
    query : str
        Path of the query, the id of an indexed image, or a description.
    hits : tuple of Hit
        Best first.
    seconds : float
        Wall-clock time of this query, reading and features included; in a batch, its share.
    timings : mapping of str to float
        Seconds by stage: ``"features"``, ``"search"``, ``"reranking"``, ``"verification"``, ``"localisation"``.
    n_features : int or None
        Number of local features of the query.
    box : tuple of 4 floats or None
        Region x1, y1, x2, y2 that was searched for, in pixels of the query.
    image : object
        What the query was read from (path, array, PIL image), for reports.
    """

    query: str
    hits: tuple[Hit, ...]
    seconds: float
    timings: Mapping[str, float] = field(default_factory=dict)
    n_features: int | None = None
    box: tuple[float, float, float, float] | None = None
    image: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form used by ``cvretrieval search --json``."""
        result: dict[str, Any] = {"query": self.query}
        if self.box is not None:
            result["box"] = list(self.box)
        result["results"] = [hit.to_dict() for hit in self.hits]
        result["seconds"] = round(self.seconds, 4)
        return result


class SearchResult:
    """The ranked lists of one or more queries.

    Parameters
    ----------
    queries : sequence of QueryResult
    method : mapping of str to str
        Stage → its estimator and parameters, e.g. ``{"extractor": "SIFT(root=True)"}``, shown in the report.
    index : mapping of str to object
        Facts about the index, e.g. ``{"path": "photos.cvr", "n_images": 50}``.
    failures : sequence of (str, str), optional
        Name and reason of each query that could not be read.
    reader : ImageReader, optional
        How the index reads images, so that reports and figures read them alike.

    Attributes
    ----------
    ids : list of list of str
        Ids per query, best first.
    scores : list of ndarray
    n_inliers : list of list of int or None
    transforms : list of list of (3, 3) ndarray or None
    outlines : list of list of (n_corners, 2) ndarray or None

    Examples
    --------
    >>> from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
    >>> result = SearchResult([QueryResult("q.jpg", (Hit(1, "a.jpg", None, 0.5),), 0.1)])
    >>> result.ids
    [['a.jpg']]
    """

    def __init__(
        self,
        queries: Sequence[QueryResult],
        method: Mapping[str, str] | None = None,
        index: Mapping[str, Any] | None = None,
        failures: Sequence[tuple[str, str]] = (),
        reader: Any = None,
    ) -> None:
        self.queries = tuple(queries)
        self.method = dict(method or {})
        self.index = dict(index or {})
        self.failures = list(failures)
        self.reader = reader

    @property
    def ids(self) -> list[list[str]]:
        return [[hit.id for hit in query.hits] for query in self.queries]

    @property
    def scores(self) -> list[NDArray[np.float64]]:
        return [np.array([hit.score for hit in query.hits]) for query in self.queries]

    @property
    def n_inliers(self) -> list[list[int | None]]:
        return [[hit.n_inliers for hit in query.hits] for query in self.queries]

    @property
    def transforms(self) -> list[list[NDArray[np.float64] | None]]:
        return [[hit.transform for hit in query.hits] for query in self.queries]

    @property
    def outlines(self) -> list[list[NDArray[np.float64] | None]]:
        return [[hit.outline for hit in query.hits] for query in self.queries]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return SearchResult(self.queries[key], self.method, self.index, self.failures, self.reader)
        return self.queries[key]

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[QueryResult]:
        return iter(self.queries)

    def __repr__(self) -> str:
        lines = [f"SearchResult of {len(self)} quer{'y' if len(self) == 1 else 'ies'}"]
        for query in self.queries[:10]:
            best = ", ".join(hit.id for hit in query.hits[:3]) or "nothing"
            lines.append(f"  {query.query}: {best}{', …' if len(query.hits) > 3 else ''}")
        if len(self) > 10:
            lines.append("  …")
        return "\n".join(lines)

    def to_json_lines(self) -> Iterator[str]:
        """Yield one JSON object per query, as ``cvretrieval search --json`` prints them."""
        for query in self.queries:
            yield json.dumps(query.to_dict(), ensure_ascii=False)

    def to_html(self, path: str | Path) -> Path:
        """Write the self-contained HTML report and return its path."""
        # The report lives in the room above; the method is here because a result is where users look for it.
        from cvretrieval.plotting import write_search_report

        return write_search_report(self, path, reader=self.reader)

    def show(self, n_hits: int = 5) -> Any:
        """Draw each query beside its best hits with matplotlib and return the figure (``[plot]`` extra)."""
        from cvretrieval.plotting import show_search_result

        return show_search_result(self, n_hits=n_hits, reader=self.reader)
