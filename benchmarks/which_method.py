"""One table to choose a method by: accuracy, bytes, seconds, and what turning, shrinking and blurring a photo costs.

Stanford Mobile Visual Search DVD covers: 100 references, 100 phone photos of each of two cameras, one relevant
reference each, mAP by finite sum. 500 photos of ImageNet's sample stand in the database as distractors. The photos of
E63 are also asked turned by 90 degrees, shrunk to 240 pixels, and blurred (Gaussian, sigma 2 pixels at 640). UKBench:
the first 14 groups of 4, N-S of 4.

At most 1,200 RootSIFT features an image, longest side 640. What is learned is learned on the database of covers and
distractors, with seed 0. "Verified": the best 20 candidates, ranked by inliers. Networks (MobileNetV2 with ImageNet
weights): one scale, PCA whitening to 256 dimensions, learned on the same images.

Bytes are those of the saved index and, for verified rows, of the features (128 a descriptor, 16 a keypoint). Seconds
are CPU seconds of one thread, so that other work on the machine counts little: of an image, features and encoding; of
a query, what comes after its features.

python benchmarks/which_method.py --out docs/which_method.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import data_folder
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    ASMK,
    SIFT,
    VLAD,
    BagOfWords,
    DenseIndex,
    FisherVector,
    HammingEmbedding,
    ImageReader,
    InvertedIndex,
    KMeansCodebook,
    MultipleVocabularies,
    PCAWhitening,
    PerDescriptor,
    SpatialVerifier,
)
from cvretrieval._parallel import single_threaded
from cvretrieval.datasets import groups_of_n, query_reference
from cvretrieval.images import find_images
from cvretrieval.metrics import evaluate_rankings

READER = ImageReader(max_size=640)
N_VERIFIED = 20
RN_LCS = {"residual_norm": True, "local_coordinates": True, "power": 0.2, "random_state": 0, "n_jobs": -1}

CHANGES: dict[str, Callable[[Any], Any]] = {
    "turned": lambda image: np.ascontiguousarray(np.rot90(image)),
    "small": lambda image: cv2.resize(image, None, fx=0.375, fy=0.375, interpolation=cv2.INTER_AREA),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
}


def local_methods(words: Any) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Return by name an encoder of local features and what makes an empty index."""
    fisher = make_pipeline(PerDescriptor(PCA(64, random_state=0), random_state=0), FisherVector(64, random_state=0))
    codes = make_pipeline(VLAD(64, **RN_LCS), PCAWhitening(128, power=0))
    return {
        "bag of words": (BagOfWords(codebook=words, sparse=True, norm=None), InvertedIndex),
        "Hamming embedding": (
            HammingEmbedding(codebook=words, random_state=0),
            lambda: InvertedIndex("hamming_embedding"),
        ),
        "ASMK*": (ASMK(codebook=words, binary=True, n_query_words=5), lambda: InvertedIndex("asmk", idf=None)),
        "VLAD": (VLAD(64, random_state=0), DenseIndex),
        "VLAD, RN + LCS": (VLAD(64, **RN_LCS), DenseIndex),
        "VLAD, RN + LCS, PCA 128": (codes, DenseIndex),
        "VLAD, RN + LCS, four vocabularies": (MultipleVocabularies(VLAD(64, **RN_LCS), 4, random_state=0), DenseIndex),
        "Fisher vector": (fisher, DenseIndex),
    }


def cpu_seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return function(), time.process_time() - start


def n_bytes(index: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        saved = index.save(Path(folder) / "index")
        return sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())


class Bench:
    """The images, and what is measured of a method that ranks them."""

    def __init__(self, data: Path, n_distractors: int, changed: Path) -> None:
        others = find_images(data / "imagenet1k_sample")[:n_distractors]
        smvs = data / "smvs_dvd"
        self.covers = {camera: query_reference(smvs / camera, smvs / "Reference") for camera in ("E63", "Canon")}
        self.ukbench = groups_of_n(data / "ukbench_56" / "images", 4)
        database = self.covers["E63"]
        self.ids = [*database.database_ids, *(f"other {i}" for i in range(len(others)))]
        self.paths = {
            "database": [*database.database_paths, *others],
            **{name: list(covers.query_paths) for name, covers in self.covers.items()},
            "UKBench": list(self.ukbench.database_paths),
        }
        for name, change in CHANGES.items():
            self.paths[name] = []
            for i, path in enumerate(database.query_paths):
                target = changed / f"{name} {i:03d}.png"
                cv2.imwrite(str(target), np.ascontiguousarray(change(READER.read(path, color="rgb").pixels)[..., ::-1]))
                self.paths[name].append(target)

    def figures(self, ranked: dict[str, list[Any]]) -> dict[str, float]:
        """Return mAP of the covers and N-S of UKBench from ranked database rows of each set of queries."""
        found = {}
        for name, rankings in ranked.items():
            data, ids, protocol = self.covers["Canon" if name == "Canon" else "E63"], self.ids, "finite_sum"
            if name == "UKBench":
                data, ids, protocol = self.ukbench, self.ukbench.database_ids, "ns@4"
            lists = {q: [ids[i] for i in row] for q, row in zip(data.query_ids, rankings, strict=True)}
            found[name] = round(next(iter(evaluate_rankings(data.ground_truth, lists, [protocol]).figures.values())), 4)
        return found


def rank(index: Any, queries: Any) -> list[list[int]]:
    return [[int(key) for key in row if key >= 0] for row in index.search(queries, len(index))[0]]


def verified(ranking: list[int], query: Any, database: Any) -> list[int]:
    best = ranking[:N_VERIFIED]
    results = SpatialVerifier().verify_candidates(query, database[best])
    inliers = [result.n_inliers if result else 0 for result in results]
    return [best[i] for i in sorted(range(len(best)), key=lambda i: (-inliers[i], i))] + ranking[N_VERIFIED:]


def measure(bench: Bench, X: dict[str, Any], encode: Any, encode_query: Any, empty: Any, seconds: float) -> Any:
    """Return rankings of each set of queries and the row of a method; `seconds` an image were spent before encoding."""
    rows, encoding = cpu_seconds(lambda: encode(X["database"]))
    index = empty().add(np.arange(len(bench.ids)), rows)
    ranked, search = {}, 0.0
    for name, queries in X.items():
        if name == "UKBench":
            own = empty().add(np.arange(len(queries)), encode(queries))
            ranked[name] = rank(own, encode_query(queries))
        elif name != "database":
            ranked[name], search = cpu_seconds(lambda queries=queries: rank(index, encode_query(queries)))
    row = {"bytes": round(n_bytes(index) / len(index)), "seconds_image": round(seconds + encoding / len(index), 5)}
    return ranked, {**row, "seconds_query": round(search / 100, 5), **bench.figures(ranked)}


def local_rows(bench: Bench) -> dict[str, dict[str, float]]:
    extractor = SIFT(root=True, max_features=1200, reader=READER)
    X, seconds = {}, 0.0
    for name, paths in bench.paths.items():
        X[name], spent = cpu_seconds(lambda paths=paths: extractor.transform(paths))
        seconds = spent / len(paths) if name == "database" else seconds
    stored = 144 * X["database"].n_descriptors / len(X["database"])
    words = KMeansCodebook(4096, assignment="approximate", recall=0.9, random_state=0, n_jobs=-1).fit(X["database"])
    rows = {}
    for name, (encoder, empty) in local_methods(words).items():
        encoder.fit(X["database"])

        with single_threaded():
            queries = getattr(encoder, "transform_queries", encoder.transform)
            ranked, row = measure(bench, X, encoder.transform, queries, empty, seconds)
            rows[name] = row
            print(name, row, flush=True)
            if name in ("VLAD, RN + LCS", "ASMK*"):
                start = time.process_time()
                for queried, rankings in ranked.items():
                    database = X["UKBench" if queried == "UKBench" else "database"]
                    ranked[queried] = [verified(r, X[queried][i], database) for i, r in enumerate(rankings)]
                spent = (time.process_time() - start) / sum(map(len, ranked.values()))
                more = {"bytes": round(row["bytes"] + stored), "seconds_query": round(row["seconds_query"] + spent, 5)}
                rows[f"{name}, verified"] = {**row, **more, **bench.figures(ranked)}
                print(f"{name}, verified", rows[f"{name}, verified"], flush=True)
    return rows


def network_rows(bench: Bench, data: Path) -> dict[str, dict[str, float]]:
    from deep import POOLINGS, network, run

    poolings = {name: POOLINGS[name]() for name in ("SPoC, centre prior", "GeM, p = 3", "R-MAC")}
    model = network(data, "mobilenet")
    found, seconds = {}, 0.0
    with single_threaded():
        for name, paths in bench.paths.items():
            found[name], spent = cpu_seconds(lambda paths=paths: run(model, paths, poolings))
            seconds = spent / len(paths) if name == "database" else seconds
    rows = {}
    for pooling in poolings:
        X = {name: np.stack(by_pooling[pooling]) for name, by_pooling in found.items()}
        X = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in X.items()}
        whitening = PCAWhitening(256).fit(X["database"])
        label = f"{pooling.split(',')[0]} of MobileNetV2, whitened"
        encode = whitening.transform
        with single_threaded():
            rows[label] = measure(bench, X, encode, encode, DenseIndex, seconds)[1]
        print(label, rows[label], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--distractors", type=int, default=500)
    parser.add_argument("--rows", nargs="*", default=["local", "network"], choices=["local", "network"])
    parser.add_argument("--out", help="JSON file; rows of an earlier run are kept")
    arguments = parser.parse_args()
    data = data_folder(arguments.data)
    rows = {}
    if arguments.out and Path(arguments.out).exists():
        rows = json.loads(Path(arguments.out).read_text(encoding="utf-8"))["rows"]
    with tempfile.TemporaryDirectory() as changed:
        bench = Bench(data, arguments.distractors, Path(changed))
        for kind in arguments.rows:
            rows |= local_rows(bench) if kind == "local" else network_rows(bench, data)
            if arguments.out:
                text = json.dumps({"command": "python benchmarks/which_method.py", "rows": rows}, indent=1)
                Path(arguments.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
