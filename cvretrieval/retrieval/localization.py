"""Reranking by regions within a search: the best candidates are read again and looked at by `deep.AML`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import ImageReadError
from cvretrieval.images import ImageRegion
from cvretrieval.retrieval.records import ImageRecord

Box = tuple[float, float, float, float]


def looks_at_images(verifier: Any) -> bool:
    """Whether a verifier reads the candidates again, rather than verify their stored features."""
    return hasattr(verifier, "localize")


def verifies_features(verifier: Any) -> bool:
    """Whether there is a verifier, and it works on local features."""
    return verifier is not None and not looks_at_images(verifier)


def localize(
    retriever: Any, image: Any, box: Box | None, candidates: Sequence[ImageRecord]
) -> dict[int, tuple[float, NDArray[np.float64]]]:
    """Return score and outline of the query in each candidate, by key, from best to worst.

    Parameters
    ----------
    retriever : ImageRetriever
        Whose verifier is an `AML`.
    image : image
        What the query was read from.
    box : tuple of 4 floats or None
        Region x1, y1, x2, y2 of it that is searched for.
    candidates : sequence of ImageRecord
        In the order found. Those that cannot be read are left out with ``on_error="skip"``.

    Raises
    ------
    ValueError
        If a candidate was indexed from an array: there is no file to read.
    ImageReadError
        With ``on_error="raise"``, for the first candidate that cannot be read.
    """
    nameless = [record.id for record in candidates if record.path is None]
    if nameless:
        raise ValueError(
            f"{type(retriever.verifier).__name__} reads the candidates again, but {nameless[0]!r} was indexed from an "
            "array, which the index does not keep. Index files, or use verifier=None."
        )
    aml = copy.copy(retriever.verifier)
    if aml.reader is None:
        aml.reader = retriever._stages.reader
    query = image if box is None else ImageRegion(image, box)
    left = list(candidates)
    while left:
        try:
            ranking = aml.rerank(query, [record.path for record in left])
        except ImageReadError as error:
            unreadable = [record for record in left if str(record.path) == error.source]
            if retriever.on_error == "raise" or not unreadable:
                raise
            left = [record for record in left if record not in unreadable]
        else:
            return {left[i].key: (float(ranking.scores[i]), _corners(ranking.boxes[i])) for i in ranking.order.tolist()}
    return {}


def _corners(box: NDArray[np.float64]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
