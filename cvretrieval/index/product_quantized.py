"""Search of dense vectors held as a few bytes each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from cvretrieval.codebooks.product_quantizer import ProductQuantizer
from cvretrieval.index.checks import check_new_keys
from cvretrieval.index.code_rows import CodeRows, without_hidden_rows
from cvretrieval.index.dense_rows import METRICS
from cvretrieval.index.row_index import RowIndex

# Bytes of a code, unless a quantizer is given.
_N_SUBVECTORS = 16


class PQIndex(RowIndex, BaseEstimator):
    """Exhaustive search of product codes by asymmetric distances (ADC): the query is exact, vectors are a few bytes.

    Parameters
    ----------
    quantizer : ProductQuantizer, optional
        Fitted, it is used as it is. One that is not fitted, or None for ``ProductQuantizer(16, random_state=0)``, is
        learned from the first vectors added: add a good sample of them first, thousands.
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        What is ranked by, as for `DenseIndex`, but with the vector x̂ that a code stands for. May be changed at any
        time.
    n_jobs : int, optional
        Threads over queries and, if these are few, over vectors; the number does not change a bit of the result.

    Attributes
    ----------
    n_dims : int or None
        Dimension of the vectors; None before the first ones.
    quantizer_ : ProductQuantizer
        The fitted quantizer; after the first vectors.

    Notes
    -----
    A vector takes one byte per sub-vector and eight for its key. It is not kept: `reconstruct` returns x̂, and results
    are the best by x̂, not by x. Give a query's best results to an exact comparison if you have the vectors elsewhere.

    For unit vectors, "l2" ranks nearly as "cosine", which needs twice the look-ups, for ‖x̂‖ is not 1.

    A score is a float32 sum over look-up tables, always in the same order. So it depends neither on the other queries
    nor on `n_jobs` or the order in which vectors were added. Among equal scores, and equal codes are many, the lower
    key comes first. A search sees the index as it was when the search began; one thread at a time may change it.

    References
    ----------
    .. [1] H. Jégou, M. Douze and C. Schmid, "Product quantization for nearest neighbor search", PAMI 2011,
       section III.A (asymmetric distance computation).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import PQIndex, ProductQuantizer
    >>> vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    >>> quantizer = ProductQuantizer(8, n_codewords=64, random_state=0)
    >>> index = PQIndex(quantizer, metric="l2").add(np.arange(500), vectors)
    >>> index.search(vectors[:3], k=1)[0].ravel()
    array([0, 1, 2])
    >>> index.stats()["n_bytes"] == 500 * (8 + 8)
    True
    """

    kind = "dense"
    exact = False

    _metrics = tuple(METRICS)
    _large_arrays: ClassVar[tuple[str, ...]] = ("vectors",)

    quantizer_: ProductQuantizer

    def __init__(
        self, quantizer: ProductQuantizer | None = None, metric: str = "cosine", *, n_jobs: int | None = None
    ) -> None:
        self.quantizer = quantizer
        self.metric = metric
        self.n_jobs = n_jobs
        self._start()

    @property
    def _rows(self) -> CodeRows:
        return CodeRows(getattr(self, "quantizer_", None))

    def add(self, keys: Any, vectors: Any) -> PQIndex:
        """Add vectors.

        Parameters
        ----------
        keys : array-like of shape (n_vectors,)
            Integers, each 0 or more and in the index at most once. A row with key -1 is never found.
        vectors : array-like of shape (n_vectors, n_dims)
            Real numbers, finite in float32, with norms of at most 1e18. The first ones teach a quantizer that is not
            fitted.

        Returns
        -------
        PQIndex
            The index itself.

        Raises
        ------
        ValueError
            If a key is in the index, the vectors are not as above, the quantizer is for another dimension, or the first
            vectors are fewer than codewords to be learned. Nothing is added then.
        """
        rows = self._rows.read("Vectors", vectors, self._n_dims)
        if len(rows) and not hasattr(self, "quantizer_"):
            new = check_new_keys(keys, len(rows))
            quantizer = self._learn(without_hidden_rows(rows, new)[new >= 0])
            if quantizer.codewords_.shape[1] != rows.shape[1]:
                raise ValueError(
                    f"Vectors have {rows.shape[1]} dimensions, but the quantizer of PQIndex was fitted with "
                    f"{quantizer.codewords_.shape[1]}-d vectors."
                )
            self.quantizer_ = quantizer
        return super().add(keys, rows)

    def _learn(self, rows: NDArray[np.float32]) -> ProductQuantizer:
        """Return the quantizer, learned from the first vectors unless it is fitted."""
        quantizer = self.quantizer
        if quantizer is not None and hasattr(quantizer, "codewords_"):
            return quantizer
        if quantizer is None:
            quantizer = ProductQuantizer(min(_N_SUBVECTORS, rows.shape[1]), n_jobs=self.n_jobs, random_state=0)
        if len(rows) < quantizer.n_codewords:
            raise ValueError(
                f"PQIndex learns n_codewords={quantizer.n_codewords} from the first vectors added. Got {len(rows)}: "
                "add more at first, or give a fitted quantizer: PQIndex(ProductQuantizer().fit(sample))."
            )
        return clone(quantizer).fit(rows)

    def _to_facts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        shared, facts = super()._to_facts()
        if hasattr(self, "quantizer_"):
            quantizer = self.quantizer_
            shared = {"codewords": quantizer.codewords_, "bounds": quantizer.bounds_}
            if hasattr(quantizer, "rotation_"):
                shared["rotation"] = quantizer.rotation_
            facts["quantizer"] = {
                "n_codewords": int(quantizer.n_codewords), "rotation": quantizer.rotation,
                "error": float(quantizer.error_),
            }  # fmt: skip
        return shared, facts

    @classmethod
    def _from_facts(cls, facts: Mapping[str, Any], shared: Mapping[str, NDArray[Any]]) -> PQIndex:
        index = super()._from_facts(facts, shared)
        if "codewords" in shared:
            index.quantizer = _given_quantizer(facts["quantizer"], shared)
            index.quantizer_ = index.quantizer
        return index

    def __sklearn_clone__(self) -> PQIndex:
        copy: PQIndex = super().__sklearn_clone__()
        if hasattr(self.quantizer, "codewords_"):
            # scikit-learn would clone the quantizer as well, and a clone is not fitted.
            copy.quantizer = self.quantizer
        return copy


def _given_quantizer(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ProductQuantizer:
    """Return the fitted quantizer of stored arrays."""
    quantizer = ProductQuantizer(
        len(arrays["bounds"]) - 1, n_codewords=facts["n_codewords"], rotation=facts["rotation"]
    )
    quantizer.codewords_, quantizer.bounds_ = arrays["codewords"], arrays["bounds"]
    if "rotation" in arrays:
        quantizer.rotation_ = arrays["rotation"]
    quantizer.error_ = facts["error"]
    quantizer.n_features_in_ = arrays["codewords"].shape[1]
    return quantizer
