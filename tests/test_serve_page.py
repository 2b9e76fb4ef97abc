"""The page of ``cvretrieval serve`` in a real browser: by mouse, keys and finger, wide and narrow, light and dark."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier, serve
from cvretrieval.datasets import make_scenes
from tests.serve_browser import (
    CONTRAST,
    SETTLED,
    UNNAMED,
    Watched,
    cards,
    changed,
    drag_by_finger,
    fields,
    fits,
    focused,
    give,
    tab_to,
)  # fmt: skip

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

NAME = "<img src=x onerror=alert(1)>.jpg"
MOST_BYTES = 300_000
N_PHOTOS = 17
DESKTOP, PHONE = (1200, 800), (360, 740)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def address(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos.cvr"
    retriever = ImageRetriever(
        extractor=SIFT(max_features=300), encoder=VLAD(n_words=8, random_state=0), verifier=SpatialVerifier(),
        location=path, random_state=0,
    )  # fmt: skip
    retriever.fit(photos[0]).close()
    app = serve.make_app(path, n_jobs=1, k=8, most_bytes=MOST_BYTES)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)
    app.state.collection.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def searched(page, path):
    give(page, path)
    expect(cards(page)).to_have_count(8)


@pytest.fixture(scope="module")
def watched(browser):
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


def test_a_photo_that_is_given_finds_its_scene_first(visit, photos, shoot):
    page = visit()
    expect(page.locator(".card")).to_have_count(N_PHOTOS)
    shoot(page, "start")
    give(page, photos[1] / "query 2.png")
    expect(cards(page)).to_have_count(8)
    first = cards(page).first
    expect(first.locator(".name")).to_have_text(re.compile(r"scene 2/\d\.png"))
    expect(first.locator(".mark")).to_have_text("Verified")
    expect(first.locator(".measures")).to_have_text(re.compile(r"\d+ inliers\s*score 0\.\d{3}"))
    expect(first.locator(".found-outline")).to_have_count(1)
    expect(page.locator(".card.unverified .mark").last).to_have_text("Not verified")
    expect(page.locator(".verdict")).to_contain_text(re.compile(r"\d verified matches"))
    expect(page.get_by_role("status").first).to_have_text(re.compile(r"8 results in .*s\. \d verified"))
    stages = page.locator(".times th").all_text_contents()
    assert stages[-1] == "together" and {"features", "search", "verification"} <= set(stages)
    expect(page.locator("#asked-facts")).to_contain_text("query 2.png")
    shoot(page, "results")
    give(page, photos[1] / "query 3.png", "paste")
    expect(first.locator(".name")).to_have_text(re.compile(r"scene 3/\d\.png"))
    expect(page.locator("#asked-facts")).to_contain_text("query 3.png")


def test_the_view_of_a_result_shows_lines_and_the_outline(visit, photos, shoot):
    page = visit()
    searched(page, photos[1] / "query 2.png")
    cards(page).first.locator(".open").click()
    view = page.get_by_role("dialog")
    expect(view.locator("#view-hint")).to_contain_text("Lines join")
    ends = (
        "[...document.querySelectorAll('.stage .thread')].map((path) => path.getAttribute('d').split('M').length - 1)"
    )
    assert 20 < sum(page.evaluate(ends)) <= 60
    expect(view.locator(".stage .found-outline polygon")).to_have_count(2)
    assert page.evaluate("[...document.querySelectorAll('.stage image')].map((image) => image.getBBox().width)") == [
        320,
        320,
    ]
    expect(view.locator("#view-facts")).to_contain_text("rotation")
    shoot(page, "matches")
    view.get_by_role("slider", name="Lines").fill("5")
    assert sum(page.evaluate(ends)) == 5
    view.get_by_role("checkbox", name="Outline").uncheck()
    expect(view.locator(".stage .found-outline")).to_have_count(0)
    view.get_by_role("button", name="Next").click()
    expect(view.locator("#view-title")).to_contain_text("#2")
    view.get_by_role("button", name="Close").click()
    expect(view).to_be_hidden()
    assert focused(page, ".card:nth-child(2) > .open")
    cards(page).nth(1).locator(".open").click()
    view.get_by_role("link", name="More like this").click()
    expect(view).to_be_hidden()
    expect(page.locator("#asked-facts .name")).to_have_text(re.compile("scene 2"))
    assert "id=scene+2/" in page.url


def test_a_region_that_is_drawn_is_what_is_searched_for(visit, photos, shoot):
    page = visit()
    searched(page, photos[1] / "query 2.png")
    area = page.locator(".region-stage").bounding_box()
    at = [(area["x"] + area["width"] * x, area["y"] + area["height"] * y) for x, y in ((0.3, 0.25), (0.8, 0.75))]
    with page.expect_request("**/api/search") as asked:
        page.mouse.move(*at[0])
        page.mouse.down()
        page.mouse.move(*at[1], steps=3)
        page.mouse.up()
    box = np.array(fields(asked.value)[b"box"].split(b","), dtype=float)
    np.testing.assert_allclose(box, [96, 60, 256, 180], atol=2)
    expect(page.locator("#results-title")).to_have_text("Photos with this region")
    assert [float(page.get_by_label(edge).input_value()) for edge in ("Left", "Top", "Right", "Bottom")] == box.tolist()
    shoot(page, "region")
    page.get_by_label("Left").fill("110")
    with page.expect_request("**/api/search") as asked:
        page.get_by_label("Left").press("Enter")
    assert fields(asked.value)[b"box"].split(b",")[0] == b"110"
    expect(page.locator("#search-region")).to_be_enabled()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#results-title")).to_have_text("Photos like this one")
    assert "box" not in page.url
    page.locator(".region-stage").click()  # a click is not a region
    expect(page.locator(".has-box")).to_have_count(0)


def test_everything_is_done_by_keys_alone(visit, photos):
    page = visit()
    expect(page.locator(".card")).to_have_count(N_PHOTOS)
    page.keyboard.press("Tab")
    assert focused(page, ".skip")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page, ".card:first-child > .open")
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(8)
    assert focused(page, "#results-title")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    view = page.get_by_role("dialog")
    expect(view.locator("#view-hint")).to_contain_text("Lines")
    page.keyboard.press("ArrowRight")
    expect(view.locator("#view-title")).to_contain_text("#2")
    tab_to(page, "input[type=range]")
    page.keyboard.press("Home")
    expect(view.locator(".stage .thread")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(view).to_be_hidden()
    assert focused(page, ".card:nth-child(2) > .open")
    tab_to(page, ".region-stage", "Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("ArrowLeft")  # the first makes a region of the middle
    for key in ("ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    with page.expect_request("**/api/search") as asked:
        page.keyboard.press("Enter")
    x1, y1, x2, y2 = map(float, fields(asked.value)[b"box"].split(b","))
    assert (x1, y1, x2) == (74, 60, 234) and y2 == 186
    expect(page.locator("#results-title")).to_have_text("Photos with this region")
    assert focused(page, ".region-stage")
    page.keyboard.press("Delete")
    expect(page.locator("#results-title")).to_have_text("Photos like this one")
    tab_to(page, "#verify")
    page.keyboard.press("Space")
    expect(page.locator(".verdict")).to_contain_text("Geometry was not checked")
    assert focused(page, "#verify")
    tab_to(page, "#file", "Shift+Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photos[1] / "query 3.png")
    expect(page.locator("#asked-facts")).to_contain_text("query 3.png")


def test_a_search_is_its_address(visit, photos):
    page = visit()
    searched(page, photos[1] / "query 1.png")
    first = page.url
    page.get_by_label("Results").fill("3")
    page.get_by_label("Results").press("Tab")
    expect(cards(page)).to_have_count(3)
    page.get_by_label("Expand the query").check()
    expect(page.locator(".times")).to_contain_text("reranking")
    assert "k=3" in page.url and "expand=1" in page.url
    cards(page).nth(1).locator(".open").click()
    expect(page.get_by_role("dialog").locator("#view-title")).to_contain_text("#2")
    page.reload()
    expect(page.get_by_role("dialog").locator("#view-title")).to_contain_text("#2")
    expect(cards(page)).to_have_count(3)
    expect(page.locator("#asked-facts")).to_contain_text("query 1.png")
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.go_back()
    expect(page.get_by_label("Expand the query")).not_to_be_checked()
    page.go_back()
    expect(cards(page)).to_have_count(8)
    assert page.url == first and page.get_by_label("Results").input_value() == "8"
    page.go_back()
    expect(page.locator("#results-title")).to_have_text("Or click a photo of the collection")
    expect(page.locator(".region-stage")).to_have_count(0)
    page.go_forward()
    expect(cards(page)).to_have_count(8)


def test_a_photo_that_the_server_has_forgotten_is_asked_for_again(visit, photos):
    page = visit("#query=00000000000000000000000000000000&box=80,40,280,200&k=4", expected=("404",))
    expect(page.get_by_role("alert")).to_contain_text("Choose that photo again")
    page.get_by_label("Choose a photo").set_input_files(photos[1] / "query 2.png")
    expect(cards(page)).to_have_count(4)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert "box=80,40,280,200" in page.url and "query=0000" not in page.url


def test_a_phone_is_wide_enough_and_a_finger_draws(visit, photos, shoot):
    page = visit(size=PHONE, has_touch=True, is_mobile=True)
    expect(page.locator(".card")).to_have_count(N_PHOTOS)
    assert fits(page)
    shoot(page, "phone-start")
    page.locator("#file").set_input_files(photos[1] / "query 2.png")
    expect(cards(page)).to_have_count(8)
    assert fits(page)
    shoot(page, "phone-results")
    cards(page).first.locator(".open").tap()
    expect(page.locator("#view-hint")).to_contain_text("Lines join")
    places = [each.bounding_box()["y"] for each in page.locator(".stage > svg").all()]
    assert places[1] > places[0] + 100 and fits(page)  # one above the other
    shoot(page, "phone-matches")
    page.get_by_role("button", name="Close").tap()
    page.locator(".region > summary").tap()
    page.locator("#asked-title").scroll_into_view_if_needed()
    area = page.locator(".region-stage").bounding_box()
    with page.expect_request("**/api/search") as asked:
        drag_by_finger(page, *[(area["x"] + area["width"] * s, area["y"] + area["height"] * s) for s in (0.2, 0.7)])
    np.testing.assert_allclose(
        np.array(fields(asked.value)[b"box"].split(b","), dtype=float), [64, 48, 224, 168], atol=4
    )
    expect(page.locator("#results-title")).to_have_text("Photos with this region")
    page.evaluate("scrollTo(0, 0)")
    assert fits(page)
    shoot(page, "phone-region")


def test_everything_has_a_name_and_can_be_read_in_both_lights(visit, photos, shoot):
    page = visit()
    searched(page, photos[1] / "query 2.png")
    assert page.locator("[style], style, script:not([src])").count() == 0
    words = ["body", ".note", ".lead", ".measures", ".verdict strong", ".mark.verified", ".mark.unverified", "nav a",
             ".drop strong", ".times th", "button", "footer summary"]  # fmt: skip
    for scheme, motion, turning in (("light", "no-preference", "turn"), ("dark", "reduce", "none")):
        page.emulate_media(color_scheme=scheme, reduced_motion=motion)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
        contrasts = dict(zip(words, page.evaluate(CONTRAST, words), strict=True))
        assert {name: value for name, value in contrasts.items() if value < 4.5} == {}
        assert page.evaluate("getComputedStyle(document.querySelector('.spinner')).animationName") == turning
    shoot(page, "dark-results")
    for role in ("banner", "main", "navigation", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    assert page.get_by_role("heading", level=1).count() == 1
    for name in ("Photo to search with", "Photos like this one", "Time"):
        expect(page.get_by_role("region", name=name)).to_have_count(1)
    page.locator(".region > summary").click()
    cards(page).first.locator(".open").click()
    expect(page.locator("#view-hint")).to_contain_text("Lines join")
    shoot(page, "dark-matches")
    expect(page.get_by_role("dialog", name=re.compile("scene 2"))).to_be_visible()
    assert page.evaluate(UNNAMED) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_what_cannot_be_searched_with_is_said_and_what_is_not_found(visit, photos, shoot):
    page = visit(expected=("415",))
    searched(page, photos[1] / "query 2.png")
    give(page, photos[1] / "broken.jpg")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(re.compile(r"It cannot be read\. broken\.jpg"))
    expect(cards(page)).to_have_count(8)  # what was there stays
    expect(page.locator("#asked-facts")).to_contain_text("query 2.png")
    sent = []
    page.route("**/api/search", lambda route: sent.append(route.request) or route.continue_())
    give(page, photos[1] / "large.jpg")
    expect(alert).to_contain_text(re.compile(r"Too large\. large\.jpg has 0\.3 MB"))
    assert sent == []
    alert.get_by_role("button", name="Dismiss").click()
    expect(alert).to_be_hidden()
    give(page, photos[1] / "stranger.png")
    expect(page.locator(".verdict")).to_contain_text("Nothing like it here.")
    expect(page.locator(".card.verified")).to_have_count(0)
    shoot(page, "nothing")
    give(page, photos[0] / "blank.png")
    expect(page.locator(".verdict")).to_contain_text("Nothing to search with.")


def test_a_name_is_text(visit, photos, tmp_path, shoot):
    page = visit()
    expect(page.locator(".card .name", has_text=NAME)).to_have_count(1)
    copy = tmp_path / NAME
    copy.write_bytes((photos[0] / NAME).read_bytes())
    searched(page, copy)
    expect(page.locator("#asked-facts .name")).to_have_text(NAME)
    card = cards(page).first
    expect(card.locator(".name")).to_have_text(NAME)
    expect(card.locator("img")).to_have_js_property("complete", True)
    assert card.locator("img").evaluate("(image) => image.naturalWidth") == 320
    card.locator(".open").click()
    expect(page.locator("#view-title .name")).to_have_text(NAME)
    expect(page.locator("#view-hint")).to_contain_text("Lines join")
    assert page.locator("img[src=x]").count() == 0 and page.title().startswith(NAME)
    page.reload()
    expect(page.locator("#view-title .name")).to_have_text(NAME)


def test_a_search_shows_its_time_and_can_be_cancelled_and_tried_again(visit, photos):
    page = visit(expected=("ERR_CONNECTION_REFUSED", "503"))
    held = []
    page.route("**/api/search", lambda route: held.append(route))  # noqa: PLW0108 - it must take attributes
    expect(page.locator(".card")).to_have_count(N_PHOTOS)
    give(page, photos[1] / "query 2.png")
    expect(page.locator("#elapsed")).to_have_text("Searching… 1 s")
    expect(page.get_by_role("status").first).to_have_text("Searching")
    expect(page.locator("#found[aria-busy]")).to_have_count(1)
    page.get_by_role("button", name="Cancel").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Cancelled.")
    expect(page.locator("#waiting")).to_be_hidden()
    page.unroute("**/api/search")
    page.route("**/api/search", lambda route: route.abort("connectionrefused"), times=1)
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("The server does not answer.")
    busy = {"status": 503, "json": {"detail": "Too many searches are waiting."}}
    page.route("**/api/search", lambda route: route.fulfill(**busy), times=1)
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("Busy. Too many searches are waiting.")
    alert.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(8)


def test_what_an_index_cannot_do_is_switched_off_with_the_reason(visit, address):
    page = visit()
    changed(page, "**/api/info", lambda info: {
        **info, "can": {"verify": False, "expand": False, "region": True}, "n_images": 0,
        "defaults": {"k": 20, "verify": False, "expand": False},
    })  # fmt: skip
    changed(page, "**/api/images?*", lambda answer: {"n_images": 0, "images": []})
    page.reload()
    expect(page.locator("#results-title")).to_have_text("No photos yet")
    expect(page.locator(".verdict")).to_contain_text("cvretrieval add")
    expect(page.get_by_label("Verify by geometry")).to_be_disabled()
    expect(page.get_by_text("no local features to verify by")).to_be_visible()
    expect(page.get_by_label("Expand the query")).to_be_disabled()


def test_heat_maps_lie_over_both_photos(visit, photos, shoot):
    page = visit()
    values = np.linspace(-1, 1, 12).reshape(3, 4).tolist()
    frames = [[10, 20, 300, 220], [-0.5, -0.5, 319.5, 239.5]]
    maps = {
        name: {"values": values, "frame": frame} for name, frame in zip(("query", "candidate"), frames, strict=True)
    }
    changed(page, "**/api/matches", lambda answer: {
        **answer, "kind": "heat", "matches": [], "n_inliers": None, "outline": None, "similarity": 0.71, "maps": maps,
    })  # fmt: skip
    searched(page, photos[1] / "query 2.png")
    cards(page).first.locator(".open").click()
    expect(page.locator("#view-hint")).to_contain_text("Red places")
    extents = "[...document.querySelectorAll('.stage .heat')].map((map) => [map.getBBox().x, map.getBBox().width])"
    assert page.evaluate(extents) == [[10, 290], [-0.5, 320]]
    pixels = page.evaluate("""async () => {
      const image = new Image();
      image.src = document.querySelector(".stage .heat").getAttribute("href");
      await image.decode();
      const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      return [image.width, image.height, ...context.getImageData(0, 0, 4, 3).data];
    }""")
    assert pixels[:2] == [4, 3]
    colors = np.array(pixels[2:]).reshape(12, 4)
    assert colors[0, 2] > colors[0, 0] and colors[-1, 0] > colors[-1, 2]  # blue takes, red adds
    assert colors[0, 3] > colors[5, 3] < colors[-1, 3] and colors[-1, 3] == round(0.65 * 255)
    expect(page.locator("#view-facts")).to_contain_text("0.710")
    shoot(page, "heat")
    page.get_by_role("slider", name="Heat").fill("0")
    expect(page.get_by_role("slider", name="Lines")).to_have_count(0)


def test_the_collection_is_paged(visit):
    page = visit()
    expect(page.locator(".card")).to_have_count(N_PHOTOS)
    pages = {0: (4, "1–60 of 130"), 60: (3, "61–120 of 130"), 120: (2, "121–130 of 130")}
    asked = []

    def handle(route):
        offset = int(re.search(r"offset=(\d+)", route.request.url)[1])
        asked.append(offset)
        count = pages[offset][0]
        ids = [{"id": "blank.png", "width": 60, "height": 40, "n_features": 0, "status": "empty"}] * count
        route.fulfill(json={"n_images": 130, "images": ids})

    page.route("**/api/images?*", handle)
    page.reload()
    for offset in (60, 120):
        page.get_by_role("link", name="Next").first.click()
        expect(page.locator(".pager span").first).to_have_text(pages[offset][1])
        expect(page.locator(".card")).to_have_count(pages[offset][0])
    page.get_by_role("link", name="Next").wait_for(state="detached")
    page.go_back()
    expect(page.locator(".pager span").first).to_have_text(pages[60][1])
    expect(page.locator(".card .mark").first).to_have_text("No features")
    assert asked == [0, 60, 120, 60]
