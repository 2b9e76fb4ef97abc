"""Small image patches as local features."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement

from cvretrieval._validation import check_choice, check_number
from cvretrieval.extraction.base import LocalFeatureExtractor
from cvretrieval.extraction.dense import centred_grid
from cvretrieval.extraction.sift import SIFT
from cvretrieval.images import ImageReader

#: Side of the patch that SIFT measures, in sigmas of its keypoint: four bins of three.
_SIGMAS = 12.0


class Patches(LocalFeatureExtractor):
    """Grey values of small upright patches, contrast-normalised: the simplest local feature.

    Parameters
    ----------
    mode : {"grid", "random", "keypoints"}, default="grid"
        Where patches are taken: every `step` pixels; at `n_patches` random places; or at the keypoints of `extractor`.
    patch_size : int, default=8
        Side of a patch in pixels; descriptors have ``patch_size ** 2`` dimensions.
    step : int, default=4
        Distance of neighbouring patches in pixels; used by "grid".
    n_patches : int, default=500
        Patches of an image, at different places; all places if it has no more. Used by "random".
    extractor : extractor, optional
        Whose keypoints "keypoints" takes: `SIFT`, `SURF`, `OpenCVFeatures`, …; default ``SIFT()``. Its reader is not
        used.
    epsilon : float, default=10.0
        Added to the variance of a patch, for pixels in [0, 255]: what lies below stays small instead of becoming noise
        of full size.
    random_state : int, default=0
        Seed of "random". The places in an image follow from it and from the pixels of the image, so the same picture
        has the same patches in every batch, order and thread.
    reader : ImageReader, optional
        How images are read; default ``ImageReader()``.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change the result.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    A descriptor is (p − mean(p)) / sqrt(var(p) + epsilon), row by row, of float32 pixels in [0, 255]; an even patch is
    zeros. It is signed. Whitening is a stage of its own: ``PerDescriptor(ZCAWhitening())``, or
    ``PerDescriptor(PCA(32, whiten=True))``; the latter with fewer components than pixels, since patches without their
    mean have no variance in one direction.

    Patches lie inside the image, row by row in "grid" and "random"; an image smaller than a patch has none. At a
    keypoint the patch covers 12 sigma, what SIFT measures, upright, and is averaged or interpolated to `patch_size`
    pixels; keypoints whose patch leaves the image are dropped. The scale of a keypoint is a twelfth of the side, in
    pixels, angle 0.

    References
    ----------
    .. [1] M. Varma and A. Zisserman, "Texture classification: are filter banks necessary?", CVPR 2003.
    .. [2] A. Coates, A. Ng and H. Lee, "An analysis of single-layer networks in unsupervised feature learning",
       AISTATS 2011, section 3.1 (contrast normalisation and ZCA whitening of patches).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import Patches
    >>> noise = np.random.default_rng(0).integers(0, 256, (2, 32, 48)).astype(np.uint8)
    >>> X = Patches(patch_size=8, step=8).transform(noise)
    >>> X.lengths.tolist(), X.n_dims
    ([24, 24], 64)
    """

    def __init__(
        self,
        mode: str = "grid",
        *,
        patch_size: int = 8,
        step: int = 4,
        n_patches: int = 500,
        extractor: Any = None,
        epsilon: float = 10.0,
        random_state: int = 0,
        reader: ImageReader | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.mode = mode
        self.patch_size = patch_size
        self.step = step
        self.n_patches = n_patches
        self.extractor = extractor
        self.epsilon = epsilon
        self.random_state = random_state
        self.reader = reader
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors, pixels of a patch."""
        return int(self.patch_size) ** 2

    def _check_parameters(self) -> None:
        check_choice(self, "mode", self.mode, ("grid", "random", "keypoints"))
        check_number(self, "patch_size", self.patch_size, low=2, integer=True)
        check_number(self, "step", self.step, low=1, integer=True)
        check_number(self, "n_patches", self.n_patches, low=1, integer=True)
        check_number(self, "epsilon", self.epsilon, low=0, low_open=True)
        check_number(self, "random_state", self.random_state, low=0, high=2**32 - 1, integer=True)
        if self.extractor is not None:
            if not isinstance(self.extractor, LocalFeatureExtractor):
                raise ValueError(
                    "The 'extractor' parameter of Patches must be an extractor of local features, such as SIFT(). "
                    f"Got {self.extractor!r} instead."
                )
            self.extractor._check_parameters()

    def _detector(self) -> Any:
        return self._keypoint_extractor()._detector() if self.mode == "keypoints" else None

    def _extract(self, detector: Any, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.mode == "keypoints":
            _, found = self._keypoint_extractor()._extract(detector, pixels)
            patches, keypoints = self._resample(pixels, found)
        else:
            patches, keypoints = self._cut(pixels)
        return self._normalize(patches), keypoints

    def _keypoint_extractor(self) -> LocalFeatureExtractor:
        return SIFT() if self.extractor is None else self.extractor

    def _cut(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the patches on the grid or at random places, and their keypoints."""
        size = int(self.patch_size)
        n_rows, n_columns = (max(side - size + 1, 0) for side in pixels.shape)
        if not n_rows or not n_columns:
            return np.empty((0, size * size), dtype=np.float32), np.empty((0, 4), dtype=np.float32)
        if self.mode == "grid":
            rows, columns = centred_grid(n_rows, int(self.step)), centred_grid(n_columns, int(self.step))
            top, left = (places.ravel() for places in np.meshgrid(rows, columns, indexing="ij"))
        else:
            top, left = np.divmod(self._draw(pixels, n_rows * n_columns), n_columns)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size))
        patches = windows[top, left].reshape(-1, size * size).astype(np.float32)
        keypoints = np.zeros((len(patches), 4), dtype=np.float32)
        keypoints[:, 0] = left + (size - 1) / 2
        keypoints[:, 1] = top + (size - 1) / 2
        keypoints[:, 2] = size / _SIGMAS
        return patches, keypoints

    def _draw(self, pixels: NDArray[np.uint8], n_places: int) -> NDArray[np.int64]:
        """Draw different places in an image, in ascending order."""
        if n_places <= self.n_patches:
            return np.arange(n_places)
        # The position of the image in a batch must not matter, so its content is what tells images apart.
        digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=4)
        digest.update(f"{pixels.shape} {int(self.random_state)}".encode())
        random_state = check_random_state(int.from_bytes(digest.digest(), "little"))
        return np.sort(sample_without_replacement(n_places, int(self.n_patches), random_state=random_state))

    def _resample(
        self, pixels: NDArray[np.uint8], found: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the patches at keypoints that lie inside the image, and these keypoints."""
        import cv2

        size = int(self.patch_size)
        sides = np.maximum(np.rint(_SIGMAS * found[:, 2].astype(np.float64)), 1).astype(np.int64)
        # Pixels first, …, first + side − 1 are centred at first + (side − 1) / 2.
        left, top = (np.rint(found[:, i] - (sides - 1) / 2).astype(np.int64) for i in (0, 1))
        height, width = pixels.shape
        inside = np.flatnonzero((left >= 0) & (top >= 0) & (left + sides <= width) & (top + sides <= height))
        patches = np.empty((len(inside), size * size), dtype=np.float32)
        for row, i in enumerate(inside):
            crop = pixels[top[i] : top[i] + sides[i], left[i] : left[i] + sides[i]].astype(np.float32)
            way = cv2.INTER_AREA if sides[i] > size else cv2.INTER_LINEAR
            patches[row] = cv2.resize(crop, (size, size), interpolation=way).ravel()
        keypoints = found[inside].astype(np.float32)
        keypoints[:, 3] = 0
        return patches, keypoints

    def _normalize(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = patches - patches.mean(axis=1, keepdims=True)
        variances = np.mean(centred * centred, axis=1, keepdims=True)
        centred /= np.sqrt(variances + np.float32(self.epsilon))
        return centred
