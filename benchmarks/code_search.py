"""Exhaustive search of bits and of product codes, beside faiss's, one thread.

    OMP_NUM_THREADS=1 python benchmarks/code_search.py [--n 1000000] [--queries 100] [--repeats 5]
        [--bit-bytes 16 32 64] [--code-bytes 8 16 32]

Bits: `BinaryIndex` and faiss IndexBinaryFlat on 10,000 random codes of which each vector has one eighth of the bits
changed. Product codes: `PQIndex` and faiss IndexPQ with the codewords of one `ProductQuantizer`, learned on 50,000 of
the 128-d vectors: normal around 10,000 normal centres, half as wide. Both find the same: distances are compared first.
"""

from __future__ import annotations

import argparse

import faiss
import numpy as np
from common import paired, report

from cvretrieval import BinaryIndex, PQIndex, ProductQuantizer

N_DIMS = 128


def bits(n: int, n_queries: int, n_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and queries."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (10_000, n_bytes), dtype=np.uint8)

    def draw(size: int) -> np.ndarray:
        noise = rng.integers(0, 256, (3, size, n_bytes), dtype=np.uint8)
        return centers[rng.integers(0, len(centers), size)] ^ (noise[0] & noise[1] & noise[2])

    return draw(n), draw(n_queries)


def peer_of(quantizer: ProductQuantizer) -> faiss.IndexPQ:
    """Return faiss's index with the same codewords."""
    n_subvectors = len(quantizer.bounds_) - 1
    index = faiss.IndexPQ(N_DIMS, n_subvectors, 8)
    # faiss has all codewords of the first sub-vector, then those of the second.
    words = quantizer.codewords_.reshape(256, n_subvectors, -1).transpose(1, 0, 2)
    faiss.copy_array_to_vector(np.ascontiguousarray(words).ravel(), index.pq.centroids)
    index.is_trained = True
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bit-bytes", type=int, nargs="*", default=[16, 32, 64], help="lengths of codes of bits")
    parser.add_argument("--code-bytes", type=int, nargs="*", default=[8, 16, 32], help="lengths of product codes")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    keys = np.arange(arguments.n)
    for n_bytes in arguments.bit_bytes:
        codes, queries = bits(arguments.n, arguments.queries, n_bytes)
        ours = BinaryIndex().add(keys, codes)
        peer = faiss.IndexBinaryFlat(8 * n_bytes)
        peer.add(codes)
        for k in (10, 100):
            if not np.array_equal(-ours.search(queries, k)[1], peer.search(queries, k)[0]):
                raise SystemExit("The distances differ.")
            times = paired(
                lambda k=k, index=ours, queries=queries: index.search(queries, k),
                lambda k=k, index=peer, queries=queries: index.search(queries, k),
                arguments.repeats,
            )
            report(f"{8 * n_bytes} bits, {arguments.queries} queries, k={k}", *times, "faiss IndexBinaryFlat")
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((10_000, N_DIMS), dtype=np.float32)

    def draw(size: int) -> np.ndarray:
        noise = rng.standard_normal((size, N_DIMS), dtype=np.float32)
        return centers[rng.integers(0, len(centers), size)] + np.float32(0.5) * noise

    vectors, queries = draw(arguments.n), draw(arguments.queries)
    for n_subvectors in arguments.code_bytes:
        quantizer = ProductQuantizer(n_subvectors, max_iter=10, n_jobs=-1, random_state=0).fit(vectors[:50_000])
        ours = PQIndex(quantizer, "l2").add(keys, vectors)
        peer = peer_of(quantizer)
        # Its own coding differs where two codewords are all but equally near.
        faiss.copy_array_to_vector(quantizer.transform(vectors).ravel(), peer.codes)
        peer.ntotal = len(vectors)
        for k in (10, 100):
            if not np.allclose(-ours.search(queries, k)[1], peer.search(queries, k)[0], rtol=1e-3, atol=1e-3):
                raise SystemExit("The distances differ.")
            times = paired(
                lambda k=k, index=ours: index.search(queries, k),
                lambda k=k, index=peer: index.search(queries, k),
                arguments.repeats,
            )
            report(f"{n_subvectors} bytes, {arguments.queries} queries, k={k}", *times, "faiss IndexPQ")


if __name__ == "__main__":
    main()
