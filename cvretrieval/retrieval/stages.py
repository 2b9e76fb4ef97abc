"""The stages of a retriever as one thing: how an image becomes stored features and a vector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvretrieval._base import input_kind
from cvretrieval._validation import ImageReadError
from cvretrieval.images import ImageReader, ImageRegion, describe_source
from cvretrieval.local_features import ImageFeatures, LocalFeatures
from cvretrieval.remote_files import is_url
from cvretrieval.retrieval.rows import Rows, as_rows


@dataclass(frozen=True, eq=False)
class Described:
    """What the stages say of one image: its features (as stored) and its vector, a single row, or why it is unread.

    `size` is what features would say, of an image that has a vector alone; zeros where nobody knows.
    """

    features: ImageFeatures | None = None
    vector: Rows | None = None
    reason: str = ""
    size: tuple[int, int] = (0, 0)

    @property
    def n_features(self) -> int:
        return 0 if self.features is None else len(self.features.descriptors)


class Stages:
    """Extractor and encoder, ready to run inside a worker.

    Parameters
    ----------
    extractor : estimator or None
        Images → `LocalFeatures`. None if neither the encoder nor a verifier needs local features.
    encoder : estimator
        Local features or images → vectors; may be unfitted while only features are asked for.
    model : bytes, optional
        Digest of the file that holds what the encoder has learned; None before it has.
    kind : {"dense", "sparse", "binary", "words"}, default="dense"
        What the index takes, and so what `encode` returns.

    Notes
    -----
    Descriptors are stored in bytes where the extractor says how (``descriptor_codec``). Queries pass through the same
    bytes before they are encoded or matched, so an indexed image given as a query finds itself with score 1.
    """

    def __init__(self, extractor: Any, encoder: Any, model: bytes | None = None, kind: str = "dense") -> None:
        self.extractor = extractor
        self.encoder = encoder
        self.model = model
        self.kind = kind
        self.codec: dict[str, Any] | None = getattr(extractor, "descriptor_codec", None)

    @property
    def is_learned(self) -> bool:
        """Whether the encoder is."""
        return self.model is not None

    @property
    def takes_images(self) -> bool:
        """Whether the encoder works on images rather than on local features."""
        return input_kind(self.encoder) == "images"

    @property
    def reader(self) -> Any:
        """What the extractor, or else the encoder of images, reads images by; None is the default reader."""
        return getattr(steps_of(self.encoder)[0] if self.extractor is None else self.extractor, "reader", None)

    @property
    def extracts_in_batches(self) -> bool:
        """Whether local features come from a network, which wants many images at once and the caller's thread."""
        return hasattr(self.extractor, "batch_size")

    @property
    def encodes_in_batches(self) -> bool:
        """Whether vectors come from such a network."""
        return self.takes_images and hasattr(steps_of(self.encoder)[0], "batch_size")

    @property
    def batch_size(self) -> int:
        """Images that the networks among the stages compute at once; 1 if there are none."""
        stages = (self.extractor, steps_of(self.encoder)[0])
        return max(int(getattr(stage, "batch_size", 1)) for stage in stages)

    @property
    def treats_queries_apart(self) -> bool:
        """Whether the features of queries get several words each, where those of images have one."""
        return any(getattr(step, "n_query_words", 1) > 1 for step in steps_of(self.encoder))

    def describe(self, sources: Sequence[Any], *, encode: bool, as_queries: bool = False) -> list[Described]:
        """Describe images; one that cannot be read does not disturb the others."""
        if not len(sources):
            return []
        try:
            return self._describe(sources, encode, as_queries)
        except ImageReadError as error:
            if len(sources) == 1:
                return [Described(reason=error.reason)]
            halves = sources[: len(sources) // 2], sources[len(sources) // 2 :]
            return [one for half in halves for one in self.describe(half, encode=encode, as_queries=as_queries)]

    def encode(self, features: LocalFeatures, *, as_queries: bool = False) -> Rows:
        """Return the vectors, or the like, of stored features: a row for each image."""
        return self._transform(self.decode(features), as_queries)

    def to_bytes(self, features: LocalFeatures) -> LocalFeatures:
        """Return the features as they are stored."""
        if self.codec is None or features.descriptors.dtype == np.uint8:
            return features
        scaled = np.rint(features.descriptors * np.float32(self.codec["scale"]))
        return features.with_descriptors(np.clip(scaled, 0, 255).astype(np.uint8))

    def decode(self, features: LocalFeatures) -> LocalFeatures:
        """Return stored features as the extractor gave them, up to the rounding of the bytes."""
        if self.codec is None:
            return features
        return features.with_descriptors(features.descriptors.astype(np.float32) / np.float32(self.codec["scale"]))

    def serial(self) -> Stages:
        """Return the same stages without parallelism or progress bars of their own, for use inside a worker."""
        return Stages(_serial(self.extractor), _serial(self.encoder), self.model, self.kind)

    def prepare(self) -> None:
        """Let stages that can say so say now what they lack, such as the weights of a network, and keep it ready.

        Raises
        ------
        ValueError, ImportError, StoreError
        """
        for stage in (self.extractor, *steps_of(self.encoder)):
            if hasattr(stage, "prepare"):
                stage.prepare()

    def without_extractor(self) -> Stages:
        """Return the encoder of images alone."""
        return Stages(None, self.encoder, self.model, self.kind)

    def _transform(self, X: Any, as_queries: bool) -> Rows:
        if as_queries and self.treats_queries_apart:
            for step in steps_of(self.encoder):
                X = getattr(step, "transform_queries", step.transform)(X)
        else:
            X = self.encoder.transform(X)
        return as_rows(X, self.kind, steps_of(self.encoder)[-1])

    def _describe(self, sources: Sequence[Any], encode: bool, as_queries: bool) -> list[Described]:
        features = vectors = None
        if self.extractor is not None:
            features = self.to_bytes(self.extractor.transform(sources))
        if encode and self.takes_images:
            vectors = self._transform(sources, as_queries)
        elif encode and features is not None:
            vectors = self.encode(features, as_queries=as_queries)
        return [
            Described(
                features=None if features is None else features[i],
                vector=None if vectors is None else vectors[i : i + 1],
                size=self._size(source) if features is None and not as_queries else (0, 0),
            )
            for i, source in enumerate(sources)
        ]

    def _size(self, source: Any) -> tuple[int, int]:
        if is_url(source):  # it would be fetched once more
            return 0, 0
        with suppress(ImageReadError):  # a pipe gives its bytes once
            return (self.reader or ImageReader()).read_size(source)
        return 0, 0


def steps_of(encoder: Any) -> list[Any]:
    """Return the steps of a Pipeline, or the encoder alone."""
    steps = [step for _, step in encoder.steps] if hasattr(encoder, "steps") else [encoder]
    return [step for step in steps if step not in (None, "passthrough")]


def _serial(estimator: Any) -> Any:
    if estimator is None:
        return None
    estimator = copy.copy(estimator)
    if hasattr(estimator, "steps"):
        estimator.steps = [(name, _serial(step)) for name, step in estimator.steps]
    for name, value in (("n_jobs", None), ("verbose", False)):
        if hasattr(estimator, name):
            setattr(estimator, name, value)
    return estimator


def describe_query(source: Any) -> str:
    """Name a query in results and messages."""
    return describe_source(source.source if isinstance(source, ImageRegion) else source)
