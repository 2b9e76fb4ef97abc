"""Codebooks: mixtures against scikit-learn and VLFeat, k-means against scikit-learn and faiss, time and memory.

Descriptors are dense RootSIFT of photographs (synthetic ones without data), without those of uniform regions, which
are zero; PCA-64 of them for the mixtures. Rows, each a function, are chosen by ``--rows``:

``em``
    EM from one start, the same number of iterations on all sides, one thread each. The mean log-likelihoods of the
    resulting mixtures, which the benchmark computes in float64 on a part of the descriptors, must agree to 1e-3. VLFeat
    is Debian's ``libvlfeat1`` through ctypes; against it, ours leaves out small posteriors as it does.
``em_memory``
    Peak resident memory of a process that fits, less that of one that only loads the same descriptors.
``em_threads``
    Two threads against one.
``kmeans``
    1,024 words, two threads each, every side from a start of its own: ours from k-means++ and iterations on samples,
    which its time includes, the others from random descriptors, scikit-learn's fastest start. Every side makes as few
    iterations on all descriptors as it takes to come within 0.5 % of the best inertia that the others reach in 25, the
    number that faiss makes by default; inertias are computed from the centres by one function.
``kmeans_threads``
    Two threads against one.

The physical limit of a row is the time of its matrix products alone, over blocks of the same size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, paired, report
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from vlad import synthetic
from vlfeat_gmm import VLFeatGMM

from cvretrieval import DenseSIFT, GMMCodebook, ImageReader, KMeansCodebook, LocalFeatures
from cvretrieval._parallel import map_blocks, single_threaded
from cvretrieval.codebooks.assignment import BLOCK, NearestWord
from cvretrieval.codebooks.posteriors import BLOCK as POSTERIOR_BLOCK

Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]


def descriptors(folder: Path | None, n: int) -> np.ndarray:
    """Return dense RootSIFT of photographs in random order, at most `n`."""
    if folder is None:
        rows = synthetic(n // 1000, 1000).descriptors
    else:
        paths = sorted(path for path in (folder / "scene15").rglob("*") if path.suffix.lower() in (".jpg", ".png"))
        paths = paths[:: max(1, len(paths) // 800)]
        rows = DenseSIFT(step=5, root=True, reader=ImageReader(max_size=300), n_jobs=-1).transform(paths).descriptors
        rows = rows[np.einsum("ij,ij->i", rows, rows) > 0.5]
    order = np.random.default_rng(0).permutation(len(rows))[:n]
    return rows[order]


def as_features(rows: np.ndarray) -> LocalFeatures:
    return LocalFeatures(rows, np.array([0, len(rows)]))


def log_likelihood(rows: np.ndarray, parameters: Parameters) -> float:
    """Mean log-likelihood of every tenth row, in float64."""
    weights, means, covariances = (np.asarray(array, dtype=np.float64) for array in parameters)
    total, rows = 0.0, rows[::10].astype(np.float64)
    constants = np.log(np.maximum(weights, 1e-300)) - 0.5 * np.log(2 * np.pi * covariances).sum(axis=1)
    for start in range(0, len(rows), 2000):
        block = rows[start : start + 2000]
        distances = block**2 @ (1 / covariances).T - 2 * block @ (means / covariances).T
        joint = constants - 0.5 * (distances + (means**2 / covariances).sum(axis=1))
        total += float(np.logaddexp.reduce(joint, axis=1).sum())
    return total / len(rows)


def em_start(rows: np.ndarray, n_components: int) -> Parameters:
    """The start that all sides get."""
    gmm = GMMCodebook(n_components, max_iter=1, random_state=0).fit(as_features(rows[::5]))
    return gmm.weights_, gmm.means_, gmm.covariances_


def ours_em(
    rows: np.ndarray, start: Parameters, max_iter: int, *, n_jobs: int = 1, min_posterior: float = 0.0
) -> Callable[[], Parameters]:
    given = dict(zip(("weights_init", "means_init", "covariances_init"), start, strict=True))

    def run() -> Parameters:
        gmm = GMMCodebook(
            len(start[0]), **given, max_iter=max_iter, tol=0, max_samples=None, n_jobs=n_jobs,
            min_posterior=min_posterior,
        ).fit(as_features(rows))  # fmt: skip
        return gmm.weights_, gmm.means_, gmm.covariances_

    return run


def scikit_learn_em(rows: np.ndarray, start: Parameters, max_iter: int) -> Callable[[], Parameters]:
    """scikit-learn's mixture on float32 descriptors, as they are; k-means is not run, since all is given."""

    def run() -> Parameters:
        weights, means, covariances = start
        gmm = GaussianMixture(
            len(weights), covariance_type="diag", weights_init=weights, means_init=means,
            precisions_init=1 / covariances, max_iter=max_iter, tol=0, reg_covar=0, init_params="random_from_data",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            gmm.fit(rows)
        return gmm.weights_, gmm.means_, gmm.covariances_

    return run


def em_products_alone(n_rows: int, n_components: int, n_dims: int, max_iter: int) -> Callable[[], None]:
    """The matrix products of the fit: densities in all iterations and after the last, statistics in all iterations."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(n_components, 2 * n_dims)).astype(np.float32)
    features = rng.normal(size=(POSTERIOR_BLOCK, 2 * n_dims)).astype(np.float32)
    posteriors = np.empty((n_components, POSTERIOR_BLOCK), dtype=np.float32)
    sums = np.empty_like(factors)

    def run() -> None:
        for iteration in range(max_iter + 1):
            for _ in range(n_rows // POSTERIOR_BLOCK):
                np.matmul(factors, features.T, out=posteriors)
                if iteration < max_iter:
                    np.matmul(posteriors, features, out=sums)

    return run


def em_row(rows: np.ndarray, arguments: argparse.Namespace) -> None:
    """EM against scikit-learn and VLFeat, one thread each."""
    for n_components in (64, 256):
        # The peers take minutes with many components.
        max_iter = arguments.iterations if n_components <= 64 else max(2, arguments.iterations // 3)
        start = em_start(rows, n_components)
        ours = ours_em(rows, start, max_iter)
        name = f"EM, {len(rows)} x {rows.shape[1]}, {n_components} components, {max_iter} iterations, one thread"
        with single_threaded():
            products = em_products_alone(len(rows), n_components, rows.shape[1], max_iter)
            times, limit = paired(ours, products, arguments.repeats)
            operations = 4 * len(rows) * n_components * rows.shape[1] * (2 * max_iter + 1)
            print(f"  {operations / statistics.median(limit) / 1e9:.0f} GFLOP/s in matrix products alone")
            report(f"{name}, share", times, limit, "products alone")
            compare_em(name, rows, ours, "scikit-learn", scikit_learn_em(rows, start, max_iter), arguments, target=6)
            try:
                vlfeat = VLFeatGMM()
            except OSError:
                print("VLFeat: skipped, libvl.so.1 is not installed (Debian: libvlfeat1)")
                continue
            ours = ours_em(rows, start, max_iter, min_posterior=0.01)
            run = partial(vlfeat, rows, *start, max_iter)
            compare_em(name, rows, ours, "VLFeat", run, arguments, target=4)


def compare_em(
    name: str, rows: np.ndarray, ours: Callable[[], Parameters], peer: str, run: Callable[[], Parameters],
    arguments: argparse.Namespace, target: float,
) -> None:  # fmt: skip
    """Check that both sides come to the same mixture, then time them."""
    reached, theirs = log_likelihood(rows, ours()), log_likelihood(rows, run())
    print(f"  mean log-likelihood: ours {reached:.4f}, {peer} {theirs:.4f}")
    if abs(reached - theirs) > 1e-3:
        raise SystemExit(f"{peer} comes to another mixture: the timings would compare different things.")
    report(name, *paired(ours, run, arguments.repeats), peer, target=target)


def products_in_threads(n_components: int, n_dims: int) -> Callable[[int], Callable[[], Any]]:
    """The same matrix products as tasks for one thread or several: what the machine itself gains by a second one."""

    def task(_: int) -> None:
        em_products_alone(16 * POSTERIOR_BLOCK, n_components, n_dims, 1)()

    return lambda n_jobs: lambda: list(map_blocks(task, range(40), n_jobs=n_jobs))


def em_threads_row(rows: np.ndarray, arguments: argparse.Namespace) -> None:
    """Two threads of EM against one."""
    for n_components in (64, 256):
        start = em_start(rows, n_components)
        one, two = (ours_em(rows, start, 3, n_jobs=n_jobs) for n_jobs in (1, 2))
        for a, b in zip(one(), two(), strict=True):
            if not np.array_equal(a, b):
                raise SystemExit("Two threads came to another mixture than one.")
        limit = products_in_threads(n_components, rows.shape[1])
        report(
            "  products alone, two threads against one", *paired(limit(2), limit(1), arguments.repeats), "one thread"
        )
        name = f"EM, {n_components} components, two threads against one"
        report(name, *paired(two, one, arguments.repeats), "one thread", target=1.8)


_MEMORY_PROGRAM = """
import sys, warnings
import numpy as np
from sklearn.mixture import GaussianMixture
from cvretrieval import GMMCodebook, LocalFeatures
side, folder, n_components = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows, *start = [np.load(folder + "/" + name + ".npy") for name in ("rows", "weights", "means", "covariances")]
def fit(rows, which):
    if which == "ours":
        GMMCodebook(n_components, weights_init=start[0], means_init=start[1], covariances_init=start[2], max_iter=2,
                    max_samples=None, n_jobs=2).fit(LocalFeatures(rows, np.array([0, len(rows)])))
    elif which == "scikit-learn":
        warnings.simplefilter("ignore")
        GaussianMixture(n_components, covariance_type="diag", weights_init=start[0], means_init=start[1],
                        precisions_init=1 / start[2], max_iter=2, init_params="random_from_data").fit(rows)
def peak():
    # Not getrusage: a process inherits that peak from the one that started it.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
fit(rows[: 2 * n_components], side)
before = peak()
fit(rows, side)
print(peak() - before)
"""


def em_memory_row(rows: np.ndarray, arguments: argparse.Namespace) -> None:
    """Peak memory beyond the descriptors, the libraries and a tiny fit, which compiles the kernels; Linux only."""
    if not sys.platform.startswith("linux"):
        print("memory: skipped, measured on Linux only")
        return
    for n_components in (64, 256):
        start = em_start(rows, n_components)
        peaks = {}
        with tempfile.TemporaryDirectory() as folder:
            for array_name, array in zip(("rows", "weights", "means", "covariances"), (rows, *start), strict=True):
                np.save(Path(folder, f"{array_name}.npy"), array)
            for side in ("ours", "scikit-learn"):
                command = [sys.executable, "-W", "ignore", "-c", _MEMORY_PROGRAM, side, folder, str(n_components)]
                peaks[side] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        met = "met" if peaks["ours"] <= 150 else "MISSED"
        print(
            f"EM, {len(rows)} x {rows.shape[1]} ({rows.nbytes / 1e6:.0f} MB), {n_components} components, memory beyond "
            f"the data: ours {peaks['ours']:.0f} MB, scikit-learn {peaks['scikit-learn']:.0f} MB  "
            f"(target ≤ 150 MB: {met})"
        )


def inertia(rows: np.ndarray, centers: np.ndarray) -> float:
    """Sum of squared distances to the nearest centres, from differences."""
    centers = np.ascontiguousarray(centers, dtype=np.float32)
    nearest, total = NearestWord(centers, "this benchmark"), 0.0
    for block, words in nearest.blocks(rows, 0):
        difference = block - centers[words]
        total += float(np.einsum("ij,ij->", difference, difference, dtype=np.float64))
    return total


def ours_kmeans(rows: np.ndarray, n_words: int, max_iter: int, n_jobs: int) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        codebook = KMeansCodebook(
            n_words, algorithm="lloyd", max_samples=None, max_iter=max_iter, tol=0, n_jobs=n_jobs, random_state=0
        )
        return codebook.fit(as_features(rows)).cluster_centers_

    return run


def peer_kmeans(rows: np.ndarray, n_words: int, n_threads: int) -> dict[str, Callable[..., np.ndarray]]:
    """scikit-learn's and faiss's k-means on all descriptors, faiss where it is installed: iterations, start → words."""

    def scikit_learn(max_iter: int, start: np.ndarray | None = None) -> np.ndarray:
        init = "random" if start is None else start
        model = KMeans(n_words, init=init, n_init=1, max_iter=max_iter, tol=0, random_state=0)
        with threadpool_limits(n_threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(rows).cluster_centers_

    peers = {"scikit-learn": scikit_learn}
    try:
        import faiss
    except ImportError:
        print("faiss: skipped, not installed (pip install faiss-cpu)")
        return peers

    def faiss_kmeans(max_iter: int, start: np.ndarray | None = None) -> np.ndarray:
        faiss.omp_set_num_threads(n_threads)
        model = faiss.Kmeans(rows.shape[1], n_words, niter=max_iter, max_points_per_centroid=len(rows), seed=1)
        model.train(rows, init_centroids=start)
        return np.asarray(model.centroids)

    peers["faiss"] = faiss_kmeans
    return peers


def fewest_iterations(rows: np.ndarray, run: Callable[..., np.ndarray], wanted: float, most: int) -> tuple[int, float]:
    """Return how many iterations from random descriptors come to an inertia, and the inertia they come to."""
    n_iter = 6
    centers = run(n_iter)
    reached = inertia(rows, centers)
    while reached > wanted and n_iter < most:
        centers = run(1, centers)
        n_iter, reached = n_iter + 1, inertia(rows, centers)
    return n_iter, reached


def kmeans_row(rows: np.ndarray, arguments: argparse.Namespace) -> None:
    """k-means against scikit-learn and faiss, two threads each, to the same inertia."""
    n_words, most = arguments.words, arguments.peer_iterations
    peers = peer_kmeans(rows, n_words, n_threads=2)
    best = min(inertia(rows, run(most)) for run in peers.values())
    wanted = 1.005 * best
    needed = {name: fewest_iterations(rows, run, wanted, most) for name, run in peers.items()}
    for n_iter in range(1, most + 1):
        ours = ours_kmeans(rows, n_words, n_iter, n_jobs=2)
        reached = inertia(rows, ours())
        if reached <= wanted:
            break
    else:
        raise SystemExit("Ours does not come within 0.5 % of the best inertia: there is nothing to compare.")
    products = np.empty((min(n_words, 128), BLOCK), dtype=np.float32)
    centers, block = np.zeros((len(products), rows.shape[1]), np.float32), np.ascontiguousarray(rows[:BLOCK])

    def products_alone() -> None:
        for _ in range(len(rows) // BLOCK):
            for _ in range(0, n_words, len(products)):
                np.matmul(centers, block.T, out=products)

    with single_threaded():
        _, alone = paired(lambda: None, products_alone, 3)
    print(
        f"  physical limit: products of one iteration on all descriptors {statistics.median(alone):.2f} s, one thread, "
        f"{2 * len(rows) * n_words * rows.shape[1] / statistics.median(alone) / 1e9:.0f} GFLOP/s"
    )
    print(f"  inertia: the best of {most} iterations {best:.0f}; wanted {wanted:.0f}; ours {reached:.0f}, {n_iter} "
          "iterations after the start")  # fmt: skip
    # All have run before. In turn, so that each repeat meets the same machine.
    runs = {"ours": ours, **{name: partial(peers[name], needed[name][0]) for name in peers}}
    times: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(arguments.repeats):
        for side, run in runs.items():
            begun = time.perf_counter()
            run()
            times[side].append(time.perf_counter() - begun)
    for name, (iterations, inertia_reached) in needed.items():
        print(f"  inertia: {name} {inertia_reached:.0f}, {iterations} iterations from random descriptors")
        report(
            f"k-means, {len(rows)} x {rows.shape[1]}, {n_words} words, two threads", times["ours"], times[name], name,
            target=1.0,
        )  # fmt: skip


def kmeans_threads_row(rows: np.ndarray, arguments: argparse.Namespace) -> None:
    """Two threads of k-means against one."""
    one, two = (ours_kmeans(rows, arguments.words, 3, n_jobs) for n_jobs in (1, 2))
    times = paired(two, one, arguments.repeats)
    report(f"k-means, {arguments.words} words, two threads against one", *times, "one thread", target=1.8)


ROWS: dict[str, Callable[[np.ndarray, argparse.Namespace], None]] = {
    "em": em_row,
    "em_threads": em_threads_row,
    "em_memory": em_memory_row,
    "kmeans": kmeans_row,
    "kmeans_threads": kmeans_threads_row,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA; synthetic without)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--em-descriptors", type=int, default=500_000)
    parser.add_argument("--kmeans-descriptors", type=int, default=1_000_000)
    parser.add_argument("--iterations", type=int, default=10, help="of EM with 64 components; a third with 256")
    parser.add_argument("--words", type=int, default=1024)
    parser.add_argument("--peer-iterations", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with_data = arguments.data or os.environ.get("CVRETRIEVAL_DATA")
    raw = descriptors(data_folder(arguments.data) if with_data else None, arguments.kmeans_descriptors)
    kind = "dense RootSIFT of photographs" if with_data else "synthetic descriptors"
    print(f"{kind}: {len(raw)} for k-means, PCA-64 of {min(len(raw), arguments.em_descriptors)} for EM")
    reduced: Any = None
    for row in arguments.rows:
        if row.startswith("em"):
            if reduced is None:
                pca = PCA(64, random_state=0).fit(raw[::20])
                reduced = np.ascontiguousarray(pca.transform(raw[: arguments.em_descriptors]), dtype=np.float32)
            ROWS[row](reduced, arguments)
        else:
            ROWS[row](raw, arguments)


if __name__ == "__main__":
    main()
