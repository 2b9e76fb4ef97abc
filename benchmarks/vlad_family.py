"""Accuracy of VLAD's published variants on real photos, by exact search.

Protocol and data sets are those of ``retrieval.py``: codebooks, local coordinates and adapted centres are learned on
the database images only, at most 1,200 RootSIFT features an image, longest side 640. Two things need other images:

- "other words": the codebook of another data set (UKBench for SMVS, SMVS references for UKBench), as it is, and with
  its centres adapted to the database.
- "whitened": 128 components cannot be learned on 100 database images; joint PCA whitening is learned on these and a
  thousand photos of ImageNet. That is few (the papers take 60,000), so these rows are a lower bound.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder
from retrieval import datasets

from cvretrieval import SIFT, VLAD, ImageReader, KMeansCodebook, LocalFeatures, MultipleVocabularies, PCAWhitening
from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import evaluate_rankings

INTRA: dict[str, Any] = {"power": None, "intra_norm": True}
RN_LCS: dict[str, Any] = {"residual_norm": True, "local_coordinates": True, "power": 0.2}

#: Data set whose database the "other words" are learned on.
OTHER = {"SMVS E63": "UKBench-56", "SMVS Canon": "UKBench-56", "UKBench-56": "SMVS E63"}


def encoders(n_words: int, seed: int, n_jobs: int, other: LocalFeatures) -> Iterator[tuple[str, Any, int | None]]:
    """Yield name, encoder, and the number of components of the whitening after it."""
    options: dict[str, Any] = {"n_words": n_words, "n_jobs": n_jobs, "random_state": seed}
    yield "power 0.5", VLAD(**options), None
    yield "intra", VLAD(**options, **INTRA), None
    yield "RN", VLAD(**options, residual_norm=True), None
    yield "RN, power 0.2", VLAD(**options, residual_norm=True, power=0.2), None
    yield "RN + LCS, power 0.2", VLAD(**options, **RN_LCS), None
    yield "soft", VLAD(**options, assignment="soft"), None
    yield "soft, intra", VLAD(**options, assignment="soft", **INTRA), None
    yield "soft, RN + LCS", VLAD(**options, assignment="soft", **RN_LCS), None
    yield "posteriors, intra", VLAD(**options, assignment="posterior", **INTRA), None
    words = KMeansCodebook(n_words, random_state=seed).fit(other)
    yield "other words, intra", VLAD(codebook=words, n_jobs=n_jobs, **INTRA), None
    yield "adapted, intra", VLAD(codebook=words, adapt_centers=True, n_jobs=n_jobs, **INTRA), None
    for name, normalisation in (("intra", INTRA), ("RN + LCS", RN_LCS)):
        vlad = VLAD(n_words=n_words, n_jobs=n_jobs, **normalisation)
        yield f"4 vocabularies, {name}", MultipleVocabularies(vlad, random_state=seed), None
        for n_vocabularies in (1, 4):
            several = MultipleVocabularies(vlad, n_vocabularies=n_vocabularies, random_state=seed)
            yield f"{n_vocabularies} voc., {name}, whitened", several, 128


def rank(dataset: RetrievalDataset, queries: np.ndarray, database: np.ndarray) -> dict[str, list[str]]:
    """Order the database by inner product for each query."""
    order = np.argsort(-(queries @ database.T), axis=1, kind="stable")
    ids = np.asarray(dataset.database_ids)
    return {query: ids[row].tolist() for query, row in zip(dataset.query_ids, order, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--words", type=int, default=64)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--seeds", type=int, default=3, help="figures are means over seeds, ranges are printed")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    folder = data_folder(arguments.data)
    extractor = SIFT(
        root=True, max_features=arguments.features, reader=ImageReader(max_size=640), n_jobs=arguments.jobs
    )
    sets = datasets(folder)
    features = {
        name: (extractor.transform(dataset.database_paths), extractor.transform(dataset.query_paths))
        for name, (dataset, _) in sets.items()
    }
    further = extractor.transform(sorted(Path(folder / "imagenet1k_sample" / "images").glob("*")))
    print(f"VLAD {arguments.words}, RootSIFT, {arguments.features} features, {arguments.seeds} seeds", flush=True)
    for name, (dataset, protocols) in sets.items():
        database, queries = features[name]
        figures: dict[str, dict[str, list[float]]] = {}
        n_numbers: dict[str, int] = {}
        for seed in range(arguments.seeds):
            for row, encoder, n_components in encoders(arguments.words, seed, arguments.jobs, features[OTHER[name]][0]):
                if arguments.only not in row:
                    continue
                encoder.fit(database)
                vectors, query_vectors = encoder.transform(database), encoder.transform(queries)
                if n_components is not None:
                    whitening = PCAWhitening(n_components).fit(np.concatenate([vectors, encoder.transform(further)]))
                    vectors, query_vectors = whitening.transform(vectors), whitening.transform(query_vectors)
                n_numbers[row] = vectors.shape[1]
                evaluated = evaluate_rankings(dataset.ground_truth, rank(dataset, query_vectors, vectors), protocols)
                for label, value in evaluated.figures.items():
                    figures.setdefault(row, {}).setdefault(label, []).append(value)
        for row, values in figures.items():
            text = "  ".join(
                f"{label} {statistics.mean(v):.4f} [{min(v):.4f}–{max(v):.4f}]" for label, v in values.items()
            )
            print(f"{name:11} {row:28} {n_numbers[row]:6} d  {text}", flush=True)


if __name__ == "__main__":
    main()
