"""Estimators as plain data: parameters as JSON, learned state as arrays; nothing is ever executed from a file.

`to_config` and `from_config` turn an unfitted estimator into JSON and back; `get_state` and `set_state` do the same for
what it has learned. Only the estimators of this package and a few of scikit-learn's can be named.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: scikit-learn's estimators that may be stored: name → module. All of them keep their state in public attributes.
_SKLEARN = {
    "Pipeline": "sklearn.pipeline",
    "PCA": "sklearn.decomposition",
    "TruncatedSVD": "sklearn.decomposition",
    "Normalizer": "sklearn.preprocessing",
    "StandardScaler": "sklearn.preprocessing",
    "MaxAbsScaler": "sklearn.preprocessing",
    "LogisticRegression": "sklearn.linear_model",
    "LinearSVC": "sklearn.svm",
    "MultinomialNB": "sklearn.naive_bayes",
}

State = tuple[dict[str, NDArray[Any]], dict[str, Any]]


def to_config(estimator: Any) -> dict[str, Any]:
    """Return class and parameters of an estimator as JSON.

    Raises
    ------
    TypeError
        For estimators and parameter values that cannot be stored, naming them.
    """
    name = type(estimator).__name__
    if name not in _SKLEARN and not _is_ours(estimator):
        if hasattr(estimator, "cluster_centers_"):
            # Any fitted clusterer is as good as its centres; they are part of the state.
            return {"class": "KMeansCodebook", "params": {"n_words": len(estimator.cluster_centers_)}}
        raise TypeError(
            f"{name} cannot be stored with an index. Use the estimators of cvretrieval or "
            f"{', '.join(_SKLEARN)} of scikit-learn."
        )
    if name == "Pipeline":
        return {"class": name, "params": {"steps": [[step, to_config(part)] for step, part in estimator.steps]}}
    # What scikit-learn marks so at its default may be gone in its next version, which must read this file.
    params = {key: value for key, value in estimator.get_params(deep=False).items() if not _is_deprecated(value)}
    return {"class": name, "params": {key: _pack(f"{name}.{key}", value) for key, value in params.items()}}


def from_config(config: Mapping[str, Any]) -> Any:
    """Build the unfitted estimator that `to_config` described.

    Raises
    ------
    ValueError
        If the description names an unknown class or parameter.
    """
    name, params = config["class"], config["params"]
    if name == "Pipeline":
        return _resolve(name)([(str(step), from_config(part)) for step, part in params["steps"]])
    try:
        return _resolve(name)(**{key: _unpack(value) for key, value in params.items()})
    except TypeError as error:
        raise ValueError(f"{name} cannot be built as described ({error}).") from error


def get_state(estimator: Any) -> State:
    """Return what an estimator has learned: arrays by name, and plain values as JSON.

    Learned are the attributes that end in an underscore; estimators among them are descended into.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return arrays, _collect(estimator, "", arrays)


def set_state(estimator: Any, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Any:
    """Give an estimator the state that `get_state` returned, and return it."""
    if "steps" in meta:
        for (_, part), part_meta in zip(estimator.steps, meta["steps"], strict=True):
            set_state(part, arrays, part_meta)
        return estimator
    for attribute, value in meta.get("values", {}).items():
        setattr(estimator, _learned(attribute), _unpack(value))
    for attribute, key in meta.get("arrays", {}).items():
        setattr(estimator, _learned(attribute), arrays[key])
    for attribute, part in meta.get("estimators", {}).items():
        setattr(estimator, _learned(attribute), set_state(from_config(part["config"]), arrays, part["state"]))
    return estimator


def _collect(estimator: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if hasattr(estimator, "steps"):
        return {"steps": [_collect(part, f"{prefix}{i}.", arrays) for i, (_, part) in enumerate(estimator.steps)]}
    meta: dict[str, dict[str, Any]] = {"values": {}, "arrays": {}, "estimators": {}}
    learned = vars(estimator)
    if not _is_ours(estimator) and type(estimator).__name__ not in _SKLEARN:
        centers = np.asarray(estimator.cluster_centers_, dtype=np.float32)
        learned = {"cluster_centers_": centers, "n_dims_": centers.shape[1]}
    for attribute, value in learned.items():
        if attribute.startswith("_") or not attribute.endswith("_"):
            continue
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            arrays[prefix + attribute] = value
            meta["arrays"][attribute] = prefix + attribute
        elif hasattr(value, "get_params"):
            state = _collect(value, f"{prefix}{attribute}.", arrays)
            meta["estimators"][attribute] = {"config": to_config(value), "state": state}
        else:
            meta["values"][attribute] = _pack(f"{type(estimator).__name__}.{attribute}", value)
    return meta


def _is_deprecated(value: Any) -> bool:
    return isinstance(value, str) and value == "deprecated"


def _is_ours(estimator: Any) -> bool:
    return type(estimator).__module__.partition(".")[0] == "cvretrieval"


def _resolve(name: str) -> Any:
    """Return the class of a name; only names of the two lists are ever looked up."""
    if name in _SKLEARN:
        return getattr(importlib.import_module(_SKLEARN[name]), name)
    package = importlib.import_module("cvretrieval")
    found = getattr(package, name) if name in package.__all__ else None
    if not isinstance(found, type) or not hasattr(found, "get_params"):
        raise ValueError(
            f"{name!r} is no estimator of this version of cvretrieval. Was the index made by a newer one? "
            "Upgrade with: pip install -U cvretrieval"
        )
    return found


def _learned(attribute: str) -> str:
    """Refuse attributes that are not learned state, so that a file cannot replace a method."""
    if attribute.startswith("_") or not attribute.endswith("_") or not attribute.isidentifier():
        raise ValueError(f"{attribute!r} is no learned attribute.")
    return attribute


def _pack(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_pack(name, item) for item in value]}
    if isinstance(value, list):
        return [_pack(name, item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        items = [_pack(name, item) for item in value.tolist()]
        return {"strings": items} if value.dtype.kind == "U" else items
    if hasattr(value, "get_params"):
        return {"estimator": to_config(value)}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which cannot be stored; use numbers, strings, True, False, None, "
        "tuples of them, or estimators."
    )


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if isinstance(value, dict):
        if "tuple" in value:
            return tuple(_unpack(item) for item in value["tuple"])
        if "strings" in value:
            return np.array([str(item) for item in value["strings"]], dtype=np.str_)
        return from_config(value["estimator"])
    return value
