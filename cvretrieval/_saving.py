"""Saving what was learned and loading it elsewhere: a mixin for the estimators, two functions for lines of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from cvretrieval._model_file import read_model, write_model
from cvretrieval._validation import StoreError

Self = TypeVar("Self", bound="SavableMixin")


class SavableMixin:
    """An estimator that can be saved as one file; what it has learned are its public attributes ending in ``_``."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator as one file, and return its path; see `save_model`."""
        return save_model(self, path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Read a fitted estimator of this class; see `load_model`.

        Raises
        ------
        StoreError
            If the file holds an estimator of another class, does not exist, is no model, is damaged, or of a newer
            format.
        """
        estimator = load_model(path)
        if not isinstance(estimator, cls):
            found = type(estimator).__name__
            raise StoreError(
                f"{path} holds a {found}, not a {cls.__name__}. cvretrieval.load_model(path) loads whatever it holds."
            )
        return estimator


def save_model(estimator: Any, path: str | os.PathLike[str]) -> Path:
    """Write a fitted estimator, or a Pipeline, as one file without pickle.

    Parameters
    ----------
    estimator : estimator
        Fitted: of this package, or a ``Pipeline`` of such and of those of scikit-learn that can be stored
        (``PCA``, ``TruncatedSVD``, ``Normalizer``, ``StandardScaler``, ``MaxAbsScaler``, ``LogisticRegression``,
        ``LinearSVC``, ``MultinomialNB``, ``GaussianMixture``, ``FrozenEstimator``), or one of them. Estimators
        of this package have the same as a method ``save``.
    path : path
        File to write, by custom ``*.cvm``; an old one is replaced in one step, whatever happens meanwhile.

    Returns
    -------
    Path
        `path`.

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

    See Also
    --------
    load_model : Read the file.

    Notes
    -----
    The file is in the safetensors format. Its header holds the classes and parameters of all parts, the format version
    and the versions of the libraries that wrote it; its arrays are what was learned. Estimators given as parameters,
    such as a codebook, are stored with what they have learned; an array held by two estimators is stored once. A given
    clusterer of another package becomes a `KMeansCodebook` of its centres.

    Values, data types and the memory order of arrays are kept, so a loaded estimator returns the same bits on the same
    machine. CSR and CSC matrices stay what they are; views and memory-mapped arrays become arrays in memory.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from cvretrieval import VLAD, PCAWhitening, load_model, save_model
    >>> X = list(np.random.default_rng(0).normal(size=(6, 20, 8)))
    >>> line = make_pipeline(VLAD(n_words=2, random_state=0), PCAWhitening(4)).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load_model(save_model(line, folder + "/vlad.cvm"))
    >>> bool((loaded.transform(X) == line.transform(X)).all())
    True
    """
    kind = type(estimator)
    if kind.__module__.partition(".")[0] == "cvretrieval" and not isinstance(estimator, SavableMixin):
        own = f"; use its own save and {kind.__name__}.load" if hasattr(kind, "save") else ""
        raise TypeError(f"{kind.__name__} cannot be stored as a model{own}.")
    return write_model(estimator, path)


def load_model(path: str | os.PathLike[str]) -> Any:
    """Read the estimator that `save_model`, or the method ``save`` of an estimator, wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    estimator
        Fitted as it was. Nothing in the file is executed: it names classes out of a fixed list, and holds numbers and
        text for their attributes.

    Raises
    ------
    StoreError
        If the file does not exist, is no model of this package, is damaged, or of a newer format.

    See Also
    --------
    save_model : Write the file.
    """
    return read_model(path)[0]
