"""The stages of a retriever as one thing: how an image becomes stored features and a vector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._base import input_kind
from cvretrieval._validation import ImageReadError
from cvretrieval.images import ImageRegion, describe_source
from cvretrieval.local_features import ImageFeatures, LocalFeatures


@dataclass(frozen=True, eq=False)
class Described:
    """What the stages say of one image: its features (as stored) and vector, or why it cannot be read."""

    features: ImageFeatures | None = None
    vector: NDArray[np.float32] | None = None
    reason: str = ""

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

    Notes
    -----
    Descriptors are stored in bytes where the extractor says how (``descriptor_codec``). Queries pass through the same
    bytes before they are encoded or matched, so an indexed image given as a query finds itself with score 1.
    """

    def __init__(self, extractor: Any, encoder: Any, model: bytes | None = None) -> None:
        self.extractor = extractor
        self.encoder = encoder
        self.model = model
        self.codec: dict[str, Any] | None = getattr(extractor, "descriptor_codec", None)

    @property
    def is_learned(self) -> bool:
        """Whether the encoder is."""
        return self.model is not None

    @property
    def takes_images(self) -> bool:
        """Whether the encoder works on images rather than on local features."""
        return input_kind(self.encoder) == "images"

    def describe(self, sources: Sequence[Any], *, encode: bool) -> list[Described]:
        """Describe images; one that cannot be read does not disturb the others."""
        try:
            return self._describe(sources, encode)
        except ImageReadError as error:
            if len(sources) == 1:
                return [Described(reason=error.reason)]
            return [self.describe([source], encode=encode)[0] for source in sources]

    def encode(self, features: LocalFeatures) -> NDArray[np.float32]:
        """Return the vectors of stored features, float32 of shape (n_images, n_features)."""
        vectors = self.encoder.transform(self.decode(features))
        if hasattr(vectors, "toarray"):
            vectors = vectors.toarray()  # a sparse bag of words; indexes and the store hold dense vectors
        return np.ascontiguousarray(vectors, dtype=np.float32)

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
        return Stages(_serial(self.extractor), _serial(self.encoder), self.model)

    def _describe(self, sources: Sequence[Any], encode: bool) -> list[Described]:
        features = vectors = None
        if self.extractor is not None:
            features = self.to_bytes(self.extractor.transform(sources))
        if encode and self.takes_images:
            vectors = np.ascontiguousarray(self.encoder.transform(sources), dtype=np.float32)
        elif encode and features is not None:
            vectors = self.encode(features)
        return [
            Described(
                features=None if features is None else features[i], vector=None if vectors is None else vectors[i]
            )
            for i in range(len(sources))
        ]


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
