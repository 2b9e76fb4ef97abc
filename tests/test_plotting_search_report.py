"""The report of a search: everything in it, nothing foreign, whatever the names and files are."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval.images import ImageReader
from cvretrieval.plotting import search_report, write_search_report
from cvretrieval.plotting.query_section import short_names
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from tests.reports import check_report, make_result, verified_hit, write_image


def one_query(query="asked.png", hits=(), **facts):
    return SearchResult([QueryResult(query, tuple(hits), 0.1, **facts)])


def test_report_says_what_was_found_and_how(tmp_path):
    result = make_result(tmp_path)
    assert result.to_html(tmp_path / "report.html") == tmp_path / "report.html"
    report = check_report(tmp_path / "report.html")
    for words in (
        "1 query searched in photos.cvr of 1,234 images.",
        "1 verified match. Something of the query was found in a consistent position in green.png , with 12 inliers.",
        "The others are only similar.",
        "green.png 12 inliers score 0.750",
        "blue.png 3 inliers score 0.500",
        "unchecked.png score 0.250",
        "120 local features · 100 ms (features 60 ms, search 10 ms)",
        "extractor SIFT(root=True)",
        "n verify 50",
        "images 1,234",
        "features 60 ms search 10 ms other 30 ms together 100 ms",
    ):
        assert words in report.text, words
    cards = [a["class"] for a in report.find("li", "card")]
    assert cards == ["card verified", "card unverified", "card unchecked"]


def test_only_the_verified_hit_is_outlined_where_the_object_is(tmp_path):
    make_result(tmp_path).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    outlines = [a["points"] for a in report.find("polygon")]
    assert len(outlines) == 2 and len(set(outlines)) == 1, "one outline and its halo"
    corners = np.array([[float(value) for value in pair.split(",")] for pair in outlines[0].split()])
    # The points span 40…260 and 30…150 in the query; the transform halves them and adds (10, 20); 4 % are added.
    np.testing.assert_allclose(corners.min(axis=0), [85 - 55 * 1.04, 65 - 30 * 1.04], atol=0.06)
    np.testing.assert_allclose(corners.max(axis=0), [85 + 55 * 1.04, 65 + 30 * 1.04], atol=0.06)


def test_script_receives_the_matches_in_original_pixels(tmp_path):
    result = make_result(tmp_path)
    result.to_html(tmp_path / "report.html")
    (query,) = check_report(tmp_path / "report.html").data["queries"]
    found, rejected, unchecked = query["hits"]
    np.testing.assert_allclose(np.reshape(found["matches"], (-1, 4)), result[0].hits[0].matches, atol=0.051)
    np.testing.assert_allclose(found["transform"], result[0].hits[0].transform)
    assert (query["image"]["width"], query["image"]["height"]) == (320, 240)
    assert found["facts"]["scale"] == "× 0.5" and found["facts"]["inliers"] == "12"
    assert rejected["matches"] == unchecked["matches"] == [] and rejected["transform"] is None
    assert (rejected["n_inliers"], unchecked["n_inliers"]) == (3, None)


def test_transform_of_a_rejected_pair_is_not_used(tmp_path):
    photo = write_image(tmp_path / "a.png")
    one_query(photo, [verified_hit(photo, verified=False)]).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert report.data["queries"][0]["hits"][0]["transform"] is None
    assert report.find("polygon") == []
    assert "No match confirmed." in report.text


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>.jpg",
        '"><script>alert(1)</script>',
        "</script><script>alert(1)</script>",
        "</svg><style>*{display:none}</style>",
        "$title {0} %s & &lt;",
        "図書館/Ünïcode 🖼.jpg",
        "a\u202egpj.exe",
        "bytes-\udcff\udcfe.jpg",
        "line\nbreak\x00\x1b[31m",
        "x" * 5000,
    ],
)
def test_any_name_stays_a_name(tmp_path, name):
    photo = write_image(tmp_path / "a.png")
    hit = verified_hit(photo, id=name)
    result = SearchResult(
        [QueryResult(name, (hit, Hit(2, name, name.replace("\x00", ""), 0.5)), 0.1, {name: 0.1}, image=photo)] * 2,
        {name: name},
        {"path": name, name: name},
        [(name, name)],
    )
    result.to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert len(report.scripts) == 1 and len(report.styles) == 1
    shown = report.data["queries"][0]["hits"][0]["id"]
    assert shown == report.data["queries"][0]["name"]
    assert " ".join(shown.split()) in report.text
    assert not any(character in shown for character in "\x00\x1b\n\u202e\udcff")


def test_images_that_are_gone_leave_a_readable_report(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    hits = [
        verified_hit(str(tmp_path / "gone.jpg"), 1),
        verified_hit(str(tmp_path / "broken.jpg"), 2),
        verified_hit(None, 3),
    ]
    one_query(str(tmp_path / "lost.jpg"), hits).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert report.find("image") == []
    assert len(report.find("span", "missing")) == 4
    assert "Cannot be shown: does not exist" in report.text
    assert "Cannot be shown: no file is recorded for it" in report.text
    assert report.data["queries"][0]["hits"][0]["image"] == {"reason": "does not exist"}
    assert report.text.count("12 inliers score 0.750") == 3


@pytest.mark.parametrize(
    ("facts", "words"),
    [({"n_features": 0}, "No local features were found"), ({"n_features": 9}, "returned no image for this query")],
)
def test_query_without_hits_says_why(tmp_path, facts, words):
    image = np.full((40, 60), 255, dtype=np.uint8)
    one_query(image=image, **facts).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert words in report.text and report.find("li", "card") == []
    assert report.data["queries"][0]["hits"] == []


def test_several_verified_hits_are_counted_and_the_best_is_named(tmp_path):
    photo = write_image(tmp_path / "a.png")
    one_query(photo, [verified_hit(photo), verified_hit(photo, 2)]).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert "2 verified matches." in report.text
    assert "each of them; the best is hit1.png , with 12 inliers." in report.text
    assert "only similar" not in report.text


def test_unverified_list_does_not_claim_anything(tmp_path):
    photo = write_image(tmp_path / "a.png")
    one_query(photo, [Hit(1, "a", photo, 0.9), Hit(2, "b", photo, 0.8)]).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert "2 most similar images. Geometry was not checked" in report.text
    assert "Verified" not in report.text


def test_failures_are_listed_with_or_without_queries(tmp_path):
    failures = [("broken.jpg", "is truncated"), ("x.txt", "is not an image")]
    make_result(tmp_path, failures=failures).to_html(tmp_path / "some.html")
    report = check_report(tmp_path / "some.html")
    assert "2 queries could not be read broken.jpg is truncated x.txt is not an image" in report.text
    SearchResult([], failures=failures[:1]).to_html(tmp_path / "none.html")
    report = check_report(tmp_path / "none.html")
    assert "1 query could not be read" in report.text and "None of the queries could be read." in report.text
    SearchResult([]).to_html(tmp_path / "empty.html")
    assert "No query was given." in check_report(tmp_path / "empty.html").text


def test_many_queries_are_listed_and_linked(tmp_path):
    result = make_result(tmp_path, n_queries=30)
    result.to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert "30 queries searched in photos.cvr" in report.text
    sections = report.find("details", "query")
    assert [section["id"] for section in sections] == [f"q{i}" for i in range(1, 31)]
    assert "Query 7 asked6.png 1 verified" in report.text and "7. asked6.png green.png 1 verified" in report.text
    assert not any("open" in section for section in sections), "folded, under the overview"
    links = [a["href"] for a in report.find("a")]
    assert all(links.count(f"#q{i}") >= 2 for i in range(2, 30)), "from the overview and from the neighbours"
    assert {f"#q{i}h{j}" for i in range(1, 31) for j in (1, 2, 3)} <= set(links)
    assert len(report.find("image")) == 3, "each distinct image once"
    assert len(report.source) < 300_000


def test_few_queries_are_unfolded(tmp_path):
    make_result(tmp_path, n_queries=3).to_html(tmp_path / "report.html")
    assert all("open" in section for section in check_report(tmp_path / "report.html").find("details", "query"))


def test_bounds_hold_and_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(search_report, "MAX_QUERIES", 2)
    monkeypatch.setattr(search_report, "MAX_CARDS", 24)
    monkeypatch.setattr(search_report, "MAX_LINES", 120)
    photo = write_image(tmp_path / "a.png")
    points = np.random.default_rng(0).random((500, 2)) * [320, 240]
    hits = [verified_hit(photo, 1, points=points), *(Hit(i, f"{i}", photo, 0.1) for i in range(2, 31))]
    SearchResult([QueryResult(photo, tuple(hits), 0.1)] * 5).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert "The last 3 queries left out here." in report.text
    assert report.text.count("18 more images of this list left out here.") == 2
    assert len(report.find("li", "card")) == 24
    hit = report.data["queries"][0]["hits"][0]
    assert (len(hit["matches"]), hit["n_matches"]) == (4 * 60, 500)


def test_region_is_marked_in_the_query_and_outlined_in_the_hit(tmp_path):
    photo = write_image(tmp_path / "a.png")
    one_query(photo, [verified_hit(photo)], box=(20, 30, 220, 900)).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert "Searched for the marked region 20, 30, 220, 900." in report.text
    # Cut off at the lower edge of the image; drawn along the outer edges of the pixels.
    assert report.data["queries"][0]["box"] == [19.5, 29.5, 219.5, 29.5, 219.5, 239.5, 19.5, 239.5]
    assert report.find("polygon")[0]["points"] == "19.5,29.5 219.5,29.5 219.5,239.5 19.5,239.5"
    assert sorted(report.data["queries"][0]["hits"][0]["found"]) == sorted(
        [19.8, 34.8, 119.8, 34.8, 119.8, 139.8, 19.8, 139.8]
    )


def test_inliers_counted_otherwise_than_lines_are_explained(tmp_path):
    photo = write_image(tmp_path / "a.png")
    one_query(photo, [verified_hit(photo, n_inliers=9)]).to_html(tmp_path / "report.html")
    report = check_report(tmp_path / "report.html")
    assert report.data["queries"][0]["hits"][0]["facts"]["inliers"] == "9, from 12 matching points"


def test_images_are_read_as_the_index_reads_them(tmp_path):
    photo = write_image(tmp_path / "a.png", size=(100, 90))
    result = one_query(photo, [Hit(1, "a", photo, 0.5)])
    result.reader = ImageReader(max_pixels=1000)
    result.to_html(tmp_path / "report.html")
    assert "more than max_pixels=1000" in check_report(tmp_path / "report.html").text
    assert result[:1].reader is result.reader


def test_number_of_threads_does_not_change_the_report(tmp_path):
    result = make_result(tmp_path, 3)
    texts = [
        check_report(write_search_report(result, tmp_path / "report.html", n_jobs=n)).find("image") for n in (1, 2)
    ]
    assert texts[0] == texts[1] != []


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["/a/b/c.jpg"], ["c.jpg"]),
        (["c.jpg"], ["c.jpg"]),
        (["/a/b/c.jpg", "/a/d.jpg"], ["b/c.jpg", "d.jpg"]),
        (["a/x.jpg", "ab/x.jpg"], ["a/x.jpg", "ab/x.jpg"]),
        (["C:\\photos\\a.jpg", "C:\\photos\\b.jpg"], ["a.jpg", "b.jpg"]),
        (["a/x.jpg", "an array of uint8"], ["a/x.jpg", "an array of uint8"]),
        ([], []),
    ],
)
def test_names_are_given_without_the_common_folder(names, short):
    assert short_names([QueryResult(name, (), 0.0) for name in names]) == short
