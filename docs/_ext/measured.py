"""The table and the plot of "Which method should I use?", from the numbers of `which_method.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from matplotlib.figure import Figure
from published import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

COLUMNS = {
    "method": lambda name, row: name,
    "E63": lambda name, row: f"{row['E63']:.3f}",
    "Canon": lambda name, row: f"{row['Canon']:.3f}",
    "turned": lambda name, row: f"{row['turned']:.3f}",
    "small": lambda name, row: f"{row['small']:.3f}",
    "blurred": lambda name, row: f"{row['blurred']:.3f}",
    "N-S": lambda name, row: f"{row['UKBench']:.2f}",
    "bytes": lambda name, row: f"{row['bytes']:,}",
    "s / image": lambda name, row: f"{row['seconds_image']:.2f}",
    "ms / query": lambda name, row: f"{1000 * row['seconds_query']:.1f}",
}


def numbers(folder: str | Path) -> dict[str, dict[str, Any]]:
    return json.loads((Path(folder) / "which_method.json").read_text(encoding="utf-8"))["rows"]


class Measured(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency("which_method.json")
        body = [[show(name, row) for show in COLUMNS.values()] for name, row in numbers(self.env.srcdir).items()]
        return [table(list(COLUMNS), body)]


def draw(app: Sphinx) -> None:
    """Draw mAP of E63 against bytes, of the rows as they are and verified."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    rows = numbers(app.srcdir)
    for name, row in rows.items():
        is_verified, is_network = name.endswith("verified"), "MobileNet" in name
        color = "C2" if is_verified else "C1" if is_network else "C0"
        axes.plot(row["bytes"], row["E63"], "s" if is_verified else "^" if is_network else "o", color=color)
        is_right = row["bytes"] > 20_000
        below = -11 if name == "Hamming embedding" else -3
        axes.annotate(
            name.replace(" of MobileNetV2, whitened", ""),
            (row["bytes"], row["E63"]),
            xytext=(-7 if is_right else 7, below),
            textcoords="offset points",
            ha="right" if is_right else "left",
            fontsize=8,
        )
    axes.set(xscale="log", xlabel="bytes per image", ylabel="mAP, phone photos of covers (E63)", ylim=(0, 1.05))
    axes.set_xlim(right=400_000)
    axes.grid(alpha=0.3)
    target = Path(app.srcdir) / "generated" / "which_method.svg"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("measured", Measured)
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
