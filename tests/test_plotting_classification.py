"""The report of a classification, and the figures of confusions and of visual words."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, BagOfWords, ImageReadError, KMeansCodebook, LocalFeatures
from cvretrieval.plotting import plot_confusion, plot_words, write_classification_report
from cvretrieval.plotting.words import _cut_patch
from tests.test_plotting_browser import CHROMIUM, Dom, dump

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

CLASSES = ["coast", "<b>forest</b>", "street"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def classified(tmp_path):
    """Seven pictures; the third, fifth and last are mistaken, with confidences 0.5, 0.9 and 0.6."""
    labels = ["coast", "coast", "coast", "<b>forest</b>", "<b>forest</b>", "street", "street"]
    rows = [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.4, 0.1, 0.5], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 0.1, 0.9],
            [0.1, 0.6, 0.3]]  # fmt: skip
    images = []
    for i in range(7):
        path = tmp_path / "set" / f"class {i // 3}" / f"image {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (30 * i, 90, 120)).save(path)
        images.append(path)
    return images, labels, np.array(rows)


def test_report_shows_figures_matrix_and_worst_mistakes_first(classified, tmp_path):
    path = write_classification_report(
        *classified, CLASSES, tmp_path / "r.html", title="seven", method={"kernel_map": "Map()"},
        failures=[("gone.jpg", "does not exist")],
    )  # fmt: skip
    page = Dom(path.read_text())
    mean = (2 / 3 + 1 / 2 + 1 / 2) / 3
    assert f"{100 * mean:.1f} % mean accuracy of 3 classes ; 4 of 7 images right (57.1 %)" in page.text
    assert "gone.jpg does not exist" in page.text and "kernel map" in page.text
    matrix = path.read_text().split('<table class="confusion">')[1].split("</table>")[0]
    cells = re.findall(r'<td class="(right|wrong) s(\d+)"[^>]*>(\d*)</td>', matrix)
    assert [int(n or 0) for _, _, n in cells] == [2, 0, 1, 1, 1, 0, 0, 1, 1]
    assert [int(s) for _, s, _ in cells] == [7, 0, 3, 5, 5, 0, 0, 5, 5]
    assert [i for i, (side, _, _) in enumerate(cells) if side == "right"] == [0, 4, 8]
    assert len(page.find("li", "mistake")) == 3
    order = [page.text.index(f"image {i}.png") for i in (4, 6, 2)]
    assert order == sorted(order) and "image 0.png" not in page.text
    assert "class 1/image 4.png" in page.text and str(tmp_path) not in page.text.split("3 mistakes")[1]
    assert page.find("b") == []  # names of classes are text


def test_report_without_mistakes_and_with_an_untested_class(classified, tmp_path):
    images, labels, rows = classified
    page = Dom(write_classification_report(images[:2], labels[:2], rows[:2], CLASSES, tmp_path / "r.html").read_text())
    assert "100.0 % mean accuracy of 1 class ;" in page.text and "No mistakes" in page.text


def test_report_bounds_the_mistakes_it_shows(tmp_path):
    images = list(np.zeros((70, 8, 8), dtype=np.uint8) + np.arange(70, dtype=np.uint8)[:, None, None])
    confidences = np.linspace(0.6, 0.9, 70)
    path = write_classification_report(
        images, ["a"] * 70, np.column_stack([1 - confidences, confidences]), ["a", "b"], tmp_path / "r.html"
    )
    page = Dom(path.read_text())
    assert "70 mistakes, the 60 most confident" in page.text and len(page.find("li", "mistake")) == 60


def test_report_says_why_an_image_is_not_shown(classified, tmp_path):
    images, labels, rows = classified
    images[4].unlink()
    page = Dom(write_classification_report(images, labels, rows, CLASSES, tmp_path / "r.html").read_text())
    assert "does not exist" in page.text


def test_report_refuses_what_does_not_fit(classified, tmp_path):
    images, labels, rows = classified
    path = tmp_path / "r.html"
    with pytest.raises(ValueError, match="7 images, 6 labels"):
        write_classification_report(images, labels[1:], rows, CLASSES, path)
    with pytest.raises(ValueError, match="probabilities of shape \\(7, 2\\)"):
        write_classification_report(images, labels, rows[:, :2], CLASSES, path)
    with pytest.raises(ValueError, match="at least one image"):
        write_classification_report([], [], np.empty((0, 3)), CLASSES, path)
    with pytest.raises(ValueError, match="The labels street are not among the classes coast, forest, sea"):
        write_classification_report(images[5:], labels[5:], rows[5:], ["coast", "forest", "sea"], path)
    assert not path.exists()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_report_in_a_browser(classified, tmp_path):
    """The policy allows all that the page uses, and the script has nothing to complain of."""
    path = write_classification_report(*classified, CLASSES, tmp_path / "r.html")
    page = dump(path)
    assert len(page.find("li", "mistake")) == 3 and len(page.find("use")) == 3
    assert "4 of 7 images right" in page.text


def test_confusion_figure():
    ax = plot_confusion([[8, 2, 0], [1, 9, 0], [0, 0, 0]], CLASSES, title="$a$")
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.8, 0.2, 0], [0.1, 0.9, 0], [0, 0, 0]])
    assert [label.get_text() for label in ax.get_xticklabels()] == CLASSES
    written = {(text.get_position(), text.get_text()) for text in ax.texts}
    assert written == {((0, 0), "8"), ((1, 0), "2"), ((0, 1), "1"), ((1, 1), "9")}
    assert ax.get_xlabel() == "predicted" and ax.get_ylabel() == "true"
    _, given = pyplot.subplots()
    assert plot_confusion(np.eye(40), range(40), ax=given) is given and not given.texts


def test_confusion_figure_refuses_what_is_no_confusion_matrix():
    for wrong in (np.ones((2, 3)), np.ones((2, 2)), np.ones(3)):
        with pytest.raises(ValueError, match="one row and one column for each of 3 classes"):
            plot_confusion(wrong, CLASSES)
    for wrong in (np.full((3, 3), -1), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="must hold counts"):
            plot_confusion(wrong, CLASSES)


def strips(figure):
    """The patches of each drawn word."""
    return [[ax.images[0].get_array()[:, i : i + 32] for i in range(0, ax.images[0].get_array().shape[1], 34)]
            for ax in figure.axes]  # fmt: skip


def test_words_show_the_nearest_patches_where_they_lie():
    """Grey images, each with a square of its own shade; descriptors tell the order of nearness."""
    images = np.full((3, 80, 100, 3), 40, dtype=np.uint8)
    keypoints = np.array([[30, 40, 2, 0], [60, 40, 2, 0.7], [50, 30, 2, 0]], dtype=np.float32)
    for i, (x, y, *_) in enumerate(keypoints.astype(int)):
        images[i, y - 20 : y + 21, x - 20 : x + 21] = 100 + 40 * i
    codebook = KMeansCodebook(n_words=2, random_state=0)
    codebook.cluster_centers_ = np.array([[0.0, 0.0], [9.0, 9.0]], dtype=np.float32)
    descriptors = np.array([[0.5, 0], [0.1, 0], [0, 0.3]], dtype=np.float32)
    X = LocalFeatures(descriptors, np.arange(4), keypoints, np.tile([100, 80], (3, 1)))
    figure = plot_words(images, X, codebook, words=[0, 1], n_patches=4)
    first, second = strips(figure)
    assert [int(patch[16, 16, 0]) for patch in first] == [140, 180, 100, 255]
    assert all((patch == patch[16, 16]).all() for patch in first[:3])
    assert all((patch == 255).all() for patch in second)
    assert [ax.get_ylabel() for ax in figure.axes] == ["0", "1"]
    one_each = LocalFeatures(np.repeat(descriptors, 2, axis=0), [0, 2, 4, 6], np.repeat(keypoints, 2, axis=0))
    assert [int(p[16, 16, 0]) for p in strips(plot_words(images, one_each, codebook, words=[0], n_patches=3))[0]] == [
        140, 180, 100,
    ]  # fmt: skip


def test_patches_are_sampled_about_the_keypoint_and_turned_with_it():
    y, x = np.mgrid[:90, :120].astype(np.float32)
    ramp = np.stack([x, y, x + y], axis=-1).clip(0, 255).astype(np.uint8)
    scale = 16 / 6  # one pixel of the patch is one of the image
    places = np.arange(32) - 15.5
    straight = _cut_patch(ramp, np.array([50, 40, scale, 0], np.float32), 6.0)
    assert np.abs(straight[:, :, 0] - (50 + places)[np.newaxis]).max() <= 1
    assert np.abs(straight[:, :, 1] - (40 + places)[:, np.newaxis]).max() <= 1
    # At 90 degrees, from x towards y, what is right in the patch lies below in the image.
    turned = _cut_patch(ramp, np.array([50, 40, scale, np.pi / 2], np.float32), 6.0)
    assert np.abs(turned[:, :, 1] - (40 + places)[np.newaxis]).max() <= 1
    assert np.abs(turned[:, :, 0] - (50 - places)[:, np.newaxis]).max() <= 1
    outside = _cut_patch(ramp, np.array([-60, 40, scale, 0], np.float32), 6.0)
    assert (outside == 128).all()


def test_words_of_files_encoders_and_bad_input(tmp_path, rng):
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (60, 80), dtype=np.uint8)).save(files[-1])
    X = SIFT(max_features=30).transform(files)
    encoder = BagOfWords(n_words=12, random_state=0).fit(X)
    figure = plot_words(files, X, encoder, n_patches=3)
    assert len(figure.axes) == 10
    counts = np.bincount(encoder.codebook_.predict(X), minlength=12)
    shown = [int(ax.get_ylabel()) for ax in figure.axes]
    assert [counts[word] for word in shown] == sorted(counts, reverse=True)[:10]
    with pytest.raises(ValueError, match="X has the features of 4 images, but 3 images were given"):
        plot_words(files[1:], X, encoder)
    with pytest.raises(ValueError, match="words must be numbers from 0 to 11, at least one. Got \\[12\\]"):
        plot_words(files, X, encoder, words=[12])
    with pytest.raises(ValueError, match="needs keypoints"):
        plot_words(files, LocalFeatures(X.descriptors, X.offsets), encoder)
    with pytest.raises(ValueError, match="X has 5-d descriptors, but the words have 128 dimensions"):
        plot_words(files, X.with_descriptors(X.descriptors[:, :5]), encoder)
    with pytest.raises(TypeError, match="needs a fitted codebook.*Got BagOfWords"):
        plot_words(files, X, BagOfWords())
    with pytest.raises(ValueError, match="'n_patches'"):
        plot_words(files, X, encoder, n_patches=0)
    files[0].unlink()
    with pytest.raises(ImageReadError, match="does not exist"):
        plot_words(files, X, encoder)
    empty = LocalFeatures.from_images([(np.empty((0, 128)), np.empty((0, 4)))] * 4, n_dims=128)
    assert len(plot_words(files, empty, encoder, words=[1, 2]).axes) == 2
