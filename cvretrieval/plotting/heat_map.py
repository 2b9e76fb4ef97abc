"""What a CNN descriptor saw: heat maps, regions and clusters over the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._optional import import_optional
from cvretrieval._validation import check_number
from cvretrieval.images import ImageReader, ReadImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREEN = "#1d9e5b"
_SIZE_SHOWN = 1024


def plot_heat_map(
    image: Any,
    values: Any,
    *,
    frame: Any = None,
    limit: float | None = None,
    alpha: float = 0.6,
    ax: Axes | None = None,
    reader: ImageReader | None = None,
) -> Axes:
    """Draw a map of contributions over a photo: red for more, blue for less, nothing where they are zero.

    Parameters
    ----------
    image : path, array, PIL image or binary file object
        Anything `ImageReader` reads.
    values : array-like of shape (height, width)
        E.g. ``SimilarityMaps.b``.
    frame : array-like of shape (4,), optional
        Where the map lies, x1, y1, x2, y2 in original pixels, e.g. ``SimilarityMaps.frame_b``; by default it covers the
        image.
    limit : float, optional
        Value of full colour; by default the magnitude that one place in fifty exceeds: a single peak must not fade all
        others. Give one to compare images.
    alpha : float, default=0.6
        Opacity of full colour.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of pyplot.
    reader : ImageReader, optional
        How the image is read; give the extractor's own where it is not the default.

    Returns
    -------
    matplotlib Axes
        In original pixels.

    Raises
    ------
    ImageReadError
        If the image cannot be read.
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.plotting import plot_heat_map
    >>> ax = plot_heat_map(np.zeros((60, 80, 3), dtype=np.uint8), [[0.1, -0.2, 0.3]])
    >>> len(ax.images)
    2
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_heat_map")
    check_number("plot_heat_map", "limit", limit, low=0, low_open=True, optional=True)
    check_number("plot_heat_map", "alpha", alpha, low=0, high=1)
    shown = _check_map("plot_heat_map", values).astype(np.float64)
    if not np.isfinite(shown).all():
        raise ValueError("plot_heat_map got values that are NaN or infinite.")
    read, ax = _draw_image(image, reader, ax, pyplot)
    strength = np.abs(shown)
    if limit is None:
        # Where nearly all are zero, as of maxima, the largest.
        limit = float(np.quantile(strength, 0.98)) or max(float(strength.max()), 1e-30)
    colours = pyplot.get_cmap("RdBu_r")((shown / limit + 1) / 2)
    colours[..., 3] = alpha * np.minimum(strength / limit, 1)
    _draw_map(ax, colours, frame, read, "bilinear")
    return ax


def plot_cluster_map(
    image: Any,
    clusters: Any,
    *,
    frame: Any = None,
    alpha: float = 0.5,
    ax: Axes | None = None,
    reader: ImageReader | None = None,
) -> Axes:
    """Draw a map of clusters over a photo, each in a colour of its own.

    Parameters
    ----------
    image : path, array, PIL image or binary file object
        Anything `ImageReader` reads.
    clusters : array-like of shape (height, width)
        Numbers of the clusters, e.g. ``ClusterMap.clusters``. A number has the same colour in every image.
    frame : array-like of shape (4,), optional
        Where the map lies, e.g. ``ClusterMap.frame``; by default it covers the image.
    alpha : float, default=0.5
        Opacity of the colours.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of pyplot.
    reader : ImageReader, optional
        How the image is read; give the extractor's own where it is not the default.

    Returns
    -------
    matplotlib Axes
        In original pixels.

    Raises
    ------
    ImageReadError
        If the image cannot be read.
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.plotting import plot_cluster_map
    >>> ax = plot_cluster_map(np.zeros((60, 80, 3), dtype=np.uint8), [[0, 1], [1, 5]])
    >>> len(ax.images)
    2
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_cluster_map")
    check_number("plot_cluster_map", "alpha", alpha, low=0, high=1)
    labels = _check_map("plot_cluster_map", clusters)
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError("plot_cluster_map needs numbers of clusters: integers, not negative.")
    read, ax = _draw_image(image, reader, ax, pyplot)
    # Hues a golden section apart: any first few differ clearly.
    hues = (labels * 0.618034) % 1.0
    _draw_map(
        ax, np.dstack([pyplot.get_cmap("hsv")(hues)[..., :3], np.full(labels.shape, alpha)]), frame, read, "nearest"
    )
    return ax


def plot_regions(
    image: Any,
    boxes: Any,
    *,
    values: Any = None,
    max_boxes: int | None = None,
    ax: Axes | None = None,
    reader: ImageReader | None = None,
) -> Axes:
    """Draw rectangles over a photo; the more a region contributes, the stronger its line.

    Parameters
    ----------
    image : path, array, PIL image or binary file object
        Anything `ImageReader` reads.
    boxes : array-like of shape (n_boxes, 4)
        x1, y1, x2, y2 in original pixels, e.g. ``RegionShares.boxes`` or ``RegionRanking.boxes``.
    values : array-like of shape (n_boxes,), optional
        E.g. ``RegionShares.shares``. By default all lines are alike.
    max_boxes : int or None, optional
        Draw only the regions of the largest values, or the first without values.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of pyplot.
    reader : ImageReader, optional
        How the image is read; give the extractor's own where it is not the default.

    Returns
    -------
    matplotlib Axes
        In original pixels.

    Raises
    ------
    ImageReadError
        If the image cannot be read.
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.plotting import plot_regions
    >>> ax = plot_regions(np.zeros((60, 80, 3), dtype=np.uint8), [[0, 0, 40, 40], [20, 10, 70, 50]], values=[0.2, 0.5])
    >>> len(ax.patches)
    2
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_regions")
    patches = import_optional("matplotlib.patches", "plot_regions")
    check_number("plot_regions", "max_boxes", max_boxes, low=0, integer=True, optional=True)
    rows = np.asarray(boxes, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"Boxes are rows of x1, y1, x2, y2. Got shape {rows.shape}.")
    strength = np.ones(len(rows)) if values is None else np.asarray(values, dtype=np.float64)
    if strength.shape != (len(rows),):
        raise ValueError(f"There are {len(rows)} boxes, but values of shape {strength.shape}.")
    _, ax = _draw_image(image, reader, ax, pyplot)
    order = np.argsort(-strength, kind="stable")[:max_boxes]
    largest = max(float(strength.max(initial=0.0)), 1e-30)
    # The strongest last, on top.
    for i in order[::-1]:
        share = max(float(strength[i]) / largest, 0.0)
        x1, y1, x2, y2 = rows[i]
        ax.add_patch(
            patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=_GREEN, linewidth=0.5 + 2 * share,
                              alpha=0.15 + 0.85 * share)
        )  # fmt: skip
    return ax


def _draw_image(image: Any, reader: ImageReader | None, ax: Any, pyplot: Any) -> tuple[ReadImage, Any]:
    if image is None:
        raise TypeError("The image to draw on is needed. Got None.")
    read = (ImageReader(max_size=_SIZE_SHOWN) if reader is None else reader).read(image, color="rgb")
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 6), layout="constrained")
    ax.imshow(read.pixels, extent=(-0.5, read.width - 0.5, read.height - 0.5, -0.5))
    ax.set(xlim=(-0.5, read.width - 0.5), ylim=(read.height - 0.5, -0.5), aspect="equal")
    ax.set_axis_off()
    return read, ax


def _draw_map(ax: Any, colours: NDArray[Any], frame: Any, read: ReadImage, interpolation: str) -> None:
    x1, y1, x2, y2 = (-0.5, -0.5, read.width - 0.5, read.height - 0.5) if frame is None else np.asarray(frame).tolist()
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(colours, extent=(x1, x2, y2, y1), interpolation=interpolation)
    # A map that reaches beyond the image must not widen the picture.
    ax.set(xlim=limits[0], ylim=limits[1])


def _check_map(name: str, values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} needs a map (height, width). Got shape {array.shape}.")
    return array
