"""``doctor``: what is installed, and whether it fits together."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cvretrieval.cli.common import JsonOption, table

#: All four install the same module `cv2` and overwrite each other's files.
_OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_REQUIRED = (
    "numpy", "scipy", "scikit-learn", "numba", "joblib", "threadpoolctl", "pillow", "tqdm", "safetensors", "typer",
)  # fmt: skip
_OPTIONAL = {
    "plot": ["matplotlib"],
    "serve": ["fastapi", "uvicorn", "python-multipart"],
    "torch": ["torch", "torchvision"],
    "timm": ["timm"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "faiss": ["faiss-cpu"],
    "milvus": ["pymilvus", "milvus-lite"],
    "dask": ["dask", "distributed"],
    "remote": ["fsspec", "aiohttp"],
}


def doctor(
    as_json: JsonOption = False,
    compile_kernels: Annotated[bool, typer.Option("--kernels/--no-kernels", help="Compile and run a kernel.")] = True,
) -> None:
    """Check the installation: versions, OpenCV variants, threads, optional parts; status 1 if anything is wrong."""
    facts, problems = examine(compile_kernels)
    if as_json:
        print(json.dumps({**facts, "problems": problems}, indent=2))
    else:
        for title, rows in facts.items():
            print(title)
            print(table([("  " + name, value) for name, value in rows.items()]))
        print("\n".join(f"PROBLEM: {problem}" for problem in problems) if problems else "everything fits together")
    if problems:
        raise typer.Exit(1)


def examine(compile_kernels: bool = True) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return facts by section, and the problems found."""
    import platform

    from cvretrieval._version import __version__

    problems: list[str] = []
    versions: dict[str, Any] = {"cvretrieval": __version__, "python": platform.python_version()}
    for name in _REQUIRED:
        versions[name] = _version(name) or "missing"
        if versions[name] == "missing":
            problems.append(f"{name} is missing; reinstall with: pip install --force-reinstall cvretrieval")
    optional = {
        f"[{extra}] {name}": _version(name) or "not installed" for extra, names in _OPTIONAL.items() for name in names
    }
    facts = {
        "versions": versions,
        "OpenCV": _opencv(problems),
        "threads": _threads(),
        "kernels": _kernels(problems) if compile_kernels else {},
        "optional": optional,
    }
    return {title: rows for title, rows in facts.items() if rows}, problems


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _opencv(problems: list[str]) -> dict[str, Any]:
    installed = {name: found for name in _OPENCV_WHEELS if (found := _version(name))}
    facts: dict[str, Any] = dict(installed) or {"wheel": "none of pip's"}
    if len(installed) > 1:
        problems.append(
            f"{' and '.join(installed)} are installed together and overwrite each other; keep one: "
            f"pip uninstall -y {' '.join(installed)} && pip install opencv-contrib-python"
        )
    try:
        import cv2
    except ImportError as error:
        problems.append(f"cv2 cannot be imported ({error}); install with: pip install opencv-contrib-python")
        return facts
    facts["cv2"] = cv2.__version__
    facts["SIFT"] = "yes" if hasattr(cv2, "SIFT_create") else "no"
    facts["xfeatures2d"] = "yes" if hasattr(cv2, "xfeatures2d") else "no"
    if facts["SIFT"] == "no":
        problems.append("cv2 has no SIFT; OpenCV 4.8 or newer is needed: pip install -U opencv-contrib-python")
    return facts


def _threads() -> dict[str, Any]:
    import os

    import joblib
    import numpy  # noqa: F401  (loads BLAS, so that it is listed)
    from threadpoolctl import threadpool_info

    facts: dict[str, Any] = {"processors": f"{joblib.cpu_count()} usable of {os.cpu_count()}"}
    for pool in threadpool_info():
        facts[f"{pool['user_api']} ({pool['internal_api']} {pool['version']})"] = pool["num_threads"]
    import sys

    if "cv2" in sys.modules:
        facts["OpenCV"] = sys.modules["cv2"].getNumThreads()
    return facts


def _kernels(problems: list[str]) -> dict[str, Any]:
    """Compile and run one kernel, and say where the compiled code is kept."""
    import time

    start = time.perf_counter()
    try:
        import numpy as np

        from cvretrieval import VLAD

        rows = np.eye(8, dtype=np.float32)
        VLAD(n_words=2, random_state=0).fit([rows]).transform([rows])
    except Exception as error:  # whatever is wrong with the installation is the finding
        problems.append(f"a kernel cannot be compiled and run ({type(error).__name__}: {error})")
        return {"state": "broken"}
    return {"state": f"compiled and run in {time.perf_counter() - start:.1f} s"}
