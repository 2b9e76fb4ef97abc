"""Shared error wordings: the fact received, what is allowed, the way out."""

from __future__ import annotations

import numbers
from typing import Any, NoReturn

import numpy as np


class ImageReadError(ValueError):
    """An image that cannot be read: the message names it and says why.

    Attributes
    ----------
    source : str
        The file, or a description of the array or stream.
    reason : str
        Why it cannot be read, a phrase without the name.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class StoreError(RuntimeError):
    """An index or a model on disk that cannot be used as asked: locked, damaged, of a newer format, read-only."""


def describe_array(array: np.ndarray) -> str:
    """Return e.g. ``"an array of float64 with shape (3, 4)"``."""
    return f"an array of {array.dtype} with shape {array.shape}"


def dimension_mismatch(name: str, n_dims_seen: int, n_dims_fitted: int) -> ValueError:
    """X has descriptors of another dimension than at fit."""
    return ValueError(f"X has {n_dims_seen}-d descriptors, but {name} was fitted with {n_dims_fitted}-d descriptors.")


def non_finite_descriptors(owner: Any, image: int) -> ValueError:
    """Descriptors that are not numbers, or too large to be squared in float32."""
    return ValueError(
        f"{_owner(owner)} got descriptors of image {image} that are NaN, infinite or too large for float32. "
        "Leave such rows out, or rescale them."
    )


def check_binary_descriptors(owner: Any, descriptors: np.ndarray) -> None:
    """Refuse descriptors that cannot be compared bit by bit."""
    if descriptors.dtype != np.uint8:
        raise ValueError(
            f"{_owner(owner)} compares descriptors by Hamming distance and needs binary ones, uint8 with eight bits a "
            f"byte, as OpenCVFeatures('ORB') gives. Got {describe_array(descriptors)} instead."
        )


def refuse_single_matrix(name: str, array: np.ndarray) -> NoReturn:
    """A bare 2-D array where one entry per image is expected."""
    raise ValueError(
        f"{name} expects the local features of a sequence of images. Got {describe_array(array)} instead. "
        "One image? Wrap it in a list: [X]."
    )


def refuse_array_conversion(n_images: int) -> NoReturn:
    """A ragged container where a 2-D array is expected."""
    raise TypeError(
        f"LocalFeatures of {n_images} images is ragged and cannot become an array. Use an encoder (VLAD, BagOfWords, "
        "FisherVector) to turn each image into one vector, or take .descriptors for the stacked rows."
    )


def check_choice(owner: Any, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Check a parameter with a fixed set of values."""
    if not any(value is choice or value == choice for choice in allowed):
        options = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"The {name!r} parameter of {_owner(owner)} must be one of {options}. Got {value!r} instead.")


def check_number(
    owner: Any,
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    integer: bool = False,
    low_open: bool = False,
    optional: bool = False,
) -> None:
    """Check a numeric parameter against an interval; numpy numbers are numbers, booleans are not."""
    if optional and value is None:
        return
    kind = numbers.Integral if integer else numbers.Real
    right_type = isinstance(value, kind) and not isinstance(value, (bool, np.bool_))
    if right_type and (low < value if low_open else low <= value) and value <= high:
        return
    noun = "an integer" if integer else "a number"
    left = "(" if low_open or low == -np.inf else "["
    right = ")" if high == np.inf else "]"
    none = " or None" if optional else ""
    raise ValueError(
        f"The {name!r} parameter of {_owner(owner)} must be {noun} in {left}{low:g}, {high:g}{right}{none}. "
        f"Got {value!r} instead."
    )


def check_flag(owner: Any, name: str, value: Any) -> None:
    """Check a boolean parameter."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"The {name!r} parameter of {_owner(owner)} must be True or False. Got {value!r} instead.")


def _owner(owner: Any) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__
