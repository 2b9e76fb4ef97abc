"""Estimators as plain data: parameters as JSON, learned state as arrays; nothing is ever executed from a file.

`to_config` and `from_config` turn an unfitted estimator into JSON and back; `get_state` and `set_state` do the same for
what it has learned. Only the estimators of this package and a few of scikit-learn's can be named.

Learned are the attributes that end in an underscore and do not begin with one: arrays of numbers and booleans, CSR and
CSC matrices, numbers, strings, None, tuples and lists of them, arrays of strings, estimators and lists of them.
Estimators among the parameters keep what they have learned, too. Any other attribute is a cache, to be computed again
when it is missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
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
    "GaussianMixture": "sklearn.mixture",
    "FrozenEstimator": "sklearn.frozen",
}

#: What a pipeline may have in place of a step.
_NO_STEP = ("passthrough", None)

#: Numbers of numpy by name.
_NUMBERS = {
    kind.__name__: kind
    for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32,
                 np.uint16, np.uint8)
}  # fmt: skip

_SPARSE = ("csr_matrix", "csr_array", "csc_matrix", "csc_array")

State = tuple[dict[str, NDArray[Any]], dict[str, Any]]


def to_config(estimator: Any) -> dict[str, Any]:
    """Return class and parameters of an estimator as JSON.

    Raises
    ------
    TypeError
        For estimators and parameter values that cannot be stored, naming them.
    """
    name = type(estimator).__name__
    if not _is_known(estimator):
        raise TypeError(
            f"{name} cannot be stored. Use the estimators of cvretrieval or {', '.join(_SKLEARN)} of scikit-learn."
        )
    if name == "Pipeline":
        steps = [[step, part if part in _NO_STEP else to_config(part)] for step, part in estimator.steps]
        return {"class": name, "params": {"steps": steps}}
    to_store = getattr(estimator, "_params_to_store", None)
    params = estimator.get_params(deep=False) if to_store is None else to_store()
    # What scikit-learn marks so at its default may be gone in its next version, which must read this file.
    params = {key: value for key, value in params.items() if not _is_deprecated(value)}
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
        steps = [(str(step), part if part in _NO_STEP else from_config(part)) for step, part in params["steps"]]
        return _resolve(name)(steps)
    try:
        return _resolve(name)(**{key: _unpack(value) for key, value in params.items()})
    except TypeError as error:
        raise ValueError(f"{name} cannot be built as described ({error}).") from error


def get_state(estimator: Any) -> State:
    """Return what an estimator has learned: arrays by name, and plain values as JSON.

    Estimators among the attributes and the parameters are descended into; an array that several of them hold is
    returned once.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return arrays, _collect(estimator, "", arrays)


def set_state(estimator: Any, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Any:
    """Give an estimator the state that `get_state` returned, and return it."""
    if "steps" in meta:
        for (_, part), part_meta in zip(estimator.steps, meta["steps"], strict=True):
            if part not in _NO_STEP:
                set_state(part, arrays, part_meta)
        return estimator
    for attribute, value in meta.get("values", {}).items():
        setattr(estimator, _learned(attribute), _unpack(value))
    for attribute, key in meta.get("arrays", {}).items():
        setattr(estimator, _learned(attribute), arrays[key])
    for attribute, parts in meta.get("sparse", {}).items():
        setattr(estimator, _learned(attribute), _sparse(parts, arrays))
    for attribute, part in meta.get("estimators", {}).items():
        setattr(estimator, _learned(attribute), _restore(part, arrays))
    for attribute, parts in meta.get("lists", {}).items():
        setattr(estimator, _learned(attribute), [_restore(part, arrays) for part in parts])
    parameters = estimator.get_params(deep=False) if "parameters" in meta else {}
    for name, part_meta in meta.get("parameters", {}).items():
        set_state(parameters[name], arrays, part_meta)
    return estimator


def _restore(part: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    return set_state(from_config(part["config"]), arrays, part["state"])


def _collect(estimator: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if hasattr(estimator, "steps"):
        parts = enumerate(part for _, part in estimator.steps)
        return {"steps": [{} if part in _NO_STEP else _collect(part, f"{prefix}{i}.", arrays) for i, part in parts]}
    meta: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("values", "arrays", "estimators", "lists", "sparse", "parameters")
    }
    for attribute, value in _learned_by(estimator).items():
        name = prefix + attribute
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and not np.ma.isMaskedArray(value):
            meta["arrays"][attribute] = _keep(name, value, arrays)
        elif type(value).__name__ in _SPARSE:
            kept = {
                part: _keep(f"{name}.{part}", getattr(value, part), arrays) for part in ("data", "indices", "indptr")
            }
            meta["sparse"][attribute] = {"class": type(value).__name__, "shape": list(value.shape), **kept}
        elif hasattr(value, "get_params"):
            meta["estimators"][attribute] = _collect_part(value, f"{name}.", arrays)
        elif isinstance(value, list) and value and all(hasattr(part, "get_params") for part in value):
            meta["lists"][attribute] = [_collect_part(part, f"{name}.{i}.", arrays) for i, part in enumerate(value)]
        else:
            meta["values"][attribute] = _pack(f"{type(estimator).__name__}.{attribute}", value)
    if _is_known(estimator):
        for parameter, value in estimator.get_params(deep=False).items():
            if hasattr(value, "get_params") and not isinstance(value, type) and _has_learned(value):
                meta["parameters"][parameter] = _collect(value, f"{prefix}{parameter}.", arrays)
    return {kind: found for kind, found in meta.items() if found}


def _collect_part(estimator: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    return {"config": _config_of_part(estimator), "state": _collect(estimator, prefix, arrays)}


def _learned_by(estimator: Any) -> dict[str, Any]:
    """Return the learned attributes of an estimator by name."""
    if not _is_known(estimator):
        # Any fitted clusterer is as good as its centres.
        if not hasattr(estimator, "cluster_centers_"):
            return {}
        centers = np.asarray(estimator.cluster_centers_, dtype=np.float32)
        return {"cluster_centers_": centers, "n_dims_": centers.shape[1]}
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


def _has_learned(estimator: Any) -> bool:
    steps = getattr(estimator, "steps", None)
    if steps is not None:
        return any(part not in _NO_STEP and _has_learned(part) for _, part in steps)
    return bool(_learned_by(estimator))


def _config_of_part(estimator: Any) -> dict[str, Any]:
    """Return the configuration of an estimator that is a parameter or learned attribute of another."""
    if not _is_known(estimator) and hasattr(estimator, "cluster_centers_"):
        return {"class": "KMeansCodebook", "params": {"n_words": len(estimator.cluster_centers_)}}
    return to_config(estimator)


def _keep(name: str, array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> str:
    """Add an array unless it is there, and return the name it goes by."""
    for known, other in arrays.items():
        if other is array:
            return known
    arrays[name] = array
    return name


def _sparse(parts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    if parts["class"] not in _SPARSE:
        raise ValueError(f"{parts['class']!r} is no sparse matrix.")
    kind = getattr(importlib.import_module("scipy.sparse"), parts["class"])
    matrix = kind(tuple(arrays[parts[part]] for part in ("data", "indices", "indptr")), shape=tuple(parts["shape"]))
    matrix.check_format()
    return matrix


def _is_deprecated(value: Any) -> bool:
    return isinstance(value, str) and value == "deprecated"


def _is_known(estimator: Any) -> bool:
    kind = type(estimator)
    origin = kind.__module__.partition(".")[0]
    return origin == "cvretrieval" or (origin == "sklearn" and kind.__name__ in _SKLEARN)


def _resolve(name: str) -> Any:
    """Return the class of a name; only names of the two lists are ever looked up."""
    if name in _SKLEARN:
        return getattr(importlib.import_module(_SKLEARN[name]), name)
    package = importlib.import_module("cvretrieval")
    if name not in package.__all__:
        package = package.deep
    found = getattr(package, name) if name in package.__all__ else None
    if not isinstance(found, type) or not hasattr(found, "get_params"):
        raise ValueError(
            f"{name!r} is no estimator of this version of cvretrieval. Was the file made by a newer one? "
            "Upgrade with: pip install -U cvretrieval"
        )
    return found


def _learned(attribute: str) -> str:
    """Refuse attributes that are not learned state, so that a file cannot replace a method."""
    if attribute.startswith("_") or not attribute.endswith("_") or not attribute.isidentifier():
        raise ValueError(f"{attribute!r} is no learned attribute.")
    return attribute


def _pack(name: str, value: Any) -> Any:
    if isinstance(value, np.generic) and value.dtype.name in _NUMBERS:
        # A number of numpy in an expression may give another precision than one of Python.
        return {"number": [value.dtype.name, value.item()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (tuple, list)):
        items = [_pack(name, item) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU" and value.ndim == 1:
        return {"strings" if value.dtype.kind == "U" else "objects": [_pack(name, item) for item in value.tolist()]}
    if hasattr(value, "get_params"):
        return {"estimator": _config_of_part(value)}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which cannot be stored; use numbers, strings, True, False, None, "
        "tuples of them, or estimators."
    )


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        return _UNPACK[kind](content)
    return value


def _objects(items: list[Any]) -> NDArray[Any]:
    objects = np.empty(len(items), dtype=object)
    objects[:] = [_unpack(item) for item in items]
    return objects


#: How `_unpack` turns what JSON has no word for into values.
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "number": lambda pair: _NUMBERS[pair[0]](pair[1]),
    "tuple": lambda items: tuple(_unpack(item) for item in items),
    "strings": lambda items: np.array([str(item) for item in items], dtype=np.str_),
    "objects": _objects,
    "estimator": from_config,
}
