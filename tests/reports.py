"""Search results made by hand and a strict reader of report files, for the tests of the plotting room."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult

#: Everything a report may consist of; scripts are told apart by their type.
ELEMENTS = {
    *("html", "head", "meta", "title", "link", "style", "body", "main", "header", "footer", "section", "nav", "script"),
    *("h1", "h2", "p", "a", "div", "span", "strong", "b", "time", "ol", "ul", "li", "dl", "dt", "dd"),
    *("table", "tr", "td", "th", "details", "summary", "label", "input", "select", "option", "button", "output"),
    *("svg", "defs", "image", "use", "g", "polygon", "rect"),
}
VOID = {"meta", "link", "input"}


class Report(HTMLParser):
    """A report file, taken apart.

    Attributes
    ----------
    elements : list of (name, attributes)
    text : str
        What is read by people.
    styles, scripts : list of str
    data : object
        What the page hands to its script.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = Path(path).read_bytes().decode("utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.data = None
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == [], f"not closed: {self.open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        elif self.open and self.open[-1] == "script":
            if self.elements[-1][1].get("type") == "application/json":
                self.data = json.loads(data)
            else:
                self.scripts.append(data)
        else:
            self.words.append(data)

    def find(self, name: str, css_class: str | None = None) -> list[dict[str, str]]:
        """Attributes of all elements of a name, and a class."""
        return [
            attributes
            for tag, attributes in self.elements
            if tag == name and (css_class is None or css_class in attributes.get("class", "").split())
        ]


def check_report(path: Path) -> Report:
    """Take a report apart and check what must hold for all: nothing foreign, nothing loaded, links that lead."""
    report = Report(path)
    assert {name for name, _ in report.elements} <= ELEMENTS
    ids = [attributes["id"] for _, attributes in report.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id occurs twice"
    for name, attributes in report.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on") and attribute not in {
                "style",
                "src",
                "srcset",
                "action",
                "xlink:href",
            }
            if attribute == "href":
                if name == "link":
                    assert value == "data:,"
                elif name == "image":
                    assert value.startswith("data:image/jpeg;base64,")
                else:
                    assert value.startswith("#") and value[1:] in ids, f"{value} leads nowhere"
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in next(
            attributes["content"]
            for _, attributes in report.elements
            if attributes.get("http-equiv") == "Content-Security-Policy"
        ).split(";")
    )
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    (style,), (script,) = report.styles, report.scripts
    assert policy["style-src"] == f"'{digest(style)}'" and policy["script-src"] == f"'{digest(script)}'"
    for text in (style, script):
        assert not any(word in text for word in ("url(", "@import", "fetch(", "XMLHttpRequest", "innerHTML", "eval("))
    assert "http://www.w3.org/2000/svg" in script and script.count("http") == 1, "the name of SVG, not an address"
    return report


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_image(path: Path, color=(200, 30, 40), size=(320, 240)) -> str:
    """Write an image of one colour and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return str(path)


def similarity(scale: float, turn_deg: float, shift=(0.0, 0.0)) -> np.ndarray:
    turn = np.radians(turn_deg)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1.0]])


def apply(transform, points) -> np.ndarray:
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(transform).T
    return mapped[:, :2] / mapped[:, 2:]


def verified_hit(path: str | None, rank: int = 1, *, transform=None, points=None, **facts) -> Hit:
    """A hit whose matches obey its transform exactly."""
    transform = similarity(0.5, 0, (10, 20)) if transform is None else transform
    if points is None:
        x, y = np.meshgrid([40.0, 100.0, 180.0, 260.0], [30.0, 90.0, 150.0])
        points = np.column_stack([x.ravel(), y.ravel()])
    matches = np.hstack([points, apply(transform, points)]).astype(np.float32)
    values = {"id": f"hit{rank}.png", "score": 0.75, "n_inliers": len(points), "verified": True, **facts}
    return Hit(rank=rank, path=path, transform=transform, matches=matches, **values)


def make_result(folder: Path, n_queries: int = 1, **options) -> SearchResult:
    """Queries in red; each finds a verified green image, a rejected blue one and one that was not checked."""
    red = write_image(folder / "queries" / "asked.png")
    green = write_image(folder / "photos" / "green.png", (20, 200, 60))
    blue = write_image(folder / "photos" / "blue.png", (30, 60, 210))
    hits = (
        verified_hit(green, 1, id="green.png"),
        Hit(2, "blue.png", blue, 0.5, 3),
        Hit(3, "unchecked.png", blue, 0.25),
    )
    queries = [
        QueryResult(f"queries/asked{i}.png", hits, 0.1, {"features": 0.06, "search": 0.01}, 120, image=red)
        for i in range(n_queries)
    ]
    method = {"extractor": "SIFT(root=True)", "n_verify": "50"}
    return SearchResult(queries, method, {"path": "photos.cvr", "n_images": 1234}, **options)
