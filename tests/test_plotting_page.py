"""The shell of a report: escaping, the security policy, and how files are replaced."""

from __future__ import annotations

import html
import json
import os
import stat

import pytest

from cvretrieval.plotting.page import count, embed_json, escape, format_seconds, render_page, write_page
from tests.reports import check_report

HOSTILE = [
    "<img src=x onerror=alert(1)>.jpg",
    '"><script>alert(1)</script>',
    "'--><svg/onload=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "&lt;b&gt; & $title ${body} %s {0}",
    "図書館 Ünïcode 🖼.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_escaped_text_comes_back_and_holds_no_markup(name):
    text = escape(name)
    assert html.unescape(text) == name
    assert not set(text) & set("<>\"'")


def test_what_cannot_be_shown_or_misleads_is_replaced():
    assert escape("a\udcffb") == "a\ufffdb"
    assert escape("a\x00\x1b\nb") == "a\ufffd\ufffd\ufffdb"
    assert escape("photo\u202egpj.exe") == "photo\ufffdgpj.exe"


@pytest.mark.parametrize("name", [*HOSTILE, "\udcff", "\u2028"])
def test_embedded_json_comes_back_and_cannot_end_its_element(name):
    text = embed_json({"name": name, name: [1, 2.5, None]})
    assert json.loads(text) == {"name": name, name: [1, 2.5, None]}
    assert not set(text) & set("<>&") and text.isascii()


def test_embedded_json_refuses_what_is_not_json():
    with pytest.raises(ValueError):
        embed_json(float("nan"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (0.12, "120 ms"), (1.237, "1.24 s"), (99.5, "99.50 s"), (1234.4, "1,234 s")],
)
def test_seconds_are_given_in_a_readable_unit(seconds, text):
    assert format_seconds(seconds) == text


def test_counts_agree_in_number():
    assert [count(0, "image"), count(1, "image"), count(1200, "query", "queries")] == [
        "0 images",
        "1 image",
        "1,200 queries",
    ]


@pytest.mark.parametrize("title", HOSTILE)
def test_page_is_closed_to_the_network_and_to_its_title(tmp_path, title):
    page = render_page(title=title, body="<p>$body</p>", sprite="", data={"x": title}, kind="search")
    report = check_report(write_page(page, tmp_path / "page.html"))
    assert title in report.text
    assert report.data == {"x": title}
    assert "$body" in report.text


def test_page_is_replaced_in_one_step(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    write_page("old", target)

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_page("new", target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]
    monkeypatch.undo()
    assert write_page("new", str(target)) == target
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.html"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere.* does not exist"):
        write_page("text", tmp_path / "nowhere" / "report.html")
    assert os.listdir(tmp_path) == []


def test_folder_as_target_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="give the report a file name"):
        write_page("text", tmp_path)
    assert os.listdir(tmp_path) == []


def test_link_stays_a_link(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    write_page("text", tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text() == "text"


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no device files here")
def test_device_is_written_to_not_replaced():
    write_page("text", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_lone_surrogate_does_not_stop_the_writing(tmp_path):
    assert write_page("a\udcffb", tmp_path / "a.html").read_bytes() == b"a?b"
