"""Bags of words and spatial pyramids, one thread: what several words per descriptor and several levels cost.

Peers: scikit-learn's ``KMeans.predict`` of all descriptors at once, with the same words, then ``numpy.bincount`` image
by image; hard assignment; a pyramid that encodes every cell anew; the bag of words of the whole images alone. Unit
descriptors of random numbers. scikit-learn is limited to one thread, too.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import paired, report
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans

from cvretrieval import BagOfWords, KMeansCodebook, LocalFeatures, SpatialPyramid
from cvretrieval._parallel import single_threaded


class OneStep(BaseEstimator):
    """An encoder of which a pyramid cannot see that it assigns words."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def fit(self, X: Any, y: Any = None) -> OneStep:
        self.encoder_ = self.encoder.fit(X)
        return self

    def transform(self, X: Any) -> Any:
        return self.encoder_.transform(X)


def made_up(n_images: int, n_per_image: int) -> LocalFeatures:
    """Non-negative unit vectors of 128 dimensions, all over the image."""
    rng = np.random.default_rng(0)
    descriptors = rng.gamma(0.6, size=(n_images * n_per_image, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.uniform(0, 255, size=(len(descriptors), 4))
    return LocalFeatures(descriptors, np.arange(n_images + 1) * n_per_image, keypoints, np.full((n_images, 2), 256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--descriptors", type=int, default=900, help="per image")
    parser.add_argument("--words", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    n_words, repeats = arguments.words, arguments.repeats
    X = made_up(arguments.images, arguments.descriptors)
    kmeans = KMeans(n_words, n_init=1, max_iter=3, random_state=0).fit(X.descriptors[:20_000])
    codebook = KMeansCodebook(n_words, max_samples=20_000, max_iter=3, random_state=0).fit(X)
    codebook.cluster_centers_ = kmeans.cluster_centers_
    encoders = {
        name: BagOfWords(codebook=codebook, assignment=name, n_nearest=3, norm=None).fit(X)
        for name in ("hard", "multiple", "soft")
    }
    hard = encoders["hard"]

    def tutorial() -> Any:
        with single_threaded():
            words = np.split(kmeans.predict(X.descriptors), X.offsets[1:-1])
        return np.array([np.bincount(part, minlength=n_words) for part in words])

    moved = np.abs(hard.transform(X) - tutorial()).sum() / 2 / X.n_descriptors
    print(f"{len(X)} images of {arguments.descriptors} descriptors, {n_words} words; moved by rounding: {moved:.1e}")
    report("hard", *paired(lambda: hard.transform(X), tutorial, repeats), "KMeans.predict")
    for name in ("multiple", "soft"):
        times = paired(lambda name=name: encoders[name].transform(X), lambda: hard.transform(X), repeats)  # type: ignore[misc]
        report(f"{name}, 3 words", *times, "hard")
    pyramid, anew = (SpatialPyramid(encoder, 3, norm="l1").fit(X) for encoder in (hard, OneStep(hard)))
    if not np.array_equal(pyramid.transform(X), anew.transform(X)):
        print("  (some descriptors changed words when they were multiplied in other blocks)")
    times = paired(lambda: pyramid.transform(X), lambda: anew.transform(X), repeats)
    report("pyramid of 3 levels", *times, "every cell anew")
    times = paired(lambda: pyramid.transform(X), lambda: hard.transform(X), repeats)
    report("pyramid of 3 levels", *times, "whole images only")


if __name__ == "__main__":
    main()
