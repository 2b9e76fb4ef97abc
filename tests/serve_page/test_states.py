"""The page in a real browser when something is wrong, missing, slow, or of another kind."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.serve_page.browser import (
    N_PHOTOS,
    NAME,
    cards,
    changed,
    give,
    searched,
)

pytest.importorskip("fastapi")
expect = pytest.importorskip("playwright.sync_api").expect


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
