"""Classifiers as single files: a model, and plain facts with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from cvretrieval._model_file import read_model, write_model
from cvretrieval._validation import StoreError


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
    The file is that of `cvretrieval.save_model`, and `cvretrieval.load_model` reads it, too.

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
    kind = np.asarray(classifier.classes_).dtype.kind
    if kind not in "Uiu":
        raise ValueError(
            f"Classes are stored as strings or integers. Got an array of {classifier.classes_.dtype}; fit with "
            "y.astype(str)."
        )
    return write_model(classifier, path, facts)


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
        If the file does not exist, is no model or no classifier of this package, is damaged, or of a newer format.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path} does not exist. Make a model with: cvretrieval classify train FOLDER --out {path}")
    classifier, facts = read_model(path)
    if not hasattr(classifier, "classes_"):
        raise StoreError(f"{path} holds no classifier, but a {type(classifier).__name__}.")
    return classifier, facts


def stage_names(classifier: Any) -> dict[str, str]:
    """Return each stage of a line and its parameters as text, for people."""
    from sklearn import config_context

    steps = classifier.steps if isinstance(classifier, Pipeline) else [("classifier", classifier)]
    with config_context(print_changed_only=True):
        return {name: " ".join(repr(step).split()) for name, step in steps}
