"""Where the query lies in a result: `Hit.outline`, with a region or without, and where there is none."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier
from cvretrieval.cli.main import main
from cvretrieval.local_features import ImageFeatures
from cvretrieval.retrieval.outline import query_outline
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from cvretrieval.verification import Verification
from tests.reference import epipolar

NOTHING = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=bool)


def image_of(size):
    return ImageFeatures(np.empty((0, 8), dtype=np.float32), np.empty((0, 4), dtype=np.float32), size)


def outline(transform, size_a=(200, 100), size_b=(400, 300), box=None, **facts):
    result = Verification(20, *NOTHING, None if transform is None else np.asarray(transform, dtype=float), **facts)
    return query_outline(result, image_of(size_a), image_of(size_b), box)


def same_ring(found, expected, atol=1e-9):
    start = np.linalg.norm(found - expected[0], axis=1).argmin()
    np.testing.assert_allclose(np.roll(found, -start, axis=0), expected, atol=atol)


def test_frame_and_box_are_moved():
    shift = [[1, 0, 100], [0, 1, 50], [0, 0, 1]]
    same_ring(outline(shift), np.array([[99.5, 49.5], [299.5, 49.5], [299.5, 149.5], [99.5, 149.5]]))
    same_ring(
        outline(shift, box=(20, 30, 60, 90)), np.array([[119.5, 79.5], [159.5, 79.5], [159.5, 139.5], [119.5, 139.5]])
    )
    # A box may reach beyond the query; what is not there is not found.
    same_ring(
        outline(shift, box=(-50, 30, 60, 900)), np.array([[99.5, 79.5], [159.5, 79.5], [159.5, 149.5], [99.5, 149.5]])
    )


def test_cut_off_at_the_edges():
    found = outline([[3, 0, 100], [0, 3, -50], [0, 0, 1]])
    assert found.min(axis=0).tolist() == pytest.approx([98.5, -0.5]) and found.max() == pytest.approx(399.5)
    assert found[:, 1].max() == pytest.approx(-50 + 3 * 99.5)
    # A homography that tears the frame: what lies beyond the horizon is not drawn.
    torn = outline([[1, 0, 20], [0, 1, 20], [-8e-3, 0, 1]])
    assert (torn >= -0.5 - 1e-9).all() and (torn <= [399.5 + 1e-9, 299.5 + 1e-9]).all()


@pytest.mark.parametrize(
    "transform",
    [None, np.zeros((3, 3)), np.diag([1, 0, 1.0]), [[1, 0, 900], [0, 1, 0], [0, 0, 1]], np.diag([1e-3, 1e-3, 1]),
     np.full((3, 3), np.nan)],
    ids=["none", "zero", "flat", "outside", "tiny", "nan"],
)  # fmt: skip
def test_nothing_to_draw(transform):
    assert outline(transform) is None


def test_no_outline_without_acceptance_or_sizes():
    assert outline(np.eye(3), reason="too few") is None
    assert outline(np.eye(3), size_b=None) is None and outline(np.eye(3), size_a=(0, 0)) is None
    assert query_outline(None, None, None) is None
    assert outline(None, fundamental=np.eye(3), model="fundamental") is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("outline")
    for name in ("a", "b", "c"):
        scene = cv2.GaussianBlur(np.kron(rng.integers(0, 256, (30, 40)), np.ones((10, 10))).astype(np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / f"{name}.png"), scene)
        if name == "a":
            first = scene
    turned = np.array([[0.7, -0.7, 330.0], [0.7, 0.7, 60.0]])
    cv2.imwrite(str(folder / "query.png"), first)
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos" / "turned.png"), cv2.warpAffine(first, turned, (700, 560), borderValue=128))
    for name in ("b", "c"):
        (folder / f"{name}.png").rename(folder / "photos" / f"{name}.png")
    retriever = ImageRetriever(
        extractor=SIFT(root=True), encoder=VLAD(n_words=4, random_state=0), verifier=SpatialVerifier()
    )
    retriever.fit(folder / "photos").save(folder / "index.cvr")
    return folder, np.vstack([turned, [0, 0, 1]])


@pytest.mark.parametrize("box", [None, (60.0, 80.0, 260.0, 240.0)])
def test_search_outlines_the_query(folder, box):
    folder, truth = folder
    retriever = ImageRetriever.load(folder / "index.cvr")
    query = retriever.search([folder / "query.png"], k=3, boxes=None if box is None else [box])[0]
    assert query.hits[0].id == "turned.png" and query.hits[0].verified
    x1, y1, x2, y2 = box or (0, 0, 400, 300)
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]) - [0.5, 0.5, 0]
    same_ring(query.hits[0].outline, (corners @ truth.T)[:, :2], atol=1.5)
    assert all(hit.outline is None for hit in query.hits[1:])
    value = query.to_dict()["results"]
    np.testing.assert_allclose(value[0]["outline"], query.hits[0].outline, atol=0.051)
    assert value[1]["outline"] is None and value[0]["n_effective_inliers"] == query.hits[0].n_effective_inliers > 10


def test_json_of_the_command_line(folder, capsys):
    folder, truth = folder
    for command in (["search", folder / "index.cvr", folder / "query.png", "--json", "--box", "60,80,260,240"],
                    ["verify", folder / "query.png", folder / "photos" / "turned.png", "--json"]):  # fmt: skip
        with pytest.raises(SystemExit, match="0"):
            main([str(part) for part in command])
        value = json.loads(capsys.readouterr().out)
        found = value["results"][0]["outline"] if "results" in value else value["outline"]
        x1, y1, x2, y2 = (60, 80, 260, 240) if "results" in value else (0, 0, 400, 300)
        corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]) - [0.5, 0.5, 0]
        same_ring(np.array(found), (corners @ truth.T)[:, :2], atol=1.5)
    assert value["model"] == "homography" and value["fundamental"] is None


def test_rank_by_effective_inliers(folder):
    """The order of verified images is that of the score asked for."""
    folder, _ = folder
    for score in ("inliers", "effective_inliers"):
        retriever = ImageRetriever.load(folder / "index.cvr", verifier=SpatialVerifier(score=score))
        hits = retriever.search([folder / "query.png"], k=3)[0].hits
        assert hits[0].verified and hits[0].n_effective_inliers <= hits[0].n_inliers + 20
        crowded = Verification(30, *NOTHING, n_effective_inliers=4)
    spread = Verification(20, *NOTHING, n_effective_inliers=18, ranked_by="effective_inliers")
    assert crowded.score == 30 and spread.score == 18


def test_reports_without_a_transform(tmp_path):
    """A fundamental matrix is shown as what it is, and no frame is drawn by it."""
    from cvretrieval.plotting import write_match_report

    rng = np.random.default_rng(0)
    a, b, _ = epipolar.two_views(rng, 40, 0, "volume")
    image = rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
    matches = np.hstack([a[:, :2], b[:, :2]])
    path = write_match_report(
        image, image, tmp_path / "match.html", matches=matches, fundamental=np.eye(3) * 0.123, accepted=True
    )
    text = path.read_text(encoding="utf-8")
    assert "Fundamental matrix" in text and "0.123" in text and "None was found" not in text
    hit = Hit(1, "a", None, 0.5, 40, True, None, matches)
    report = SearchResult([QueryResult("q", (hit,), 0.1, image=image)]).to_html(tmp_path / "search.html")
    assert report.exists() and hit.to_dict()["transform"] is None
