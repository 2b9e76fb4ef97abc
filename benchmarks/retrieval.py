"""Accuracy on real photos: VLAD and Fisher vectors alone, and VLAD with its best candidates verified.

Protocol: PCA and codebook are learned on the database images only; at most 1,200 RootSIFT features an image, longest
side 640. Stanford Mobile Visual Search DVD covers: 100 references, 100 phone queries per camera, one relevant image
each. UKBench: the first 14 groups of 4, every image is a query and in the database.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import data_folder
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, VLAD, FisherVector, ImageReader, ImageRetriever, PerDescriptor, SpatialVerifier
from cvretrieval.datasets import RetrievalDataset, groups_of_n, query_reference
from cvretrieval.metrics import evaluate_rankings


def datasets(data: Path) -> dict[str, tuple[RetrievalDataset, list[str]]]:
    """Name → data set and protocols."""
    smvs = data / "smvs_dvd"
    return {
        "SMVS E63": (query_reference(smvs / "E63", smvs / "Reference"), ["finite_sum", "oxford", "recall@1"]),
        "SMVS Canon": (query_reference(smvs / "Canon", smvs / "Reference"), ["finite_sum", "oxford", "recall@1"]),
        "UKBench-56": (groups_of_n(data / "ukbench_56" / "images", 4), ["ns@4"]),
    }


def vlad(seed: int, n_words: int, **normalisation: Any) -> Any:
    return VLAD(n_words, random_state=seed, **normalisation)


def fisher(seed: int, n_components: int) -> Any:
    """Improved Fisher vectors of PCA-64 of the descriptors."""
    pca = PerDescriptor(PCA(64, random_state=seed), random_state=seed)
    return make_pipeline(pca, FisherVector(n_components, random_state=seed))


#: Name → encoder of a given seed and number of words, and whether the best candidates are verified.
ROWS: dict[str, tuple[Callable[..., Any], bool]] = {
    "VLAD, power 0.5": (vlad, False),
    "VLAD, intra-normalised": (partial(vlad, power=None, intra_norm=True), False),
    "VLAD, RN + LCS": (partial(vlad, residual_norm=True, local_coordinates=True, power=0.2), False),
    "Fisher, PCA-64": (fisher, False),
    "VLAD, RN + LCS, verified": (partial(vlad, residual_norm=True, local_coordinates=True, power=0.2), True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--words", type=int, default=64, help="of VLAD, and components of Fisher vectors")
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--n-verify", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--timed", type=int, default=20, help="queries of each set that are timed, asked one by one")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="may be repeated (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="codebook seeds; figures are means, ranges are printed")
    arguments = parser.parse_args()
    extractor = SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640))
    print(f"{arguments.words} words, RootSIFT, {arguments.features} features, {arguments.n_verify} verified")
    for name, (dataset, protocols) in datasets(data_folder(arguments.data)).items():
        for row in arguments.row or ROWS:
            encoder, is_verified = ROWS[row]
            figures: dict[str, list[float]] = {}
            seconds = []
            for seed in range(arguments.seeds):
                retriever = ImageRetriever(
                    extractor=extractor,
                    encoder=encoder(seed, arguments.words),
                    verifier=SpatialVerifier() if is_verified else None,
                    n_verify=arguments.n_verify,
                    n_jobs=arguments.jobs,
                )
                with retriever.fit(dataset.database_paths, ids=dataset.database_ids):
                    retriever.search(dataset.query_paths[:2], k=5)  # compile the kernels
                    for path in dataset.query_paths[: arguments.timed]:
                        start = time.perf_counter()
                        retriever.search([path], k=10)
                        seconds.append(time.perf_counter() - start)
                    found = retriever.search(dataset.query_paths, k=len(dataset.database_ids))
                    rankings = dict(zip(dataset.query_ids, found.ids, strict=True))
                evaluated = evaluate_rankings(dataset.ground_truth, rankings, protocols)
                for label, value in evaluated.figures.items():
                    figures.setdefault(label, []).append(value)
            values = "  ".join(f"{k} {statistics.mean(v):.4f} [{min(v):.4f}–{max(v):.4f}]" for k, v in figures.items())
            print(f"{name:11} {row:33} {values}  {statistics.median(seconds):.3f} s per query", flush=True)


if __name__ == "__main__":
    main()
