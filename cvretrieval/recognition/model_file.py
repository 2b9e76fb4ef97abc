"""Classifiers as single files: arrays, and plain values as JSON in the header; nothing is ever executed from one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval._validation import StoreError
from cvretrieval._version import __version__

#: Version of the format; a file of a newer one is refused.
FORMAT = 1

_KIND = "cvretrieval classifier"


def save_classifier(classifier: Any, path: str | os.PathLike[str], *, facts: Mapping[str, Any] | None = None) -> Path:
    """Write a fitted line of estimators, from images or local features to classes, as one file.

    Parameters
    ----------
    classifier : estimator
        Fitted: a ``Pipeline`` of this package's estimators and those of scikit-learn that can be stored
        (``LogisticRegression``, ``LinearSVC``, ``MultinomialNB``, ``Normalizer``, ``StandardScaler``,
        ``MaxAbsScaler``, ``PCA``, ``TruncatedSVD``), or one of them.
    path : path
        File to write, by custom ``*.cvc``; an old one is replaced in one step.
    facts : mapping, optional
        Plain values to keep with it.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    TypeError
        If a stage cannot be stored, naming it. ``SVC`` and ``CalibratedClassifierCV`` cannot.
    ValueError
        If the classes are neither strings nor integers, or the folder of `path` does not exist.
    StoreError
        If the file cannot be written.

    Notes
    -----
    The file is in the safetensors format. Its header holds the classes and parameters of all stages, the format
    version and the versions that wrote it.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from cvretrieval import VLAD
    >>> from cvretrieval.recognition import load_classifier, save_classifier
    >>> X = list(np.random.default_rng(0).normal(size=(4, 20, 8)))
    >>> line = make_pipeline(VLAD(n_words=2, random_state=0), LogisticRegression()).fit(X, ["a", "b", "a", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model, facts = load_classifier(save_classifier(line, folder + "/model.cvc"))
    >>> bool((model.predict_proba(X) == line.predict_proba(X)).all())
    True
    """
    from safetensors.numpy import save
    from sklearn import __version__ as sklearn_version

    from cvretrieval.retrieval.durable import replace_file

    path = Path(path)
    kind = np.asarray(classifier.classes_).dtype.kind
    if kind not in "Uiu":
        raise ValueError(
            f"Classes are stored as strings or integers. Got an array of {classifier.classes_.dtype}; fit with "
            "y.astype(str)."
        )
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"The folder {path.parent} does not exist"
        raise ValueError(f"{what}; give the model a file name such as model.cvc.")
    config = to_config(classifier)
    arrays, state = get_state(classifier)
    header = {
        "kind": _KIND,
        "format": str(FORMAT),
        "versions": json.dumps({"cvretrieval": __version__, "scikit-learn": sklearn_version, "numpy": np.__version__}),
        "config": json.dumps(config),
        "state": json.dumps(state),
        "facts": json.dumps(dict(facts or {})),
    }
    # A matrix product in another memory order differs in the last bits, so arrays in Fortran's stay in it.
    turned = [name for name, array in arrays.items() if array.flags.f_contiguous and not array.flags.c_contiguous]
    arrays = {name: np.ascontiguousarray(array.T if name in turned else array) for name, array in arrays.items()}
    header["transposed"] = json.dumps(turned)
    header["digest"] = _digest(arrays, header)
    data = save(arrays, metadata=header)
    target = Path(os.path.realpath(path))  # a link stays a link
    replace_file(target, lambda file: file.write(data))
    return path


def load_classifier(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Read what `save_classifier` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    classifier : estimator
        Fitted; it predicts as the saved one did.
    facts : dict
        The facts that were saved with it.

    Raises
    ------
    StoreError
        If the file does not exist, is no classifier of this package, is damaged, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a model" if path.is_dir() else "does not exist"
        raise StoreError(f"{path} {what}. Make a model with: cvretrieval classify train FOLDER --out {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("kind") != _KIND:
                raise StoreError(f"{path} is no classifier of cvretrieval, but another safetensors file.")
            _check_format(path, int(header["format"]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        if header["digest"] != _digest(arrays, header):
            raise ValueError("its checksum differs from the one in its header")
        arrays.update({name: arrays[name].T for name in json.loads(header["transposed"])})
        facts = json.loads(header["facts"])
        classifier = set_state(from_config(json.loads(header["config"])), arrays, json.loads(header["state"]))
        if not isinstance(facts, dict) or not hasattr(classifier, "classes_"):
            raise ValueError("it holds no fitted classifier")
    except StoreError:
        raise
    except SafetensorError as error:
        raise StoreError(f"{path} is damaged or no model of cvretrieval ({error}). Train it again.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}). Restore it from a copy or train it again.") from error
    return classifier, facts


def stage_names(classifier: Any) -> dict[str, str]:
    """Return each stage of a line and its parameters as text, for people."""
    from sklearn import config_context

    steps = classifier.steps if isinstance(classifier, Pipeline) else [("classifier", classifier)]
    with config_context(print_changed_only=True):
        return {name: " ".join(repr(step).split()) for name, step in steps}


def _check_format(path: Path, found: int) -> None:
    if found > FORMAT:
        raise StoreError(
            f"{path} has format {found}, but this cvretrieval ({__version__}) reads formats up to {FORMAT}; upgrade it "
            "with: pip install -U cvretrieval"
        )


def _digest(arrays: Mapping[str, Any], header: Mapping[str, str]) -> str:
    """Return the BLAKE2b digest (16 bytes, hexadecimal) of all that is in a file but the digest itself."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(header.keys() - {"digest"}):
        found.update(json.dumps([name, header[name]]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        found.update(array.tobytes())
    return found.hexdigest()
