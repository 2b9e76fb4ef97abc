"""Images behind URLs: in fsspec's memory, and behind a web server of this process that also misbehaves."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageReader, ImageReadError, ImageRetriever
from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes
from cvretrieval.remote_files import absolute, find_urls, is_folder, is_url, stamp_urls

fsspec = pytest.importorskip("fsspec")

EXTRACTOR = SIFT(root=True, max_features=80)


def retriever_of(**parameters):
    encoder = VLAD(n_words=4, random_state=0)
    return ImageRetriever(extractor=EXTRACTOR, encoder=encoder, on_error="skip", random_state=0, **parameters)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images():
    scenes = make_scenes(n_scenes=3, n_views=2, image_size=(160, 120), random_state=2)
    return [png(image) for image in scenes.images]


@pytest.fixture
def bucket(images):
    files = fsspec.filesystem("memory")
    names = ["a/0.png", "a/1.png", "b c/2.png", "b c/ä#3.png", "4.PNG"]
    for name, data in zip(names, images, strict=False):
        files.pipe(f"/bucket/{name}", data)
    files.pipe("/bucket/notes.txt", b"none")
    files.pipe("/bucket/.hidden/5.png", images[5])
    yield files
    files.rm("/bucket", recursive=True)


class Handler(SimpleHTTPRequestHandler):
    """Files, and errors by name; `validators` False keeps back what tells versions apart."""

    validators = True
    n_reads = 0

    def do_GET(self):
        type(self).n_reads += self.path.endswith(".png")
        if self.path == "/forbidden.png":
            self.send_error(403)
        elif self.path == "/broken.png":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"\x89PNG\r\n\x1a\n" + 100 * b"x")
        else:
            super().do_GET()

    def send_header(self, keyword, value):
        if keyword != "Last-Modified" or self.validators:
            super().send_header(keyword, value)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(images, tmp_path):
    pytest.importorskip("aiohttp")
    root = tmp_path / "served"
    (root / "sub").mkdir(parents=True)
    for name, data in zip(("0.png", "1.png", "sub/2 ä.png"), images, strict=False):
        (root / name).write_bytes(data)
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_bytes(b"no image")
    handler = type("Own", (Handler,), {"n_reads": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", root, handler
        http.shutdown()
        thread.join()


def test_urls_and_paths_are_told_apart():
    for url in ("s3://bucket/a.jpg", "http://host/a", "memory://x", "simplecache::s3://b/a.png", "gs://b"):
        assert is_url(url) and absolute(url) == url
    for path in ("a.jpg", "/photos/a.jpg", "C:\\photos\\a.jpg", "C:/a.jpg", "photos:a/b.jpg", "//share/a.jpg"):
        assert not is_url(path)
    assert absolute("a.jpg") == os.path.abspath("a.jpg")


def test_an_image_is_read_from_memory_and_from_a_web_server(bucket, server, images):
    expected = ImageReader().read(io.BytesIO(images[0])).pixels
    for url in ("memory://bucket/a/0.png", f"{server[0]}/0.png"):
        np.testing.assert_array_equal(ImageReader().read(url).pixels, expected)
    np.testing.assert_array_equal(ImageReader().read("memory://bucket/b c/ä#3.png").pixels,
                                  ImageReader().read(io.BytesIO(images[3])).pixels)  # fmt: skip


def test_folders_are_listed_and_ids_are_urls(bucket, server):
    expected = [f"memory://bucket/{name}" for name in ("4.PNG", "a/0.png", "a/1.png", "b c/2.png", "b c/ä#3.png")]
    assert find_urls("memory://bucket") == find_urls("memory://bucket/") == expected
    assert is_folder("memory://bucket/a") and not is_folder("memory://bucket/a/0.png")
    assert not is_folder(f"{server[0]}/sub") and is_folder(f"{server[0]}/sub/")
    names = ("0.png", "1.png", "empty.png", "sub/2%20%C3%A4.png", "text.png")
    assert find_urls(f"{server[0]}/") == [f"{server[0]}/{name}" for name in names]
    with pytest.raises(ImageReadError, match=r"memory://nowhere: cannot be listed \(does not exist\)"):
        find_urls("memory://nowhere")


def test_a_retriever_of_urls_skips_what_is_unchanged_and_replaces_what_changed(bucket, images, tmp_path):
    retriever = retriever_of(location=tmp_path / "a.cvr").fit("memory://bucket/")
    assert retriever.report_.n_added == 5 and retriever.ids[1] == "memory://bucket/a/0.png"
    assert retriever.search("memory://bucket/a/1.png", k=1).ids[0][0] == "memory://bucket/a/1.png"
    assert retriever.add("memory://bucket/").n_unchanged == 5
    bucket.pipe("/bucket/a/0.png", images[5])
    report = retriever.add(["memory://bucket/a/0.png", "memory://bucket/a/1.png"])
    assert (report.n_replaced, report.n_unchanged, report.n_added) == (1, 1, 0)
    bucket.pipe("/bucket/new.png", images[4])
    assert retriever.add("memory://bucket").n_added == 1
    retriever.remove(["memory://bucket/new.png"])
    assert len(retriever) == 5
    # Under other names, still known by the URL.
    other = retriever_of().fit(["memory://bucket/a/0.png", "memory://bucket/a/1.png"], ids=["one", "two"])
    assert other.ids == ["one", "two"]
    assert other.remove(["memory://bucket/a/0.png"]).ids == ["two"]
    assert retriever.search(ids=["memory://bucket/a/1.png"], k=1).to_html(tmp_path / "report.html").exists()


@pytest.mark.parametrize("validators", [True, False])
def test_versions_are_told_by_what_the_server_says_or_by_the_bytes(server, images, validators):
    address, root, handler = server
    handler.validators = validators
    url = f"{address}/0.png"
    first = stamp_urls([url, url])
    assert first[0] == first[1] and first[0][0] == len(images[0]) and 0 < first[0][1] < 2**63
    assert (handler.n_reads > 0) != validators
    assert stamp_urls([url]) == first[:1]
    changed = bytearray(images[0])
    changed[-1] ^= 1  # of the same size
    (root / "0.png").write_bytes(changed)
    os.utime(root / "0.png", (1, 1))
    assert stamp_urls([url])[0] != first[0]
    assert stamp_urls([f"{address}/gone.png"]) == [(0, 0)] and stamp_urls([]) == []


def test_errors_name_the_url(server, images):
    address = server[0]
    for url, reason in (
        (f"{address}/gone.png", "does not exist"),
        (f"{address}/forbidden.png", r"cannot be opened \(the server answers 403 Forbidden\)"),
        (f"{address}/broken.png", "broke off before its end"),
        (f"{address}/empty.png", r"is empty \(0 bytes\)"),
        (f"{address}/text.png", "is not an image of a known format"),
        ("http://127.0.0.1:9/a.png", "cannot be read"),
        ("memory://bucket/none.png", "does not exist"),
        ("nosuch://bucket/a.png", r"cannot be opened \(.*nosuch"),
    ):
        with pytest.raises(ImageReadError, match=f"^{url}: {reason}") as caught:
            ImageReader().read(url)
        assert caught.value.source == url


def test_unreadable_urls_are_skipped_and_named(server):
    address = server[0]
    retriever = retriever_of().fit([f"{address}/", f"{address}/gone.png", f"{address}/broken.png"])
    assert retriever.report_.n_added == 3
    assert dict(retriever.failures) == {
        f"{address}/empty.png": "is empty (0 bytes)",
        f"{address}/text.png": "is not an image of a known format",
        f"{address}/gone.png": "does not exist",
        f"{address}/broken.png": "broke off before its end",
    }


def test_a_missing_package_is_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fsspec", None)
        patch.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(ImportError, match=r"Reading s3://b/a\.png needs fsspec.*cvretrieval\[remote\]"):
            ImageReader().read("s3://b/a.png")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for call in (ImageReader().read, lambda url: retriever_of().fit([url])):
        with pytest.raises(ImportError, match=r"s3://b/a\.png cannot be read: fsspec needs another package .*s3fs"):
            call("s3://b/a.png")


def test_the_command_line_takes_urls(server, tmp_path, capsys):
    address, path = server[0], tmp_path / "a.cvr"

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code

    assert run("index", f"{address}/", "--out", path, "--words", 4, "--features", 80, "-q") == 1
    assert f"{address}/empty.png" in capsys.readouterr().err
    assert not run("search", path, f"{address}/sub/2%20%C3%A4.png", "-k", 1, "--json")
    assert json.loads(capsys.readouterr().out)["results"][0]["id"] == f"{address}/sub/2%20%C3%A4.png"
    assert run("index", "memory://nothing/", "--out", tmp_path / "b.cvr") == 1
    assert "memory://nothing/ cannot be listed (does not exist)" in " ".join(capsys.readouterr().err.split())
