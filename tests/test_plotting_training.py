"""Curves of a training: the page and the figure show the numbers they were given."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cvretrieval.plotting import plot_training, write_training_report

HISTORY = {
    "epoch": [1, 2, 3],
    "loss": [3.0, 1.0, 2.0],
    "ranking": [2.0, 0.5, 1.0],
    "learning_rate": [1e-4, 1e-4, 1e-5],
    "recall_at_1": [0.5, 0.75, 0.7],
    "images_per_second": [9.0, 9.5, 10.0],
}


def curves_of(page):
    """Title → points of the curve, in its own units."""
    found = {}
    for part in page.split('<section class="panel"><h2>')[1:]:
        title = part.split("</h2>")[0]
        svg = ET.fromstring(part[part.index("<svg") : part.index("</svg>") + 6])
        points = svg.find("polyline").get("points").split()
        found[title] = (np.array([[float(v) for v in point.split(",")] for point in points]), svg)
    return found


def test_the_page_draws_loss_parts_and_recall(tmp_path):
    path = write_training_report(
        HISTORY, tmp_path / "a.html", title="CGD on <b>", method={"n_epochs": 3, "branches": "MG"}, best_epoch=2
    )
    page = path.read_text(encoding="utf-8")
    curves = curves_of(page)
    assert list(curves) == ["Loss", "Recall at 1 of the validation", "Part of the loss: ranking"]
    points, svg = curves["Loss"]
    np.testing.assert_allclose(points, [[0, 0], [160, 160], [320, 80]])
    assert [title.text for title in svg.iter("title")] == ["epoch 1: 3", "epoch 2: 1", "epoch 3: 2"]
    assert svg.find("line").get("x1") == "160.0"
    assert "epoch 2 is kept, R@1 75.0 %" in page and "CGD on &lt;b&gt;" in page and "n epochs" in page
    assert page.count("<tr>") == 4 and '<body class="training">' in page


def test_epochs_without_a_value_are_left_out(tmp_path):
    history = {"epoch": [1, 2], "loss": [1.0, 1.0], "recall_at_1": [np.nan, np.nan]}
    page = write_training_report(history, tmp_path / "a.html").read_text(encoding="utf-8")
    assert list(curves_of(page)) == ["Loss"] and "<td>–</td>" in page
    single = {"epoch": [1], "loss": [0.5], "recall_at_1": [0.25]}
    page = write_training_report(single, tmp_path / "a.html", best_epoch=1).read_text(encoding="utf-8")
    assert "1 epoch; <strong>epoch 1 is kept, R@1 25.0 %" in page


def test_the_figure_draws_the_same():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    loss, recall = plot_training(HISTORY)
    assert [line.get_label() for line in loss.lines] == ["loss", "part of the loss: ranking"]
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 3], [2, 1], [3, 2]])
    np.testing.assert_array_equal(recall.lines[0].get_ydata(), HISTORY["recall_at_1"])
    (only,) = plot_training({"epoch": [1, 2], "loss": [2.0, 1.0], "recall_at_1": [np.nan, np.nan]})
    assert len(only.lines) == 1
    pyplot.close("all")


def test_bad_histories(tmp_path):
    with pytest.raises(ValueError, match="one value of each name for every epoch"):
        write_training_report({"epoch": [1], "loss": [1, 2]}, tmp_path / "a.html")
    with pytest.raises(ValueError, match="one value of each name for every epoch"):
        plot_training({"epoch": [], "loss": []})
    with pytest.raises(FileNotFoundError):
        write_training_report(HISTORY, tmp_path / "none" / "a.html")
