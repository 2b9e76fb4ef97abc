"""One-to-one matches between the descriptors of two images."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.hamming import hamming_distances, pack_bytes
from cvretrieval._kernels.matching import select_matches, update_nearest
from cvretrieval._parallel import single_threaded
from cvretrieval._validation import check_binary_descriptors, check_choice, check_flag, check_number, describe_array
from cvretrieval.verification.quantized_matching import QuantizedMatcher
from cvretrieval.verification.word_matching import WordMatcher

# Descriptors of the second image per matrix product: with 1,000 of the first, 500 kB of products, which stay in the
# second-level cache until they have been looked at.
_BLOCK = 128

METRICS = ("euclidean", "hamming")

MATCHINGS = ("words", "exhaustive", "quantized")


class Matcher(Protocol):
    """One image, ready to be matched with many others; may be used by several threads at a time."""

    def match(self, descriptors: NDArray[Any]) -> NDArray[np.int64]:
        """Return the matches with the descriptors of another image; see `match_descriptors`."""


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


class ExhaustiveMatcher:
    """Compares all descriptors of two images.

    Parameters
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
    ratio, mutual, metric
        See `match_descriptors`.
    """

    def __init__(self, descriptors: NDArray[Any], ratio: float, mutual: bool, metric: str) -> None:
        self._descriptors = DescriptorSet(descriptors, metric)
        self._ratio, self._mutual = ratio, mutual

    def match(self, descriptors: NDArray[Any]) -> NDArray[np.int64]:
        """Return the matches with the descriptors of another image; see `match_descriptors`."""
        return match_sets(
            self._descriptors, DescriptorSet(descriptors, self._descriptors.metric), self._ratio, self._mutual
        )


def make_matcher(
    descriptors: NDArray[Any], *, ratio: float, mutual: bool, metric: str, matching: str, n_assignments: float
) -> Matcher:
    """Prepare the descriptors of one image to be matched with those of others; see `match_descriptors`."""
    if matching == "exhaustive" or metric == "hamming":
        return ExhaustiveMatcher(descriptors, ratio, mutual, metric)
    # The words must not depend on how many threads the products of their learning have.
    with single_threaded():
        if matching == "quantized":
            return QuantizedMatcher(descriptors, ratio, mutual)
        return WordMatcher(descriptors, ratio, mutual, n_assignments)


def match_descriptors(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    ratio: float = 0.9,
    mutual: bool = True,
    metric: str = "euclidean",
    matching: str = "exhaustive",
    n_assignments: float = 5,
) -> NDArray[np.int64]:
    """Match the descriptors of two images one-to-one.

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
    matching : {"exhaustive", "words", "quantized"}, default="exhaustive"
        Which descriptors are compared. "exhaustive": all. "words": those that share a visual word, about one pair in 20
        of 1,000 × 1,000, with words learned by k-means from `a`, one for 8 of its descriptors, 256 at most; nearest and
        second nearest are those among the compared. "quantized": all, after rounding each descriptor to integers of
        norm 181 at most, which moves it by about 2 % of its norm. Binary descriptors are always compared exhaustively.
    n_assignments : float, default=5
        For ``matching="words"``: number of words of a descriptor of `a`, on average; the ones that are nearly as near
        as the nearest. Descriptors of `b` have one. As many as there are words gives the exhaustive matches.

    Returns
    -------
    ndarray of shape (n_matches, 2)
        int64 rows of `a` and of `b`, ordered by the first.

    Notes
    -----
    A descriptor that is compared with a single other one passes the ratio test.

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
    check_choice("match_descriptors", "matching", matching, MATCHINGS)
    check_number("match_descriptors", "n_assignments", n_assignments, low=1)
    a, b = np.asarray(a), np.asarray(b)
    for name, array in (("a", a), ("b", b)):
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{name} must be a 2-D array of numbers, one descriptor a row. Got {describe_array(array)}."
            )
    check_same_dims(a, b)
    matcher = make_matcher(a, ratio=ratio, mutual=mutual, metric=metric, matching=matching, n_assignments=n_assignments)
    return matcher.match(b)


def check_same_dims(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse to compare descriptors of different dimensions; images without any fit everything."""
    if len(a) and len(b) and a.shape[1] != b.shape[1]:
        raise ValueError(
            f"The first image has {a.shape[1]}-d descriptors, the second {b.shape[1]}-d ones; they cannot be matched."
        )
