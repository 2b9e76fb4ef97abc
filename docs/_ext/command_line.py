"""The page of the command line, written by typer from the commands themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx

from cvretrieval.cli.main import app as commands


def summaries(group: Any) -> dict[str, str]:
    """What typer cuts off after 45 characters, by the line it writes."""
    found = {}
    for name, command in getattr(group, "commands", {}).items():
        short, whole = (command.get_short_help_str(limit) for limit in (45, 200))
        found[f"* `{name}`: {short}\n"] = f"* `{name}`: {whole}\n"
        found |= summaries(command)
    return found


def write(app: Sphinx) -> None:
    target = Path(app.srcdir) / "generated" / "command_line.txt"
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "typer", "cvretrieval.cli.main", "utils", "docs", "--name", "cvretrieval"]
    found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    for short, whole in summaries(typer.main.get_command(commands)).items():
        found = found.replace(short, whole)
    if not target.exists() or target.read_text(encoding="utf-8") != found:
        target.write_text(found, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
