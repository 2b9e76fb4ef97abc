"""Measuring retrievers on a labelled set of images: the figures, and what they cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn import config_context

from cvretrieval._peak_memory import PeakMemory
from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import EvaluationResult, evaluate_rankings, get_protocols
from cvretrieval.retrieval.configuration import needs_features
from cvretrieval.retrieval.searching import method_of
from cvretrieval.retrieval.stages import steps_of


@dataclass(frozen=True, eq=False)
class MethodEvaluation:
    """What one method achieves on a labelled set, and at which cost.

    Attributes
    ----------
    result : EvaluationResult
        The figures.
    rankings : dict of str to list of str
        Query → ids, best first; empty where the query could not be read.
    stages : dict of str to str
        Stage → its estimator and parameters.
    timings : dict of str to float
        Stage of a search → mean seconds per query.
    seconds_per_query : float
        Mean of everything from reading the query to the ranked list.
    seconds_per_image : float
        Of indexing, learning included.
    bytes_per_image : float
        Of what the index searches: vectors or posting lists.
    stored_bytes_per_image : float
        Of everything in the index, the features for the verification included.
    peak_memory : int or None
        Largest resident memory of the process in bytes; None where the system does not say.
    failures : list of (str, str)
        Name and reason of each image that could not be read.
    """

    result: EvaluationResult
    rankings: dict[str, list[str]]
    stages: dict[str, str]
    timings: dict[str, float]
    seconds_per_query: float
    seconds_per_image: float
    bytes_per_image: float
    stored_bytes_per_image: float
    peak_memory: int | None
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        costs = ("timings", "seconds_per_query", "seconds_per_image", "bytes_per_image", "stored_bytes_per_image",
                 "peak_memory")  # fmt: skip
        return {
            **self.result.to_dict(),
            **{name: getattr(self, name) for name in costs},
            "method": self.stages,
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
        }


def evaluate_retriever(
    retriever: Any, dataset: RetrievalDataset, protocols: Sequence[Any] | None = None, *, k: int | None = None
) -> EvaluationResult:
    """Index the database of a data set, search with its queries, and compute the figures of the protocols.

    Parameters
    ----------
    retriever, dataset, protocols, k
        See `evaluate_method`.

    Returns
    -------
    EvaluationResult
    """
    return evaluate_method(retriever, dataset, protocols, k=k).result


def evaluate_method(
    retriever: Any, dataset: RetrievalDataset, protocols: Sequence[Any] | None = None, *, k: int | None = None
) -> MethodEvaluation:
    """Index the database of a data set, search with its queries, and measure what comes out and what it costs.

    Parameters
    ----------
    retriever : ImageRetriever
        Fitted here, on the database images only; the index stays with it. Where the protocols say what becomes of the
        orientation recorded by the camera, its reader is set to that.
    dataset : RetrievalDataset
    protocols : sequence of protocols or names, optional
        See `cvretrieval.metrics.get_protocol`; default: those that the data set is usually measured with. They say
        whether queries, and database images that have one, are cut to their regions.
    k : int, optional
        Length of the ranked lists; default: the whole database. Images without features are never found: for the
        figures they count as not found.

    Returns
    -------
    MethodEvaluation

    Raises
    ------
    ValueError
        If the protocols do not read and cut the images alike: such figures come from different searches.
    """
    chosen = get_protocols(protocols or dataset.protocols)
    crop = _agreed("crop", {protocol.name: protocol.crop for protocol in chosen})
    exif = _agreed("exif", {protocol.name: protocol.exif for protocol in chosen})
    if exif is not None:
        _set_exif(retriever, exif)
    with PeakMemory() as memory:
        retriever.fit(dataset.database_paths if crop == "full" else dataset.database_images, ids=dataset.database_ids)
        found = retriever.search(
            dataset.query_paths,
            k=len(dataset.database) if k is None else k,
            boxes=None if crop == "full" else [query.box for query in dataset.queries],
        )
    unread = {name for name, _ in found.failures}
    # With on_error="skip" a query that cannot be read has no list: nothing found.
    lists = iter(found.ids)
    rankings = {query.id: [] if str(query.path) in unread else next(lists) for query in dataset.queries}
    facts = retriever.info()
    with config_context(print_changed_only=True):
        stages = method_of(retriever)
    n_images, n_queries = max(1, facts["n_images"]), max(1, len(found))
    return MethodEvaluation(
        result=evaluate_rankings(dataset.ground_truth, rankings, chosen, n_database=len(dataset.database)),
        rankings=rankings,
        stages=stages,
        timings=_sum_of([query.timings for query in found], n_queries),
        seconds_per_query=sum(query.seconds for query in found) / n_queries,
        seconds_per_image=retriever.report_.seconds / n_images,
        bytes_per_image=(facts["n_bytes_engine"] or facts["n_bytes_vectors"]) / n_images,
        stored_bytes_per_image=facts["n_bytes"] / n_images,
        peak_memory=memory.n_bytes,
        failures=_distinct([*retriever.failures, *found.failures]),
    )


def _distinct(failures: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return failures without those of a file that is named before: a query may be in the database, too."""
    return list({os.path.abspath(name): (name, reason) for name, reason in reversed(failures)}.values())[::-1]


def _agreed(what: str, wanted: Mapping[str, str | None]) -> str | None:
    """Return the one value the protocols want, None if they leave it open."""
    values = {value: name for name, value in wanted.items() if value is not None}
    if len(values) > 1:
        named = " and ".join(f"{name} ({what}: {value})" for value, name in values.items())
        raise ValueError(f"The protocols {named} cannot be measured by the same search; evaluate them one by one.")
    return next(iter(values), None)


def _set_exif(retriever: Any, exif: str) -> None:
    """Give the stages that read the images a reader with that orientation."""
    from sklearn.base import clone

    from cvretrieval import SIFT
    from cvretrieval.images import ImageReader

    if retriever.extractor is None and needs_features(retriever, retriever.encoder):
        retriever.set_params(extractor=SIFT(root=True))
    steps = [] if retriever.encoder is None else steps_of(retriever.encoder)
    for stage in (stage for stage in (retriever.extractor, *steps) if hasattr(stage, "reader")):
        reader = ImageReader() if stage.reader is None else clone(stage.reader)
        stage.set_params(reader=reader.set_params(exif=exif))


def _sum_of(timings: Sequence[Mapping[str, float]], n: int) -> dict[str, float]:
    total: dict[str, float] = {}
    for stages in timings:
        for name, seconds in stages.items():
            total[name] = total.get(name, 0.0) + seconds / n
    return total
