"""What a store must remember to rebuild the retriever: plain JSON and arrays."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sklearn.base import clone

from cvretrieval._base import input_kind
from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval._validation import StoreError
from cvretrieval.images import ImageReader
from cvretrieval.index import VectorIndex
from cvretrieval.retrieval.description import read_description
from cvretrieval.retrieval.localization import verifies_features
from cvretrieval.retrieval.model_file import read_model_file
from cvretrieval.retrieval.moving import claimed
from cvretrieval.retrieval.rows import wrong_kind
from cvretrieval.retrieval.stages import Stages, steps_of
from cvretrieval.retrieval.store import Store

#: Parameters of the retriever that are stored with the index; the others belong to the session.
_STORED = ("metric", "n_verify", "max_train_images")

_UNUSABLE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


def describe(retriever: Any, extractor: Any, encoder: Any) -> dict[str, Any]:
    """Return the JSON that `Store.create` keeps."""
    reader = Stages(extractor, encoder).reader or ImageReader()
    index = claimed(retriever.index)
    return {
        "extractor": None if extractor is None else to_config(extractor),
        "encoder": to_config(encoder),
        # Threads belong to the session.
        "index": None if index is None else to_config(clone(index).set_params(n_jobs=None)),
        "verifier": None if retriever.verifier is None else to_config(retriever.verifier),
        "reranker": None if retriever.reranker is None else to_config(retriever.reranker),
        "image_policy": to_config(reader),
        "codec": getattr(extractor, "descriptor_codec", None),
        **{name: getattr(retriever, name) for name in _STORED},
        # A run that is cut off before the encoder is learned goes on with the same draw of training images.
        "random_state": int(seed) if isinstance(seed := retriever.random_state, numbers.Integral) else None,
    }


def restore(store: Store) -> tuple[dict[str, Any], Stages]:
    """Return the retriever's parameters and its stages, learned if the store has a model."""
    config = store.config
    with _as_store_error(store):
        verifier = None if config["verifier"] is None else from_config(config["verifier"])
        # Indexes of older versions have none.
        reranker = None if config.get("reranker") is None else from_config(config["reranker"])
        index = None if config.get("index") is None else from_config(config["index"])
        check_engine(index)
        encoder = from_config(config["encoder"])
        if config["extractor"] is None and (input_kind(encoder) != "images" or verifies_features(verifier)):
            raise ValueError("it has no extractor of the local features that other stages need")
        # The encoder among the parameters stays unfitted, as scikit-learn has it.
        parameters = {
            "extractor": None if config["extractor"] is None else from_config(config["extractor"]),
            "encoder": encoder,
            "index": index,
            "verifier": verifier,
            "reranker": reranker,
            **{name: config[name] for name in _STORED},
            "random_state": config.get("random_state"),
        }
    return parameters, learned_stages(store, parameters["extractor"], "dense" if index is None else index.kind)


def learned_stages(store: Store, extractor: Any, kind: str) -> Stages:
    """Return the extractor with the encoder of a store, learned if the store has a model."""
    with _as_store_error(store):
        return Stages(extractor, _encoder(store.config, store.read_model()), store.model, kind)


def stages_in(folder: Path, model: bytes | None) -> Stages:
    """Return the stages of the store in a folder, for a process that does not open it.

    Parameters
    ----------
    folder : Path
    model : bytes or None
        Digest of what the encoder has learned.

    Raises
    ------
    StoreError
    """
    config = read_description(folder)["config"]
    learned = None if model is None else read_model_file(folder, model)
    try:
        extractor = None if config["extractor"] is None else from_config(config["extractor"])
        kind = "dense" if config.get("index") is None else from_config(config["index"]).kind
        return Stages(extractor, _encoder(config, learned), model, kind)
    except _UNUSABLE as error:
        raise StoreError(f"{folder}: the description of the stages cannot be used ({error}).") from error


def _encoder(config: Mapping[str, Any], learned: Any) -> Any:
    encoder = from_config(config["encoder"])
    return encoder if learned is None else set_state(encoder, *learned)


def needs_features(retriever: Any, encoder: Any) -> bool:
    """Whether any stage works on local features."""
    return input_kind(encoder) != "images" or verifies_features(retriever.verifier) or _reranks_by_features(retriever)


def check_features(retriever: Any, stages: Stages) -> None:
    """Refuse to verify by local features that the index does not hold.

    Raises
    ------
    ValueError
    """
    if stages.extractor is None and (verifies_features(retriever.verifier) or _reranks_by_features(retriever)):
        raise ValueError(
            "The index holds no local features to verify images by, because it was made without a verifier. Search "
            "without one, or make an index with a verifier."
        )


def _reranks_by_features(retriever: Any) -> bool:
    return retriever.reranker is not None and bool(getattr(retriever.reranker, "needs_verification", False))


def check_engine(index: Any) -> None:
    """Check the parameter `index`: None, or an engine without vectors.

    Raises
    ------
    TypeError, ValueError
    """
    if index is None:
        return
    if isinstance(index, type) or not isinstance(index, VectorIndex) or not hasattr(index, "get_params"):
        raise TypeError(
            "The 'index' parameter of ImageRetriever must be an index engine such as InvertedIndex() or None. Got "
            f"{index!r} instead."
        )
    if get_state(index)[0]:
        raise ValueError(
            f"The 'index' parameter of ImageRetriever has a part that is fitted: {index!r}. It could not be stored; "
            "give one that is not, which learns from the images."
        )
    if len(index):
        raise ValueError(
            f"The 'index' parameter of ImageRetriever says how to search and holds no vectors itself. Got one of "
            f"{len(index)} vectors: give a new {type(index).__name__}."
        )


def check_index(index: Any, encoder: Any) -> None:
    """Refuse an engine that cannot hold what the encoder gives, before anything is extracted.

    Raises
    ------
    ValueError
    """
    last = steps_of(encoder)[-1]
    gives_words = getattr(last, "output_kind", "vectors") == "words"
    if gives_words != (index.kind == "words"):
        raise ValueError(wrong_kind(type(last).__name__, gives_words))


@contextlib.contextmanager
def _as_store_error(store: Store) -> Iterator[None]:
    try:
        yield
    except _UNUSABLE as error:
        raise StoreError(f"{store.path}: the description of the stages cannot be used ({error}).") from error
