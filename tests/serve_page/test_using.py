"""The page of ``cvretrieval serve`` in a real browser: by mouse, keys and finger, wide and narrow, light and dark."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.serve_page.browser import (
    CONTRAST,
    N_PHOTOS,
    PHONE,
    UNNAMED,
    cards,
    drag_by_finger,
    fields,
    fits,
    focused,
    give,
    searched,
    tab_to,
)

pytest.importorskip("fastapi")
expect = pytest.importorskip("playwright.sync_api").expect


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
