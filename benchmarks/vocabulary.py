"""Vocabularies of up to a million words: learned out of core, and descriptors assigned to them; time, memory, recall.

Descriptors are dense SIFT of 15-Scene's photographs (random ones without data) at several scales, written once to a
temporary memory-mapped file of bytes; those of the last photographs are only ever looked up. Rows, each a function, are
chosen by ``--rows``; they need the words of the first:

``learn``
    Approximate k-means (`KMeansCodebook(algorithm="approximate")`) and hierarchical k-means (`VocabularyTree`) on the
    memory-mapped descriptors, two threads: minutes, and the peak resident memory of a process that does nothing else.
    Pages of the file that lie in memory count.
``curve``
    Assignment, one thread: descriptors per second and share of them that find the nearest word, for several numbers of
    probes; then faiss's IVF and HNSW where it is installed. The nearest words are found by products with all words and
    distances in float64, apart from the library. HNSW of a million words takes long to build: ``--hnsw-words`` says on
    how many it is built, and ours is measured on the same then.
``threads``
    Assignment by two threads against one.
``tree``
    Descent of the tree, one thread, and the share of descents that end in the nearest leaf.

By default 100,000 words from 1,000,000 descriptors; ``--full`` is a million from ten million, for an hour.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, paired, report

from cvretrieval import ApproximateWords, DenseSIFT, ImageReader, LocalFeatures, load_model
from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks.probe_choice import choose_probes
from cvretrieval.codebooks.word_cells import WordCells

N_LOOKED_UP = 262_144
N_MEASURED = 4096
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def write_descriptors(folder: Path | None, file: Path, n: int) -> None:
    """Write `n` descriptors to a file, photograph by photograph in random order: bytes, none of them zero."""
    rows = np.lib.format.open_memmap(file, "w+", np.uint8, (n, 128))
    if folder is None:
        rng = np.random.default_rng(0)
        for start in range(0, n, 2**17):
            part = rng.gamma(0.5, 30, (min(2**17, n - start), 128))
            rows[start : start + len(part)] = part.clip(0, 255)
        return
    paths = sorted(path for path in (folder / "scene15").rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    dense = DenseSIFT(step=5, scales=(1.0, 1.5, 2.0), reader=ImageReader(max_size=300), n_jobs=2)
    n_written = 0
    for start in range(0, len(paths), 64):
        found = dense.transform(paths[start : start + 64]).descriptors
        found = np.rint(found[found.any(axis=1)]).clip(0, 255)[: n - n_written]
        rows[n_written : n_written + len(found)] = found
        n_written += len(found)
        if n_written == n:
            return
    raise SystemExit(f"The photographs have {n_written} descriptors only: ask for fewer.")


_LEARN_PROGRAM = """
import sys, time
import numpy as np
from cvretrieval import KMeansCodebook, LocalFeatures, VocabularyTree
kind, file, n, n_words, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rows = np.load(file, mmap_mode="r")[:n]
X = LocalFeatures(rows, np.array([0, len(rows)]))
def peak():
    # Not getrusage: a process inherits that peak from the one that started it.
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM"))
    except OSError:
        return float("nan")
if kind == "tree":
    model = VocabularyTree(10, round(np.log10(n_words)), max_samples=None, n_jobs=2, random_state=0)
else:
    model = KMeansCodebook(n_words, algorithm="approximate", assignment="approximate", recall=0.9, max_samples=None,
                           max_iter=int(sys.argv[6]), n_jobs=2, random_state=0)
begun = time.perf_counter()
model.fit(X)
seconds = time.perf_counter() - begun
highest = peak()
print(seconds, highest, len(model.cluster_centers_))
if kind != "tree":
    print(model.n_iter_, model.inertia_, model.n_empty_words_, model.search_.recall_, model.search_.n_probes_)
model.save(out)
"""


def learn_row(file: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Learn both vocabularies, each in a process of its own."""
    for kind in ("tree", "words"):
        command = [sys.executable, "-W", "ignore", "-c", _LEARN_PROGRAM, kind, str(file), str(arguments.descriptors),
                   str(arguments.words), str(folder / f"{kind}.cvm"), str(arguments.iterations)]  # fmt: skip
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        seconds, gigabytes, n_words = (float(value) for value in lines[0].split())
        met = "met" if seconds <= 3600 and gigabytes <= 6 else "MISSED"
        name = "vocabulary tree" if kind == "tree" else "approximate k-means"
        print(
            f"{name}: {n_words:.0f} words from {arguments.descriptors} descriptors in {seconds / 60:.1f} min, two "
            f"threads, peak memory {gigabytes:.2f} GB  (target ≤ 60 min, ≤ 6 GB: {met})"
        )
        for line in lines[1:]:
            n_iter, inertia, n_empty, recall, n_probes = (float(value) for value in line.split())
            print(
                f"  {n_iter:.0f} iterations, mean squared distance {inertia / arguments.descriptors:.0f}, "
                f"{n_empty:.0f} words empty; {n_probes:.0f} probes for a recall of {recall:.3f} on descriptors left out"
            )


def squared_distances_of_nearest(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row to the nearest word: candidates by products, distances in float64."""
    half = 0.5 * np.einsum("ij,ij->i", words, words)
    best = np.full(len(rows), np.inf)
    queries = rows.astype(np.float32)
    for start in range(0, len(words), 20_000):
        part = words[start : start + 20_000]
        scores = queries @ part.T - half[start : start + 20_000]
        # Products in float32 may confuse the very first: the best four are measured.
        few = np.argpartition(-scores, 3, axis=1)[:, :4]
        distances = ((queries[:, None].astype(np.float64) - part[few]) ** 2).sum(axis=2)
        best = np.minimum(best, distances.min(axis=1))
    return best


def share_of_nearest(rows: np.ndarray, words: np.ndarray, found: np.ndarray, nearest: np.ndarray) -> float:
    """Return the share of rows whose word is as near as the nearest."""
    distances = ((rows.astype(np.float64) - words[found]) ** 2).sum(axis=1)
    return float((distances <= nearest * (1 + 1e-6) + 1e-6).mean())


def speed(run: Callable[[], object], n: int, repeats: int) -> float:
    """Return the median number of descriptors per second, after one run that warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return n / statistics.median(seconds)


def product_rate() -> float:
    """Return the operations per second of one thread in products of the size that a cell needs."""
    a, b = np.ones((64, 48), np.float32), np.ones((128, 48), np.float32)
    out = np.empty((64, 128), np.float32)

    def multiply() -> None:
        for _ in range(5000):
            np.matmul(a, b.T, out=out)

    return 2 * 64 * 128 * 48 * speed(multiply, 5000, 3)


def curve_row(file: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Recall against speed: ours, then faiss."""
    codebook = load_model(folder / "words.cvm")
    looked_up = looked_up_descriptors(file)
    measured = looked_up[:: len(looked_up) // N_MEASURED][:N_MEASURED]
    with single_threaded():
        rate = product_rate()
        print(f"  products of a cell: {rate / 1e9:.0f} GFLOP/s, one thread")
        words = codebook.cluster_centers_
        ours_curve(codebook.search_, looked_up, measured, rate, arguments.repeats)
        faiss_ivf_curve(words, looked_up, measured, arguments.repeats)
        n = min(arguments.hnsw_words, len(words))
        if n < len(words):
            fewer = np.ascontiguousarray(words[np.sort(np.random.default_rng(0).permutation(len(words))[:n])])
            print(f"  the same on {n} of the words, on which HNSW is built:")
            search = ApproximateWords(n_probes=8, random_state=0).fit_words(fewer, measured)
            ours_curve(search, looked_up, measured, rate, arguments.repeats)
            words = fewer
        faiss_hnsw_curve(words, looked_up, measured, arguments.repeats)


def ours_curve(
    search: ApproximateWords, looked_up: np.ndarray, measured: np.ndarray, rate: float, repeats: int
) -> None:
    words = search.cluster_centers_
    nearest = squared_distances_of_nearest(measured, words)
    cells = search._prepare()
    if not isinstance(cells, WordCells):
        raise SystemExit("The codebook was not learned with cells.")
    X = LocalFeatures(looked_up, np.array([0, len(looked_up)]))
    exact = 2 * words.size / rate
    print(f"  products with all {len(words)} words: {1 / exact:.0f} descriptors/s at most")
    best = None
    for n_probes in PROBES:
        if n_probes >= cells.n_cells:
            break
        choice = choose_probes(cells, measured, 1.0, n_probes, None)
        search.n_groups_, search.n_probes_, search.recall_ = choice
        found = search.predict([measured])
        recall = share_of_nearest(measured, words, found, nearest)
        per_second = speed(lambda: search.predict(X), len(looked_up), repeats)
        nodes = cells.rank(cells.project(measured)[0], choice.n_groups, n_probes)
        visited = float(cells.sizes[nodes].sum(axis=1).mean())
        limit = rate / (2 * visited * (len(search.basis_) + 2))
        print(
            f"  ours, {n_probes} of {cells.n_cells} cells: recall {recall:.3f}, {per_second / 1e3:.0f} thousand "
            f"descriptors/s; {visited:.0f} words bounded each (their products alone: {limit / 1e3:.0f} thousand/s)"
        )
        if per_second >= 200_000:
            best = recall
    verdict = "MISSED at every recall" if best is None else f"met up to a recall of {best:.3f}"
    print(f"assignment to {len(words)} words, one thread (target ≥ 200 thousand descriptors/s): {verdict}")


def faiss_ivf_curve(words: np.ndarray, looked_up: np.ndarray, measured: np.ndarray, repeats: int) -> None:
    """faiss's inverted file of the words in as many cells as ours; flat, so that its distances are exact."""
    faiss = import_faiss()
    if faiss is None:
        return
    n_lists = 8 * int(np.sqrt(len(words)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(words.shape[1]), words.shape[1], n_lists)
    index.cp.niter = 10
    begun = time.perf_counter()
    index.train(words)
    index.add(words)
    print(f"  faiss IVF: {n_lists} cells, made in {time.perf_counter() - begun:.0f} s")
    nearest = squared_distances_of_nearest(measured, words)
    for n_probes in PROBES:
        index.nprobe = n_probes
        faiss_point(f"faiss IVF, {n_probes} cells", index, words, looked_up, measured, nearest, repeats)


def faiss_hnsw_curve(words: np.ndarray, looked_up: np.ndarray, measured: np.ndarray, repeats: int) -> None:
    """faiss's graph, 32 neighbours each."""
    faiss = import_faiss()
    if faiss is None:
        return
    index = faiss.IndexHNSWFlat(words.shape[1], 32)
    index.hnsw.efConstruction = 80
    begun = time.perf_counter()
    index.add(words)
    print(f"  faiss HNSW: {len(words)} words, built in {(time.perf_counter() - begun) / 60:.1f} min")
    nearest = squared_distances_of_nearest(measured, words)
    for size in (8, 16, 32, 64, 128, 256):
        index.hnsw.efSearch = size
        faiss_point(f"faiss HNSW, efSearch {size}", index, words, looked_up, measured, nearest, repeats)


def faiss_point(
    name: str, index: Any, words: np.ndarray, looked_up: np.ndarray, measured: np.ndarray, nearest: np.ndarray,
    repeats: int,
) -> None:  # fmt: skip
    """Print one point of faiss's curve; the graph is slow, so it gets fewer descriptors."""
    few = np.ascontiguousarray(looked_up[:16_384].astype(np.float32))
    found = index.search(measured.astype(np.float32), 1)[1][:, 0]
    recall = share_of_nearest(measured, words, found, nearest)
    per_second = speed(lambda: index.search(few, 1), len(few), repeats)
    print(f"  {name}: recall {recall:.3f}, {per_second / 1e3:.1f} thousand descriptors/s")


def import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        print("faiss: skipped, not installed (pip install faiss-cpu)")
        return None
    faiss.omp_set_num_threads(1)
    return faiss


def threads_row(file: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Assignment by two threads against one."""
    codebook = load_model(folder / "words.cvm")
    looked_up = np.concatenate([looked_up_descriptors(file)] * 2)
    X = LocalFeatures(looked_up, np.array([0, len(looked_up)]))
    one, two = (lambda n_jobs=n_jobs: codebook.search_.assign(X, n_jobs=n_jobs, owner=codebook) for n_jobs in (1, 2))
    if not np.array_equal(one(), two()):
        raise SystemExit("Two threads found other words than one.")
    name = f"assignment to {len(codebook.cluster_centers_)} words, two threads against one"
    report(name, *paired(two, one, arguments.repeats), "one thread", target=1.8)


def tree_row(file: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Descent, one thread."""
    tree = load_model(folder / "tree.cvm").set_params(n_jobs=1)
    looked_up = looked_up_descriptors(file)
    measured = looked_up[:: len(looked_up) // N_MEASURED][:N_MEASURED]
    words = tree.cluster_centers_
    nearest = squared_distances_of_nearest(measured, words)
    recall = share_of_nearest(measured, words, tree.predict([measured]), nearest)
    X = LocalFeatures(looked_up, np.array([0, len(looked_up)]))
    per_second = speed(lambda: tree.predict(X), len(looked_up), arguments.repeats)
    print(
        f"descent of a tree with {len(words)} leaves: {per_second / 1e3:.0f} thousand descriptors/s, one thread; "
        f"{recall:.3f} end in the nearest leaf"
    )


def looked_up_descriptors(file: Path) -> np.ndarray:
    return np.ascontiguousarray(np.load(file, mmap_mode="r")[-N_LOOKED_UP:])


ROWS: dict[str, Callable[[Path, Path, argparse.Namespace], None]] = {
    "learn": learn_row,
    "curve": curve_row,
    "threads": threads_row,
    "tree": tree_row,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA; random descriptors without)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--full", action="store_true", help="a million words from ten million descriptors")
    parser.add_argument("--words", type=int, help="default: 100,000, or 1,000,000 with --full")
    parser.add_argument("--descriptors", type=int, help="default: ten for each word")
    parser.add_argument("--iterations", type=int, default=10, help="of approximate k-means, at most")
    parser.add_argument("--hnsw-words", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where descriptors and words are kept (default: a temporary folder)")
    arguments = parser.parse_args()
    arguments.words = arguments.words or (1_000_000 if arguments.full else 100_000)
    arguments.descriptors = arguments.descriptors or 10 * arguments.words
    with_data = arguments.data or os.environ.get("CVRETRIEVAL_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary, str(arguments.words))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"descriptors{arguments.descriptors}.npy"
        if not file.exists():
            images = data_folder(arguments.data) if with_data else None
            write_descriptors(images, file, arguments.descriptors + N_LOOKED_UP)
        kind = "dense SIFT of photographs" if with_data else "random descriptors"
        print(f"{kind}: {arguments.descriptors} to learn from, {N_LOOKED_UP} to look up", flush=True)
        for row in arguments.rows:
            ROWS[row](file, folder, arguments)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
