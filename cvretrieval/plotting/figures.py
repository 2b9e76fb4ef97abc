"""Matplotlib figures: the matches between two images, and the ranked lists of a search (extra ``[plot]``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from cvretrieval._optional import import_optional
from cvretrieval._validation import ImageReadError, check_number, describe_array
from cvretrieval.images import ImageReader, ReadImage
from cvretrieval.plotting.lines import finite_rows, spread_rows
from cvretrieval.plotting.outline import frame_corners, object_outlines, project_outline
from cvretrieval.plotting.page import printable
from cvretrieval.plotting.query_data import query_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult

_GREEN, _RED, _BLUE, _GREY = "#1d9e5b", "#d1495b", "#2f8fe0", "#8a8d93"
_SIZE_SHOWN = 640


def plot_matches(
    image_a: Any,
    image_b: Any,
    matches: Any,
    *,
    inliers: Any = None,
    transform: Any = None,
    max_lines: int | None = 100,
    title: str | None = None,
    ax: Axes | None = None,
    reader: ImageReader | None = None,
) -> Axes:
    """Draw two images side by side with lines between matching points.

    Parameters
    ----------
    image_a, image_b : path, array, PIL image or binary file object
        Anything `ImageReader` reads.
    matches : array-like of shape (n_matches, 4)
        x, y in `image_a` and x, y in `image_b`, in pixels of the original images, as in ``Hit.matches`` and from
        ``Verification.inlier_coordinates``. Rows that are not finite are left out.
    inliers : array-like of shape (n_matches,), optional
        Mask: inliers are drawn green, the others red. By default lines are coloured by their x in `image_a`, so that a
        line out of order stands out.
    transform : array-like of shape (3, 3), optional
        Maps homogeneous pixels of `image_a` to those of `image_b`: the frame of `image_a` is outlined in `image_b`.
    max_lines : int or None, default=100
        At most so many lines are drawn, spread evenly over `image_a`; None for all.
    title : str, optional
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of pyplot.
    reader : ImageReader, optional
        How the images are read; give the extractor's own where it is not the default.

    Returns
    -------
    matplotlib Axes
        In pixels of `image_a`. `image_b` stands right of it, reduced or enlarged to the same height: its point x, y is
        at ``offset + s * (x + 0.5) - 0.5, s * (y + 0.5) - 0.5`` with ``s = height_a / height_b`` and
        ``offset = 1.02 * width_a``.

    Raises
    ------
    ImageReadError
        If an image cannot be read.
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.plotting import plot_matches
    >>> image = np.zeros((60, 80, 3), dtype=np.uint8)
    >>> ax = plot_matches(image, image, [[10, 20, 10, 20], [40, 30, 40, 30]])
    >>> len(ax.images)
    2
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_matches")
    collections = import_optional("matplotlib.collections", "plot_matches")
    patches = import_optional("matplotlib.patches", "plot_matches")
    if max_lines is not None:
        check_number("plot_matches", "max_lines", max_lines, low=0, integer=True)
    rows, accepted = _check_matches(matches, inliers)
    first, second = _read(image_a, reader), _read(image_b, reader)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(12, 5), layout="constrained")
    scale, offset = first.height / second.height, 1.02 * first.width
    width_b = scale * second.width
    ax.imshow(first.pixels, extent=(-0.5, first.width - 0.5, first.height - 0.5, -0.5))
    ax.imshow(second.pixels, extent=(offset - 0.5, offset + width_b - 0.5, first.height - 0.5, -0.5))
    ax.set(xlim=(-0.5, offset + width_b - 0.5), ylim=(first.height - 0.5, -0.5), aspect="equal")
    ax.set_axis_off()

    def moved(points: Any) -> Any:
        return (points + 0.5) * scale - 0.5 + np.array([offset, 0.0])

    corners = project_outline(transform, frame_corners(first.width, first.height), second.width, second.height)
    if corners is not None:
        ring = moved(np.vstack([corners, corners[:1]]))
        (line,) = ax.plot(*ring.T, color=_GREEN, linewidth=2)
        # An outline that leaves its image must not run into the other one.
        line.set_clip_path(patches.Rectangle((offset - 0.5, -0.5), width_b, first.height, transform=ax.transData))
    if accepted is None:
        groups: list[tuple[Any, str, float]] = [(rows, "", 0.8)]
    else:
        groups = [(rows[~accepted], _RED, 0.5), (rows[accepted], _GREEN, 0.9)]
    for group, color, alpha in groups:
        drawn = group if max_lines is None else spread_rows(group, max_lines)
        if len(drawn):
            ends = moved(drawn[:, 2:])
            across = drawn[:, 0] - drawn[:, 0].min()
            colors = [color] * len(drawn) if color else pyplot.get_cmap("turbo")(across / max(across.max(), 1.0))
            segments = np.stack([drawn[:, :2], ends], axis=1)
            ax.add_collection(collections.LineCollection(segments, colors=colors, linewidths=0.8, alpha=alpha))
            for points in (drawn[:, :2], ends):
                ax.scatter(points[:, 0], points[:, 1], s=9, c=colors)
    if title is not None:
        ax.set_title(printable(title), parse_math=False)
    return ax


def show_search_result(
    result: SearchResult, n_hits: int = 5, *, n_queries: int = 10, reader: ImageReader | None = None
) -> Figure:
    """Draw each query beside its best hits, verified ones framed green with the outline of the object.

    Parameters
    ----------
    result : SearchResult
    n_hits : int, default=5
        Hits per query.
    n_queries : int, default=10
        The first so many queries; the title says how many there are.
    reader : ImageReader, optional
        How the images are read; give the index's own where it is not the default.

    Returns
    -------
    matplotlib Figure
        Of pyplot: notebooks display it; in a script, call ``matplotlib.pyplot.show()``. One axes per image.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If there is no query to draw.

    Notes
    -----
    An image that cannot be read is an empty axes that says why.
    """
    pyplot = import_optional("matplotlib.pyplot", "SearchResult.show")
    check_number("SearchResult.show", "n_hits", n_hits, low=0, integer=True)
    check_number("SearchResult.show", "n_queries", n_queries, low=1, integer=True)
    queries = result.queries[:n_queries]
    if not queries:
        raise ValueError("There is no query to show: none was given, or none could be read (see .failures).")
    n_columns = 1 + max(len(query.hits[:n_hits]) for query in queries)
    figure, grid = pyplot.subplots(
        len(queries), n_columns, figsize=(2.4 * n_columns, 2.3 * len(queries)), squeeze=False, layout="constrained"
    )
    for query, axes in zip(queries, grid, strict=True):
        asked = _draw_query(axes[0], query, reader)
        for hit, ax in zip(query.hits[:n_hits], axes[1:], strict=False):
            _draw_hit(ax, hit, asked, query.box, reader)
        for ax in axes[1 + len(query.hits[:n_hits]) :]:
            ax.remove()
    if len(result) > len(queries):
        figure.suptitle(f"The first {len(queries)} of {len(result):,} queries")
    return figure


def _draw_query(ax: Any, query: QueryResult, reader: ImageReader | None) -> ReadImage | None:
    image = _draw_image(ax, query_image(query), reader)
    ax.set_title(f"query\n{_short(query.query)}", fontsize=9, fontweight="bold", parse_math=False)
    if image is not None and query.box is not None:
        ax.add_patch(_polygon(frame_corners(0, 0, query.box), _BLUE))
    return image


def _draw_hit(ax: Any, hit: Hit, asked: ReadImage | None, box: Any, reader: ImageReader | None) -> None:
    image = _draw_image(ax, hit.path, reader)
    inliers = "" if hit.n_inliers is None else f"{hit.n_inliers:,} {'inlier' if hit.n_inliers == 1 else 'inliers'} · "
    ax.set_title(
        f"{hit.rank}. {_short(hit.id)}\n{inliers}{hit.score:.3f}",
        fontsize=9, color=_GREEN if hit.verified else "black", parse_math=False,
    )  # fmt: skip
    for spine in ax.spines.values():
        spine.set(color=_GREEN if hit.verified else _GREY, linewidth=2.5 if hit.verified else 0.5)
    if hit.verified and image is not None:
        asked_size = (0, 0) if asked is None else (asked.width, asked.height)
        _, found = object_outlines(hit.matches, hit.transform, asked_size, (image.width, image.height), box)
        if found is not None:
            ax.add_patch(_polygon(found, _GREEN))


def _draw_image(ax: Any, source: Any, reader: ImageReader | None) -> ReadImage | None:
    """Show an image in its original pixels, or the reason why it cannot be shown."""
    ax.set(xticks=[], yticks=[])
    reason = "no file is recorded for it"
    if source is not None:
        try:
            image = _read(source, reader)
        except ImageReadError as error:
            reason = error.reason
        except (OSError, TypeError, ValueError) as error:
            reason = str(error)
        else:
            ax.imshow(image.pixels, extent=(-0.5, image.width - 0.5, image.height - 0.5, -0.5))
            return image
    ax.text(0.5, 0.5, printable(reason), transform=ax.transAxes, ha="center", va="center", fontsize=7, wrap=True,
            parse_math=False)  # fmt: skip
    return None


def _read(source: Any, reader: ImageReader | None) -> ReadImage:
    if hasattr(source, "seek") and hasattr(source, "read") and not hasattr(source, "getexif"):
        source.seek(0)  # a search reads a stream to its end
    reducing = clone(reader if reader is not None else ImageReader()).set_params(max_size=_SIZE_SHOWN)
    return reducing.read(source, color="rgb")


def _check_matches(matches: Any, inliers: Any) -> tuple[Any, Any]:
    rows = np.asarray(matches, dtype=np.float64)
    if rows.size == 0:
        rows = rows.reshape(0, 4)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(
            f"matches must have shape (n_matches, 4): x, y in image_a and x, y in image_b. Got {describe_array(rows)}."
        )
    accepted = None
    if inliers is not None:
        accepted = np.asarray(inliers)
        if accepted.dtype != bool or accepted.shape != (len(rows),):
            raise ValueError(f"inliers must be a mask of {len(rows)} booleans. Got {describe_array(accepted)}.")
        accepted = accepted[np.isfinite(rows).all(axis=1)]
    return finite_rows(rows), accepted


def _polygon(corners: Any, color: str) -> Any:
    patches = import_optional("matplotlib.patches", "SearchResult.show")
    return patches.Polygon(corners, closed=True, fill=False, edgecolor=color, linewidth=2)


def _short(name: str, limit: int = 26) -> str:
    """Keep the end of a long path: the file name says more than the folder."""
    text = printable(name)
    if len(text) <= limit:
        return text
    end = text[1 - limit :]
    return "…" + (end[end.find("/") :] if "/" in end[:-1] else end)
