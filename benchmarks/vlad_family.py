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
from itertools import product
from typing import Any

import numpy as np
from common import data_folder
from retrieval import datasets

from cvretrieval import SIFT, VLAD, ImageReader, KMeansCodebook, LocalFeatures, MultipleVocabularies, PCAWhitening
from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import evaluate_rankings

INTRA: dict[str, Any] = {"power": None, "intra_norm": True}
RN_LCS: dict[str, Any] = {"residual_norm": True, "local_coordinates": True, "power": 0.2}

#: Database → data set whose database the "other words" are learned on.
OTHER = {"SMVS E63": "UKBench-56", "UKBench-56": "SMVS E63"}

#: Components kept by whitening.
N_COMPONENTS = 128


def encoders(
    n_words: int, seed: int, n_jobs: int, database: LocalFeatures, other: LocalFeatures
) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, encoder, and whether its vectors are to be whitened as well."""
    # Learned once, as each encoder would with this seed.
    words = KMeansCodebook(n_words, random_state=seed).fit(database)
    options: dict[str, Any] = {"codebook": words, "n_jobs": n_jobs, "random_state": seed}
    yield "power 0.5", VLAD(**options), False
    yield "intra", VLAD(**options, **INTRA), True
    yield "RN", VLAD(**options, residual_norm=True), False
    yield "RN, power 0.2", VLAD(**options, residual_norm=True, power=0.2), False
    yield "RN + LCS, power 0.2", VLAD(**options, **RN_LCS), True
    yield "soft", VLAD(**options, assignment="soft"), False
    yield "soft, intra", VLAD(**options, assignment="soft", **INTRA), False
    yield "soft, RN + LCS", VLAD(**options, assignment="soft", **RN_LCS), False
    options["codebook"] = KMeansCodebook(n_words, random_state=seed).fit(other)
    yield "other words, intra", VLAD(**options, **INTRA), False
    yield "adapted, intra", VLAD(**options, adapt_centers=True, **INTRA), False
    for name, normalisation in (("intra", INTRA), ("RN + LCS", RN_LCS)):
        vlad = VLAD(n_words=n_words, n_jobs=n_jobs, **normalisation)
        yield f"4 vocabularies, {name}", MultipleVocabularies(vlad, random_state=seed), True
    vlad = VLAD(n_words, assignment="posterior", n_jobs=n_jobs, random_state=seed, max_samples=100_000, **INTRA)
    yield "posteriors, intra", vlad, False


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
    parser.add_argument("--only", default="", help="data sets whose name contains this")
    arguments = parser.parse_args()
    folder = data_folder(arguments.data)
    extractor = SIFT(
        root=True, max_features=arguments.features, reader=ImageReader(max_size=640), n_jobs=arguments.jobs
    )
    sets = {name: chosen for name, chosen in datasets(folder).items() if arguments.only in name}
    databases = {name: extractor.transform(datasets(folder)[name][0].database_paths) for name in {*OTHER.values()}}
    queries = {name: extractor.transform(dataset.query_paths) for name, (dataset, _) in sets.items()}
    further = extractor.transform(sorted((folder / "imagenet1k_sample" / "images").glob("*")))
    print(f"VLAD {arguments.words}, RootSIFT, {arguments.features} features, {arguments.seeds} seeds", flush=True)
    figures: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for seed, (of_database, of_others) in product(range(arguments.seeds), OTHER.items()):
        # E63 and Canon are two sets of queries to the same references.
        asked = [name for name in sets if name.startswith(of_database[:4])]
        database = databases[of_database]
        if not asked:
            continue
        for row, encoder, is_whitened in encoders(
            arguments.words, seed, arguments.jobs, database, databases[of_others]
        ):
            vectors = encoder.fit(database).transform(database)
            whitening = None
            if is_whitened:
                whitening = PCAWhitening(N_COMPONENTS).fit(np.concatenate([vectors, encoder.transform(further)]))
            for name in asked:
                dataset, protocols = sets[name]
                pairs = {row: (vectors, encoder.transform(queries[name]))}
                if whitening is not None:
                    pairs[f"{row}, whitened"] = tuple(whitening.transform(part) for part in pairs[row])
                for label, (ours, theirs) in pairs.items():
                    rankings = rank(dataset, theirs, ours)
                    evaluated = evaluate_rankings(dataset.ground_truth, rankings, protocols)
                    for figure, value in evaluated.figures.items():
                        figures.setdefault((name, label, ours.shape[1]), {}).setdefault(figure, []).append(value)
    for (name, row, n_numbers), values in sorted(figures.items(), key=lambda item: list(sets).index(item[0][0])):
        text = "  ".join(f"{label} {statistics.mean(v):.4f} [{min(v):.4f}–{max(v):.4f}]" for label, v in values.items())
        print(f"{name:11} {row:34} {n_numbers:6} d  {text}")


if __name__ == "__main__":
    main()
