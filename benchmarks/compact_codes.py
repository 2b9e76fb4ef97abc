"""Bytes per image against accuracy: VLAD, cut by PCA, as floats, 8-bit numbers, product codes and bits.

    python benchmarks/compact_codes.py [--data DIR] [--out compact_codes.png] [--vectors vectors.npz]

RootSIFT, VLAD of 64 words (intra-normalised). Words, PCA, quantisers and hyperplanes are learned on the thousand photos
of ImageNet's sample, which are in no database. Databases: the 100 covers of SMVS, or the 56 photos of UKBench, and as
many photos of the grocery store as --distractors says. PCA is without whitening, rows are of unit length again. mAP by
finite sum (SMVS, one relevant image each) and mean N-S score / 4 (UKBench). Product codes are searched by asymmetric
distances, bits by Hamming distance. --vectors keeps the VLAD vectors between runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder
from retrieval import datasets

from cvretrieval import (
    ITQ,
    SIFT,
    VLAD,
    BinaryIndex,
    DenseIndex,
    ImageReader,
    PCAWhitening,
    PQIndex,
    ProductQuantizer,
)
from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import evaluate_rankings

#: Data set → its figure, and what that is divided by.
FIGURES = {"SMVS E63": ("finite_sum", 1), "SMVS Canon": ("finite_sum", 1), "UKBench-56": ("ns@4", 4)}


def describe(data: Path, n_distractors: int, n_features: int, n_jobs: int) -> dict[str, np.ndarray]:
    """Return VLAD vectors by what they are of."""
    extractor = SIFT(root=True, max_features=n_features, reader=ImageReader(max_size=640), n_jobs=n_jobs)
    learning = extractor.transform(sorted((data / "imagenet1k_sample" / "images").glob("*")))
    encoder = VLAD(64, intra_norm=True, power=None, n_jobs=n_jobs, random_state=0).fit(learning)
    vectors = {"learning": encoder.transform(learning)}
    photos = sorted((data / "grocery_store").rglob("*.jpg"))
    places = np.linspace(0, len(photos) - 1, n_distractors).astype(int)
    vectors["distractors"] = encoder.transform(extractor.transform([photos[i] for i in places]))
    for name, (dataset, _) in datasets(data).items():
        vectors[f"{name} database"] = encoder.transform(extractor.transform(dataset.database_paths))
        vectors[f"{name} queries"] = encoder.transform(extractor.transform(dataset.query_paths))
    return vectors


def accuracy(name: str, dataset: RetrievalDataset, keys: np.ndarray) -> float:
    """Return the figure of ranked keys; keys beyond the database are distractors."""
    ids = dataset.database_ids
    rankings = {
        query: [ids[key] if key < len(ids) else f"distractor {key}" for key in row if key >= 0]
        for query, row in zip(dataset.query_ids, keys, strict=True)
    }
    figure, divisor = FIGURES[name]
    return next(iter(evaluate_rankings(dataset.ground_truth, rankings, [figure]).figures.values())) / divisor


def eight_bits(learning: np.ndarray) -> Any:
    """Return a function that rounds every dimension to 256 steps of its range."""
    low, high = learning.min(axis=0), learning.max(axis=0)
    step = (high - low) / 255

    def rounded(rows: np.ndarray) -> np.ndarray:
        codes = np.clip(np.rint((rows - low) / step), 0, 255).astype(np.uint8)
        return (low + step * codes).astype(np.float32)

    return rounded


def codes(learning: np.ndarray) -> dict[tuple[str, int], Any]:
    """Return by name and bytes: learned once, a function of (database, queries) that returns ranked keys."""

    def dense(prepare: Any, stored: Any) -> Any:
        def rank(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
            index = DenseIndex("l2").add(np.arange(len(database)), stored(prepare(database)))
            return index.search(prepare(queries), len(database))[0]

        return rank

    def product(prepare: Any, quantizer: ProductQuantizer) -> Any:
        def rank(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
            index = PQIndex(quantizer, "l2").add(np.arange(len(database)), prepare(database))
            return index.search(prepare(queries), len(database))[0]

        return rank

    def binary(itq: ITQ) -> Any:
        def rank(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
            index = BinaryIndex().add(np.arange(len(database)), itq.transform(database))
            return index.search(itq.transform(queries), len(database))[0]

        return rank

    def same(rows: np.ndarray) -> np.ndarray:
        return rows

    found: dict[tuple[str, int], Any] = {("float32", 4 * learning.shape[1]): dense(same, same)}
    for n_components in (128, 64):
        pca = PCAWhitening(n_components, power=0).fit(learning)
        projected = pca.transform(learning)
        found[f"PCA-{n_components}, float32", 4 * n_components] = dense(pca.transform, same)
        found[f"PCA-{n_components}, 8 bits", n_components] = dense(pca.transform, eight_bits(projected))
        for rotation in (None, "random", "opq"):
            for n_bytes in (8, 16, 32, 64):
                quantizer = ProductQuantizer(n_bytes, rotation=rotation, n_jobs=-1, random_state=0).fit(projected)
                name = f"PCA-{n_components}, PQ{'' if rotation is None else f' {rotation}'}"
                found[name, n_bytes] = product(pca.transform, quantizer)
    for n_bits in (64, 128, 256, 512):
        found["ITQ", n_bits // 8] = binary(ITQ(n_bits, random_state=0).fit(learning))
    return found


def draw(figures: dict[str, dict[tuple[str, int], float]], path: str) -> None:
    """Draw accuracy against bytes, one panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(figures), figsize=(5 * len(figures), 4.2), layout="constrained")
    for panel, (name, values) in zip(np.atleast_1d(panels), figures.items(), strict=True):
        for place, method in enumerate(dict.fromkeys(method for method, _ in values)):
            points = sorted((n_bytes, value) for (own, n_bytes), value in values.items() if own == method)
            look = {"linestyle": "--", "markerfacecolor": "white"} if place >= 6 else {}
            panel.plot(*zip(*points, strict=True), marker="o", color=f"C{place % 10}", label=method, **look)
        panel.set(
            xscale="log", xlabel="bytes per image", ylabel="N-S / 4" if name.startswith("UKB") else "mAP", title=name
        )
        panel.set_xticks([8, 16, 32, 64, 128, 256, 512, 32768], ["8", "16", "32", "64", "128", "256", "512", "32 k"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--distractors", type=int, default=400)
    parser.add_argument("--features", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--vectors", help="file that keeps the VLAD vectors")
    parser.add_argument("--out", help="file of the drawing, .png")
    arguments = parser.parse_args()
    data = data_folder(arguments.data)
    if arguments.vectors and Path(arguments.vectors).exists():
        with np.load(arguments.vectors) as file:
            vectors = dict(file)
    else:
        vectors = describe(data, arguments.distractors, arguments.features, arguments.jobs)
        if arguments.vectors:
            np.savez(arguments.vectors, **vectors)
    sets = datasets(data)
    figures: dict[str, dict[tuple[str, int], float]] = {name: {} for name in sets}
    print(f"{'':24} {'bytes':>6}  " + "  ".join(f"{name:>10}" for name in sets))
    for (method, n_bytes), rank in codes(vectors["learning"]).items():
        for name, (dataset, _) in sets.items():
            database = np.concatenate([vectors[f"{name} database"], vectors["distractors"]])
            keys = rank(database, vectors[f"{name} queries"])
            figures[name][method, n_bytes] = accuracy(name, dataset, keys)
        values = "  ".join(f"{figures[name][method, n_bytes]:10.3f}" for name in sets)
        print(f"{method:24} {n_bytes:6}  {values}", flush=True)
    if arguments.out:
        draw(figures, arguments.out)


if __name__ == "__main__":
    main()
