"""Shared by the benchmark scripts: paired repeats, medians, and one line per comparison."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def data_folder(argument: str | None) -> Path:
    """Return the folder of test images: the argument, or CVRETRIEVAL_DATA."""
    name = argument or os.environ.get("CVRETRIEVAL_DATA")
    if not name or not Path(name).is_dir():
        raise SystemExit("Name the folder of test images with --data or CVRETRIEVAL_DATA.")
    return Path(name)


def paired(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Time two callables in turn, after one warm-up each; return the seconds of every repeat."""
    ours()
    peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, seconds in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return times


def report(name: str, ours: list[float], peer: list[float], peer_name: str, target: float | None = None) -> float:
    """Print medians and the median of the paired ratios (how many times faster ours is); return that ratio."""
    ratio = statistics.median(p / o for o, p in zip(ours, peer, strict=True))
    wanted = "" if target is None else f"  (target ≥ {target:g}: {'met' if ratio >= target else 'MISSED'})"
    print(
        f"{name}: ours {statistics.median(ours) * 1e3:.2f} ms, {peer_name} {statistics.median(peer) * 1e3:.2f} ms, "
        f"ratio {ratio:.2f}{wanted}"
    )
    return ratio
