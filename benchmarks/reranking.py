"""Reranking on real photos, VLAD vectors: accuracy and seconds per query of every method, beside no reranking.

    python benchmarks/reranking.py [--data DIR] [--seeds 3] [--distractors 1000] [--scale 100000]

VLAD of 64 words, intra-normalised, of at most 1,200 RootSIFT features an image, longest side 640; the codebook and the
whitening (to 64 dimensions) are learned on the database only. Figures are means over codebook seeds. All methods rank
by vectors; those marked "verified" may ask SpatialVerifier about the 20 best images of each query, and nothing is
verified afterwards. Seconds are of a query alone, one thread, without features, encoding and verification; the first
row is the search itself.

* SMVS: photos of DVD covers by one phone, 100 references, one relevant image. What an expansion adds is wrong, or the
  right one again. "+ Canon" adds the photos of another phone to the references: two relevant images.
* UKBench: 14 groups of 4, every image is a query and in the database.
* Grocery: products in a shop, 2,640 small photos, every 16th test photo a query, 16 to 70 relevant images (fine class).

Parameters are the same for all sets of few images per object, small ones, and those of the papers for Grocery, but
where the name says otherwise; none is tuned for a set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, paired, report
from scipy import sparse
from scipy.sparse.linalg import cg

from cvretrieval import (
    SIFT,
    VLAD,
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    Diffusion,
    DiscriminativeQueryExpansion,
    ImageReader,
    KReciprocal,
    LocalFeatures,
    PCAWhitening,
    RerankingPipeline,
    SpatialQueryExpansion,
    SpatialVerifier,
)
from cvretrieval.reranking import Reranker, VerifiedMatches
from cvretrieval.reranking.diffusion import normalized, solve

N_VERIFIED = 20

METHODS: dict[str, Reranker] = {
    "none": AverageQueryExpansion(0),
    "AQE": AverageQueryExpansion(2),
    "αQE": AlphaQueryExpansion(5, 3),
    "DQE": DiscriminativeQueryExpansion(2, 50),
    "DBA": DatabaseAugmentation(2, 3),
    "DBA, αQE": RerankingPipeline([("dba", DatabaseAugmentation(2, 3)), ("qe", AlphaQueryExpansion(5, 3))]),
    "k-reciprocal": KReciprocal(5, 2),
    "diffusion": Diffusion(5, 2),
    "AQE, verified": AverageQueryExpansion(3, verified_only=True),
    "DQE, verified": DiscriminativeQueryExpansion(3, 50, verified_only=True),
    "spatial QE, inliers": SpatialQueryExpansion(3),
    "spatial QE, region": SpatialQueryExpansion(3, features="region"),
}

#: For sets with many images of an object; the parameters of the papers.
METHODS_FOR_MANY: dict[str, Reranker] = {
    "none": AverageQueryExpansion(0),
    "AQE": AverageQueryExpansion(10),
    "αQE": AlphaQueryExpansion(50, 3),
    "αQE, n=10, α=1": AlphaQueryExpansion(10, 1),
    "DQE": DiscriminativeQueryExpansion(10, 200),
    "DBA": DatabaseAugmentation(10, 3),
    "DBA, αQE": RerankingPipeline([("dba", DatabaseAugmentation(10, 3)), ("qe", AlphaQueryExpansion(50, 3))]),
    "k-reciprocal": KReciprocal(20, 6),
    "k-reciprocal of 1000": KReciprocal(20, 6, n_candidates=1000),
    "diffusion": Diffusion(50, 10),
    "diffusion, k=10, 3": Diffusion(10, 3),
}

Set = tuple[LocalFeatures, list[str], LocalFeatures, list[str]]


class Features:
    """The features of folders of photos, each read once."""

    def __init__(self, data: Path, n_features: int) -> None:
        self.data = data
        self.sift = SIFT(root=True, max_features=n_features, reader=ImageReader(max_size=640), n_jobs=-1)
        self.known: dict[Path, LocalFeatures] = {}

    def of(self, folder: str, n_images: int | None = None) -> tuple[LocalFeatures, list[str]]:
        """Return features and names without suffix."""
        paths = sorted(
            path for path in (self.data / folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        paths = paths[:n_images]
        if n_images is not None and len(paths) < n_images:
            raise SystemExit(f"{self.data / folder} has {len(paths)} images, not {n_images}.")
        for path in [path for path in paths if path not in self.known]:
            self.known[path] = self.sift.transform([path])
        return LocalFeatures.from_images([self.known[path][0] for path in paths]), [path.stem for path in paths]


def sets(features: Features, n_distractors: int) -> dict[str, Callable[[], Set]]:
    """Name → database and its labels, queries and theirs."""

    def smvs(phone: str, others: list[str], n_others: int) -> Callable[[], Set]:
        def load() -> Set:
            parts = [features.of(f"smvs_dvd/{name}") for name in ["Reference", *others]]
            names = [name for _, part in parts for name in part]
            if n_others:
                parts.append(features.of("imagenet1k_sample/images", n_others))
                names += [f"distractor {i}" for i in range(n_others)]
            database = LocalFeatures.from_images([image for part, _ in parts for image in part])
            return database, names, *features.of(f"smvs_dvd/{phone}")

        return load

    def ukbench() -> Set:
        images, names = features.of("ukbench_56/images")
        labels = [str(i // 4) for i in range(len(names))]
        return images, labels, images, labels

    def grocery() -> Set:
        parts = []
        for name, step in (("train", 1), ("test", 16)):
            lines = (features.data / "grocery_store" / f"{name}.txt").read_text().splitlines()[::step]
            rows = [line.split(", ") for line in lines]
            paths = [features.data / "grocery_store" / row[0] for row in rows]
            parts += [features.sift.transform(paths), [row[1] for row in rows]]
        return parts[0], parts[1], parts[2], parts[3]

    found = {
        "SMVS E63": smvs("E63", [], 0),
        "SMVS Canon": smvs("Canon", [], 0),
        "SMVS E63, + Canon": smvs("E63", ["Canon"], 0),
    }
    if n_distractors:
        found[f"SMVS E63, + {n_distractors} others"] = smvs("E63", [], n_distractors)
        found[f"SMVS E63, + Canon, + {n_distractors} others"] = smvs("E63", ["Canon"], n_distractors)
    return {**found, "UKBench-56": ukbench, "Grocery": grocery}


def verify(
    database: LocalFeatures, queries: LocalFeatures, order: np.ndarray, encode: Callable[[LocalFeatures], np.ndarray]
) -> VerifiedMatches:
    """Verify the best images of each query."""
    verifier, results = SpatialVerifier(n_jobs=-1), []
    for query, row in zip(queries, order, strict=True):
        candidates = database[row]
        verified = verifier.verify_candidates(query, candidates)
        results.append({int(i): (image, v) for i, image, v in zip(row, candidates, verified, strict=True)})
    return VerifiedMatches(list(queries), results, encode)


def figure(name: str, indices: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> float:
    """Return N-S of UKBench, else the mean average precision (finite sum)."""
    right = labels[indices] == truth[:, None]
    if name.startswith("UKBench"):
        return float(right[:, :4].sum(axis=1).mean())
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    return float(((precision * right).sum(axis=1) / right.sum(axis=1)).mean())


def evaluate(name: str, data: Set, n_seeds: int, n_timed: int) -> None:
    database, labels, queries, truth = data
    methods = METHODS_FOR_MANY if name == "Grocery" else METHODS
    figures: dict[tuple[str, str], list[float]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for seed in range(n_seeds):
        vlad = VLAD(n_words=64, power=None, intra_norm=True, random_state=seed).fit(database)
        plain = vlad.transform(database)
        whitening = PCAWhitening(min(64, len(database) // 2)).fit(plain)
        encoders: dict[str, Callable[[LocalFeatures], np.ndarray]] = {
            "VLAD": vlad.transform,
            "whitened": lambda features: whitening.transform(vlad.transform(features)),  # noqa: B023
        }
        matches: Any = None
        for kind, encode in encoders.items():
            vectors, asked = encode(database), encode(queries)
            order = methods["none"].fit(vectors).rerank(asked)[0]
            if matches is None and any(reranker.needs_verification for reranker in methods.values()):
                matches = verify(database, queries, order[:, :N_VERIFIED], encode)
            for method, reranker in methods.items():
                reranker.fit(vectors)
                arguments: dict[str, Any] = {}
                if reranker.needs_verification:
                    known = VerifiedMatches(matches.queries, matches.results, encode)
                    arguments = {"indices": order, "verified": known, "k": len(vectors)}
                indices = reranker.rerank(asked, **arguments)[0]
                value = figure(name, indices, np.array(labels), np.array(truth))
                figures.setdefault((kind, method), []).append(value)
                for i in range(min(n_timed, len(asked))):
                    if reranker.needs_verification:
                        arguments = {"indices": order[i : i + 1], "verified": known.take(np.array([i]))}
                    start = time.perf_counter()
                    reranker.rerank(asked[i : i + 1], **{**arguments, "k": 10})
                    seconds.setdefault((kind, method), []).append(time.perf_counter() - start)
    print(f"\n{name}: {len(database)} images, {len(queries)} queries", flush=True)
    for method in methods:
        cells = []
        for kind in ("VLAD", "whitened"):
            values = figures[kind, method]
            change = statistics.mean(np.subtract(values, figures[kind, "none"]))
            cells.append(
                f"{kind} {statistics.mean(values):.4f} ({change:+.4f}) "
                f"{statistics.median(seconds[kind, method]) * 1e3:6.2f} ms"
            )
        print(f"  {method:20} {'   '.join(cells)}", flush=True)


def scale(n_images: int, repeats: int) -> None:
    """Time `fit` and queries on many vectors, and the solver beside SciPy's."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(n_images // 20, 128))
    X = centers[rng.integers(0, len(centers), n_images)] + 0.7 * rng.normal(size=(n_images, 128))
    queries = X[rng.integers(0, n_images, 20)] + 0.7 * rng.normal(size=(20, 128))
    print(f"\n{n_images} made-up vectors of 128 dimensions, one thread")
    rerankers = {
        "none": AverageQueryExpansion(0), "AQE": AverageQueryExpansion(10), "αQE": AlphaQueryExpansion(50),
        "DQE": DiscriminativeQueryExpansion(), "DBA": DatabaseAugmentation(10), "k-reciprocal": KReciprocal(),
        "diffusion": Diffusion(),
    }  # fmt: skip
    for name, reranker in rerankers.items():
        reranker.fit(X[:200]).rerank(queries[:1], k=10)  # compile
        start = time.perf_counter()
        reranker.fit(X)
        fitted = time.perf_counter() - start
        times = []
        for query in queries:
            start = time.perf_counter()
            reranker.rerank([query], k=100)
            times.append(time.perf_counter() - start)
        print(f"  {name:13} fit {fitted:7.1f} s   query {statistics.median(times) * 1e3:7.1f} ms", flush=True)
    graph = normalized(rerankers["diffusion"].graph_)  # type: ignore[attr-defined]
    y = np.zeros((n_images, 16))
    for column, row in enumerate(rng.integers(0, n_images, 16)):
        y[rng.integers(0, n_images, 10), column] = rng.uniform(size=10)
        y[row, column] = 1
    matrix = sparse.identity(n_images, format="csr") - 0.99 * sparse.csr_matrix(graph)

    def peer() -> np.ndarray:
        return np.stack([cg(matrix, column, rtol=1e-6, atol=0, maxiter=20)[0] for column in y.T], axis=1)

    ours = solve(graph, y, 0.99, 20, 1e-6)[0]
    print(f"  solutions of SciPy's cg within {np.abs(ours - peer()).max():.1e}")
    report(
        "16 solutions on the whole graph", *paired(lambda: solve(graph, y, 0.99, 20, 1e-6), peer, repeats), "scipy cg"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--seeds", type=int, default=3, help="codebook seeds")
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--distractors", type=int, default=1000, help="photos of other things; 0 leaves those sets out")
    parser.add_argument("--timed", type=int, default=20, help="queries of each set that are timed, one by one")
    parser.add_argument("--only", default="", help="only the sets with this in their name")
    parser.add_argument("--scale", type=int, default=0, help="also time so many made-up vectors, e.g. 100000")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    features = Features(data_folder(arguments.data), arguments.features)
    for name, load in sets(features, arguments.distractors).items():
        if arguments.only in name:
            evaluate(name, load(), arguments.seeds, arguments.timed)
    if arguments.scale:
        scale(arguments.scale, arguments.repeats)


if __name__ == "__main__":
    main()
