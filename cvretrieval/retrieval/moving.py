"""Engines whose vectors are elsewhere: each store has a place of its own there, and may move to another engine.

The rows of the shards stay where they are, so that moving is naming another engine in ``index.json``, in one step, and
bringing that up to date: killed at any instant, the next search or `add` goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.base import clone

from cvretrieval._state import from_config, to_config
from cvretrieval.retrieval.description import rewrite_description
from cvretrieval.retrieval.store import Store


def claimed(index: Any) -> Any:
    """Return an engine for a new store: one that keeps its vectors elsewhere has a place of its own there.

    Raises
    ------
    ValueError
        If the place that it names is taken.
    StoreError
        If it cannot be reached.
    """
    return index.claim() if hasattr(index, "claim") else index


def is_elsewhere(index: Any) -> bool:
    """Whether an engine keeps its vectors where several processes change them, not in the folder of the store."""
    return hasattr(index, "claim")


def template(index: Any, store: Store | None) -> Any:
    """Return an engine as the store has it, where it was not said which place is its own."""
    if store is None or not is_elsewhere(index) or index.collection is not None:
        return index
    stored = store.config.get("index")
    return index if stored is None else from_config(stored)


def config_of_copy(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the description of a copy of a store, if it must differ: two stores cannot share a place.

    Raises
    ------
    StoreError
        If the place of the copy cannot be reached.
    """
    stored = config.get("index")
    index: Any = None if stored is None else from_config(stored)
    if not is_elsewhere(index):
        return None
    return {**config, "index": to_config(index.set_params(collection=None).claim())}


def change_engine(store: Store, held: Any, index: Any) -> Any:
    """Name another engine in a store that is open for writing, and return it.

    Parameters
    ----------
    store : Store
    held : VectorIndex
        The engine that it has, without vectors.
    index : VectorIndex
        Of the same kind.

    Raises
    ------
    ValueError
        If it does not hold what the store has.
    StoreError
        If it cannot be reached, or the description cannot be written.
    """
    if index.kind != held.kind:
        raise ValueError(
            f"The index holds {held.kind} vectors, but {type(index).__name__} takes {index.kind} ones. Choose an "
            "engine of the same kind."
        )
    _, rows = next(store.vector_segments(), (None, None))
    if rows is not None and hasattr(index, "check_vectors"):
        index.check_vectors(rows[:1])
    own = claimed(clone(index).set_params(n_jobs=None))
    config = {**store.config, "index": to_config(own), "metric": own.metric}
    if type(own).__name__ == "DenseIndex":
        config["index"] = None
    elif own.metric not in ("cosine", "inner_product", "l2"):
        config["metric"] = store.config["metric"]
    rewrite_description(store.path, config)
    store.config = config
    return own
