"""The report of one comparison."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval.plotting import write_match_report
from tests.reports import check_report, similarity, verified_hit, write_image


@pytest.fixture
def pair(tmp_path):
    return write_image(tmp_path / "a.png", size=(320, 240)), write_image(tmp_path / "b.png", (0, 90, 0), (200, 300))


def test_accepted_pair_shows_the_evidence(tmp_path, pair):
    transform = similarity(0.5, 30, (100, 20))
    path = write_match_report(
        *pair,
        tmp_path / "match.html",
        n_features=(1200, 950),
        n_matches=48,
        n_inliers=9,
        matches=verified_hit(None, transform=transform).matches,
        transform=transform,
        accepted=True,
        method={"verifier": "SpatialVerifier(min_inliers=8)"},
        seconds=0.123,
    )
    report = check_report(path)
    for words in (
        "Verified These two show the same thing, by 9 inliers.",
        "features 1,200 and 950",
        "tentative matches 48",
        "consistent matches 12 (25%)",
        "inliers 9, places counted once",
        "time 123 ms",
        "scale × 0.5",
        "rotation 30.0° clockwise",
        "verifier SpatialVerifier(min_inliers=8)",
        "0.43301 -0.25 100",
    ):
        assert words in report.text, words
    assert len(report.find("image")) == 2 and len(report.find("polygon")) == 4
    (query,) = report.data["queries"]
    assert len(query["hits"][0]["matches"]) == 4 * 12


def test_rejected_pair_says_why_and_outlines_nothing(tmp_path, pair):
    path = write_match_report(
        *pair, tmp_path / "match.html", transform=np.eye(3), reason="6 inliers, fewer than min_inliers=8"
    )
    report = check_report(path)
    assert "Not verified Not confirmed: 6 inliers, fewer than min_inliers=8." in report.text
    assert "Rejected transform" in report.text
    assert report.find("polygon") == []


def test_pair_without_transform(tmp_path, pair):
    report = check_report(write_match_report(*pair, tmp_path / "match.html", reason="no matches"))
    assert "Transform None was found." in report.text
    assert report.data["queries"][0]["hits"][0]["transform"] is None


@pytest.mark.parametrize("name", ["<img onerror>.jpg", "\udcff.jpg", "図 $name.jpg", "</script>"])
def test_any_name_stays_a_name(tmp_path, pair, name):
    report = check_report(
        write_match_report(*pair, tmp_path / "m.html", name_a=name, name_b=name, reason=name, method={name: name})
    )
    assert report.data["queries"][0]["name"].replace("\ufffd", "\udcff") == name
    assert len(report.scripts) == 1


def test_image_that_is_gone_leaves_a_readable_report(tmp_path, pair):
    hit = verified_hit(None)
    path = write_match_report(
        pair[0], tmp_path / "gone.jpg", tmp_path / "m.html", matches=hit.matches, transform=hit.transform, accepted=True
    )
    report = check_report(path)
    assert "Cannot be shown: does not exist" in report.text
    assert len(report.find("image")) == 1


def test_one_image_compared_with_itself_and_arrays(tmp_path):
    array = np.zeros((50, 60, 3), dtype=np.uint8)
    report = check_report(write_match_report(array, array, tmp_path / "m.html", accepted=True, transform=np.eye(3)))
    assert len(report.find("image")) == 1
    assert "array" in report.text


def test_missing_folder_is_named(tmp_path, pair):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_match_report(*pair, tmp_path / "nowhere" / "m.html")
