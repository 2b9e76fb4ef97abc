"""Inverted file: queries, additions and size at many simulated images, beside SciPy's product of sparse matrices.

    python benchmarks/inverted_index.py [--images 100000] [--full] [--exponent 0.5] [--repeats 9] [--no-peer]

Simulated are images of 500 features each with words from a vocabulary of 1,000,000, drawn independently with
p ~ rank^-s. How skewed a vocabulary is says its imbalance factor, K sum p^2, by which the lists of a query are longer
than those of equally frequent words. Jegou et al. (IJCV 2010) give 1.21 for 20,000 words by k-means and 1.34 for a
hierarchical vocabulary; s = 0.5, the default here, has 3.6, so it is harder; s = 0 has 1. Queries are 500 words drawn
alike. --full takes 1,000,000 images, half a billion postings, and some 12 GB of memory for the peer.

The peer is scipy.sparse in both ways to write the product: images by words times the query, and, as an inverted file
would, the query times words by images; its matrix holds normalised tf-idf weights in float32, so norms and weights
cost it nothing. Its time includes the choice of the 100 best, as ours does. Both score lists are compared first. All in
one thread. The limit of the hardware is the time to read the postings of a query, three bytes each, at the measured
rate of memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from scipy.sparse import csr_matrix

from cvretrieval import InvertedIndex

N_WORDS, N_FEATURES, K = 1_000_000, 500, 100
CHUNK = 4096
MOST_MS, LEAST_RATIO, MOST_BYTES, LEAST_RATE = 20.0, 5.0, 6.0, 2000.0


def draw(n_images: int, exponent: float, seed: int) -> csr_matrix:
    """Return counts of words; the numbers of the words say nothing about their frequency."""
    names = np.random.default_rng(0).permutation(N_WORDS).astype(np.int32)
    ranks = N_WORDS * np.random.default_rng(seed).random(n_images * N_FEATURES) ** (1 / (1 - exponent))
    words = names[np.minimum(ranks.astype(np.int64), N_WORDS - 1)]
    offsets = np.arange(0, len(words) + 1, N_FEATURES)
    rows = csr_matrix((np.ones(len(words), dtype=np.float32), words, offsets), shape=(n_images, N_WORDS))
    rows.sum_duplicates()
    return rows


def imbalance(exponent: float) -> float:
    """Return K sum p^2 of p ~ rank^-s, as `draw` draws it."""
    edges = (np.arange(N_WORDS + 1) / N_WORDS) ** (1 - exponent)
    return float(N_WORDS * (np.diff(edges) ** 2).sum())


def fill(index: InvertedIndex, n_images: int, exponent: float, parts: list[csr_matrix] | None) -> float:
    """Add images chunk by chunk; return the seconds that took, and keep the chunks if asked."""
    seconds = 0.0
    for start in range(0, n_images, CHUNK):
        rows = draw(min(CHUNK, n_images - start), exponent, 1000 + start)
        keys = np.arange(start, start + rows.shape[0])
        begin = time.perf_counter()
        index.add(keys, rows)
        seconds += time.perf_counter() - begin
        if parts is not None:
            parts.append(rows)
    return seconds


def stack(parts: list[csr_matrix]) -> csr_matrix:
    """Stack chunks into one matrix, emptying the list: the memory is not needed twice."""
    n_values = sum(part.nnz for part in parts)
    shape = (sum(part.shape[0] for part in parts), N_WORDS)
    data, words = np.empty(n_values, dtype=np.float32), np.empty(n_values, dtype=np.int32)
    offsets = np.zeros(shape[0] + 1, dtype=np.int32)
    row = start = 0
    while parts:
        part = parts.pop(0)
        data[start : start + part.nnz], words[start : start + part.nnz] = part.data, part.indices
        offsets[row + 1 : row + 1 + part.shape[0]] = start + part.indptr[1:]
        row, start = row + part.shape[0], start + part.nnz
    return csr_matrix((data, words, offsets), shape=shape)


def weight(rows: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """Turn counts into normalised tf-idf weights, in place, some rows at a time."""
    idf = idf.astype(np.float32)
    for start in range(0, rows.shape[0], CHUNK):
        block = slice(rows.indptr[start], rows.indptr[min(start + CHUNK, rows.shape[0])])
        rows.data[block] *= idf[rows.indices[block]]
        lengths = np.diff(rows.indptr[start : start + CHUNK + 1])
        images = np.repeat(np.arange(len(lengths)), lengths)
        norms = np.sqrt(np.bincount(images, weights=rows.data[block].astype(np.float64) ** 2, minlength=len(lengths)))
        rows.data[block] /= np.maximum(norms, 1e-12).astype(np.float32)[images]
    return rows


def best(scores: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and scores of the K best."""
    places = np.argpartition(scores, max(0, len(scores) - K))[-K:]
    places = places[np.argsort(-scores[places], kind="stable")]
    return places if keys is None else keys[places], scores[places]


def memory_rate() -> float:
    """Return bytes per second of summing an array far larger than the caches."""
    array = np.ones(2**27, dtype=np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        array.sum()
        times.append(time.perf_counter() - start)
    return array.nbytes / min(times)


def timed(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--full", action="store_true", help="1,000,000 images")
    parser.add_argument("--exponent", type=float, default=0.5, help="s, from 0 to below 1")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the index is stored for the time of the run")
    arguments = parser.parse_args()
    n_images = 1_000_000 if arguments.full else arguments.images
    print(
        f"{n_images:,} images of {N_FEATURES} words, {N_WORDS:,} words, p ~ rank^-{arguments.exponent:g} "
        f"(imbalance factor {imbalance(arguments.exponent):.2f})"
    )
    InvertedIndex().add([0], draw(1, arguments.exponent, 1)).search(draw(1, arguments.exponent, 1), 1)  # compile
    parts: list[csr_matrix] | None = None if arguments.no_peer else []
    index = InvertedIndex()
    seconds = fill(index, n_images, arguments.exponent, parts)
    rate = n_images / seconds
    print(
        f"added {rate:,.0f} images/s in calls of {CHUNK:,} (target >= {LEAST_RATE:,.0f}: {verdict(rate >= LEAST_RATE)})"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(f"saved in {timed(lambda: index.save(Path(folder, 'index'))):.1f} s")
        stats = index.stats()
        on_disk = sum(file.stat().st_size for file in Path(folder, "index").iterdir())
        per_posting = on_disk / stats["n_postings"]
        print(
            f"{stats['n_postings']:,} postings in {stats['n_segments']} segments, {per_posting:.2f} bytes each on disk "
            f"(target <= {MOST_BYTES:g}: {verdict(per_posting <= MOST_BYTES)})"
        )
        start = time.perf_counter()
        index = InvertedIndex.open(Path(folder, "index"))
        print(f"opened in {time.perf_counter() - start:.1f} s, every byte compared with its checksum")
        queries = [draw(1, arguments.exponent, 10 + number) for number in range(arguments.repeats + 1)]
        print(f"first search {timed(lambda: index.search(queries[0], K)):.2f} s, norms of all images included")
        times = compare(index, queries, parts)
        median = statistics.median(times)
        words = np.concatenate([query.indices for query in queries[1:]])
        n_read = sum(np.diff(s.postings.starts)[np.isin(s.postings.words, words)].sum(dtype=np.int64)
                     for s in index._segments.segments) / (len(queries) - 1)  # fmt: skip
        limit = 3 * n_read / memory_rate()
        print(
            f"a query: {median * 1e3:.2f} ms (target <= {MOST_MS:g} ms: {verdict(median * 1e3 <= MOST_MS)}), "
            f"{n_read:,.0f} postings, {median / n_read * 1e9:.2f} ns each; reading them takes {limit * 1e3:.2f} ms"
        )


def compare(index: InvertedIndex, queries: list[csr_matrix], parts: list[csr_matrix] | None) -> list[float]:
    """Time the queries, in turn with the peer's products; return our seconds."""
    if parts is None:
        return [timed(lambda query=query: index.search(query, K)) for query in queries[1:]]
    idf = index.idf_
    matrix = weight(stack(parts), idf)
    weighted = [weight(query.copy(), idf) for query in queries]

    def images_by_words(query: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        return best(matrix @ query.toarray()[0])

    def words_by_images(query: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        product = query @ matrix
        return best(product.data, product.indices)

    ways = {"SciPy, images by words": images_by_words, "SciPy, words by images": words_by_images}
    all_times = []
    for name, way in ways.items():
        if way is words_by_images:
            matrix = matrix.T.tocsr()
        found, expected = index.search(queries[0], K), way(weighted[0])
        error = float(np.abs(found[1][0] - expected[1]).max())
        if error > 1e-5:
            raise SystemExit(f"The scores differ by {error:g}.")
        same = len(np.intersect1d(found[0][0], expected[0]))
        times: tuple[list[float], list[float]] = ([], [])
        for query, weights in zip(queries[1:], weighted[1:], strict=True):
            times[0].append(timed(lambda query=query: index.search(query, K)))
            times[1].append(timed(lambda weights=weights, way=way: way(weights)))
        print(f"scores within {error:.1e}, {same} of the {K} best the same")
        report(name, *times, "SciPy", LEAST_RATIO)
        all_times += times[0]
    return all_times


if __name__ == "__main__":
    main()
