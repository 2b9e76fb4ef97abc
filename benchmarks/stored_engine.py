"""The inverted file of an index folder: built from the shards, opened by the next process, extended by one image.

    python benchmarks/stored_engine.py [--images 100000] [--method bow|hamming]

Simulated are images of 300 features with words of a vocabulary of 200,000, squared uniform numbers, so that some words
are frequent. Reading the manifest is timed apart: it holds a row for each image, whatever the engine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cvretrieval import InvertedIndex, VisualWords
from cvretrieval._state import to_config
from cvretrieval.retrieval.engine import Engine
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.retrieval.store import Store

N_WORDS, N_FEATURES, SHARD = 200_000, 300, 1024


def draw(n_images: int, method: str, rng: np.random.Generator) -> Any:
    """Return rows of a shard."""
    words = np.sort((N_WORDS * rng.random((n_images, N_FEATURES)) ** 2).astype(np.int32), axis=1).ravel()
    offsets = np.arange(0, n_images * N_FEATURES + 1, N_FEATURES)
    if method == "hamming":
        return VisualWords(words, rng.integers(0, 2**64, (len(words), 1), dtype=np.uint64), offsets, N_WORDS)
    rows = csr_array((np.ones(len(words), np.float32), words, offsets), shape=(n_images, N_WORDS))
    rows.sum_duplicates()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--method", choices=("bow", "hamming"), default="bow")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    template = InvertedIndex("cosine" if arguments.method == "bow" else "hamming_embedding")

    def seconds(do: Any) -> tuple[float, Any]:
        start = time.perf_counter()
        result = do()
        return time.perf_counter() - start, result

    def write(store: Store, names: list[str]) -> None:
        records = [ImageRecord(name, n_features=N_FEATURES) for name in names]
        store.write_shard(records, None, draw(len(names), arguments.method, rng))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.cvr")
        with Store.create(path, {"index": to_config(template)}) as store:
            for first in range(0, arguments.images, SHARD):
                write(store, [f"image {i}" for i in range(first, min(first + SHARD, arguments.images))])
            taken, _ = seconds(lambda: Engine().write(store, template, None))
            print(f"built and saved in {taken:.1f} s, {arguments.images / taken:,.0f} images/s")
        query = draw(1, arguments.method, rng)
        for what in ("compiling", "another process"):
            manifest, store = seconds(lambda: Store.open(path))
            opening, engine = seconds(lambda: Engine().current(store, template, None))  # noqa: B023
            first_query, _ = seconds(lambda: engine.search(query, 10))  # noqa: B023
            query_time, _ = seconds(lambda: engine.search(query, 10))  # noqa: B023
            print(
                f"{what}: manifest {manifest:.2f} s, engine {opening:.3f} s, first query {1e3 * first_query:.1f} ms, "
                f"next {1e3 * query_time:.1f} ms"
            )
            facts = store.info()
            store.close()
        sizes = [facts[f"n_bytes_{name}"] / arguments.images for name in ("vectors", "engine")]
        print(f"bytes per image: {sizes[0]:,.0f} in shards, {sizes[1]:,.0f} in the engine")
        with Store.open(path, mode="w") as store:
            write(store, ["new"])
            print(f"one more image: {seconds(lambda: Engine().write(store, template, None))[0]:.2f} s")


if __name__ == "__main__":
    main()
