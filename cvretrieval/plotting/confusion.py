"""The confusion matrix as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvretrieval._optional import import_optional
from cvretrieval._validation import describe_array
from cvretrieval.plotting.page import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Above this many classes the numbers would not be readable.
_MAX_NUMBERED = 30


def plot_confusion(
    matrix: ArrayLike, classes: Sequence[Any], *, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: shades by the share of the true class, numbers as given.

    Parameters
    ----------
    matrix : array-like of shape (n_classes, n_classes)
        Counts; row: true class, column: predicted class, as ``sklearn.metrics.confusion_matrix`` returns them.
    classes : sequence of length n_classes
        Names, in the order of rows and columns.
    title : str, optional
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of pyplot.

    Returns
    -------
    matplotlib Axes
        Its image holds the shares in [0, 1]; a class without images is a row of zeros. Numbers are left out with more
        than 30 classes, and where they are 0.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the matrix is not square, has negative or not finite entries, or does not fit the classes.

    Examples
    --------
    >>> from cvretrieval.plotting import plot_confusion
    >>> ax = plot_confusion([[8, 2], [1, 9]], ["coast", "forest"])
    >>> ax.images[0].get_array().tolist()
    [[0.8, 0.2], [0.1, 0.9]]
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_confusion")
    counts = check_confusion(matrix, classes)
    shares = confusion_shares(counts)
    n = len(counts)
    if ax is None:
        side = min(4 + 0.35 * n, 16)
        _, ax = pyplot.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [printable(name) for name in classes]
    ax.set_xticks(range(n), names, rotation=90, parse_math=False)
    ax.set_yticks(range(n), names, parse_math=False)
    ax.set(xlabel="predicted", ylabel="true")
    if n <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            ax.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=color, fontsize=8)
    if title is not None:
        ax.set_title(printable(title), parse_math=False)
    return ax


def check_confusion(matrix: ArrayLike, classes: Sequence[Any]) -> NDArray[np.float64]:
    """Return a confusion matrix as float64, or refuse it."""
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(
            f"matrix must have one row and one column for each of {len(classes)} classes. Got {describe_array(counts)}."
        )
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("matrix must hold counts: numbers that are finite and not negative.")
    return counts


def confusion_shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Divide each row by its sum; rows of zeros stay."""
    sums = np.asarray(counts, dtype=np.float64).sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = counts / np.where(sums > 0, sums, 1)
    return shares
