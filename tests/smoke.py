"""Does an installed cvretrieval do the main job? Run by a Python that has it, in any folder but the tree's.

Uses nothing but cvretrieval and what it requires: photos are painted, indexed, searched from the shell and from Python,
saved and loaded; parts whose extra is absent must say which. ``.ci/release`` runs it on wheel and sdist.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from typer.testing import CliRunner

import cvretrieval
from cvretrieval import SIFT, VLAD, BagOfWords, ImageRetriever, SpatialVerifier, load_model, save_model
from cvretrieval.cli.main import app
from cvretrieval.datasets import make_scenes

COMMANDS = (
    "index", "search", "add", "remove", "info", "compact", "export", "verify", "evaluate", "duplicates", "serve",
    "doctor", "classify", "classify train", "classify predict", "classify evaluate", "train", "train cgd",
)  # fmt: skip

#: a use of each optional part, the module that it needs, the extra that brings it
OPTIONAL = (
    ("from cvretrieval import deep; deep.GeM('resnet18')", "torch", "torch"),
    ("from cvretrieval import FaissIndex; import numpy; FaissIndex().add([0, 1], numpy.eye(2))", "faiss", "faiss"),
    ("from cvretrieval import MilvusIndex; import numpy; MilvusIndex('m.db').add([0, 1], numpy.eye(2))", "pymilvus",
     "milvus"),
    ("from cvretrieval import plotting; plotting.plot_confusion([0, 1], [0, 1])", "matplotlib", "plot"),
    ("from cvretrieval import ImageReader; ImageReader().read('http://127.0.0.1:9/a.jpg')", "fsspec", "remote"),
)  # fmt: skip


def run(*arguments: str, folder: Path, status: int = 0, **environment: str) -> str:
    """What the command prints; its exit status must be that one."""
    command = shutil.which("cvretrieval", path=sysconfig.get_path("scripts"))
    assert command, "the wheel installed no command"
    done = subprocess.run(
        [command, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def check_installation(folder: Path) -> None:
    """The package is the installed one, and complete."""
    package = Path(cvretrieval.__file__).parent
    site = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert package.parent.resolve() in site, f"cvretrieval comes from {package}, not from an installation"
    for name in ("py.typed", "plotting/assets/report.js", "plotting/assets/report.css", "serve/assets/page.html"):
        assert (package / name).is_file(), f"{name} is missing"
    facts = importlib.metadata.metadata("cvretrieval")
    assert facts["Version"] == cvretrieval.__version__
    assert facts["License-Expression"] == "BSD-3-Clause", facts["License-Expression"]
    assert "cvretrieval index PHOTOS/" in facts.get_payload(), "the README is no part of the metadata"
    for name in cvretrieval.__all__:
        if name != "deep":
            getattr(cvretrieval, name)
    light = python(
        "import sys, cvretrieval; heavy = {'numba', 'cv2', 'torch', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy; from cvretrieval import ImageRetriever, SIFT, VLAD; ImageRetriever(); "
        "heavy = {'torch', 'matplotlib', 'pandas'} & set(sys.modules); assert not heavy, heavy",
        folder,
    )
    assert light.returncode == 0, light.stderr


def check_optional_parts(folder: Path) -> None:
    """What an extra brings says so where it is absent."""
    for code, module, extra in OPTIONAL:
        if importlib.util.find_spec(module) is None:
            try:
                exec(code, {})
            except ImportError as error:
                assert f"pip install 'cvretrieval[{extra}]'" in str(error), error
            else:
                raise AssertionError(f"{code} works without {module}")
    if importlib.util.find_spec("fastapi") is None:
        told = run("serve", "photos.cvr", folder=folder, status=2)
        assert "pip install 'cvretrieval[serve]'" in told, told


def check_commands(folder: Path, photos: Path, query: Path, expected: str) -> None:
    """Every command explains itself with an example; photos are indexed, found, removed and added."""
    assert "Commands" in run("--help", folder=folder)
    for command in COMMANDS:
        told = CliRunner().invoke(app, [*command.split(), "--help"]).output
        assert "Example: cvretrieval " + command in told, told
    words = run(folder=folder, _CVRETRIEVAL_COMPLETE="complete_bash", COMP_WORDS="cvretrieval se", COMP_CWORD="1")
    assert words.split() == ["search", "serve"], words
    assert "everything fits together" in run("doctor", folder=folder)
    run("index", str(photos), "--out", "photos.cvr", "--words", "8", folder=folder)
    told = run("search", "photos.cvr", str(query), "-k", "3", "--json", "--report", "report.html", folder=folder)
    found = json.loads(told.splitlines()[0])
    best = found["results"][0]
    assert best["id"].startswith(expected) and best["n_inliers"] > 20, found
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")[:200]
    run("remove", "photos.cvr", best["id"], folder=folder)
    told = run("search", "photos.cvr", str(query), "no_such.jpg", "-k", "3", "--json", folder=folder, status=1)
    again = json.loads(told.splitlines()[0])
    assert best["id"] not in [hit["id"] for hit in again["results"]] and "no_such.jpg" in told
    run("add", "photos.cvr", str(photos), folder=folder)
    run("info", "photos.cvr", "--check", folder=folder)


def check_python(folder: Path, photos: Path, query: Path, expected: str) -> None:
    """The README's Python, in small: search, save, load, an inverted file, a classifier, a model file."""
    retriever = ImageRetriever(
        extractor=SIFT(root=True, max_features=300),
        encoder=VLAD(8, residual_norm=True, local_coordinates=True, power=0.2, random_state=0),
        verifier=SpatialVerifier(),
    ).fit(photos)
    result = retriever.search([query], k=3)
    assert result.ids[0][0].startswith(expected), result.ids
    retriever.save(folder / "own.cvr")
    loaded = ImageRetriever.load(folder / "own.cvr").search([query], k=3)
    np.testing.assert_array_equal(loaded.scores, result.scores)
    np.testing.assert_array_equal(loaded.n_inliers, result.n_inliers)

    paths = sorted(photos.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    features = SIFT(max_features=200).transform(paths)
    model = make_pipeline(BagOfWords(32, random_state=0), LinearSVC())
    assert cross_val_score(model, features, labels, cv=2).mean() > 0.5
    pipeline = make_pipeline(SIFT(max_features=200), VLAD(4, random_state=0)).fit(paths)
    save_model(pipeline, folder / "describe.cvm")
    np.testing.assert_array_equal(
        load_model(folder / "describe.cvm").transform(paths[:3]), pipeline.transform(paths[:3])
    )


def main() -> None:
    """Run every check in a folder that is removed afterwards."""
    from PIL import Image

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_installation(folder)
        scenes = make_scenes(4, 5, image_size=(320, 240), difficulty=0.3, random_state=0)
        for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
            path = folder / (f"photos/scene_{label}/view_{view}.png" if view < 4 else f"query_{label}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        photos, query = folder / "photos", folder / "query_2.png"
        check_commands(folder, photos, query, "scene_2")
        check_optional_parts(folder)
        check_python(folder, photos, query, "scene_2")
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("numpy", "scipy", "scikit-learn", "numba", "opencv-contrib-python")
    )
    seconds = time.perf_counter() - start
    sys.stdout.write(f"smoke test passed: Python {sys.version.split()[0]}, {versions} ({seconds:.0f} s)\n")


if __name__ == "__main__":
    main()
