"""A collection of CNN vectors behind the local page: lists, and the heat maps that explain them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, ImageRetriever, PCAWhitening, SpatialVerifier, serve
from cvretrieval.datasets import make_scenes
from cvretrieval.deep import GeM, explain_similarity
from cvretrieval.images import ImageRegion
from cvretrieval.serve.collection import Collection
from tests.deep.instances import BACKBONE

pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    scenes = make_scenes(n_scenes=3, n_views=3, image_size=(200, 150), random_state=1)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        Image.fromarray(image).save(folder / f"{label} {view}.png")
    return folder


@pytest.fixture(scope="module", params=["vectors alone", "verified"])
def served(request, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos.cvr"
    verified = {"extractor": SIFT(max_features=200), "verifier": SpatialVerifier()}
    parts = verified if request.param == "verified" else {"extractor": None, "verifier": None}
    encoder = GeM(BACKBONE, whitening=PCAWhitening(4), scales=(1, 0.5), device="cpu")
    ImageRetriever(encoder=encoder, location=path, random_state=0, **parts).fit(photos).close()
    with testclient.TestClient(serve.make_app(path, n_jobs=1, k=5), base_url="http://localhost") as client:
        yield client, path, request.param == "verified"


def asked(client, where, path, **fields):
    answer = client.post(where, files={"photo": (path.name, path.read_bytes())}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_lists_are_those_of_the_retriever(served, photos):
    client, path, is_verified = served
    query = photos / "1 0.png"
    found = asked(client, "/api/search", query)["results"]
    with ImageRetriever.load(path) as retriever:
        expected = retriever.search(query, k=5)[0].hits
    assert [each["id"] for each in found] == [hit.id for hit in expected]
    np.testing.assert_allclose([each["score"] for each in found], [hit.score for hit in expected], atol=1e-6)
    assert all((each["n_inliers"] is not None) == is_verified for each in found)
    assert client.get("/api/info").json()["can"]["verify"] is is_verified
    assert all((each["width"], each["height"]) == (200, 150) for each in found)


@pytest.mark.parametrize("box", [None, (20, 10, 180, 130)])
def test_matches_are_explained_by_places(served, photos, box):
    client, path, is_verified = served
    query, candidate = photos / "0 0.png", photos / "0 1.png"
    fields = {} if box is None else {"box": ",".join(map(str, box))}
    answer = asked(client, "/api/matches", query, candidate=candidate.name, **fields)
    if is_verified:  # matched places say more
        assert answer["kind"] == "matches" and answer["maps"] is None and answer["n_inliers"] > 10
        return
    assert answer["kind"] == "heat" and answer["matches"] == [] and answer["n_inliers"] is None
    with ImageRetriever.load(path) as retriever:
        image = query if box is None else ImageRegion(query, box)
        expected = explain_similarity(retriever.encoder_, image, candidate)
        score = retriever.search(query, k=9, boxes=[box])[0]
    assert answer["similarity"] == pytest.approx(expected.similarity, abs=1e-5)
    assert answer["similarity"] == pytest.approx(next(hit.score for hit in score.hits if hit.id == "0 1.png"), abs=1e-5)
    for side, values, frame in (("query", expected.a, expected.frame_a), ("candidate", expected.b, expected.frame_b)):
        np.testing.assert_allclose(answer["maps"][side]["values"], values, atol=1e-5)
        np.testing.assert_allclose(answer["maps"][side]["frame"], frame, atol=0.051)
    assert (answer["candidate"]["width"], answer["candidate"]["height"]) == (200, 150)
    of_query = (0, 0, 200, 150) if box is None else box
    assert np.abs(np.subtract(answer["maps"]["query"]["frame"], of_query)).max() <= 4  # a cell has 8 pixels


def test_an_indexed_photo_is_explained_too(served):
    client, _, is_verified = served
    answer = client.post("/api/matches", data={"id": "2 0.png", "candidate": "2 1.png"}).json()
    assert answer["kind"] == ("matches" if is_verified else "heat")
    assert is_verified or np.shape(answer["maps"]["candidate"]["values"]) > (1, 1)


def test_sizes_that_an_index_does_not_know_are_read(served, monkeypatch):
    _, path, _ = served
    collection = Collection(path, n_jobs=1)
    record = collection.find("1 1.png")
    assert collection.find_with_size("1 1.png") is record
    monkeypatch.setattr(collection, "find", lambda name: record._replace(width=0, height=0))
    assert collection.find_with_size("1 1.png") == record
    collection.close()
