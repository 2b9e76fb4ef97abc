"""The interface of the local page: answers, refusals, limits, and an index that changes meanwhile."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, DenseSIFT, ImageRetriever, SpatialVerifier, StoreError, serve
from cvretrieval.datasets import make_scenes
from cvretrieval.serve.uploads import Uploads

pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")

NAME = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos to serve")
    scenes = make_scenes(n_scenes=5, n_views=3, image_size=(200, 150), random_state=1)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = folder / f"scene {label}" / f"{view}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "scene 0" / "2.png").rename(folder / NAME)
    Image.new("RGB", (60, 40), "white").save(folder / "blank.png")
    return folder


@pytest.fixture(scope="module")
def index(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos.cvr"
    retriever = ImageRetriever(
        extractor=SIFT(max_features=200), encoder=VLAD(n_words=8, random_state=0), verifier=SpatialVerifier(),
        location=path, random_state=0,
    )  # fmt: skip
    retriever.fit(photos).close()
    return path


@pytest.fixture(scope="module")
def client(index):
    with testclient.TestClient(serve.make_app(index, n_jobs=1, k=5), base_url="http://localhost") as client:
        yield client


def photo(path):
    return {"photo": (path.name, path.read_bytes())}


def test_an_uploaded_photo_finds_its_scene(client, photos):
    answer = client.post("/api/search", files=photo(photos / "scene 1" / "0.png")).json()
    assert [each["id"].split("/")[0] for each in answer["results"][:3]] == ["scene 1"] * 3
    assert answer["n_verified"] == 3 and len(answer["results"]) == 5
    assert answer["query"]["name"] == "0.png" and (answer["query"]["width"], answer["query"]["height"]) == (200, 150)
    assert answer["settings"] == {"k": 5, "verify": True, "expand": False}
    assert {"features", "search", "verification"} <= set(answer["timings"]) and answer["seconds"] > 0
    best = answer["results"][0]
    assert best["verified"] and best["n_inliers"] > 20 and len(best["outline"]) == 4 and best["width"] == 200


def test_the_answer_is_that_of_the_retriever(client, index, photos):
    query = photos / "scene 2" / "1.png"
    with ImageRetriever.load(index) as retriever:
        expected = retriever.search(query, k=4, boxes=[(20, 20, 150, 120)])[0].to_dict()["results"]
    answer = client.post("/api/search", files=photo(query), data={"k": "4", "box": "20,20,150,120"}).json()
    paths = [each.pop("path") for each in expected]
    assert [{k: v for k, v in each.items() if k in expected[0]} for each in answer["results"]] == expected
    assert all(path not in str(answer) for path in paths)  # where the photos lie


def test_a_photo_is_remembered_and_an_indexed_one_does_not_find_itself(client, photos):
    key = client.post("/api/search", files=photo(photos / "scene 3" / "0.png"), data={"k": "1"}).json()["query"]["key"]
    again = client.post("/api/search", data={"query": key, "verify": "false", "expand": "true", "k": "16"})
    assert again.json()["settings"] == {"k": 16, "verify": False, "expand": True}
    assert again.json()["n_verified"] is None and "reranking" in again.json()["timings"]
    assert client.get(f"/api/queries/{key}", params={"size": 64}).headers["content-type"] == "image/jpeg"
    for box in (None, "10,10,180,140"):
        fields = {"id": "scene 3/0.png", "k": "2", **({} if box is None else {"box": box})}
        answer = client.post("/api/search", data=fields).json()
        assert answer["results"][0]["id"] in ("scene 3/1.png", "scene 3/2.png") and len(answer["results"]) == 2
        assert "scene 3/0.png" not in [each["id"] for each in answer["results"]]
        assert answer["query"]["id"] == "scene 3/0.png" and answer["query"]["key"] is None
    assert client.post("/api/search", data={"query": "0" * 32}).status_code == 404


def test_matches_of_two_images(client, photos):
    answer = client.post(
        "/api/matches", files=photo(photos / "scene 4" / "0.png"), data={"candidate": "scene 4/1.png"}
    ).json()
    assert answer["kind"] == "matches" and answer["verified"]
    # Places count once, however many matches they have.
    assert 20 < answer["n_inliers"] <= len(answer["matches"])
    # The transform maps what matches onto what it matches.
    moved = np.c_[np.array(answer["matches"])[:, :2], np.ones(len(answer["matches"]))] @ np.array(answer["transform"]).T
    distance = np.linalg.norm(moved[:, :2] / moved[:, 2:] - np.array(answer["matches"])[:, 2:], axis=1)
    assert np.median(distance) < 4
    fields = {"id": "scene 4/0.png", "candidate": "scene 0/1.png"}
    other = client.post("/api/matches", data=fields).json()
    assert not other["verified"] and other["candidate"]["width"] == 200
    own = client.post("/api/matches", data={"id": "scene 4/0.png", "candidate": "scene 4/0.png"}).json()
    assert own["verified"] and own["n_inliers"] > 50


def test_pictures_and_the_collection(client, photos):
    listed = client.get("/api/images", params={"limit": 500}).json()
    assert listed["n_images"] == 16 and {each["status"] for each in listed["images"]} == {"ok", "empty"}
    assert {NAME, "blank.png", "scene 1/0.png"} <= {each["id"] for each in listed["images"]}
    assert client.get("/api/images", params={"offset": 10, "limit": 4}).json()["images"] == listed["images"][10:14]
    answer = client.get("/api/images/" + urllib.request.quote(NAME), params={"size": 100})
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (100, 75) and answer.headers["x-content-type-options"] == "nosniff"
    expected = np.asarray(Image.open(photos / NAME).convert("RGB").resize((100, 75)), float)
    assert np.abs(np.asarray(picture, float) - expected).mean() < 12
    info = client.get("/api/info").json()
    assert info["n_images"] == 16 and info["can"] == {"verify": True, "expand": True, "region": True}
    assert info["defaults"]["k"] == 5 and info["limits"]["bytes"] == 20_000_000


def test_the_page_is_sent_once(client):
    first = client.get("/")
    assert first.status_code == 200 and b"<title>" in first.content
    again = client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    script = client.get("/assets/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["etag"] != first.headers["etag"] and client.get("/favicon.ico").status_code == 200


@pytest.mark.parametrize("name", ["../index.json", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "none.png", ""])
def test_no_part_of_a_request_is_a_path(client, name):
    assert client.get(f"/api/images/{name}").status_code in (403, 404)
    assert client.get(f"/assets/{name}").status_code in (403, 404)
    assert client.post("/api/matches", data={"id": "scene 0/0.png", "candidate": name or "x"}).status_code == 404


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"no image at all", 415, "query.jpg"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 415, "query.jpg"),
        (b"", 415, "query.jpg"),
        (bytes(300_000), 413, "0 MB at most"),
    ],
)
def test_files_that_are_no_photos(index, data, status, words):
    app = serve.make_app(index, n_jobs=1, most_bytes=200_000)
    with testclient.TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/api/search", files={"photo": ("query.jpg", data)})
        assert answer.status_code == status and words in answer.json()["detail"]
        assert client.get("/api/info").status_code == 200


def test_a_bomb_is_refused_from_its_header(client):
    file = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(file, "PNG")
    answer = client.post("/api/search", files={"photo": ("bomb.png", file.getvalue())})
    assert answer.status_code == 415 and "pixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": "1"}, "Send one of 'photo'"),
        ({"id": "scene 0/0.png", "query": "x"}, "Send one of 'photo'"),
        ({"photo": "text"}, "'photo' is a file"),
        ({"id": "scene 0/0.png", "k": "0"}, "from 1 to 200"),
        ({"id": "scene 0/0.png", "k": "many"}, "from 1 to 200"),
        ({"id": "scene 0/0.png", "box": "1,2,3"}, "x1,y1,x2,y2"),
        ({"id": "scene 0/0.png", "box": "5,5,1,1"}, "x1,y1,x2,y2"),
        ({"id": "scene 0/0.png", "box": "0,0,nan,9"}, "x1,y1,x2,y2"),
        ({"id": "scene 0/0.png", "verify": "perhaps"}, "true or false"),
    ],
)
def test_wrong_fields_are_said(client, fields, words):
    answer = client.post("/api/search", data=fields)
    assert answer.status_code in (400, 422) and words in answer.json()["detail"]


def test_a_region_beside_the_photo_is_said(client):
    answer = client.post("/api/search", data={"id": "scene 0/0.png", "box": "900,900,990,990"})
    assert answer.status_code in (400, 415) and "Traceback" not in answer.text


def test_forms_that_are_none(client):
    answer = client.post("/api/search", content=b"{}", headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "multipart/form-data" in answer.json()["detail"]
    broken = client.post("/api/search", content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=y"})
    assert broken.status_code in (400, 422)
    assert client.post("/api/search", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.get("/api/images", params={"limit": "0"}).status_code == 422
    assert client.get("/api/nothing").status_code == 404 and client.get("/api/search").status_code == 405


def test_nothing_that_is_sent_reaches_a_disk(client, photos, monkeypatch):
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda *_: pytest.fail("written to a file"))
    large = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)).save(large, "PNG")
    assert large.tell() > 4_000_000
    assert client.post("/api/search", files={"photo": ("large.png", large.getvalue())}).status_code == 200


def test_who_may_ask(index):
    with testclient.TestClient(serve.make_app(index, n_jobs=1), base_url="http://evil.example") as client:
        assert client.get("/api/info").status_code == 403
        same = {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}
        assert client.get("/api/info", headers=same).status_code == 200
        assert client.get("/api/info", headers={**same, "origin": "http://evil.example"}).status_code == 403
    app = serve.make_app(index, n_jobs=1, token="secret", any_host=True)
    with testclient.TestClient(app, base_url="http://photos.example") as client:
        refused = client.get("/api/info")
        assert refused.status_code == 401 and "token" in refused.json()["detail"]
        assert "default-src 'none'" in refused.headers["content-security-policy"]
        assert client.get("/?token=wrong", follow_redirects=False).status_code == 401
        assert client.get("/api/info", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/info", headers={"authorization": "Bearer secret"}).status_code == 200
        opened = client.get("/?token=secret", follow_redirects=False)
        assert opened.status_code == 303 and opened.headers["location"] == "/"
        assert "HttpOnly" in opened.headers["set-cookie"] and "SameSite=Strict" in opened.headers["set-cookie"]
        assert client.get("/api/info").status_code == 200  # by the cookie


def test_what_another_process_adds_is_found(index, photos, tmp_path):
    with ImageRetriever.load(index) as retriever:
        copied = retriever.save(tmp_path / "copy.cvr")
    new = make_scenes(n_scenes=1, n_views=2, image_size=(200, 150), random_state=77).images
    for i, image in enumerate(new):
        Image.fromarray(image).save(tmp_path / f"new {i}.png")
    with testclient.TestClient(serve.make_app(copied, n_jobs=1), base_url="http://localhost") as client:
        assert client.get("/api/info").json()["n_images"] == 16
        program = (
            "import sys; from cvretrieval import ImageRetriever; ImageRetriever.load(sys.argv[1]).add(sys.argv[2:])"
        )
        subprocess.run([sys.executable, "-c", program, str(copied), str(tmp_path / "new 0.png")], check=True)
        answer = client.post("/api/search", files=photo(tmp_path / "new 1.png")).json()
        assert answer["results"][0]["id"].endswith("new 0.png") and answer["results"][0]["verified"]
        assert client.get("/api/info").json()["n_images"] == 17


def test_an_index_of_words_cannot_verify_or_expand(photos, tmp_path):
    from sklearn.pipeline import make_pipeline

    line = make_pipeline(DenseSIFT(step=30), VLAD(n_words=2, random_state=0))
    ImageRetriever(encoder=line, location=tmp_path / "a.cvr", metric="l2").fit(photos).close()
    with testclient.TestClient(serve.make_app(tmp_path / "a.cvr"), base_url="http://localhost") as client:
        assert client.get("/api/info").json()["can"] == {"verify": False, "expand": False, "region": True}
        fields = {"id": "scene 1/0.png", "verify": "true", "expand": "true"}
        answer = client.post("/api/search", data=fields).json()
        assert answer["settings"] == {"k": 20, "verify": False, "expand": False} and answer["n_verified"] is None
        found = client.post("/api/matches", data={"id": "scene 1/0.png", "candidate": "scene 1/1.png"}).json()
        assert found["kind"] == "none" and found["matches"] == []


def test_the_oldest_photos_are_forgotten():
    uploads = Uploads(most_bytes=100)
    keys = [uploads.keep("a.jpg", bytes([i]) * 40).key for i in range(2)]
    assert uploads.find(keys[0]) is not None
    uploads.keep("b.jpg", b"x" * 40)
    assert uploads.find(keys[1]) is None and uploads.find(keys[0]).data == bytes(40)
    uploads.keep("c.jpg", b"y" * 400)
    assert uploads.find(keys[0]) is None


def test_the_command(index, tmp_path):
    command = [sys.executable, "-m", "cvretrieval", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    try:
        assert "is served at http://127.0.0.1:" in line
        address = line.split(" at ")[1].split()[0]
        with urllib.request.urlopen(address + "api/info") as answer:
            assert b'"n_images":16' in answer.read()
        with pytest.raises(OSError, match="choose another --port"):
            serve.serve(index, port=int(address.rstrip("/").rpartition(":")[2]))
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert "Traceback" not in rest
    with pytest.raises(ValueError, match="--token"):
        serve.serve(index, host="0.0.0.0")
    with pytest.raises(StoreError):
        serve.make_app(tmp_path)
    assert os.path.isdir(index)
