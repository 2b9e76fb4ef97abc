"""VLAD against Fisher against bag of words: accuracy by bytes per image, as a plot (needs the [plot] extra).

Codebooks, local coordinates and whitening are learned on the photographs of one half of the scenes. In the other half,
every photograph asks for the others of its scene. Vectors are counted as float32; a sparse histogram as four bytes for
each number that is not zero, and four for its place. Takes about a minute.

python examples/plot_accuracy_by_bytes.py accuracy_by_bytes.png
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from scipy.sparse import issparse
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, VLAD, BagOfWords, FisherVector, LocalFeatures, PCAWhitening, PerDescriptor, TfIdf
from cvretrieval.datasets import make_scenes
from cvretrieval.metrics import mean_average_precision

#: Whitened or not, an encoder has one colour.
COLORS = {
    "bag of words, tf-idf": "C0", "VLAD": "C1", "VLAD, RN + LCS": "C2", "VLAD 64, RN + LCS, whitened": "C2",
    "Fisher": "C4", "Fisher 64, whitened": "C4",
}  # fmt: skip


def curves() -> dict[str, list[Any]]:
    """Name → pipelines from local features to vectors, from few bytes to many."""
    sizes, components = [2, 4, 8, 16, 32, 64], [8, 16, 32, 64]
    vlad: dict[str, Any] = {"residual_norm": True, "local_coordinates": True, "power": 0.2, "random_state": 0}

    def fisher(n_components: int) -> Any:
        return make_pipeline(
            PerDescriptor(PCA(64, random_state=0), random_state=0), FisherVector(n_components, random_state=0)
        )

    return {
        "bag of words, tf-idf": [
            make_pipeline(BagOfWords(n, norm=None, sparse=True, random_state=0), TfIdf()) for n in (100, 400, 1600)
        ],
        "VLAD": [VLAD(n, random_state=0) for n in sizes],
        "VLAD, RN + LCS": [VLAD(n, **vlad) for n in sizes],
        "VLAD 64, RN + LCS, whitened": [make_pipeline(VLAD(64, **vlad), PCAWhitening(n)) for n in components],
        "Fisher": [fisher(n) for n in sizes],
        "Fisher 64, whitened": [make_pipeline(fisher(64), PCAWhitening(n)) for n in components],
    }


def bytes_per_image(vectors: Any) -> float:
    return 8 * vectors.nnz / vectors.shape[0] if issparse(vectors) else 4 * vectors.shape[1]


def score(vectors: Any, labels: np.ndarray) -> float:
    """Mean average precision of asking with each image for the others of its scene, by inner product."""
    similarities = vectors @ vectors.T
    similarities = similarities.toarray() if issparse(similarities) else similarities
    rankings, relevant = [], []
    for i, row in enumerate(similarities):
        ranking = np.argsort(-row, kind="stable")
        rankings.append(ranking[ranking != i])
        relevant.append(np.flatnonzero((labels == labels[i]) & (np.arange(len(labels)) != i)))
    return mean_average_precision(rankings, relevant)


def measure(
    learning: LocalFeatures, asking: LocalFeatures, labels: np.ndarray
) -> Iterator[tuple[str, list[float], list[float]]]:
    for name, models in curves().items():
        points = []
        for model in models:
            vectors = model.fit(learning).transform(asking)
            points.append((bytes_per_image(vectors), score(vectors, labels)))
            print(f"{name:28} {points[-1][0]:8.0f} bytes  mAP {points[-1][1]:.3f}")
        sizes, scores = zip(*points, strict=True)
        yield name, list(sizes), list(scores)


def main(path: str = "accuracy_by_bytes.png") -> None:
    matplotlib.use("Agg")
    scenes = make_scenes(n_scenes=80, n_views=4, image_size=(240, 180), difficulty=0.4, random_state=0, n_jobs=-1)
    features = SIFT(root=True, max_features=200, n_jobs=-1).fit_transform(scenes.images)
    is_asked = scenes.labels >= 40
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, sizes, scores in measure(features[~is_asked], features[is_asked], scenes.labels[is_asked]):
        axes.plot(sizes, scores, "--" if "whitened" in name else "-", color=COLORS[name], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("bytes per image")
    axes.set_ylabel("mean average precision")
    axes.set_title(f"{is_asked.sum()} photographs of 40 scenes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    print(f"the plot: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
