"""The images of a report: read, reduced, inlined once, within their budget."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cvretrieval.images import ImageReader
from cvretrieval.plotting.thumbnails import ThumbnailSheet, picture, polygon
from tests.reports import write_image


def decoded(sheet):
    """Key → image, as a browser would take them from the page."""
    found = re.findall(r'<image id="(\w+)"[^>]*? width="(\d+)" height="(\d+)"[^>]*base64,([^"]+)"', sheet.sprite())
    return {
        key: (int(width), int(height), Image.open(io.BytesIO(base64.b64decode(data))))
        for key, width, height, data in found
    }


def test_images_are_inlined_as_they_look(tmp_path):
    red = write_image(tmp_path / "red.png", (200, 30, 40), (1600, 800))
    grey = np.full((30, 20), 77, dtype=np.uint8)
    sheet = ThumbnailSheet([red, grey])
    images = decoded(sheet)
    assert len(images) == 2
    width, height, image = images[sheet[red].key]
    assert (width, height) == (1600, 800), "the size of the original, which coordinates refer to"
    assert 'x="-0.5" y="-0.5" width="1600"' in sheet.sprite(), "the centre of the first pixel is (0, 0)"
    assert image.format == "JPEG" and max(image.size) <= 640 and image.width == 2 * image.height
    np.testing.assert_allclose(np.asarray(image.convert("RGB")).mean(axis=(0, 1)), (200, 30, 40), atol=3)
    np.testing.assert_allclose(np.asarray(images[sheet[grey].key][2].convert("L")), 77, atol=2)


def test_each_distinct_image_is_inlined_once(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    array = np.zeros((10, 10), dtype=np.uint8)
    sheet = ThumbnailSheet([path, tmp_path / "a.png", "a.png", array, None, array])
    assert len(sheet) == 2 == len(decoded(sheet))
    assert sheet[path] is sheet["a.png"]
    assert sheet[None].jpeg == b""


def test_budget_holds_for_images_that_do_not_compress(rng):
    noise = [rng.integers(0, 256, (400, 500, 3), dtype=np.uint8) for _ in range(6)]
    sheet = ThumbnailSheet(noise, max_bytes=120_000)
    sizes = [len(sheet[image].jpeg) for image in noise]
    assert all(sizes) and sum(sizes) <= 120_000
    assert all(image.size[0] / image.size[1] == pytest.approx(1.25, rel=0.02) for *_, image in decoded(sheet).values())


def test_images_beyond_the_limit_are_left_out_and_say_so(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png") for i in range(3)]
    sheet = ThumbnailSheet(paths, max_images=2)
    assert [bool(sheet[path].jpeg) for path in paths] == [True, True, False]
    assert "left out" in sheet[paths[2]].reason


def test_reader_decides_the_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    sizes = [
        (sheet[tmp_path / "a.jpg"].width, sheet[tmp_path / "a.jpg"].height)
        for sheet in (
            ThumbnailSheet([tmp_path / "a.jpg"], reader=ImageReader(exif=exif)) for exif in ("apply", "ignore")
        )
    ]
    assert sizes == [(40, 60), (60, 40)]


def test_stream_that_was_read_to_its_end_is_shown(tmp_path):
    with open(write_image(tmp_path / "a.png"), "rb") as stream:
        stream.read()
        assert ThumbnailSheet([stream])[stream].width == 320


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "does not exist"), (b"", "empty"), (b"no image at all", "not an image")]
)
def test_unreadable_image_has_a_reason(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    sheet = ThumbnailSheet([str(tmp_path / "a.jpg")])
    assert reason in sheet[str(tmp_path / "a.jpg")].reason
    assert sheet.sprite() == ""
    shown = picture(sheet[str(tmp_path / "a.jpg")], "Query")
    assert 'role="img"' in shown and "Query. Cannot be shown" in shown and "<svg" not in shown


def test_thing_that_is_no_image_has_a_reason():
    thing = object()
    assert "not an image" in ThumbnailSheet([thing])[thing].reason


def test_picture_draws_its_marks_in_pixels_of_the_original(tmp_path):
    path = write_image(tmp_path / "a.png", size=(1600, 800))
    sheet = ThumbnailSheet([path])
    shown = picture(sheet[path], 'a "name"', polygon(np.array([[1.0, 2], [3, 4.26]])))
    assert 'viewBox="-0.5 -0.5 1600 800"' in shown
    assert f'href="#{sheet[path].key}"' in shown and 'points="1.0,2.0 3.0,4.3"' in shown
    assert 'aria-label="a &quot;name&quot;"' in shown
    assert 'aria-hidden="true"' in picture(sheet[path], "")
    assert polygon(None) == ""


def test_number_of_threads_does_not_change_the_bytes(tmp_path, rng):
    images = [rng.integers(0, 256, (50, 60, 3), dtype=np.uint8) for _ in range(20)]
    assert ThumbnailSheet(images).sprite() == ThumbnailSheet(images, n_jobs=2).sprite()
