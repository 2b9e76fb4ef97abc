"""docs/parity.md has every line that the tests compare, and nothing else; `tests.parity.record` holds its numbers."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from tests import parity, parity_page
from tests.parity import agree, record, written
from tests.parity_ledger import LEDGER, Row

TESTS = Path(__file__).parent


def compared():
    """The keys that tests hand to `agree` and `record`."""
    keys = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if path == Path(__file__) or "from tests.parity import" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("agree", "record"):
                key = node.args[0]
                keys |= {each.value for each in ast.walk(key) if isinstance(each, ast.Constant)}
                if isinstance(key, ast.Name):  # from a loop over lines, or chosen before
                    keys |= {line for line in LEDGER if f'"{line}"' in text}
    return keys


def test_the_page_has_the_lines_of_the_tests():
    assert set(written()) == set(LEDGER)
    assert compared() == set(LEDGER)


def test_the_page_is_what_the_ledger_makes():
    """With its own numbers: nobody has edited it by hand, and no text of a line is older than the ledger."""
    assert parity_page.page(written()) == parity.PAGE.read_text(encoding="utf-8")


def test_numbers_survive_the_page(monkeypatch, tmp_path):
    seen = {key: 10.0 ** -(i % 17) * 1.37 for i, key in enumerate(LEDGER)}
    seen["sift"] = 0.0
    path = tmp_path / "parity.md"
    path.write_text(parity_page.page(seen), encoding="utf-8")
    monkeypatch.setattr(parity, "PAGE", path)
    again = written.__wrapped__()
    assert set(again) == set(LEDGER) and again["sift"] == 0
    for key, value in seen.items():
        assert value <= again[key] <= max(2.5 * value, 1e-12)


@pytest.mark.parametrize("value", [1e-7, 1.0000001e-7, 2e-7, 4.99e-3, 5.01e-3, 9.9, 0.126])
def test_rounding_up(value):
    rounded = parity_page._rounded_up(value)
    assert value <= rounded <= 2.6 * value
    assert f"{rounded:e}"[0] in "125" and math.isclose(rounded, float(f"{rounded:.0e}"))


def test_differences_are_measured_in_the_unit_of_the_line(monkeypatch):
    monkeypatch.setattr(parity, "written", dict)
    monkeypatch.setattr(parity, "_seen", seen := {})
    found, expected = np.array([1.1, -20.0, 0.0]), np.array([1.0, -20.0, 0.0])
    for unit, largest in (("absolute", 0.1), ("relative", 0.1), ("largest", 0.005)):
        monkeypatch.setitem(LEDGER, unit, Row("ours", "theirs", "numbers", unit=unit))
        agree(unit, found, expected, largest + 1e-9)
        assert seen[unit] == pytest.approx(largest)
        with pytest.raises(AssertionError, match=f"{unit}: .* away from theirs, allowed is"):
            agree(unit, found, expected, largest - 1e-9)
    with pytest.raises(AssertionError, match="no line"):
        agree("nothing", found, expected, 1)
    for wrong in ([1.0], [1.0, np.nan, 0.0]):
        with pytest.raises(AssertionError):
            agree("absolute", found, wrong, 1)


def test_a_growing_difference_is_noticed(monkeypatch):
    monkeypatch.setattr(parity, "_seen", {})
    monkeypatch.setattr(parity, "written", lambda: {"sift": 1e-7})
    record("sift", 0.9e-6)
    with pytest.raises(AssertionError, match=r"docs/parity\.md says 1e-07.*make parity"):
        record("sift", 1.1e-6)
