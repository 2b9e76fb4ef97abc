"""The index behind the page: one search at a time, by what the request asks for, in the state that is committed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval._validation import ImageReadError, StoreError
from cvretrieval.images import ImageReader
from cvretrieval.reranking import AlphaQueryExpansion
from cvretrieval.retrieval import Hit, ImageRetriever, QueryResult
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.retrieval.stages import steps_of
from cvretrieval.serve.pictures import Pictures
from cvretrieval.serve.problems import Problem
from cvretrieval.serve.uploads import Upload
from cvretrieval.verification import SpatialVerifier

#: Longest ranked list.
MOST_RESULTS = 200

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Asked:
    """What is searched with: an uploaded photo or an indexed one, and the region of it.

    Attributes
    ----------
    upload : Upload or None
    record : ImageRecord or None
        One of the two.
    box : tuple of 4 floats or None
        x1, y1, x2, y2 in pixels.
    """

    upload: Upload | None = None
    record: ImageRecord | None = None
    box: Box | None = None


class Collection:
    """An open index.

    Parameters
    ----------
    path : path
        Its folder.
    n_jobs : int, default=-1
        Threads of a search.

    Notes
    -----
    `search` and `compare` are for one thread at a time; everything else for any number meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str], *, n_jobs: int | None = -1) -> None:
        self.retriever = ImageRetriever.load(path, n_jobs=n_jobs, on_error="raise", verbose=False)
        self.name = Path(os.path.abspath(path)).name
        own = self.retriever.verifier
        has_features = self.retriever._stages.extractor is not None
        self.verifier = own if own is not None else SpatialVerifier() if has_features else None
        self.reranker = self.retriever.reranker
        template = self.retriever._template()
        if self.reranker is None and template.kind == "dense" and template.metric == "cosine":
            self.reranker = AlphaQueryExpansion()
        self.expands_by_default = self.retriever.reranker is not None
        self.reader = self.retriever._stages.reader or ImageReader()
        self.pictures = Pictures(self.reader)

    def close(self) -> None:
        self.retriever.close()

    def refresh(self) -> None:
        """See what other processes have committed; for one thread at a time."""
        self.retriever._reload()

    def info(self) -> dict[str, Any]:
        """Return counts and abilities."""
        from cvretrieval.retrieval.searching import method_of

        totals = self.retriever._store.snapshot.totals
        return {
            "name": self.name,
            **totals._asdict(),
            "method": method_of(self.retriever),
            "can": {"verify": self.verifier is not None, "expand": self.reranker is not None, "region": True},
        }

    def images(self, offset: int, limit: int) -> tuple[int, list[ImageRecord]]:
        """Return how many images there are, and some of them in the order they were added."""
        records = [r for r in self.retriever._store.snapshot.images.values() if r.status != "failed"]
        return len(records), records[offset : offset + limit]

    def find(self, name: str) -> ImageRecord:
        """Return an image by its id.

        Raises
        ------
        Problem
        """
        record = self.retriever._store.find(name)
        if record is None or record.status == "failed":
            raise Problem(404, f"There is no image {name!r} in {self.name}.")
        return record

    def picture(self, record: ImageRecord, size: int) -> bytes:
        """Return an indexed image as a small JPEG."""
        source = self._file(record)
        return self.pictures.jpeg((record.key, record.size, record.mtime_ns), source, size)

    def size_of(self, upload: Upload) -> tuple[int, int]:
        """Return width and height of a photo, upright; refuse what cannot be read.

        Raises
        ------
        ImageReadError
        """
        read = self.reader.read(upload.open())
        return read.width, read.height

    def find_with_size(self, name: str) -> ImageRecord:
        """Return an image by its id; one behind a URL that has a vector alone is looked at for its width and height.

        Raises
        ------
        Problem, ImageReadError
        """
        record = self.find(name)
        if record.width or record.path is None:
            return record
        width, height = self.reader.read_size(record.path)
        return record._replace(width=width, height=height)

    def search(self, asked: Asked, k: int, *, verify: bool, expand: bool) -> tuple[QueryResult, list[Hit]]:
        """Return the result of a query, and its hits without the query itself."""
        self._configure(verify=verify, expand=expand)
        own = None if asked.record is None else asked.record.id
        result = self._ask(asked, k + (own is not None))
        return result, [hit for hit in result.hits if hit.id != own][:k]

    def compare(self, asked: Asked, candidate: ImageRecord) -> tuple[QueryResult, Hit | None, Any]:
        """Return how a query and one image match: verified, or by the places that make their vectors similar."""
        self._configure(verify=True, expand=False)
        result = self._ask(asked, 2, within=[candidate.id])
        hit = next((hit for hit in result.hits if hit.id == candidate.id), None)
        maps = None
        if self._has_network and (hit is None or hit.matches is None):
            maps = self._explain(asked, candidate)
        return result, hit, maps

    @property
    def _has_network(self) -> bool:
        """Whether vectors are those of a CNN, which heat maps explain."""
        return type(steps_of(self.retriever.encoder_)[0]).__module__.startswith("cvretrieval.deep.")

    def _configure(self, *, verify: bool, expand: bool) -> None:
        self.retriever.verifier = self.verifier if verify else None
        reranker = self.reranker if expand else None
        # One that expands by what is verified needs the verifier.
        if reranker is not None and reranker.needs_verification and not verify:
            reranker = None
        self.retriever.reranker = reranker

    def _ask(self, asked: Asked, k: int, within: Sequence[str] | None = None) -> QueryResult:
        if asked.record is not None and asked.box is None and (within is None or asked.record.id not in within):
            return self.retriever.search(ids=[asked.record.id], k=k, within=within)[0]
        image = asked.upload.open() if asked.upload is not None else self._file(asked.record)
        return self.retriever.search([image], k=k, boxes=[asked.box], within=within)[0]

    def _explain(self, asked: Asked, candidate: ImageRecord) -> Any:
        from cvretrieval import deep
        from cvretrieval.images import ImageRegion

        image = asked.upload.open() if asked.upload is not None else self._file(asked.record)
        query = image if asked.box is None else ImageRegion(image, asked.box)
        with suppress(TypeError):  # there are descriptors that no map explains
            return deep.explain_similarity(self.retriever.encoder_, query, self._file(candidate))
        return None

    def _file(self, record: ImageRecord | None) -> str:
        if record is None or record.path is None:
            name = "" if record is None else record.id
            raise Problem(404, f"{name!r} was indexed from an array: there is no photo to show.")
        return record.path


def problem_of(error: Exception, name: str) -> Problem:
    """Return what to say of an error of the package."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImageReadError):
        return Problem(
            415, f"{name} {error.reason}" if error.reason.startswith(("is ", "has ")) else f"{name}: {error.reason}"
        )
    if isinstance(error, StoreError):
        return Problem(503, str(error))
    return Problem(400, str(error))


def as_lists(values: Any, digits: int) -> Any:
    """Return an array as rounded lists, None as it is."""
    return None if values is None else np.round(np.asarray(values, dtype=np.float64), digits).tolist()
