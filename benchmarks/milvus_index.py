"""Vectors in Milvus Lite beside the embedded index and faiss: how fast they go in, what a query costs, what it finds.

100,000 vectors of 128 dimensions around 1,000 centres, added in ten parts; then the ten best for 100 queries, one by
one and all at once, by `MilvusIndex` (flat, HNSW, IVF), `DenseIndex` and `FaissIndex`, one thread each. Milvus Lite is
for one machine and in Python; a server is another program, and is not measured here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval import DenseIndex, FaissIndex, MilvusIndex

N_QUERIES, K = 100, 10
PARTS = 10


def measure(folder: Path, n: int = 100_000, n_dims: int = 128) -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1000, n_dims))
    rows = centers[rng.integers(0, 1000, n + N_QUERIES)] + 0.5 * rng.normal(size=(n + N_QUERIES, n_dims))
    vectors, queries = np.split(rows.astype(np.float32), [n])
    uri = str(folder / "scaling.db")
    engines: dict[str, Any] = {
        "DenseIndex": DenseIndex(n_jobs=1),
        "FaissIndex(recall=0.95)": FaissIndex(n_jobs=1),
        **{
            f"MilvusIndex({structure})": MilvusIndex(uri, structure=structure, n_jobs=1)
            for structure in ("flat", "hnsw", "ivf")
        },
    }
    print(f"{n} vectors of {n_dims} dimensions, the {K} best", flush=True)
    expected = None
    for name, index in engines.items():
        start = time.perf_counter()
        for part in np.array_split(np.arange(n), PARTS):
            index.add(part, vectors[part])
        per_second = n / (time.perf_counter() - start)
        start = time.perf_counter()
        index.save(folder / f"{type(index).__name__}-{getattr(index, 'structure', 'exact')}")
        saved = time.perf_counter() - start
        start = time.perf_counter()
        index.search(queries[:1], K)
        first = time.perf_counter() - start
        seconds, found = [], []
        for query in queries:
            start = time.perf_counter()
            found.append(index.search(query[None], K)[0][0])
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        index.search(queries, K)
        at_once = (time.perf_counter() - start) / N_QUERIES
        if expected is None:
            expected = found
        recall = np.mean([np.isin(e, f).mean() for e, f in zip(expected, found, strict=True)])
        target = "  (target ≥ 5,000)" if isinstance(index, MilvusIndex) else ""
        print(
            f"{name}: {per_second:,.0f} vectors/s in{target}, saved in {saved:.1f} s; the first query {first:.2f} s, "
            f"then {statistics.median(seconds) * 1e3:.1f} ms, of {N_QUERIES} at once {at_once * 1e3:.1f} ms; "
            f"recall {recall:.3f}",
            flush=True,
        )
        if isinstance(index, MilvusIndex):
            index.drop()
    MilvusIndex(uri).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.vectors, arguments.dims)


if __name__ == "__main__":
    main()
