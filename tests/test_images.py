"""The image policy: every kind of file and array that users have, and every way a file can be bad."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from cvretrieval.images import ImageReader, ImageReadError, ImageRegion, check_images, collect_images, find_images


@pytest.fixture
def scene(rng):
    """A smooth colour picture, 60 wide and 40 high, whose corners all differ."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 250 - 2 * x - 3 * y], axis=2).astype(np.uint8)


def luma(rgb):
    """ITU-R BT.601, the naive form."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("wrap", [str, Path, lambda p: p.open("rb"), Image.open, lambda p: np.asarray(Image.open(p))])
def test_every_kind_of_source_gives_the_same_pixels(tmp_path, scene, wrap):
    source = wrap(saved(tmp_path, Image.fromarray(scene), "a.png"))
    try:
        rgb = ImageReader().read(source, color="rgb")
        np.testing.assert_array_equal(rgb.pixels, scene)
        assert (rgb.width, rgb.height) == ImageReader().read_size(source) == (60, 40)
        again = ImageReader().read(ImageRegion(source, (10, 5, 20, 25)), color="rgb")  # files are left where they stood
        np.testing.assert_array_equal(again.pixels, scene[5:25, 10:20])
        assert ImageReader().read_size(ImageRegion(source, (10, 5, 20, 25))) == (60, 40)
    finally:
        if hasattr(source, "close"):
            source.close()


def test_file_objects_are_read_from_where_they_stand(tmp_path, scene):
    data = b"a header of one's own" + saved(tmp_path, Image.fromarray(scene), "a.png").read_bytes()
    source = io.BytesIO(data)
    source.seek(21)
    for _ in range(2):
        np.testing.assert_array_equal(ImageReader().read(source, color="rgb").pixels, scene)

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    pipe = Pipe(data[21:])
    assert ImageReader().read(pipe).width == 60
    with pytest.raises(ImageReadError, match="is empty"):
        ImageReader().read_size(pipe)


def test_grey_is_luma(scene):
    grey = ImageReader().read(scene).pixels
    assert grey.dtype == np.uint8 and grey.shape == (40, 60)
    assert np.abs(grey - luma(scene)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation(tmp_path, scene, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]  # fmt: skip
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(undo(scene))), f"a{suffix}", exif=exif, quality=95)
    applied = ImageReader().read(path, color="rgb")
    assert ImageReader().read_size(path) == (applied.width, applied.height)
    assert (applied.width, applied.height) == (60, 40)
    assert np.abs(applied.pixels.astype(int) - scene).mean() < 4
    ignored = ImageReader(exif="ignore").read(path, color="rgb")
    assert (ignored.width, ignored.height) == ((60, 40) if orientation < 5 else (40, 60))
    assert np.abs(ignored.pixels.astype(int) - undo(scene)).mean() < 4


def test_broken_exif_does_not_cost_the_picture(tmp_path, scene):
    path = saved(tmp_path, Image.fromarray(scene), "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ImageReader().read(path).pixels.shape == (40, 60)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "HSV", "LAB"])
def test_modes_become_grey_and_colour(tmp_path, scene, mode):
    image = Image.fromarray(scene).convert("L" if mode == "LA" else "RGB")
    if mode == "LAB":
        from PIL import ImageCms

        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    else:
        image = image.convert(mode)
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "LAB": "tif", "HSV": None}.get(mode, "png")
    source = (
        image
        if suffix is None
        else saved(tmp_path, image, f"a.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
    )
    expected = luma(scene)
    tolerance = {"1": 130, "P": 20, "LAB": 25}.get(mode, 4)
    assert np.abs(ImageReader().read(source).pixels - expected).mean() < tolerance
    assert ImageReader().read(source, color="rgb").pixels.shape == (40, 60, 3)


def test_transparency_shows_the_background(tmp_path, scene):
    rgba = np.dstack([scene, np.full((40, 60), 255, np.uint8)])
    rgba[:, 30:, 3] = 0
    rgba[:, 20:30, 3] = 128
    read = (
        ImageReader(background=(10, 20, 30)).read(saved(tmp_path, Image.fromarray(rgba), "a.png"), color="rgb").pixels
    )
    np.testing.assert_array_equal(read[:, :20], scene[:, :20])
    assert (read[:, 30:] == (10, 20, 30)).all()
    blended = scene[:, 20:30] * (128 / 255) + np.array([10, 20, 30]) * (127 / 255)
    assert np.abs(read[:, 20:30] - blended).max() <= 1.5
    np.testing.assert_array_equal(ImageReader(background=(10, 20, 30)).read(rgba, color="rgb").pixels, read)


def test_palette_with_transparency(tmp_path, scene):
    palette = Image.fromarray(scene).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    palette.info["transparency"] = palette.getpixel((0, 0))
    read = ImageReader().read(saved(tmp_path, palette, "a.gif"), color="rgb").pixels
    assert (read[0, 0] == 255).all()


def test_sixteen_bits_are_divided_by_257(tmp_path, scene):
    deep = scene[:, :, 0].astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        read = ImageReader().read(saved(tmp_path, Image.fromarray(deep), name)).pixels
        np.testing.assert_array_equal(read, scene[:, :, 0])
    np.testing.assert_array_equal(ImageReader().read(deep).pixels, scene[:, :, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_from_zero_to_one(scene, dtype):
    read = ImageReader().read((scene[:, :, 0] / 255).astype(dtype)).pixels
    assert np.abs(read.astype(int) - scene[:, :, 0]).max() <= (1 if dtype == np.float16 else 0)


def test_float_tiff(tmp_path, scene):
    path = saved(tmp_path, Image.fromarray((scene[:, :, 0] / 255).astype(np.float32)), "a.tif")
    np.testing.assert_array_equal(ImageReader().read(path).pixels, scene[:, :, 0])


def test_bool_array_and_single_channel(scene):
    mask = scene[:, :, 0] > 100
    np.testing.assert_array_equal(ImageReader().read(mask).pixels, mask * 255)
    np.testing.assert_array_equal(ImageReader().read(scene[:, :, :1]).pixels, scene[:, :, 0])


def test_animation_gives_its_first_frame(tmp_path, scene):
    frames = [Image.fromarray(scene[:, :, i]) for i in range(3)]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(ImageReader().read(path).pixels, scene[:, :, 0])


def test_source_arrays_are_not_changed_and_may_be_read_only(scene):
    before = scene.copy()
    scene.setflags(write=False)
    ImageReader(max_size=20).read(scene[::-1, ::2])
    np.testing.assert_array_equal(scene, before)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_large_images_are_reduced_and_coordinates_lead_back(tmp_path, suffix):
    """A bright dot at a known place of the large image is found where `to_original` says."""
    y, x = np.mgrid[:1200, :1600]
    dot = (255 * np.exp(-((x - 1200.0) ** 2 + (y - 333.0) ** 2) / (2 * 20.0**2))).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(dot), f"a{suffix}")
    image = ImageReader(max_size=200).read(path)
    assert image.pixels.shape == (150, 200) and (image.width, image.height) == (1600, 1200)
    weights = image.pixels.astype(float) * (image.pixels > 20)
    rows, columns = np.mgrid[:150, :200]
    centre = np.array([[(weights * columns).sum(), (weights * rows).sum()]]) / weights.sum()
    np.testing.assert_allclose(image.to_original(centre), [[1200, 333]], atol=1.0)


def test_small_images_are_not_enlarged(scene):
    assert ImageReader(max_size=1024).read(scene).pixels.shape == (40, 60)
    assert ImageReader(max_size=None).read(scene).pixels.shape == (40, 60)
    assert ImageReader(max_size=1).read(scene).pixels.shape == (1, 1)


def test_one_by_one_image():
    assert ImageReader().read(np.zeros((1, 1), np.uint8)).pixels.shape == (1, 1)


@pytest.mark.parametrize("as_region", [True, False])
def test_box_cuts_in_original_pixels(tmp_path, scene, as_region):
    path = saved(tmp_path, Image.fromarray(scene), "a.png")
    box = (9.5, 5, 30, 100)
    image = ImageReader().read(
        ImageRegion(path, box) if as_region else path, color="rgb", box=None if as_region else box
    )
    np.testing.assert_array_equal(image.pixels, scene[5:40, 9:30])
    np.testing.assert_allclose(image.to_original([[0, 0]]), [[9, 5]])
    assert (image.width, image.height) == (60, 40)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5, 5, 5, 9), "x1 < x2"),
        ((100, 0, 200, 10), "lies outside of"),
        ((0, 0, np.nan, 3), "finite"),
        ((1, 2, 3), "four"),
    ],
)
def test_bad_boxes(scene, box, message):
    with pytest.raises(ValueError, match=message):
        ImageReader().read(scene, box=box)


def png_header(width, height):
    """A PNG that says how large it is and holds nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"This is no image." * 10, "not an image of a known format"),
        ("bomb.png", png_header(20_000, 20_000), "has 400000000 pixels, more than the 178956970"),
        ("large.png", png_header(9_400, 9_000), "9400 x 9000 pixels, more than max_pixels=80000000"),
        ("header.png", png_header(50, 50), "damaged"),
        ("photo.heic", b"\0\0\0\x18ftypheic" + b"\0" * 50, "pillow-heif"),
    ],
)  # fmt: skip
def test_bad_files_are_named_with_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=reason) as caught:
        ImageReader(max_pixels=80_000_000).read(path)
    assert caught.value.source == str(path) and str(caught.value).startswith(str(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_truncated_files_never_pass(tmp_path, rng, suffix):
    noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    whole = saved(tmp_path, noise, f"whole.{suffix}").read_bytes()
    for part in (0.2, 0.5, 0.9):
        path = tmp_path / f"part.{suffix}"
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ImageReadError):
            ImageReader().read(path)


def test_missing_files_folders_links_and_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in [
        ("none.jpg", "does not exist"), ("", "is a folder"), ("pipe.jpg", "not a regular file"),
        ("loop.jpg", "cannot be opened"), ("n" * 300 + ".jpg", "cannot be opened"),
    ]:  # fmt: skip
        with pytest.raises(ImageReadError, match=reason):
            ImageReader().read(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path, scene):
    path = saved(tmp_path, Image.fromarray(scene), "a.png")
    path.chmod(0)
    with pytest.raises(ImageReadError, match="permission denied"):
        ImageReader().read(path)


def test_permission_errors_are_worded(tmp_path, scene, monkeypatch):
    path = saved(tmp_path, Image.fromarray(scene), "a.png")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ImageReadError, match="permission denied"):
        ImageReader().read(path)


@pytest.mark.parametrize("name", ["naïve 文字.png", "with 'quotes\".png", "n" * 240 + ".png", "-dash.png", "a\nb.png"])
def test_unusual_names(tmp_path, scene, name):
    path = saved(tmp_path, Image.fromarray(scene), name)
    assert ImageReader().read(path).pixels.shape == (40, 60)
    assert find_images(tmp_path) == [path]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((4, 4), np.nan), "NaN"), (np.full((4, 4), np.inf), "infinite"), (np.full((4, 4), 2.0), r"\[2, 2\]"),
        (np.full((4, 4), -0.1), r"\[-0.1, -0.1\]"), (np.zeros((4, 4), np.int64), "wrong dtype"),
        (np.zeros((4, 4), complex), "wrong dtype"), (np.zeros((4, 4), object), "wrong dtype"),
        (np.zeros((3, 40, 40), np.uint8), "shape of an image"), (np.zeros((4, 4, 2), np.uint8), "shape of an image"),
        (np.zeros(4, np.uint8), "shape of an image"), (np.zeros((0, 4), np.uint8), "no pixels"),
    ],
)  # fmt: skip
def test_bad_arrays_are_described(array, reason):
    with pytest.raises(ImageReadError, match=reason):
        ImageReader().read(array)


@pytest.mark.parametrize("source", [3, None, {"a": 1}, io.StringIO("text")])
def test_other_objects_are_type_errors(source):
    with pytest.raises(TypeError, match=r"An image (must be|file object)"):
        ImageReader().read(source)


@pytest.mark.parametrize(
    "parameters", [{"exif": "maybe"}, {"max_size": 0}, {"max_size": 1.5}, {"max_pixels": -1}, {"background": (0, 0)}]
)
def test_bad_parameters(scene, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ImageReader(**parameters).read(scene)


def test_reader_is_cloned_with_its_policy():
    assert (
        clone(ImageReader(max_size=50, exif="ignore")).get_params()
        == ImageReader(max_size=50, exif="ignore").get_params()
    )


def test_listing_follows_links_once_and_leaves_hidden_files_out(tmp_path, scene):
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / ".hidden").mkdir()
    for name in ("z.JPG", "b/a.png", ".dot.png", ".hidden/c.png"):
        (tree / name).touch()
    (tree / "notes.txt").touch()
    (tree / "b" / "again").symlink_to(tree)
    (tree / "dangling.png").symlink_to(tree / "nothing.png")
    os.mkfifo(tree / "pipe.png")
    assert [path.relative_to(tree).as_posix() for path in find_images(tree)] == ["b/a.png", "dangling.png", "z.JPG"]
    assert collect_images([tree, tree / "z.JPG", tree]) == [(tree, path) for path in find_images(tree)]


def test_listing_reports_folders_it_cannot_enter(tmp_path, monkeypatch):
    import cvretrieval.image_files as module

    def walk(root, followlinks, onerror):
        onerror(PermissionError(13, "Permission denied", str(root)))
        yield from ()

    monkeypatch.setattr(module.os, "walk", walk)
    problems = []
    assert find_images(tmp_path, problems.append) == [] and "Permission denied" in str(problems[0])
    with pytest.raises(ImageReadError, match="cannot be listed"):
        find_images(tmp_path)
    with pytest.raises(ImageReadError, match="does not exist"):
        find_images(tmp_path / "none")


@pytest.mark.parametrize(
    "X", ["a.jpg", Path("a.jpg"), np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), Image.new("L", (3, 3)),
          ImageRegion("a.jpg", (0, 0, 1, 1)), io.BytesIO(b"")],
)  # fmt: skip
def test_a_single_image_is_not_a_sequence(X):
    with pytest.raises(TypeError, match="Wrap it in a list"):
        check_images(X, estimator=ImageReader())


def test_sequences_of_images():
    assert check_images(iter(["a", "b"]), estimator=None) == ["a", "b"]
    assert len(check_images(np.zeros((5, 8, 9)), estimator=None)) == 5
    assert len(check_images(np.array(["a", "b"]), estimator=None)) == 2
    with pytest.raises(TypeError, match="Got int instead"):
        check_images(3, estimator=None)
    with pytest.raises(ValueError, match="expects a sequence of images"):
        check_images(np.zeros(3), estimator=None)
