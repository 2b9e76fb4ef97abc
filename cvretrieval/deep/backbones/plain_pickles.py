"""What a checkpoint may hold besides tensors: arrays of numbers, and the attributes of scikit-learn's PCA as data."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Where versions of scikit-learn have kept the class.
_PCA = ("sklearn.decomposition.pca.PCA", "sklearn.decomposition._pca.PCA")

#: Where versions of numpy have kept what rebuilds an array and a number.
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


class PlainPCA:
    """Stands for a pickled PCA: an object without methods, whose attributes are what was stored."""

    def values(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return dict(vars(self))


def plain_globals() -> list[Any]:
    """Return what torch's restricted unpickler may build: arrays and numbers of numpy, and `PlainPCA`."""
    from numpy import dtypes

    # The functions themselves live where this version of numpy has them.
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype, (PlainPCA, _PCA[0]), (PlainPCA, _PCA[1])]
    for place in _NUMPY:
        allowed += [(reconstruct, f"{place}._reconstruct"), (scalar, f"{place}.scalar")]
    names = ("Float16DType", "Float32DType", "Float64DType", "Int8DType", "Int16DType", "Int32DType", "Int64DType",
             "UInt8DType", "BoolDType")  # fmt: skip
    return allowed + [getattr(dtypes, name) for name in names]
