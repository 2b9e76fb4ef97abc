"""Write docs/parity.md from what the tests saw: ``python -m tests.parity_page FOLDER``, which ``make parity`` calls."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from tests.parity import PAGE, ROUNDING
from tests.parity_ledger import SECTIONS, Row

_UNITS = {"absolute": "", "relative": " of each number", "largest": " of the largest"}

_HEAD = """# Parity with other programs

What this package computes, whose numbers it agrees with, and how closely. Written by `make parity` from the tests that
compare. What stands here is the largest difference they saw, rounded up to 1, 2 or 5, on the processor they ran on;
they fail when one grows to more than ten times that. What is below 1e-12 is the rounding of float64. How the other
programs' numbers were made stands in `tests/data/README.md`. Where a program was not run, because it is written in
MATLAB or was never published, the line says that its definition was computed in float64.

"Departures" are known differences, most of them on purpose, and the switch for the other way where there is one.
"""

_VECTORS = """
## Vectors to test against

`tests/data/pooling_vectors.json` ({size} kB) holds made-up feature maps and what each pooling makes of them; we know of
no other such numbers. They were computed in float64 by `tests/pooling_vectors.py`, loops over NumPy arrays that share
no code with this package; `tests/deep/test_pooling_vectors.py` compares the torch layers. To test another program:

```python
import json
import numpy as np

data = json.load(open("tests/data/pooling_vectors.json"))
for case in data["cases"]:
    maps = np.array(data["maps"][case["map"]])  # channels x height x width
    expected = np.array(case["vector"])
    print(case["name"], case["definition"])
```

`parameters` has what a definition needs besides the map: exponents, weights, centres, regions (level, top, left, side).
The maps have zeros as after a ReLU, a channel that is silent, and one with a single pixel.

{table}
"""


def page(seen: dict[str, float]) -> str:
    """The page, with these differences by line."""
    parts = [_HEAD]
    for section, rows in SECTIONS.items():
        parts.append(
            f"\n## {section}\n\n| definition | agrees with | compared | largest difference | departures | line |"
        )
        parts.append("|---|---|---|---|---|---|")
        parts += [_line(key, row, seen[key]) for key, row in rows.items()]
    return "\n".join(parts) + "\n" + _about_vectors()


def _line(key: str, row: Row, largest: float) -> str:
    if largest > ROUNDING:
        difference = f"{_rounded_up(largest):g}{_UNITS[row.unit]}"
    else:
        difference = f"<{ROUNDING:g}" if largest else "none"
    cells = (row.definition, row.program, row.compared, difference, row.divergence, f"`{key}`")
    return "| " + " | ".join(cells) + " |"


def _rounded_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = math.floor(math.log10(value))
    return next(
        float(f"{step}e{power + up}") for up in (0, 1) for step in (1, 2, 5) if float(f"{step}e{power + up}") >= value
    )


def _about_vectors() -> str:
    path = PAGE.parents[1] / "tests" / "data" / "pooling_vectors.json"
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    definitions = dict.fromkeys((case["name"], case["definition"]) for case in cases)
    table = ["| pooling | definition |", "|---|---|", *(f"| {name} | {text} |" for name, text in definitions)]
    return _VECTORS.format(size=math.ceil(path.stat().st_size / 1000), table="\n".join(table))


def main(folder: str) -> None:
    """Join what the processes of the tests left in the folder."""
    seen: dict[str, float] = {}
    for file in Path(folder).glob("*.json"):
        for key, largest in json.loads(file.read_text()).items():
            seen[key] = max(largest, seen.get(key, 0.0))
    missing = [key for rows in SECTIONS.values() for key in rows if key not in seen]
    if missing:
        sys.exit(f"no test compared: {', '.join(missing)}")
    PAGE.write_text(page(seen), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(seen)} lines\n")


if __name__ == "__main__":
    main(sys.argv[1])
