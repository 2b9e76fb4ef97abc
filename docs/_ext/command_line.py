"""The page of the command line, written by typer from the commands themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx


def write(app: Sphinx) -> None:
    target = Path(app.srcdir) / "generated" / "command_line.txt"
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "typer", "cvretrieval.cli.main", "utils", "docs", "--name", "cvretrieval"]
    found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    if not target.exists() or target.read_text(encoding="utf-8") != found:
        target.write_text(found, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
