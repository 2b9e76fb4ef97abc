"""One-to-one matches between the descriptors of two images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.hamming import hamming_distances, pack_bytes
from cvretrieval._kernels.matching import select_matches, update_nearest
from cvretrieval._validation import check_binary_descriptors, check_choice, check_flag, check_number, describe_array

# Descriptors of the second image per matrix product: with 1,000 of the first, 500 kB of products, which stay in the
# second-level cache until they have been looked at.
_BLOCK = 128

METRICS = ("euclidean", "hamming")


class DescriptorSet:
    """The descriptors of one image, ready to be matched with those of many others.

    Parameters
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
        float32 or uint8.
    metric : {"euclidean", "hamming"}
        Hamming distances are those of the bits, of uint8 only: the bytes of a stored RootSIFT are numbers, so the type
        does not tell.
    """

    def __init__(self, descriptors: NDArray[Any], metric: str = "euclidean") -> None:
        self.metric = metric
        self.rows: NDArray[Any]
        if metric == "hamming":
            # An image without features may have lost the type of the others.
            if len(descriptors):
                check_binary_descriptors('metric="hamming"', descriptors)
            self.rows = pack_bytes(np.ascontiguousarray(descriptors, dtype=np.uint8))
            self.half_norms = np.zeros(len(self.rows), dtype=np.float32)
            return
        self.rows = np.ascontiguousarray(descriptors, dtype=np.float32)
        self.half_norms = np.float32(0.5) * np.einsum("ij,ij->i", self.rows, self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def match_sets(a: DescriptorSet, b: DescriptorSet, ratio: float, mutual: bool) -> NDArray[np.int64]:
    """Return the matches of two sets; see `match_descriptors`."""
    n_a, n_b = len(a), len(b)
    if not n_a or not n_b:
        return np.empty((0, 2), dtype=np.int64)
    best = np.full(n_a, -np.inf, dtype=np.float32)
    second = np.full(n_a, -np.inf, dtype=np.float32)
    nearest = np.zeros(n_a, dtype=np.int32)
    best_of_b = np.empty(n_b, dtype=np.float32)
    products = np.empty((min(_BLOCK, n_b), n_a), dtype=np.float32)
    for first in range(0, n_b, _BLOCK):
        rows = b.rows[first : first + _BLOCK]
        block = products[: len(rows)]
        if a.metric == "hamming":
            hamming_distances(rows, a.rows, block)
            block *= np.float32(-0.5)
        else:
            np.matmul(rows, a.rows.T, out=block)
        update_nearest(block, a.half_norms, b.half_norms, first, best, second, nearest, best_of_b)
    matches = np.empty((n_a, 2), dtype=np.int64)
    # Compared are −½ d² of Euclidean and −½ d of Hamming distances.
    threshold = float(ratio) if a.metric == "hamming" else float(ratio) ** 2
    n_matches = select_matches(best, second, nearest, best_of_b, threshold, bool(mutual), matches)
    return matches[:n_matches].copy()


def match_descriptors(
    a: NDArray[Any], b: NDArray[Any], *, ratio: float = 0.9, mutual: bool = True, metric: str = "euclidean"
) -> NDArray[np.int64]:
    """Match the descriptors of two images one-to-one, exhaustively.

    Parameters
    ----------
    a, b : ndarray of shape (n_a, n_dims), (n_b, n_dims)
        float32 or uint8 descriptors.
    ratio : float, default=0.9
        In (0, 1]: a match must be nearer than `ratio` times the second nearest descriptor of `b`; 1 switches the test
        off.
    mutual : bool, default=True
        Both descriptors must be the nearest of each other. Without it, of all descriptors of `a` with the same nearest
        one in `b` only the nearest keeps it: many-to-one matches would collapse onto a few points of the other image
        and pass for geometrically consistent.
    metric : {"euclidean", "hamming"}, default="euclidean"
        "hamming" for binary descriptors (`OpenCVFeatures` says of which kind its are by ``metric``), uint8 with eight
        bits a byte: the number of bits that differ.

    Returns
    -------
    ndarray of shape (n_matches, 2)
        int64 rows of `a` and of `b`, ordered by the first.

    References
    ----------
    .. [1] D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 7.1 (ratio test).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.verification import match_descriptors
    >>> a = np.eye(3, dtype=np.float32)
    >>> match_descriptors(a, a[[2, 0]]).tolist()
    [[0, 1], [2, 0]]
    """
    check_number("match_descriptors", "ratio", ratio, low=0, high=1, low_open=True)
    check_flag("match_descriptors", "mutual", mutual)
    check_choice("match_descriptors", "metric", metric, METRICS)
    a, b = np.asarray(a), np.asarray(b)
    for name, array in (("a", a), ("b", b)):
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{name} must be a 2-D array of numbers, one descriptor a row. Got {describe_array(array)}."
            )
    check_same_dims(a, b)
    return match_sets(DescriptorSet(a, metric), DescriptorSet(b, metric), ratio, mutual)


def check_same_dims(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse to compare descriptors of different dimensions; images without any fit everything."""
    if len(a) and len(b) and a.shape[1] != b.shape[1]:
        raise ValueError(
            f"The first image has {a.shape[1]}-d descriptors, the second {b.shape[1]}-d ones; they cannot be matched."
        )
