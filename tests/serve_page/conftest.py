"""What the tests of the page share: a collection that is served, and a browser."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier, serve
from cvretrieval.datasets import make_scenes
from tests.serve_page.browser import DESKTOP, MOST_BYTES, NAME, SETTLED, Watched

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Four views of four scenes to index, and a blank image; one more view of each, and of another scene."""
    folder, outside = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("queries")
    scenes = make_scenes(n_scenes=4, n_views=5, image_size=(320, 240), random_state=1)
    for pixels, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = outside / f"query {label}.png" if view == 4 else folder / f"scene {label}" / f"{view}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    (folder / "scene 0" / "3.png").rename(folder / NAME)
    Image.new("RGB", (60, 40), "white").save(folder / "blank.png")
    stranger = make_scenes(n_scenes=1, n_views=1, image_size=(320, 240), random_state=7).images[0]
    Image.fromarray(stranger).save(outside / "stranger.png")
    (outside / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (outside / "large.jpg").write_bytes(bytes(MOST_BYTES + 1))
    return folder, outside


@pytest.fixture(scope="session")
def address(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos.cvr"
    retriever = ImageRetriever(
        extractor=SIFT(max_features=300), encoder=VLAD(n_words=8, random_state=0), verifier=SpatialVerifier(),
        location=path, random_state=0,
    )  # fmt: skip
    retriever.fit(photos[0]).close()
    uvicorn = pytest.importorskip("uvicorn")
    app = serve.make_app(path, n_jobs=1, k=8, most_bytes=MOST_BYTES)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)
    app.state.collection.close()


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def watched(browser):
    from playwright.sync_api import expect

    expect.set_options(timeout=15_000)
    yield Watched(browser, DESKTOP)
    expect.set_options(timeout=None)


@pytest.fixture
def visit(watched, address):
    """Open the page; whatever it logs fails the test, unless the test has said that it expects it."""
    watched.logged.clear()
    opened = []

    def open_page(fragment="", size=DESKTOP, expected=(), **options):
        watched.expected = expected
        page = watched.make(size, **options) if options else watched.desktop
        opened.append(page)
        page.goto("about:blank")
        page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        page.goto(address + fragment)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for page in opened:
        page.unroute_all(behavior="ignoreErrors")
        if page is not watched.desktop:
            page.close()
    assert [text for text in watched.logged if not any(word in text for word in watched.expected)] == []


@pytest.fixture
def shoot(tmp_path):
    folder = Path(os.environ.get("CVRETRIEVAL_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name):
        page.evaluate(SETTLED)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return take
