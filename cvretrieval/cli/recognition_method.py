"""The method behind `classify`: its name → the line of estimators, from images to classes."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Method(str, Enum):
    """Ways to recognise."""

    bow = "bow"
    bow_pyramid = "bow-pyramid"
    vlad = "vlad"
    naive_bayes = "naive-bayes"
    gmm = "gmm"


class Features(str, Enum):
    """Local features."""

    dense = "dense"
    sift = "sift"


#: Visual words (of gmm: Gaussians per class) where none are asked for.
DEFAULT_WORDS = {"bow": 400, "bow-pyramid": 400, "vlad": 64, "naive-bayes": 400, "gmm": 32}


def make_extractor(features: str, max_size: int) -> Any:
    """Return the extractor: RootSIFT on a grid, or at keypoints."""
    from cvretrieval import SIFT, DenseSIFT, ImageReader

    reader = ImageReader(max_size=max_size)
    if features == "dense":
        return DenseSIFT(root=True, reader=reader)
    return SIFT(root=True, reader=reader)


def make_stages(method: str, n_words: int | None, seed: int) -> list[tuple[str, Any]]:
    """Return the stages after the extractor; the last one has `predict_proba`."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    from cvretrieval import (
        VLAD,
        BagOfWords,
        ClassConditionalGMM,
        HomogeneousKernelMap,
        PerDescriptor,
        SpatialPyramid,
    )

    words = DEFAULT_WORDS[method] if n_words is None else n_words
    # Vectors of unit length with many components want weak regularisation; 10 to 1000 classified scenes alike.
    linear = ("classifier", LogisticRegression(C=10.0, max_iter=1000))
    intersection = ("kernel_map", HomogeneousKernelMap("intersection"))
    if method == "bow":
        return [("encoder", BagOfWords(words, norm="l1", random_state=seed)), intersection, linear]
    if method == "bow-pyramid":
        counts = BagOfWords(words, norm=None, random_state=seed)
        return [("encoder", SpatialPyramid(counts, levels=3, norm="l1")), intersection, linear]
    if method == "vlad":
        return [("encoder", VLAD(words, intra_norm=True, random_state=seed)), linear]
    if method == "naive-bayes":
        return [("encoder", BagOfWords(words, norm=None, random_state=seed)), ("classifier", MultinomialNB())]
    decorrelated = PerDescriptor(PCA(64, whiten=False, random_state=seed), random_state=seed)
    return [("decorrelation", decorrelated), ("classifier", ClassConditionalGMM(words, random_state=seed))]


def set_n_jobs(line: Any, n_jobs: int) -> None:
    """Give every stage that takes threads so many of them, the encoder that a pyramid has fitted among them."""
    parts = [
        part for _, step in line.steps[:-1] for part in (step, getattr(step, "encoder_", None)) if part is not None
    ]
    if getattr(line[-1], "input_kind", "vectors") != "vectors":
        parts.append(line[-1])  # our own; scikit-learn's newer classifiers warn of the parameter
    for part in parts:
        names = [name for name in part.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
        part.set_params(**dict.fromkeys(names, n_jobs))
