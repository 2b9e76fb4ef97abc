"""Fitted estimators as single files: arrays, and plain values as JSON in the header; nothing is executed from one.

The file is in the safetensors format. Its metadata, all strings, are

- ``kind``, the words "cvretrieval model", and ``format``, an integer;
- ``versions``: the libraries that wrote it, by name;
- ``config``: classes and parameters (`cvretrieval._state.to_config`);
- ``state``: what was learned besides the arrays, and where the arrays belong (`cvretrieval._state.get_state`);
- ``facts``: plain values that the writer added;

and those of `cvretrieval._array_file`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval._array_file import array_file, read_array_file
from cvretrieval._durable import replace_file
from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval._validation import StoreError
from cvretrieval._version import __version__

#: Version of the format; a file of a newer one is refused.
FORMAT = 1

_KIND = "cvretrieval model"


def write_model(estimator: Any, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None) -> Path:
    """Write a fitted estimator as one file, in one step, and return its path.

    Raises
    ------
    NotFittedError
        If it, or a step of it, is not fitted.
    TypeError
        If a part of it cannot be stored, naming it.
    ValueError
        If `path` is a folder, or its folder does not exist.
    StoreError
        If the file cannot be written.
    """
    from sklearn import __version__ as sklearn_version
    from sklearn.utils.validation import check_is_fitted

    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"The folder {path.parent} does not exist"
        raise ValueError(f"{what}; give the model a file name such as model.cvm.")
    config = to_config(estimator)
    for part in _parts(estimator):
        if hasattr(part, "fit"):
            check_is_fitted(part)
    arrays, state = get_state(estimator)
    header = {
        "kind": _KIND,
        "format": str(FORMAT),
        "versions": json.dumps({"cvretrieval": __version__, "scikit-learn": sklearn_version, "numpy": np.__version__}),
        "config": json.dumps(config),
        "state": json.dumps(state),
        "facts": json.dumps(dict(facts or {})),
    }
    data = array_file(arrays, header)
    target = Path(os.path.realpath(path))  # a link stays a link
    replace_file(target, lambda file: file.write(data))
    return path


def read_model(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Return the estimator and the facts that `write_model` wrote.

    Raises
    ------
    StoreError
        If the file does not exist, is no model of this package, is damaged, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path} {'is a folder, not a model' if path.is_dir() else 'does not exist'}.")
    try:
        arrays, header = read_array_file(path, lambda header: _check_kind(path, header))
        facts = json.loads(header["facts"])
        estimator = set_state(from_config(json.loads(header["config"])), arrays, json.loads(header["state"]))
        if not isinstance(facts, dict):
            raise ValueError("its facts are no object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged or no model of cvretrieval ({error}). Restore it from a copy or make it again."
        ) from error
    return estimator, facts


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield the steps of a pipeline, and of pipelines in it, or the estimator itself."""
    if not hasattr(estimator, "steps"):
        yield estimator
        return
    for _, step in estimator.steps:
        if step not in ("passthrough", None):
            yield from _parts(step)


def _check_kind(path: Path, header: Mapping[str, str]) -> None:
    if header.get("kind") != _KIND:
        raise StoreError(f"{path} is no model of cvretrieval, but another safetensors file.")
    found = int(header["format"])
    if found > FORMAT:
        raise StoreError(
            f"{path} has format {found}, but this cvretrieval ({__version__}) reads formats up to {FORMAT}; upgrade it "
            "with: pip install -U cvretrieval"
        )
