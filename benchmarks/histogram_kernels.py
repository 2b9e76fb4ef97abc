"""Kernel matrices between histograms, one thread: χ² against scikit-learn, intersection against numpy, and the maps.

scikit-learn has no histogram intersection; its rival is the obvious numpy line, one row of the matrix at a time. Both
sides get the same bags of words as float32 (Dirichlet draws, most words rare) and return the full matrix of test
against training images, and of the training images with themselves, of which ours computes one half.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import paired, report
from sklearn.metrics import pairwise

from cvretrieval._parallel import single_threaded
from cvretrieval.recognition import additive_chi2_kernel, chi2_kernel, histogram_intersection


def numpy_intersection(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """One row at a time, so that the minima of a row stay small."""
    return np.stack([np.minimum(x, Y).sum(axis=1) for x in X])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1500, help="training images")
    parser.add_argument("--test", type=int, default=750, help="test images")
    parser.add_argument("--words", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    X, Y = (
        rng.dirichlet(np.full(arguments.words, 0.1), size=n).astype(np.float32)
        for n in (arguments.train, arguments.test)
    )
    rows = (
        ("exponential χ²", chi2_kernel, pairwise.chi2_kernel, "scikit-learn"),
        ("additive χ²", additive_chi2_kernel, pairwise.additive_chi2_kernel, "scikit-learn"),
        ("intersection", histogram_intersection, numpy_intersection, "numpy"),
    )
    with single_threaded():
        for name, ours, peer, peer_name in rows:
            difference = np.abs(ours(Y, X) - peer(Y, X)).max()
            print(f"{name}: largest difference {difference:.1e}")
            for what, first in (("test × train", Y), ("train × train", X)):
                times = paired(lambda: ours(first, X), lambda: peer(first, X), arguments.repeats)  # noqa: B023
                report(f"{name}, {what}", *times, peer_name)


if __name__ == "__main__":
    main()
