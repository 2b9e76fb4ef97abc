"""VLAD encoding: against VLFeat, against numpy with ``np.add.at``, and against its own matrix products, one thread.

All sides get the same descriptors (RootSIFT of photographs, or synthetic ones without data) and the same words, and
include the assignment, the signed square root and the L2 norm. VLFeat is Debian's ``libvlfeat1`` through ctypes:
``vl_kmeans_quantize`` over all words (at 64 words four times as fast as its k-d trees), the assignment matrix that
``vl_vlad_encode`` asks for, ``vl_vlad_encode``.

The share is the time of the products words × blockᵀ alone, over the same blocks, divided by the time of the encoding.
The encoding reads each block into cache before its product, which makes the product itself faster; so the share is
given twice: of the products alone and, stricter, of the products with that reading.

Soft assignment: VLFeat's encoder takes any weights of words, and computes those of a Gaussian mixture
(``vl_get_gmm_data_posteriors_f``), but has no soft assignment to the words of k-means. There it is timed with what it
has, the distances to all words (``vl_eval_vector_comparison_on_all_pairs_f``) and ``vl_vlad_encode``; to choose words
and make weights costs it nothing here, they are made beforehand. The shares count one product of words and block for
the assignment and, where all words have weights, one more for the sums; posteriors need squares as well, three products
in all.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, paired, report
from threadpoolctl import ThreadpoolController

from cvretrieval import SIFT, VLAD, GMMCodebook, ImageReader, KMeansCodebook, LocalFeatures
from cvretrieval._kernels.assignment import read_ahead
from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks.assignment import BLOCK, WORD_CHUNK, block_bounds

N_DIMS = 128


def photographed(folder: Path, n_images: int, n_features: int) -> LocalFeatures:
    """RootSIFT of photographs."""
    paths = sorted((folder / "smvs_dvd" / "Reference").glob("*.jpg"))[:n_images]
    return SIFT(root=True, max_features=n_features, reader=ImageReader(max_size=640)).transform(paths)


def synthetic(n_images: int, n_features: int) -> LocalFeatures:
    """Draw rows like RootSIFT's: a gamma mixture, L1-normalised, square-rooted."""
    rng = np.random.default_rng(0)
    modes = rng.gamma(0.7, size=(200, N_DIMS))
    counts = rng.poisson(3 * modes[rng.integers(0, len(modes), n_images * n_features)]) + 1e-3
    descriptors = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    return LocalFeatures(descriptors, np.arange(n_images + 1) * n_features)


def products_alone(X: LocalFeatures, centers: np.ndarray, *, cached: bool) -> Callable[[], None]:
    """The matrix products of the encoding and nothing else; `cached`: the blocks are read into cache first."""
    products = np.empty((min(len(centers), WORD_CHUNK), BLOCK), dtype=np.float32)

    def run() -> None:
        for descriptors, *_ in X:
            for start, stop in pairwise(block_bounds(len(descriptors))):
                block = descriptors[start:stop]
                if cached:
                    read_ahead(block)
                for first in range(0, len(centers), WORD_CHUNK):
                    chunk = centers[first : first + WORD_CHUNK]
                    np.matmul(chunk, block.T, out=products[: len(chunk), : len(block)])

    return run


def numpy_vlad(X: LocalFeatures, centers: np.ndarray) -> np.ndarray:
    """The encoding in numpy: one product per image, then ``np.add.at``."""
    half_norms = 0.5 * (centers**2).sum(axis=1)
    vectors = np.zeros((len(X), *centers.shape), dtype=np.float32)
    for i, image in enumerate(X):
        words = np.argmax(image.descriptors @ centers.T - half_norms, axis=1)
        np.add.at(vectors[i], words, image.descriptors - centers[words])
    vectors = vectors.reshape(len(X), -1)
    vectors = np.sign(vectors) * np.sqrt(np.abs(vectors))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


class VLFeat:
    """VLFeat's C library; raises OSError where it is not installed."""

    FLOAT, L2, SQUARE_ROOT = 1, 1, 2

    def __init__(self, centers: np.ndarray) -> None:
        size, pointer, integer = ctypes.c_ulonglong, ctypes.c_void_p, ctypes.c_int
        library = ctypes.CDLL(ctypes.util.find_library("vl") or "libvl.so.1")
        library.vl_set_num_threads.argtypes = [size]
        library.vl_kmeans_new.argtypes, library.vl_kmeans_new.restype = [ctypes.c_uint, integer], pointer
        library.vl_kmeans_set_centers.argtypes = [pointer, pointer, size, size]
        library.vl_kmeans_quantize.argtypes = [pointer, pointer, pointer, pointer, size]
        library.vl_vlad_encode.argtypes = [
            pointer, ctypes.c_uint, pointer, size, size, pointer, size, pointer, integer,
        ]  # fmt: skip
        library.vl_set_num_threads(1)
        self.library = library
        self.centers = np.ascontiguousarray(centers, dtype=np.float32)
        self.kmeans = library.vl_kmeans_new(self.FLOAT, self.L2)
        library.vl_kmeans_set_centers(self.kmeans, self.centers.ctypes.data, *self.centers.shape[::-1])

    def encode(self, X: LocalFeatures, assignments: Callable[[int], np.ndarray]) -> np.ndarray:
        """``vl_vlad_encode`` with the weights that a function of the number of the image returns."""
        vectors = np.empty((len(X), self.centers.size), dtype=np.float32)
        n_words, n_dims = self.centers.shape
        for i, (descriptors, *_) in enumerate(X):
            weights = assignments(i)
            self.library.vl_vlad_encode(
                vectors[i].ctypes.data, self.FLOAT, self.centers.ctypes.data, n_dims, n_words,
                descriptors.ctypes.data, len(descriptors), weights.ctypes.data, self.SQUARE_ROOT,
            )  # fmt: skip
        return vectors

    def __call__(self, X: LocalFeatures) -> np.ndarray:
        n_words = len(self.centers)

        def assign(i: int) -> np.ndarray:
            descriptors = X[i].descriptors
            n = len(descriptors)
            words, distances = np.empty(n, dtype=np.uint32), np.empty(n, dtype=np.float32)
            self.library.vl_kmeans_quantize(
                self.kmeans, words.ctypes.data, distances.ctypes.data, descriptors.ctypes.data, n
            )
            assignments = np.zeros((n, n_words), dtype=np.float32)
            assignments[np.arange(n), words] = 1
            return assignments

        return self.encode(X, assign)

    def by_distances(self, X: LocalFeatures, weights: list[np.ndarray]) -> np.ndarray:
        """Compute the distances to all words, then encode with the given weights."""
        size, pointer = ctypes.c_ulonglong, ctypes.c_void_p
        compare, distances_of = (
            self.library.vl_get_vector_comparison_function_f,
            self.library.vl_eval_vector_comparison_on_all_pairs_f,
        )
        compare.argtypes, compare.restype = [ctypes.c_int], pointer
        distances_of.argtypes, distances_of.restype = [pointer, size, pointer, size, pointer, size, pointer], None
        squared = compare(self.L2)
        n_words, n_dims = self.centers.shape

        def assign(i: int) -> np.ndarray:
            descriptors = X[i].descriptors
            distances = np.empty((len(descriptors), n_words), dtype=np.float32)
            distances_of(
                distances.ctypes.data, n_dims, self.centers.ctypes.data, n_words, descriptors.ctypes.data,
                len(descriptors), squared,
            )  # fmt: skip
            return weights[i]

        return self.encode(X, assign)

    def by_posteriors(self, X: LocalFeatures, gmm: Any) -> np.ndarray:
        """Assign by ``vl_get_gmm_data_posteriors_f``; the words must be the means of the mixture."""
        size, pointer = ctypes.c_ulonglong, ctypes.c_void_p
        posteriors = self.library.vl_get_gmm_data_posteriors_f
        posteriors.argtypes = [pointer, size, size, pointer, pointer, size, pointer, pointer]
        posteriors.restype = ctypes.c_double
        n_words, n_dims = self.centers.shape
        weights, variances = (np.ascontiguousarray(a, dtype=np.float32) for a in (gmm.weights_, gmm.covariances_))

        def assign(i: int) -> np.ndarray:
            descriptors = X[i].descriptors
            assignments = np.empty((len(descriptors), n_words), dtype=np.float32)
            posteriors(
                assignments.ctypes.data, n_words, len(descriptors), weights.ctypes.data, self.centers.ctypes.data,
                n_dims, variances.ctypes.data, descriptors.ctypes.data,
            )  # fmt: skip
            return assignments

        return self.encode(X, assign)


def soft_assignment(X: LocalFeatures, codebook: KMeansCodebook, repeats: int) -> None:
    """Print the rows of soft assignment and of posteriors: share of the products, and VLFeat."""
    n_words = codebook.n_words
    gmm = GMMCodebook(n_words, max_samples=20_000, max_iter=10, random_state=0).fit(X)
    rows: list[tuple[str, Any, int, dict[str, Any]]] = [
        ("VLAD, soft, 3 words", codebook, 1, {"assignment": "soft"}),
        (f"VLAD, soft, all {n_words} words", codebook, 2, {"assignment": "soft", "n_nearest": n_words}),
        ("VLAD, posteriors", gmm, 3, {"assignment": "posterior"}),
    ]
    for name, words, n_products, options in rows:
        encoder = VLAD(codebook=words, **options).fit(X)
        products = products_alone(X, codebook.cluster_centers_, cached=False)

        def ours(encoder: VLAD = encoder) -> np.ndarray:
            return encoder.transform(X)

        def alone(products: Callable[[], None] = products, n_products: int = n_products) -> None:
            for _ in range(n_products):
                products()

        report(f"{name}, share", *paired(ours, alone, repeats), f"{n_products} product(s) alone")
        try:
            vlfeat = VLFeat(gmm.means_ if words is gmm else codebook.cluster_centers_)
        except OSError:
            print("VLFeat: skipped, libvl.so.1 is not installed (Debian: libvlfeat1)")
            continue
        if words is gmm:
            compare("VLFeat", ours, lambda vlfeat=vlfeat: vlfeat.by_posteriors(X, gmm), repeats, name=name)
            continue
        weights = [dense_weights(encoder, descriptors, n_words) for descriptors, *_ in X]
        compare(
            "VLFeat's distances and encoder", ours,
            lambda vlfeat=vlfeat, weights=weights: vlfeat.by_distances(X, weights), repeats, name=name,
        )  # fmt: skip
    report_two_threads("VLAD, soft, 3 words", VLAD(codebook=codebook, assignment="soft").fit(X), X, repeats)


def dense_weights(encoder: VLAD, descriptors: np.ndarray, n_words: int) -> np.ndarray:
    """The weights of all words, from the definition."""
    squares = np.square(descriptors[:, None].astype(np.float64) - encoder.codebook_.cluster_centers_).sum(axis=2)
    gaps = squares - squares.min(axis=1, keepdims=True)
    weights = np.exp(-gaps / (2 * encoder.sigma_**2))
    if encoder.n_nearest < n_words:
        weights[weights < np.sort(weights, axis=1)[:, [-encoder.n_nearest]]] = 0
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def report_two_threads(name: str, encoder: VLAD, X: LocalFeatures, repeats: int) -> None:
    """Print how much faster two threads are than one; with enough images for even halves."""
    X = X[np.arange(max(len(X), 480)) % len(X)]
    one, two = (VLAD(**{**encoder.get_params(deep=False), "n_jobs": n_jobs}).fit(X) for n_jobs in (1, 2))
    report(
        f"{name}, two threads", *paired(lambda: two.transform(X), lambda: one.transform(X), repeats), "one", target=1.8
    )


def compare(
    name_of_peer: str, ours: Callable[[], Any], peer: Callable[[], Any], repeats: int, *, name: str = "VLAD"
) -> None:
    """Check that both sides say the same, then time them."""
    # Where a descriptor lies between two words within rounding, the sides may choose differently: such an image differs
    # in two blocks, the others agree.
    cosines = np.einsum("ij,ij->i", ours(), peer())
    print(f"  smallest cosine of ours with {name_of_peer}: {cosines.min():.7f}, median {np.median(cosines):.7f}")
    if np.median(cosines) < 1 - 1e-5 or cosines.min() < 0.99:
        raise SystemExit(f"The vectors of {name_of_peer} are not ours: the timings would compare different things.")
    report(name, *paired(ours, peer, repeats), name_of_peer, target=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA; synthetic without)")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--words", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args()
    if arguments.data or os.environ.get("CVRETRIEVAL_DATA"):
        X = photographed(data_folder(arguments.data), arguments.images, arguments.features)
        kind = "RootSIFT of photographs"
    else:
        X, kind = synthetic(arguments.images, arguments.features), "synthetic descriptors"
    codebook = KMeansCodebook(arguments.words, random_state=0).fit(X)
    encoder = VLAD(codebook=codebook).fit(X)
    blas = {pool["architecture"] for pool in ThreadpoolController().info() if "numpy" in pool["filepath"]}
    print(
        f"{len(X)} images, {X.n_descriptors} descriptors ({kind}), {arguments.words} words, one thread, "
        f"numpy's BLAS kernel: {', '.join(blas) or 'unknown'}"
    )

    def ours() -> np.ndarray:
        return encoder.transform(X)

    with single_threaded():
        for name, cached in (("products alone", False), ("products of blocks read ahead", True)):
            products = products_alone(X, codebook.cluster_centers_, cached=cached)
            report("VLAD, share", *paired(ours, products, arguments.repeats), name, target=0.75)
        compare("numpy add.at", ours, lambda: numpy_vlad(X, codebook.cluster_centers_), arguments.repeats)
        try:
            vlfeat = VLFeat(codebook.cluster_centers_)
        except OSError:
            print("VLFeat: skipped, libvl.so.1 is not installed (Debian: libvlfeat1)")
        else:
            compare("VLFeat", ours, lambda: vlfeat(X), arguments.repeats)
        soft_assignment(X, codebook, arguments.repeats)


if __name__ == "__main__":
    main()
