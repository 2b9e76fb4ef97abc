"""What became of each image that was to be indexed: for the manifest, and for the report of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cvretrieval._validation import ImageReadError
from cvretrieval.images import describe_source
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.retrieval.rows import is_blank
from cvretrieval.retrieval.sources import Source
from cvretrieval.retrieval.stages import Described
from cvretrieval.retrieval.store import Store


@dataclass
class IndexingReport:
    """What an `add` did.

    Attributes
    ----------
    n_added, n_replaced, n_unchanged, n_empty : int
        New images, changed ones, skipped ones; and how many of the first two have no features.
    failures : list of (str, str)
        Path and reason of every image that could not be read.
    seconds : float
        Wall-clock time.
    """

    n_added: int = 0
    n_replaced: int = 0
    n_unchanged: int = 0
    n_empty: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


class Outcome(NamedTuple):
    """What became of one image; see `ImageRecord`. Small, for it may travel between machines."""

    status: str
    reason: str = ""
    width: int = 0
    height: int = 0
    n_features: int = 0


def outcome_of(image: Described, by_image: bool) -> Outcome:
    """Return what became of an image; `by_image` says that it is found by a vector of the image, not by features."""
    if image.reason:
        return Outcome("failed", image.reason)
    width, height = image.size if image.features is None else image.features.image_size or (0, 0)
    if by_image:
        is_empty = image.vector is not None and is_blank(image.vector)
    else:
        is_empty = image.n_features == 0
    return Outcome("empty" if is_empty else "ok", "", int(width), int(height), image.n_features)


def record_of(source: Source, outcome: Outcome) -> ImageRecord:
    """Return the row of the manifest."""
    return ImageRecord(source.id, source.path, source.size, source.mtime_ns, **outcome._asdict())


def kept(sources: Sequence[Source], outcomes: Sequence[Outcome], on_error: str) -> list[ImageRecord]:
    """Return the rows to be committed: all, or those of readable images if the others raise."""
    rows = [record_of(source, outcome) for source, outcome in zip(sources, outcomes, strict=True)]
    return [row for row in rows if row.status != "failed"] if on_error == "raise" else rows


def note(
    store: Store, sources: Sequence[Source], outcomes: Sequence[Outcome], report: IndexingReport, on_error: str
) -> None:
    """Report what was committed; then raise for the first image that could not be read, if that is asked for.

    Raises
    ------
    ImageReadError
    """
    for source, outcome in zip(sources, outcomes, strict=True):
        if outcome.status != "failed":
            report.n_replaced += source.known
            report.n_added += not source.known
            report.n_empty += outcome.status == "empty"
        elif on_error != "raise":
            record = store.find(source.id)
            name = source.path or describe_source(source.image)
            report.failures.append((name, outcome.reason if record is None else record.reason))
    for source, outcome in zip(sources, outcomes, strict=True):
        if outcome.status == "failed" and on_error == "raise":
            raise ImageReadError(source.path or describe_source(source.image), outcome.reason)
