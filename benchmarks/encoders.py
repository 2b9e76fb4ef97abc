"""Encoders of local features, one thread: against VLFeat, against scikit-image, against their own matrix products.

All sides get the same descriptors, PCA-64 of RootSIFT of photographs (of synthetic ones without data), and the same
mixture; vectors are compared before they are timed. VLFeat is Debian's ``libvlfeat1`` through ctypes, scikit-image is
``skimage.feature.fisher_vector``. Peers that are not installed are skipped by name.

The share is the time of the matrix products alone, over the same blocks, divided by the time of the encoding.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from common import data_folder, paired, report
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from threadpoolctl import ThreadpoolController
from vlad import photographed, soft_assignment, synthetic

from cvretrieval import FisherVector, GMMCodebook, KMeansCodebook, LocalFeatures, PerDescriptor
from cvretrieval._parallel import single_threaded
from cvretrieval.codebooks.assignment import block_bounds
from cvretrieval.codebooks.posteriors import BLOCK


class VLFeatFisher:
    """``vl_fisher_encode``, exact posteriors; raises OSError where VLFeat is not installed."""

    FLOAT, IMPROVED = 1, 3

    def __init__(self, gmm: Any) -> None:
        size, pointer, integer = ctypes.c_ulonglong, ctypes.c_void_p, ctypes.c_int
        library = ctypes.CDLL(ctypes.util.find_library("vl") or "libvl.so.1")
        library.vl_set_num_threads.argtypes = [size]
        library.vl_fisher_encode.argtypes = [
            pointer, ctypes.c_uint, pointer, size, size, pointer, pointer, pointer, size, integer,
        ]  # fmt: skip
        library.vl_fisher_encode.restype = size
        library.vl_set_num_threads(1)
        self.library = library
        self.weights, self.means, self.variances = (
            np.ascontiguousarray(array, dtype=np.float32) for array in (gmm.weights_, gmm.means_, gmm.covariances_)
        )

    def __call__(self, X: LocalFeatures) -> np.ndarray:
        vectors = np.empty((len(X), 2 * self.means.size), dtype=np.float32)
        n_components, n_dims = self.means.shape
        for i, (descriptors, *_) in enumerate(X):
            self.library.vl_fisher_encode(
                vectors[i].ctypes.data, self.FLOAT, self.means.ctypes.data, n_dims, n_components,
                self.variances.ctypes.data, self.weights.ctypes.data, descriptors.ctypes.data, len(descriptors),
                self.IMPROVED,
            )  # fmt: skip
        return vectors


def scikit_image_fisher(gmm: Any) -> Callable[[LocalFeatures], np.ndarray]:
    """Return an encoder by scikit-image, in our order and signs; raises ImportError where it is not installed."""
    from skimage.feature import fisher_vector

    # It reads the parameters of a fitted scikit-learn mixture.
    mixture = GaussianMixture(len(gmm.weights_), covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = gmm.weights_, gmm.means_, gmm.covariances_
    mixture.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    size = gmm.means_.size

    def encode(X: LocalFeatures) -> np.ndarray:
        return np.stack([fisher_vector(image.descriptors, mixture, improved=True) for image in X])

    encode.columns = lambda vectors: np.hstack([vectors[:, -2 * size : -size], -vectors[:, -size:]])
    return encode


def products_alone(X: LocalFeatures, n_components: int) -> Callable[[], None]:
    """The four matrix products of the encoding, as two of twice the size: (K, 2 D) × (2 D, n) and (K, n) × (n, 2 D)."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(n_components, 2 * X.n_dims)).astype(np.float32)
    features = rng.normal(size=(BLOCK, 2 * X.n_dims)).astype(np.float32)
    densities, sums = np.empty(n_components * BLOCK, dtype=np.float32), np.empty_like(factors)
    sizes = [b - a for image in X for a, b in pairwise(block_bounds(len(image.descriptors), BLOCK))]

    def run() -> None:
        for n in sizes:
            block = densities[: n_components * n].reshape(n_components, n)
            np.matmul(factors, features[:n].T, out=block)
            np.matmul(block, features[:n], out=sums)

    return run


def compare(
    ours: Callable[[], np.ndarray], name: str, peer: Callable[[], np.ndarray], columns: Any, repeats: int, target: float
) -> None:
    """Check that both sides say the same, then time them."""
    # Both divided by the norm over the same columns: scikit-image's norm is over the gradients for the weights, too.
    found = columns(peer())
    difference = np.abs(ours() - found / np.linalg.norm(found, axis=1, keepdims=True)).max()
    print(f"  largest difference between ours and {name}: {difference:.1e}")
    if difference > 1e-3:
        raise SystemExit(f"The vectors of {name} are not ours: the timings would compare different things.")
    report("Fisher vector", *paired(ours, peer, repeats), name, target=target)


def fisher_rows(X: LocalFeatures, arguments: argparse.Namespace) -> None:
    """Improved Fisher vectors with gradients for means and variances."""
    gmm = GMMCodebook(arguments.components, max_iter=30, random_state=0).fit(X)
    encoder = FisherVector(gmm=gmm).fit(X)

    def ours() -> np.ndarray:
        return encoder.transform(X)

    with single_threaded():
        products = products_alone(X, arguments.components)
        encoding, alone = paired(ours, products, arguments.repeats)
        operations = 8 * arguments.components * X.n_dims * X.n_descriptors
        rate = operations / statistics.median(alone)
        print(
            f"  physical limit: {operations / 1e9:.2f} GFLOP in matrix products at {rate / 1e9:.0f} GFLOP/s; ours: "
            f"{statistics.median(encoding) / X.n_descriptors * 1e9:.0f} ns per descriptor"
        )
        report("Fisher vector, share", encoding, alone, "products alone", target=0.75)
        try:
            vlfeat = VLFeatFisher(gmm)
        except OSError:
            print("VLFeat: skipped, libvl.so.1 is not installed (Debian: libvlfeat1)")
        else:
            compare(ours, "VLFeat", lambda: vlfeat(X), lambda vectors: vectors, arguments.repeats, target=3.5)
        try:
            scikit_image = scikit_image_fisher(gmm)
        except ImportError:
            print("scikit-image: skipped, not installed (pip install scikit-image)")
        else:
            compare(ours, "scikit-image", lambda: scikit_image(X), scikit_image.columns, arguments.repeats, target=2.2)
    # Enough images for even halves.
    many = X[np.arange(max(len(X), 480)) % len(X)]
    two_threads = FisherVector(gmm=gmm, n_jobs=2).fit(X)
    if not np.array_equal(two_threads.transform(many), encoder.transform(many)):
        raise SystemExit("Two threads give other vectors than one.")
    times = paired(lambda: two_threads.transform(many), lambda: encoder.transform(many), arguments.repeats)
    report("Fisher vector, two threads", *times, "one thread", target=1.8)


def vlad_rows(X: LocalFeatures, arguments: argparse.Namespace) -> None:
    """VLAD by soft assignment and by posteriors; ``benchmarks/vlad.py`` has 128 dimensions, and hard assignment."""
    codebook = KMeansCodebook(arguments.components, max_iter=30, random_state=0).fit(X)
    with single_threaded():
        soft_assignment(X, codebook, arguments.repeats)


ROWS = {"fisher": fisher_rows, "vlad": vlad_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)} (default: all)")
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA; synthetic without)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if arguments.data or os.environ.get("CVRETRIEVAL_DATA"):
        X = photographed(data_folder(arguments.data), arguments.images, arguments.features)
        kind = "RootSIFT of photographs"
    else:
        X, kind = synthetic(arguments.images, arguments.features), "synthetic descriptors"
    X = PerDescriptor(PCA(arguments.dims, random_state=0), random_state=0).fit_transform(X)
    blas = {pool["architecture"] for pool in ThreadpoolController().info() if "numpy" in pool["filepath"]}
    print(
        f"{len(X)} images, {X.n_descriptors} descriptors (PCA-{arguments.dims} of {kind}), {arguments.components} "
        f"components, numpy's BLAS kernel: {', '.join(blas) or 'unknown'}"
    )
    for name in arguments.rows or ROWS:
        ROWS[name](X, arguments)


if __name__ == "__main__":
    main()
