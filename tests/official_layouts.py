"""Small sets in the official layouts of the public benchmarks, with pictures drawn here, and the figures of a set."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import evaluate_rankings


def draw(file: Path, seed: int = 0, size: tuple[int, int] = (32, 24), **save) -> Path:
    """Write a picture of a few rectangles."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), rng.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(4):
        x, y = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        pixels[y : y + rng.integers(3, 12), x : x + rng.integers(3, 12)] = rng.integers(0, 256, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **save)
    return file


def touch(root: Path, *names: str) -> Path:
    """Make empty files, for loaders that look at names only."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def revisited(root: Path, key: str = "roxford5k", *, n_images: int = 8, protocol: int = 3) -> dict:
    """Write ``gnd_KEY.pkl`` as its authors do, with arrays and lists, and empty images; return what was written."""
    rng = np.random.default_rng(0)
    names = [f"all_souls_{i:06d}" for i in range(n_images)]
    queries = ["hall_000001", "hall_000002", "hall_000003"]
    truth = []
    for query in range(len(queries)):
        order = rng.permutation(n_images)
        truth.append(
            {
                "bbx": [136.5, 34.1, 648.5, 955.7] if query else np.array([1.5, 2, 30, 40]),
                "easy": order[: 2 if query != 1 else 0],
                "hard": order[2:4].tolist(),
                "junk": order[4:5].astype(np.int32),
            }
        )
    content = {"imlist": names, "qimlist": queries, "gnd": truth}
    touch(root, *(f"jpg/{name}.jpg" for name in names + queries))
    (root / f"gnd_{key}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    return content


def street_view(root: Path, name: str, database: dict, queries: dict, *, radius: float = 25.0) -> Path:
    """Write a list in the form of NetVLAD's; `database` and `queries` are name → (easting, northing)."""
    from scipy.io import savemat

    def cell(names):
        filled = np.empty((len(names), 1), dtype=object)
        filled[:, 0] = list(names)
        return filled

    structure = {
        "whichSet": "test",
        "dbImageFns": cell(database),
        "utmDb": np.array(list(database.values()), dtype=np.float64).T,
        "qImageFns": cell(queries),
        "utmQ": np.array(list(queries.values()), dtype=np.float64).T,
        "numImages": float(len(database)),
        "numQueries": float(len(queries)),
        "posDistThr": radius,
        "posDistSqThr": radius**2,
        "nonTrivPosDistSqThr": 100.0,
    }
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / name, {"dbStruct": structure})
    return root / name


def figures_of_random_rankings(dataset: RetrievalDataset, truth, protocol):
    """Check that the loaded ground truth gives the figures that one built by hand gives; return them."""
    generator = np.random.default_rng(0)
    rankings = {query: generator.permutation(dataset.database_ids).tolist() for query in truth}
    loaded = evaluate_rankings(dataset.ground_truth, rankings, protocol)
    by_hand = evaluate_rankings(truth, rankings, protocol)
    assert loaded.figures == by_hand.figures
    assert loaded.per_query == by_hand.per_query
    assert loaded.skipped == by_hand.skipped
    assert any(loaded.figures.values())
    return loaded.figures
