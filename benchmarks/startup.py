"""Start-up: seconds of ``import cvretrieval`` and of ``cvretrieval --help`` beyond a bare interpreter's own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str], repeats: int = 9) -> float:
    """Median wall-clock seconds of a command, after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    program = str(Path(sys.executable).with_name("cvretrieval"))
    bare = seconds([sys.executable, "-c", "pass"])
    package = seconds([sys.executable, "-c", "import cvretrieval"])
    text = seconds([program, "--help"])
    print(f"python -c pass                 {bare:.3f} s")
    print(f"python -c 'import cvretrieval' {package:.3f} s in all (target < 0.15)")
    print(f"cvretrieval --help             {text:.3f} s in all (target < 0.6)")


if __name__ == "__main__":
    main()
