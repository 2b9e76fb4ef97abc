"""Measuring a retriever on a labelled set of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import EvaluationResult, evaluate_rankings


def evaluate_retriever(
    retriever: Any, dataset: RetrievalDataset, protocols: Sequence[Any] | None = None, *, k: int | None = None
) -> EvaluationResult:
    """Index the database of a data set, search with its queries, and compute the figures of the protocols.

    Parameters
    ----------
    retriever : ImageRetriever
        Fitted here, on the database images only; the index stays with it.
    dataset : RetrievalDataset
        Regions of its queries are respected.
    protocols : sequence of protocols or names, optional
        See `cvretrieval.metrics.get_protocol`; default: those that the form of the data set is usually measured with.
    k : int, optional
        Length of the ranked lists; default: the whole database. Images without features are never found: for the
        figures they count as not found.

    Returns
    -------
    EvaluationResult
    """
    retriever.fit(dataset.database_paths, ids=dataset.database_ids)
    found = retriever.search(
        dataset.query_paths,
        k=len(dataset.database) if k is None else k,
        boxes=[query.box for query in dataset.queries],
    )
    unread = {name for name, _ in found.failures}
    # With on_error="skip" a query that cannot be read has no list: nothing found.
    lists = iter(found.ids)
    rankings = {query.id: [] if str(query.path) in unread else next(lists) for query in dataset.queries}
    return evaluate_rankings(
        dataset.ground_truth, rankings, protocols or dataset.protocols, n_database=len(dataset.database)
    )
