"""Downloads against a server on this machine: resumed, checked, never half there, and only when called."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from cvretrieval import datasets
from cvretrieval._validation import StoreError
from cvretrieval.datasets import DownloadError, fetch, load_roxford5k, load_ukbench, unpack
from cvretrieval.datasets.fetching import sources
from cvretrieval.datasets.fetching.sources import SOURCES, Source
from tests.official_layouts import revisited

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """Serves `files` on the loopback; what it does wrong is set by its attributes."""

    def __init__(self):
        self.files = {"/data.bin": CONTENT}
        self.etag = '"v1"'
        self.last_modified = None
        self.ranges = True
        self.cut_after: list[int] = []  # bytes after which the next answers break off
        self.status: list[int] = []  # statuses of the next answers, instead of what was asked for
        self.announce_length = True
        self.wrong_part = False
        self.requests: list[dict] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def answer(self, handler):
        content = self.files.get(handler.path)
        status = self.status.pop(0) if self.status else 200 if content is not None else 404
        if status != 200:
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        known = handler.headers.get("If-Range") in (self.etag, self.last_modified, None)
        start = int(wanted[1]) if wanted and self.ranges and known else 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            first = start + 1 if self.wrong_part else start
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if self.announce_length:
            handler.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.last_modified:
            handler.send_header("Last-Modified", self.last_modified)
        handler.close_connection = True
        handler.send_header("Connection", "close")
        handler.end_headers()
        part = content[start:]
        handler.wfile.write(part[: self.cut_after.pop(0)] if self.cut_after else part)

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cvretrieval.datasets.fetching.download.time.sleep", lambda _: None)


def digest(content=CONTENT, name="sha256"):
    return hashlib.new(name, content).hexdigest()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetch(server, tmp_path, capfd):
    target = tmp_path / "new" / "data.bin"
    kept = fetch(f"{server.url}/data.bin", target, sha256=digest().upper(), md5=digest(name="md5"), size=len(CONTENT))
    assert kept == target
    assert target.read_bytes() == CONTENT
    assert left_in(target.parent) == ["data.bin"]
    # What is there is checked, and the server not asked again.
    fetch(f"{server.url}/data.bin", target, sha256=digest(), verbose=True)
    assert len(server.requests) == 1
    with pytest.raises(ValueError, match=r"should have the md5 digest 00.*Remove .*data.bin to download it again"):
        fetch(f"{server.url}/data.bin", target, md5="00")
    assert target.read_bytes() == CONTENT
    assert not any(capfd.readouterr())


def test_interruption_is_taken_up_within_a_call(server, tmp_path):
    server.cut_after = [70_000, 1, 100_000]
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == [
        *(None, "bytes=70000-", "bytes=70001-", "bytes=170001-"),
    ]
    assert all(request.get("if-range", '"v1"') == '"v1"' for request in server.requests)


def test_interruption_is_taken_up_by_the_next_call(server, tmp_path):
    target = tmp_path / "data.bin"
    server.cut_after = [123_456]
    with pytest.raises(DownloadError, match=r"interrupted after 123,456 bytes \(300,000 bytes were announced\). Call"):
        fetch(f"{server.url}/data.bin", target, n_retries=0)
    assert not target.exists()
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:123_456]
    fetch(f"{server.url}/data.bin", target, sha256=digest(), n_retries=0)
    assert target.read_bytes() == CONTENT
    assert left_in(tmp_path) == ["data.bin"]
    assert server.requests[-1]["range"] == "bytes=123456-"


def test_a_file_that_changed_meanwhile_begins_anew(server, tmp_path):
    server.cut_after = [50_000]
    with pytest.raises(DownloadError):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin", n_retries=0)
    server.files["/data.bin"], server.etag = CONTENT[::-1], '"v2"'
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", n_retries=0)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1]


def test_another_address_begins_anew(server, tmp_path):
    server.cut_after = [50_000]
    server.files["/other.bin"] = CONTENT[::-1]
    with pytest.raises(DownloadError):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin", n_retries=0)
    fetch(f"{server.url}/other.bin", tmp_path / "data.bin", n_retries=0)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1]
    assert "range" not in server.requests[-1]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_only_what_is_recognised_is_taken_up(server, tmp_path, etag):
    """Without a strong tag or a date nothing says that the rest belongs to the part."""
    server.etag = etag
    server.cut_after = [50_000]
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    assert [request.get("range") for request in server.requests] == [None, None]
    server.requests.clear()
    server.last_modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.cut_after = [50_000]
    fetch(f"{server.url}/data.bin", tmp_path / "again.bin", sha256=digest())
    assert [request.get("range") for request in server.requests] == [None, "bytes=50000-"]
    assert server.requests[1]["if-range"] == server.last_modified


def test_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    server.cut_after = [200_000, 100_000]
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    assert [request.get("range") for request in server.requests] == [None, "bytes=200000-", "bytes=100000-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_sends_another_part(server, tmp_path):
    server.cut_after = [50_000]
    server.wrong_part = True
    with pytest.raises(DownloadError, match="the server sent another part: 'bytes 50001-299999/300000'"):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin", n_retries=2)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:50_000]


def test_complete_but_not_yet_named(server, tmp_path):
    """As after a crash between the last byte and the new name."""
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    note = {"url": f"{server.url}/data.bin", "validator": '"v1"'}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(note), encoding="utf-8")
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    assert left_in(tmp_path) == ["data.bin"]
    # Longer than the file: not a part of it.
    (tmp_path / "more.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "more.bin.part.json").write_text(json.dumps(note), encoding="utf-8")
    fetch(f"{server.url}/data.bin", tmp_path / "more.bin", sha256=digest())
    assert (tmp_path / "more.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"[]", b'{"url": 1}', b'{"validator": "x"}'])
def test_a_damaged_note_begins_anew(server, tmp_path, note):
    (tmp_path / "data.bin.part").write_bytes(b"something else")
    (tmp_path / "data.bin.part.json").write_bytes(note)
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    assert left_in(tmp_path) == ["data.bin"]
    assert "range" not in server.requests[0]


def test_wrong_contents_are_not_kept(server, tmp_path):
    target = tmp_path / "data.bin"
    with pytest.raises(ValueError, match=rf"should have the sha256 digest 11, but .* has {digest()}.*It was not kept"):
        fetch(f"{server.url}/data.bin", target, sha256="11")
    assert left_in(tmp_path) == []
    with pytest.raises(ValueError, match=r"has 300,000 bytes, but must have 5"):
        fetch(f"{server.url}/data.bin", target, size=5)
    assert left_in(tmp_path) == []
    server.announce_length = False
    with pytest.raises(ValueError, match=r"should have 5 bytes, but data.bin.part has 300,000. It was not kept"):
        fetch(f"{server.url}/data.bin", target, size=5)
    assert left_in(tmp_path) == []


def test_what_the_server_says(server, tmp_path):
    with pytest.raises(DownloadError, match=r"cannot be downloaded: the server says 404 Not Found"):
        fetch(f"{server.url}/nothing", tmp_path / "nothing")
    assert len(server.requests) == 1
    server.status = [503, 500]
    fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=digest())
    server.status = [503, 503]
    with pytest.raises(DownloadError, match=r"interrupted after 0 bytes \(the server says 503"):
        fetch(f"{server.url}/data.bin", tmp_path / "again", n_retries=1)
    server.close()
    with pytest.raises(DownloadError, match=r"interrupted after 0 bytes \(.*refused"):
        fetch(f"{server.url}/data.bin", tmp_path / "again", n_retries=1)
    server.http = type("Closed", (), {"shutdown": lambda self: None, "server_close": lambda self: None})()


def test_what_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        fetch(f"{server.url}/data.bin", tmp_path / "file" / "data.bin")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "data.bin", ""])
def test_only_http(tmp_path, url):
    with pytest.raises(ValueError, match="must begin with http:// or https://"):
        fetch(url, tmp_path / "data.bin")


def test_bad_parameters(server, tmp_path):
    for parameters in ({"n_retries": -1}, {"timeout": 0}, {"size": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(parameters))!r} parameter of fetch"):
            fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **parameters)


def tar(files, mode="gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class TestUnpack:
    FILES = {"a/1.txt": b"one", "a/b/2.txt": CONTENT, "3.txt": b""}  # noqa: RUF012

    @pytest.mark.parametrize("pack", [tar, lambda files: tar(files, ""), lambda files: tar(files, "xz"), zipped])
    def test_files(self, tmp_path, pack):
        (tmp_path / "archive").write_bytes(pack(self.FILES))
        (tmp_path / "out" / "a").mkdir(parents=True)
        (tmp_path / "out" / "a" / "1.txt").write_bytes(b"old")
        (tmp_path / "out" / "a" / "0.txt").write_bytes(b"zero")
        assert unpack(tmp_path / "archive", tmp_path / "out") == tmp_path / "out"
        found = {
            path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
            for path in (tmp_path / "out").rglob("*")
            if path.is_file()
        }
        assert found == {**self.FILES, "a/0.txt": b"zero"}

    @pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "a\\..\\..\\escaped", "C:/x"])
    @pytest.mark.parametrize("pack", [tar, zipped])
    def test_files_that_would_lie_outside(self, tmp_path, pack, name):
        (tmp_path / "archive").write_bytes(pack({"first": b"1", name: b"2"}))
        with pytest.raises(ValueError, match=r"which lies outside of the folder. Nothing was unpacked"):
            unpack(tmp_path / "archive", tmp_path / "out")
        assert left_in(tmp_path / "out") == []
        assert left_in(tmp_path) == ["archive", "out"]

    def test_links_are_passed_over(self, tmp_path):
        (tmp_path / "archive").write_bytes(tar({"link": None, "link/1.txt": b"1"}))
        unpack(tmp_path / "archive", tmp_path / "out")
        assert (tmp_path / "out" / "link" / "1.txt").read_bytes() == b"1"
        assert not (tmp_path / "out" / "link").is_symlink()

    @pytest.mark.parametrize("pack", [tar, lambda files: tar(files, "xz"), zipped])
    @pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:1000] + bytes(2000) + b[3000:],
                                        lambda b: b"no archive"])  # fmt: skip
    def test_damaged_archives_leave_nothing(self, tmp_path, pack, damage):
        (tmp_path / "archive").write_bytes(damage(pack(self.FILES)))
        with pytest.raises(ValueError, match=r"Nothing was unpacked"):
            unpack(tmp_path / "archive", tmp_path / "out")
        assert left_in(tmp_path / "out") == []


def serve_instead(monkeypatch, server, name, contents):
    """Let the files of a set come from the server of the test."""
    replaced = []
    for source, content in zip(SOURCES[name], contents, strict=True):
        server.files[f"/{source.name}"] = content
        replaced.append(Source(f"{server.url}/{source.name}", source.folder, source.md5 and digest(content, "md5")))
    monkeypatch.setitem(sources.SOURCES, name, tuple(replaced))


def test_fetched_sets_are_loaded(server, tmp_path, monkeypatch):
    images = {f"full/ukbench{i:05d}.jpg": b"" for i in range(8)}
    serve_instead(monkeypatch, server, "ukbench", [zipped(images)])
    assert datasets.fetch_ukbench(tmp_path / "ukb") == tmp_path / "ukb"
    assert len(load_ukbench(tmp_path / "ukb", complete=False).database) == 8
    assert left_in(tmp_path / "ukb") == [".ukbench.zip.unpacked", "full"]
    datasets.fetch_ukbench(tmp_path / "ukb")
    assert len(server.requests) == 1

    revisited(tmp_path / "made")
    ground_truth = (tmp_path / "made" / "gnd_roxford5k.pkl").read_bytes()
    serve_instead(monkeypatch, server, "roxford5k_ground_truth", [ground_truth])
    datasets.fetch_roxford5k_ground_truth(tmp_path / "made2")
    (tmp_path / "made" / "jpg").rename(tmp_path / "made2" / "jpg")
    assert len(load_roxford5k(tmp_path / "made2", complete=False).queries) == 3

    photos = [tar({f"{2000 + i}0{j}.jpg": b"" for i in range(5)}) for j in range(2)]
    serve_instead(monkeypatch, server, "copydays", photos)
    datasets.fetch_copydays(tmp_path / "copydays")
    assert len(datasets.load_copydays(tmp_path / "copydays", complete=False).queries) == 5

    serve_instead(monkeypatch, server, "smvs_print", [zipped({"print/Reference/1.jpg": b"", "print/E63/1.jpg": b""})])
    datasets.fetch_smvs(tmp_path / "smvs", "print")
    assert datasets.load_smvs(tmp_path / "smvs" / "print").query_ids == ["E63/1.jpg"]
    with pytest.raises(ValueError, match="'category' parameter of fetch_smvs must be one of 'book_covers'"):
        datasets.fetch_smvs(tmp_path / "smvs", "dvds")


@pytest.mark.real_data
def test_fetched_oxford_lists(server, tmp_path, monkeypatch, data_dir):
    lists = {path.name: path.read_bytes() for path in (data_dir / "oxford5k_gt").glob("*.txt")}
    serve_instead(monkeypatch, server, "oxford5k_ground_truth", [tar(lists)])
    serve_instead(monkeypatch, server, "oxford5k_images", [tar({"all_souls_000013.jpg": b""})])
    datasets.fetch_oxford5k(tmp_path)
    assert len(datasets.oxford_ground_truth(tmp_path / "gt_files_170407")) == 55
    with pytest.raises(ValueError, match=r"The image .* of query .* is missing"):
        datasets.load_oxford5k(tmp_path)


def test_fetched_sets_are_checked(server, tmp_path, monkeypatch):
    serve_instead(monkeypatch, server, "roxford5k_ground_truth", [b"cos\nsystem\n(Vtrue\ntR."])
    with pytest.raises(ValueError, match=r"What came from http.* is not what it should be: .*Nothing in it was exec"):
        datasets.fetch_roxford5k_ground_truth(tmp_path)
    assert left_in(tmp_path) == []
    serve_instead(monkeypatch, server, "oxford5k_ground_truth", [tar({"a_query.txt": b"oxc1_a 1 2 3 4"})])
    with pytest.raises(ValueError, match="is not what it should be"):
        datasets.fetch_oxford5k_ground_truth(tmp_path)
    serve_instead(monkeypatch, server, "sop", [b"an error page"])
    with pytest.raises(ValueError, match="is damaged or no archive"):
        datasets.fetch_sop(tmp_path)
    assert not (tmp_path / "Stanford_Online_Products.zip").exists()
    cub = zipped({"CUB_200_2011/images.txt": b""})
    serve_instead(monkeypatch, server, "cub200", [cub])
    server.files["/CUB_200_2011.tgz"] = cub[:-1] + b"x"
    with pytest.raises(ValueError, match="should have the md5 digest"):
        datasets.fetch_cub200(tmp_path)


def test_sources_are_addresses_of_files():
    for name, files in SOURCES.items():
        for source in files:
            assert re.fullmatch(r"https?://[\w.]+/\S+\.(tgz|tar\.gz|zip|pkl|txt)", source.url), name
            assert source.is_archive or source.folder == "."
    functions = {name.removeprefix("fetch_") for name in datasets.__all__ if name.startswith("fetch_")}
    named = {re.sub(r"^smvs_.*", "smvs", name).removesuffix("_images") for name in SOURCES}
    assert functions == named


def test_loaders_download_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a loader opened a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    for name in datasets.__all__:
        if name.startswith("load_") and name not in ("load_dataset", "load_class_folders"):
            with pytest.raises(ValueError, match=r"does not exist.*Get it from"):
                getattr(datasets, name)(tmp_path / "nowhere")
