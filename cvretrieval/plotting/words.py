"""What visual words look like: the patches nearest to each, as a matplotlib figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from cvretrieval._optional import import_optional
from cvretrieval._validation import check_number
from cvretrieval.images import ImageReader
from cvretrieval.local_features import LocalFeatures, check_local_features

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels of a patch, each side.
_PATCH = 32

_BLOCK = 4096


def plot_words(
    images: Any,
    X: Any,
    codebook: Any,
    *,
    words: Sequence[int] | None = None,
    n_patches: int = 10,
    magnification: float = 6.0,
    reader: ImageReader | None = None,
) -> Figure:
    """Draw the image patches whose descriptors are nearest to each visual word, one word a row, nearest first.

    Parameters
    ----------
    images : sequence of paths, arrays or PIL images
        That `X` was extracted from, in the same order.
    X : LocalFeatures
        With keypoints.
    codebook : clusterer or fitted encoder
        Anything with ``cluster_centers_``, or an encoder that holds one as ``codebook_``.
    words : sequence of int, optional
        Words to draw; default: the 10 with the most descriptors.
    n_patches : int, default=10
        Patches of each word; at most one of each image, so that a row is not one texture again and again, unless there
        are too few images.
    magnification : float, default=6.0
        Half the side of a patch in units of the keypoint's scale: 6 covers the 4 × 4 bins of SIFT, which are 3 scales
        wide each.
    reader : ImageReader, optional
        How the images are read; give the extractor's own where it is not the default. They are read in full size.

    Returns
    -------
    matplotlib Figure
        Of pyplot. One axes per word, with the patches side by side, turned so that the keypoint's angle points to the
        right. What lies outside the image is grey.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ImageReadError
        If an image that is needed cannot be read.
    ValueError
        If `X` has no keypoints or not one entry per image, or a word does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SIFT, KMeansCodebook
    >>> from cvretrieval.plotting import plot_words
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    >>> X = SIFT(max_features=20).transform(images)
    >>> figure = plot_words(images, X, KMeansCodebook(n_words=4, random_state=0).fit(X), n_patches=3)
    >>> len(figure.axes)
    4
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_words")
    check_number("plot_words", "n_patches", n_patches, low=1, integer=True)
    check_number("plot_words", "magnification", magnification, low=0, low_open=True)
    sources = list(images)
    X = check_local_features(X, keypoints=True)
    if len(sources) != len(X):
        raise ValueError(f"X has the features of {len(X)} images, but {len(sources)} images were given.")
    fitted = getattr(codebook, "codebook_", codebook)
    if not hasattr(fitted, "cluster_centers_"):
        raise TypeError(
            f"plot_words needs a fitted codebook with cluster_centers_, or an encoder that holds one. Got "
            f"{type(codebook).__name__} instead, or it is not fitted."
        )
    centers = np.asarray(fitted.cluster_centers_, dtype=np.float32)
    if X.n_descriptors and X.n_dims != centers.shape[1]:
        raise ValueError(f"X has {X.n_dims}-d descriptors, but the words have {centers.shape[1]} dimensions.")
    nearest, distances = _assign(X, centers)
    chosen = _choose_words(words, nearest, len(centers))
    rows = {word: _nearest_rows(X, nearest, distances, word, n_patches) for word in chosen}
    patches = _cut_patches(sources, X, np.unique(np.concatenate(list(rows.values()))), magnification, reader)
    figure, axes = pyplot.subplots(
        len(chosen), 1, figsize=(0.7 * n_patches + 1.5, 0.75 * len(chosen)), squeeze=False, layout="constrained"
    )
    for word, ax in zip(chosen, axes[:, 0], strict=True):
        strip = np.full((_PATCH, n_patches * (_PATCH + 2), 3), 255, dtype=np.uint8)
        for i, row in enumerate(rows[word]):
            strip[:, i * (_PATCH + 2) : i * (_PATCH + 2) + _PATCH] = patches[row]
        ax.imshow(strip, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(f"{word}", rotation=0, ha="right", va="center")
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


def _assign(X: LocalFeatures, centers: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the nearest word of each descriptor and the squared distance to it."""
    words = np.empty(X.n_descriptors, dtype=np.intp)
    distances = np.empty(X.n_descriptors, dtype=np.float32)
    norms = np.einsum("kd,kd->k", centers, centers)
    for start in range(0, X.n_descriptors, _BLOCK):
        block = X.descriptors[start : start + _BLOCK].astype(np.float32)
        found = norms - 2 * block @ centers.T
        words[start : start + len(block)] = found.argmin(axis=1)
        distances[start : start + len(block)] = found.min(axis=1) + np.einsum("id,id->i", block, block)
    return words, distances


def _choose_words(words: Sequence[int] | None, nearest: NDArray[np.intp], n_words: int) -> list[int]:
    if words is None:
        counts = np.bincount(nearest, minlength=n_words)
        return [int(word) for word in np.argsort(-counts, kind="stable")[:10]]
    chosen = [int(word) for word in words]
    wrong = [word for word in chosen if not 0 <= word < n_words]
    if wrong or not chosen:
        raise ValueError(f"words must be numbers from 0 to {n_words - 1}, at least one. Got {list(words)!r} instead.")
    return chosen


def _nearest_rows(
    X: LocalFeatures, nearest: NDArray[np.intp], distances: NDArray[np.float32], word: int, n_patches: int
) -> NDArray[np.intp]:
    """Return descriptor rows of a word, nearest first: the best of each image, then others if these are too few."""
    rows = np.flatnonzero(nearest == word)
    rows = rows[np.argsort(distances[rows], kind="stable")]
    _, first = np.unique(X.image_index()[rows], return_index=True)
    is_best = np.zeros(len(rows), dtype=bool)
    is_best[first] = True
    kept = np.concatenate([np.flatnonzero(is_best), np.flatnonzero(~is_best)])[:n_patches]
    return rows[np.sort(kept)]


def _cut_patches(
    sources: Sequence[Any], X: LocalFeatures, rows: Any, magnification: float, reader: ImageReader | None
) -> dict[int, NDArray[np.uint8]]:
    """Cut the patches of descriptor rows, reading each image once."""
    image_index = X.image_index()
    by_image: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_image[int(image_index[row])].append(int(row))
    full = clone(reader if reader is not None else ImageReader()).set_params(max_size=None)
    patches = {}
    for image, members in by_image.items():
        pixels = full.read(sources[image], color="rgb").pixels
        for row in members:
            patches[row] = _cut_patch(pixels, X.keypoints[row], magnification)  # type: ignore[index]
    return patches


def _cut_patch(pixels: NDArray[np.uint8], keypoint: NDArray[np.float32], magnification: float) -> NDArray[np.uint8]:
    """Sample a turned square about a keypoint; grey outside the image."""
    from PIL import Image

    x, y, scale, angle = (float(value) for value in keypoint)
    step = 2 * magnification * scale / _PATCH
    cos, sin = step * np.cos(angle), step * np.sin(angle)
    half = _PATCH / 2
    # Pillow counts from the edges of pixels, keypoints from their centres.
    a, b, d, e = cos, -sin, sin, cos
    affine = (a, b, x + 0.5 - half * (a + b), d, e, y + 0.5 - half * (d + e))
    patch = Image.fromarray(pixels).transform(
        (_PATCH, _PATCH), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
    )
    return np.asarray(patch)
