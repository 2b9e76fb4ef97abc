"""Annotations in MATLAB files. SciPy reads them as arrays; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval.datasets.benchmarks.public_set import PublicSet


def read_structure(public: PublicSet, file: Path, name: str, fields: Sequence[str]) -> dict[str, Any]:
    """Read a variable that is a structure, or an array of structures.

    Parameters
    ----------
    public : PublicSet
        For messages.
    file : Path
    name : str
        Of the variable.
    fields : sequence of str
        What it must have.

    Returns
    -------
    dict of str to ndarray or object
        Field → its values, without dimensions of length 1.
    """
    from scipy.io import loadmat

    try:
        read = loadmat(file, squeeze_me=True, variable_names=[name])
    except (ValueError, TypeError, NotImplementedError, OSError, IndexError, KeyError, MemoryError) as error:
        raise public.error(f"{file} cannot be read as a MATLAB file of version 5 to 7 ({error}).") from error
    if name not in read:
        raise public.error(f"{file} has no variable {name!r}.")
    structure = np.asarray(read[name])
    missing = [field for field in fields if structure.dtype.names is None or field not in structure.dtype.names]
    if missing:
        raise public.error(f"{name!r} in {file} has no field {missing[0]!r}.")
    return {field: structure[field][()] if structure.ndim == 0 else structure[field] for field in fields}


def text_list(values: Any) -> list[str]:
    """Return a cell array of text as a list, also where it has a single element."""
    return [str(value) for value in np.atleast_1d(np.asarray(values, dtype=object)).tolist()]
