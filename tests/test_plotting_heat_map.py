"""Maps over photos: the right colour at the right place."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import ImageReader
from cvretrieval.plotting import plot_cluster_map, plot_heat_map, plot_regions

matplotlib = pytest.importorskip("matplotlib")

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)


@pytest.fixture(autouse=True)
def pyplot():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def pixel(ax, x, y):
    """What is drawn at a point of the image."""
    figure = ax.get_figure()
    figure.canvas.draw()
    shown = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    column, row = ax.transData.transform((x, y))
    return shown[round(len(shown) - 1 - row), round(column)]


def test_more_is_red_less_is_blue_and_nothing_is_the_photo():
    ax = plot_heat_map(GREY, [[1.0, 0.0, 0.0, -1.0]], alpha=1)
    red, blue, none = pixel(ax, 8, 30), pixel(ax, 72, 30), pixel(ax, 40, 30)
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60
    assert np.abs(none - 128).max() < 12


def test_frame_and_limit():
    ax = plot_heat_map(GREY, [[1.0]], frame=(39.5, -0.5, 100, 59.5), limit=2.0, alpha=1)
    assert np.abs(pixel(ax, 20, 30) - 128).max() < 3
    inside = pixel(ax, 60, 30)
    assert inside[0] > inside[2] + 10
    # not drawn beyond the photo
    assert ax.get_xlim() == (-0.5, 79.5) and ax.get_ylim() == (59.5, -0.5)


def test_values_of_zero_are_nothing():
    assert np.abs(pixel(plot_heat_map(GREY, np.zeros((2, 2))), 20, 20) - 128).max() < 3


def test_clusters_keep_their_colours():
    first = plot_cluster_map(GREY, [[0, 1]], alpha=1)
    second = plot_cluster_map(GREY, [[1, 2]], alpha=1)
    assert np.abs(pixel(first, 60, 30) - pixel(second, 20, 30)).max() < 3
    assert np.abs(pixel(first, 20, 30) - pixel(second, 60, 30)).max() > 40


def test_regions_are_where_they_are_and_the_strongest_on_top():
    ax = plot_regions(GREY, [[10, 5, 30, 25], [40, 10, 70, 50], [0, 0, 5, 5]], values=[0.1, 0.4, -0.2], max_boxes=2)
    weak, strong = ax.patches
    assert weak.get_bbox().extents.tolist() == [10, 5, 30, 25]
    assert strong.get_bbox().extents.tolist() == [40, 10, 70, 50]
    assert strong.get_linewidth() > weak.get_linewidth()
    assert len(plot_regions(GREY, np.empty((0, 4))).patches) == 0


def test_own_axes_and_reader(tmp_path, pyplot):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    _, ax = pyplot.subplots()
    assert plot_heat_map(path, np.ones((2, 2)), ax=ax, reader=ImageReader(max_size=40)) is ax
    assert ax.get_xlim() == (-0.5, 79.5)


@pytest.mark.parametrize("plot", [plot_heat_map, plot_cluster_map])
@pytest.mark.parametrize("values", [[1, 2], np.empty((0, 3)), np.zeros((2, 2, 3))])
def test_maps_are_checked(plot, values):
    with pytest.raises(ValueError, match=r"a map \(height, width\)"):
        plot(GREY, values)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        plot_heat_map(GREY, [[np.nan]])
    with pytest.raises(ValueError, match="integers"):
        plot_cluster_map(GREY, [[0.5]])
    with pytest.raises(ValueError, match="rows of x1"):
        plot_regions(GREY, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="1 boxes, but values"):
        plot_regions(GREY, [[1, 2, 3, 4]], values=[1, 2])
    with pytest.raises(ValueError, match="limit"):
        plot_heat_map(GREY, [[1.0]], limit=0)
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"x\.jpg"):
        plot_heat_map(tmp_path / "x.jpg", [[1.0]])


def test_one_peak_does_not_fade_the_others():
    values = np.zeros((10, 10))
    values[2, 2], values[7, 3:7] = 100.0, 1.0
    ax = plot_heat_map(GREY, values, alpha=1)
    assert pixel(ax, 40, 45)[0] > pixel(ax, 40, 45)[2] + 60
    values[7] = 0
    peak = pixel(plot_heat_map(GREY, values, alpha=1), 20, 15)
    assert peak[0] > peak[2] + 60
