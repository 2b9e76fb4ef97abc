"""Reports in a real browser: the script runs, draws at the right places, and the security policy is content with it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval.plotting import write_match_report
from cvretrieval.retrieval.result import QueryResult, SearchResult
from tests.reports import make_result, similarity, verified_hit, write_image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


class Dom(HTMLParser):
    """The elements of a page after its script has run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.words.append(data)

    def find(self, name, css_class=None):
        return [
            attributes
            for tag, attributes in self.elements
            if tag == name and (css_class is None or css_class in attributes.get("class", "").split())
        ]


def browse(profile: Path, *arguments: str) -> tuple[str, list[str]]:
    """Return what headless Chromium prints, and what the page logged: errors, broken policies."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--enable-logging=stderr", "--hide-scrollbars", "--virtual-time-budget=2000",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode(), [
        line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line
    ]


def dump(path: Path, fragment: str = "", size: str = "1280,900", *arguments: str) -> Dom:
    text, logged = browse(
        path.parent / "profile", *arguments, f"--window-size={size}", "--dump-dom", path.as_uri() + fragment
    )
    assert logged == []
    return Dom(text)


def look(path: Path, fragment: str = "", size: str = "1280,900") -> np.ndarray:
    shot = path.parent / "shot.png"
    _, logged = browse(
        path.parent / "profile", f"--window-size={size}", f"--screenshot={shot}", path.as_uri() + fragment
    )
    assert logged == []
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


def share(pixels: np.ndarray, color) -> float:
    return float((np.abs(pixels - color).max(axis=-1) <= 6).mean())


def lines_of(dom: Dom) -> np.ndarray:
    text = " ".join(path["d"] for path in dom.find("path", "thread"))
    return np.array(re.findall(r"M([-\d.]+) ([-\d.]+)L([-\d.]+) ([-\d.]+)", text), dtype=float)


def test_browser_reports_what_a_policy_forbids(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<script>document.title = 'ran'</script>"
    )
    text, logged = browse(tmp_path / "profile", "--dump-dom", page.as_uri())
    assert "<title>" not in text
    assert any("Content Security Policy" in line for line in logged), "else the other tests could not fail"


def test_report_opens_quietly_and_shows_its_images(tmp_path):
    path = make_result(tmp_path).to_html(tmp_path / "report.html")
    dom = dump(path)
    assert "js" in dom.find("html")[0]["class"].split()
    assert all(a["aria-haspopup"] == "dialog" for a in dom.find("a") if "id" in a)
    (dialog,) = dom.find("dialog")
    assert "open" not in dialog
    pixels = look(path)
    assert share(pixels, (200, 30, 40)) > 0.03 and share(pixels, (20, 200, 60)) > 0.03
    assert share(pixels, (30, 60, 210)) > 0.06


def test_fragment_opens_the_matches_and_lines_end_at_the_points(tmp_path):
    result = make_result(tmp_path, n_queries=8)
    dom = dump(result.to_html(tmp_path / "report.html"), "#q7h1")
    (dialog,) = dom.find("dialog")
    assert "open" in dialog
    assert "open" in next(a for a in dom.find("details") if a["id"] == "q7"), "its section is unfolded"
    assert "#1 green.png Verified" in dom.text
    assert "12 of 12" in dom.text and "scale × 0.5" in " ".join(dom.text.split())
    (stage,) = dom.find("svg", "stage")
    assert stage["aria-label"] == "Query image queries/asked6.png beside green.png, 12 lines between matching points"
    # Both images are 320 x 240: side by side at a height of 1000 with a gap of 12.
    scale, offset = 1000 / 240, 320 / 240 * 1000 + 12
    expected = (result[6].hits[0].matches + 0.5) * scale + [0, 0, offset, 0]
    found = lines_of(dom)
    assert found.shape == (12, 4)
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=0.3)


def test_images_stand_above_each_other_on_a_phone(tmp_path):
    path = make_result(tmp_path).to_html(tmp_path / "report.html")
    dom = dump(path, "#q1h1", "500,800")
    (stage,) = dom.find("svg", "stage")
    assert " above green.png" in stage["aria-label"]
    found = lines_of(dom)
    assert (found[:, 1] < 750).all() and (found[:, 3] > 774).all() and found.max() < 2 * 750 + 24


def test_page_is_never_wider_than_a_phone(tmp_path):
    make_result(tmp_path, 8).to_html(tmp_path / "report.html")
    frame = tmp_path / "frame.html"
    # The window of a browser cannot be so narrow, a frame can. What sticks out makes it scroll.
    frame.write_text(
        "<!DOCTYPE html><style>*{margin:0;border:0}</style>"
        "<iframe src='report.html#q1h1' width=360 height=780></iframe>"
        "<script>onload = () => { const page = frames[0].document; document.title ="
        " page.documentElement.scrollWidth + ' ' + page.querySelector('dialog').scrollWidth; }</script>"
    )
    text, _ = browse(
        tmp_path / "profile", "--allow-file-access-from-files", "--window-size=800,900", "--dump-dom", frame.as_uri()
    )
    page, dialog = map(int, re.search(r"<title>(\d+) (\d+)</title>", text).groups())
    assert (page, dialog) == (360, 360)


def test_only_some_lines_are_drawn_at_first_and_all_are_counted(tmp_path):
    photo = write_image(tmp_path / "a.png")
    points = np.random.default_rng(0).random((300, 2)) * [320, 240]
    result = SearchResult([QueryResult(photo, (verified_hit(photo, points=points),), 0.1)])
    dom = dump(result.to_html(tmp_path / "report.html"), "#q1h1")
    found = lines_of(dom)
    assert len(found) == 60 and "60 of 300" in dom.text
    assert (np.histogram(found[:, 0], bins=4, range=(0, 1333))[0] >= 8).all(), "spread over the query"


@pytest.mark.parametrize(
    ("fragment", "words"),
    [
        ("#q1h2", "No matching points in a consistent position were found."),
        ("#q1h3", "Geometry was not checked for this image"),
    ],
)
def test_hit_without_matches_says_why(tmp_path, fragment, words):
    dom = dump(make_result(tmp_path).to_html(tmp_path / "report.html"), fragment)
    assert words in dom.text and len(lines_of(dom)) == 0
    assert "open" in dom.find("dialog")[0]


def test_hit_whose_image_is_gone_says_why(tmp_path):
    photo = write_image(tmp_path / "a.png")
    result = SearchResult([QueryResult(photo, (verified_hit(str(tmp_path / "gone.png")),), 0.1)])
    dom = dump(result.to_html(tmp_path / "report.html"), "#q1h1")
    assert "hit1.png cannot be shown: does not exist" in dom.text


@pytest.mark.parametrize("fragment", ["#q9h9", "#q1h77", "#method", "#q0", "#<img src=x onerror=alert(1)>"])
def test_unknown_fragment_opens_nothing(tmp_path, fragment):
    dom = dump(make_result(tmp_path).to_html(tmp_path / "report.html"), fragment)
    assert "open" not in dom.find("dialog")[0]


def test_names_run_nothing_and_break_nothing(tmp_path):
    photo = write_image(tmp_path / "a.png")
    names = ["<img src=x onerror=\"document.title='pwned'\">.jpg", "</script><script>document.title='pwned'</script>"]
    names += ["bytes-\udcff.jpg", "図書館 a\u202egpj.exe"]
    queries = [QueryResult(name, (verified_hit(photo, id=name),), 0.1, image=photo) for name in names]
    path = SearchResult(queries, failures=[(name, name) for name in names]).to_html(tmp_path / "report.html")
    for i in range(1, len(names) + 1):
        dom = dump(path, f"#q{i}h1")
        assert "open" in dom.find("dialog")[0]
        assert dom.find("img") == [] and len(dom.find("script")) == 2
        title = dom.text[: dom.text.index("Skip to the results")]
        assert "Search report: 4 queries" in title


def test_overview_of_many_queries_can_be_filtered(tmp_path):
    dom = dump(make_result(tmp_path, 8).to_html(tmp_path / "report.html"))
    assert "hidden" not in dom.find("div", "tools")[0]


def test_list_is_complete_without_script(tmp_path):
    path = make_result(tmp_path, 8).to_html(tmp_path / "report.html")
    # A script of another digest than the policy allows does not run: this also shows that a changed one cannot.
    path.write_text(path.read_text().replace('"use strict";', '"use strict"; '))
    text, logged = browse(tmp_path / "profile", "--dump-dom", path.as_uri())
    assert any("Content Security Policy" in line for line in logged)
    dom = Dom(text)
    assert "js" not in dom.find("html")[0].get("class", "")
    assert dom.find("dialog") == [] and "hidden" in dom.find("div", "tools")[0]
    assert not any("aria-haspopup" in a for a in dom.find("a")), "nothing is promised that needs the script"
    assert all("hidden" in a for a in dom.find("span", "needs-script"))
    assert len(dom.find("li", "card")) == 24 and len(dom.find("polygon")) == 16


def test_dark_mode_is_dark(tmp_path):
    path = make_result(tmp_path).to_html(tmp_path / "report.html")
    shot = tmp_path / "dark.png"
    browse(tmp_path / "profile", "--blink-settings=preferredColorScheme=0", f"--screenshot={shot}", path.as_uri())
    corner = np.asarray(Image.open(shot).convert("RGB"))[:5, :5]
    assert corner.max() < 60 and look(path)[:5, :5].min() > 200


def test_match_report_draws_its_lines_at_once(tmp_path):
    photo, other = write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", (0, 90, 0), (200, 400))
    transform = similarity(0.5, 20, (60, 100))
    matches = verified_hit(None, transform=transform).matches
    path = write_match_report(
        photo, other, tmp_path / "match.html", matches=matches, transform=transform, accepted=True
    )
    dom = dump(path)
    found = lines_of(dom)
    expected = (matches + 0.5) * np.repeat([1000 / 240, 1000 / 400], 2) + [0, 0, 320 / 240 * 1000 + 12, 0]
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=0.3)
    assert dom.find("dialog") == []
