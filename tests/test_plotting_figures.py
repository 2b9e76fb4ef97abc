"""Matplotlib figures: lines end where the points are, hits are outlined, and what cannot be drawn says so."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cvretrieval._validation import ImageReadError
from cvretrieval.plotting import plot_matches, show_search_result
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from tests.reports import make_result, verified_hit, write_image

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def pyplot():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def drawn_pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def segments_of(ax):
    return np.concatenate(
        [collection.get_segments() for collection in ax.collections if hasattr(collection, "get_segments")]
    )


def test_lines_end_in_the_right_pixels_of_both_images():
    first = np.zeros((100, 200, 3), dtype=np.uint8)
    second = np.zeros((50, 40, 3), dtype=np.uint8)
    # One bright pixel in each, which the match must join.
    first[70, 30] = second[20, 10] = (255, 255, 255)
    ax = plot_matches(first, second, [[30, 70, 10, 20]])
    ((start, end),) = segments_of(ax)
    np.testing.assert_allclose(start, [30, 70])
    # Twice as high, beginning at 1.02 widths, measured from the edge of the pixels.
    np.testing.assert_allclose(end, [1.02 * 200 + 2 * 10.5 - 0.5, 2 * 20.5 - 0.5])
    image_a, image_b = ax.images
    for image, point in ((image_a, start), (image_b, end)):
        left, right, bottom, top = image.get_extent()
        pixels = image.get_array()
        column = int((point[0] - left) / (right - left) * pixels.shape[1])
        row = int((point[1] - top) / (bottom - top) * pixels.shape[0])
        assert pixels[row, column, 0] == 255


def test_large_images_are_reduced_but_keep_their_coordinates(tmp_path):
    path = write_image(tmp_path / "a.png", size=(2000, 1000))
    ax = plot_matches(path, path, [[1999, 999, 0, 0]])
    assert ax.images[0].get_array().shape == (320, 640, 3)
    assert ax.images[0].get_extent() == [-0.5, 1999.5, 999.5, -0.5]
    np.testing.assert_allclose(segments_of(ax)[0], [[1999, 999], [2040, 0]])


def test_lines_are_visible_and_coloured_by_the_mask(pyplot):
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    matches = [[20, 20, 80, 20], [20, 80, 80, 80]]
    ax = plot_matches(grey, grey, matches, inliers=np.array([True, False]))
    red, green = [
        tuple(collection.get_edgecolor()[0][:3]) for collection in ax.collections if hasattr(collection, "get_segments")
    ]
    assert red[0] > red[1] and green[1] > green[0]
    pixels = drawn_pixels(ax.figure).astype(int)
    upper, lower = pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]
    assert (upper[:, :, 1] - upper[:, :, 0] > 60).any() and not (lower[:, :, 1] - lower[:, :, 0] > 60).any()
    assert (lower[:, :, 0] - lower[:, :, 1] > 60).any() and not (upper[:, :, 0] - upper[:, :, 1] > 60).any()


def test_number_of_lines_is_limited(rng):
    grey = np.zeros((100, 100), dtype=np.uint8)
    matches = rng.random((500, 4)) * 99
    assert len(segments_of(plot_matches(grey, grey, matches))) == 100
    assert len(segments_of(plot_matches(grey, grey, matches, max_lines=None))) == 500
    assert not any(hasattr(c, "get_segments") for c in plot_matches(grey, grey, matches, max_lines=0).collections)
    assert plot_matches(grey, grey, []).collections[:] == []


def test_matches_that_are_not_finite_are_left_out_with_their_mask():
    grey = np.zeros((10, 10), dtype=np.uint8)
    matches = [[np.nan, 1, 1, 1], [2, 2, 2, 2]]
    ax = plot_matches(grey, grey, matches, inliers=[False, True])
    assert segments_of(ax)[:, 0].tolist() == [[2, 2]]


def test_frame_is_outlined_in_the_second_image(pyplot):
    figure, ax = pyplot.subplots()
    ax.imshow(np.zeros((2, 2)))
    grey = np.zeros((100, 100), dtype=np.uint8)
    assert plot_matches(grey, grey, [], transform=np.diag([0.5, 0.5, 1]), title="$a_b$ \udcff", ax=ax) is ax
    ring = ax.lines[0].get_xydata()
    np.testing.assert_allclose(ring.min(axis=0), [102 - 0.25, -0.25])
    np.testing.assert_allclose(ring.max(axis=0), [102 + 49.75, 49.75])
    assert ax.get_title() == "$a_b$ \ufffd"
    drawn_pixels(figure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matches": [[1, 2]]}, r"shape \(n_matches, 4\).*shape \(1, 2\)"),
        ({"matches": [[1, 2, 3, 4]], "inliers": [True, False]}, "mask of 1 booleans"),
        ({"matches": [[1, 2, 3, 4]], "inliers": [1]}, "mask of 1 booleans.*int"),
        ({"matches": [], "max_lines": 1.5}, "max_lines"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    grey = np.zeros((10, 10), dtype=np.uint8)
    with pytest.raises(ValueError, match=message):
        plot_matches(grey, grey, **options)


def test_image_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ImageReadError, match=r"gone\.jpg"):
        plot_matches(tmp_path / "gone.jpg", np.zeros((5, 5), dtype=np.uint8), [])


def test_result_is_drawn_with_one_axes_per_image(tmp_path):
    figure = make_result(tmp_path, 2).show(n_hits=2)
    assert len(figure.axes) == 2 * 3
    asked, found, rejected = figure.axes[:3]
    assert "asked0.png" in asked.get_title()
    assert found.get_title() == "1. green.png\n12 inliers · 0.750"
    assert rejected.get_title() == "2. blue.png\n3 inliers · 0.500"
    assert (len(found.patches), len(rejected.patches), len(asked.patches)) == (1, 0, 0)
    np.testing.assert_allclose(found.patches[0].get_xy().min(axis=0), [85 - 55 * 1.04, 65 - 30 * 1.04], atol=1e-4)
    pixels = drawn_pixels(figure).reshape(-1, 3)
    for color in ((200, 30, 40), (20, 200, 60), (30, 60, 210)):
        assert (np.abs(pixels.astype(int) - color).max(axis=1) <= 2).mean() > 0.05, "each image is seen"


def test_lists_of_different_length_have_no_empty_axes(tmp_path):
    photo = write_image(tmp_path / "a.png")
    hits = tuple(Hit(i, f"{i}", photo, 0.5) for i in range(1, 4))
    result = SearchResult(
        [QueryResult(photo, hits, 0.1), QueryResult(photo, (), 0.1), QueryResult(photo, hits[:1], 0.1)]
    )
    assert len(result.show().axes) == 4 + 1 + 2


def test_region_is_marked(tmp_path):
    photo = write_image(tmp_path / "a.png")
    result = SearchResult([QueryResult(photo, (verified_hit(photo),), 0.1, box=(20, 30, 220, 200))])
    asked, found = result.show().axes
    assert asked.patches[0].get_xy()[0].tolist() == [19.5, 29.5]
    np.testing.assert_allclose(found.patches[0].get_xy().min(axis=0), [19.75, 34.75])


def test_images_that_are_gone_are_said_to_be(tmp_path):
    hits = (verified_hit(str(tmp_path / "gone.jpg")), verified_hit(None, 2))
    figure = SearchResult([QueryResult("$x$ \udcff lost.jpg", hits, 0.1)]).show()
    assert [ax.texts[0].get_text() for ax in figure.axes] == [
        "does not exist",
        "does not exist",
        "no file is recorded for it",
    ]
    drawn_pixels(figure)


def test_only_the_first_queries_are_drawn_and_counted(tmp_path):
    figure = show_search_result(make_result(tmp_path, 30), n_hits=1, n_queries=2)
    assert len(figure.axes) == 4
    assert figure._suptitle.get_text() == "The first 2 of 30 queries"


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="no query to show"):
        SearchResult([]).show()


@pytest.mark.parametrize("function", ["plot_matches", "SearchResult.show"])
def test_missing_matplotlib_names_the_extra(monkeypatch, tmp_path, function):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    grey = np.zeros((5, 5), dtype=np.uint8)
    with pytest.raises(ImportError, match=rf"{function} needs matplotlib.*cvretrieval\[plot\]"):
        if function == "plot_matches":
            plot_matches(grey, grey, [])
        else:
            make_result(tmp_path).show()
