"""The parity ledger: what agrees with which program, how closely, and where this package departs on purpose.

A test that compares with the numbers of another program says so by `agree`, which asserts and measures. ``make parity``
writes the largest differences seen to ``docs/parity.md``; ``tests/test_parity.py`` holds the page to the tests.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity_ledger import LEDGER

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
#: Where `agree` leaves what it saw; set by ``make parity``.
VARIABLE = "CVRETRIEVAL_PARITY"
_seen: dict[str, float] = {}
#: Below is what float64 rounds, which every processor does its own way.
ROUNDING = 1e-12


def agree(key: str, found: Any, expected: Any, allowed: float) -> None:
    """Assert that no number is further from the program's than allowed, and keep the largest difference.

    Parameters
    ----------
    key : str
        Line of the ledger.
    found, expected : array-like
        Of the same shape.
    allowed : float
        The largest difference that is allowed, in the unit of the line.
    """
    assert key in LEDGER, f"{key} is no line of tests/parity_ledger.py"
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape, f"{found.shape} and {expected.shape}"
    assert found.size and np.isfinite(expected).all()
    difference, unit = np.abs(found - expected), LEDGER[key].unit
    if unit == "relative":
        difference = np.where(difference == 0, 0, difference / np.maximum(np.abs(expected), np.finfo(float).tiny))
    elif unit == "largest":
        difference = difference / np.abs(expected).max()
    largest = float(difference.max())
    assert largest <= allowed, f"{key}: {largest:.3g} away from {LEDGER[key].program}, allowed is {allowed:g}"
    record(key, largest)


def record(key: str, largest: float) -> None:
    """Keep a difference that was measured, and hold it to the page.

    Each processor has its own BLAS and its own order of summation: up to six times was seen between two of them.
    """
    _seen[key] = max(_seen.get(key, 0.0), float(largest))
    folder = os.environ.get(VARIABLE)
    if folder:
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps(_seen))
    elif key in (known := written()):
        assert largest <= max(10 * known[key], ROUNDING), (
            f"{key}: {largest:.3g}, while docs/parity.md says {known[key]:g}. If that is right: make parity"
        )


@cache
def written() -> dict[str, float]:
    """The differences that the page has, by line; none where the page is not, as beside an installed package."""
    if not PAGE.exists():
        return {}
    lines = re.findall(r"\| (\S+)[^|]* \|[^|]*\| `([a-z0-9-]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {key: 0.0 if value == "none" else float(value.lstrip("<")) for value, key in lines}
