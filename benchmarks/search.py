"""Exact search: 1,000 queries on 100,000 vectors of 128 dimensions, beside faiss IndexFlatIP with the same threads.

    python benchmarks/search.py [--repeats 9] [--k 10] [--jobs 1]

Both indexes answer the same queries in turn within every repeat; the ratio is the median of the paired ones. Before
that, the two ranked lists are compared: keys may differ only where the scores are as good as equal. 1,000 queries are
also where faiss is at its best: 1.15 multiplies matrices from n_queries * n_dims = 128,000 on, and with fewer queries
scans the vectors once for each.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import Any

import numpy as np
from common import paired, report

from cvretrieval import DenseIndex

N_VECTORS, N_QUERIES, N_DIMS = 100_000, 1_000, 128
TARGET = 0.9


def unit_vectors(n_vectors: int, seed: int) -> np.ndarray:
    """Return random directions."""
    vectors = np.random.default_rng(seed).standard_normal((n_vectors, N_DIMS), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def compare(ours: Any, peer: Any) -> str:
    """Say how well two results (keys, scores) agree; raise if they do not."""
    (keys, scores), (peer_scores, peer_keys) = ours, peer
    error = float(np.abs(scores - peer_scores).max())
    if error > 1e-6:
        raise SystemExit(f"The scores differ by {error:g}.")
    same = keys == peer_keys
    return f"same key at {same.mean():.5%} of the places, scores within {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--jobs", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    arguments = parser.parse_args()
    vectors, queries = unit_vectors(N_VECTORS, 0), unit_vectors(N_QUERIES, 1)
    try:
        import faiss
    except ImportError:
        faiss = None
        print("faiss: not installed, skipped (pip install faiss-cpu)")
    peer = None
    if faiss is not None:
        peer = faiss.IndexFlatIP(N_DIMS)
        peer.add(vectors)
    print(f"{N_QUERIES:,} queries on {N_VECTORS:,} x {N_DIMS} float32, inner product")
    for n_jobs in arguments.jobs:
        index = DenseIndex(metric="inner_product", n_jobs=n_jobs).add(np.arange(N_VECTORS), vectors)
        if faiss is not None:
            faiss.omp_set_num_threads(n_jobs)
        for k in arguments.k:
            name = f"k={k}, {n_jobs} thread{'s' if n_jobs > 1 else ''}"
            ask = partial(index.search, queries, k)
            if peer is None:
                times, _ = paired(ask, lambda: None, arguments.repeats)
                print(f"{name}: ours {np.median(times) * 1e3:.2f} ms")
                continue
            ask_peer = partial(peer.search, queries, k)
            print(f"{name}: {compare(ask(), ask_peer())}")
            report(name, *paired(ask, ask_peer, arguments.repeats), "faiss IndexFlatIP", TARGET)


if __name__ == "__main__":
    main()
