"""SIFT descriptors on a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.dense_sift import map_orientations, normalize_bins, sample_bins
from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.extraction.base import LocalFeatureExtractor
from cvretrieval.extraction.sift import root_sift
from cvretrieval.images import ImageReader

_N_BINS = 4
_N_ORIENTATIONS = 8
_N_DIMS = _N_BINS * _N_BINS * _N_ORIENTATIONS

#: Standard deviation of the Gaussian window in bins, Lowe's: half the width of the patch.
_WINDOW = 2.0

#: Blur in pixels that images are taken to have already, as OpenCV's and VLFeat's SIFT do.
_CAMERA_BLUR = 0.5

#: Pixels per sigma of a keypoint that a bin of SIFT measures.
_MAGNIFICATION = 3.0

#: Plain descriptors have this L2 norm, which puts their elements into the range of OpenCV's.
_NORM = 512.0


class DenseSIFT(LocalFeatureExtractor):
    """SIFT descriptors of upright patches on a regular grid, in several sizes ("dense SIFT", "PHOW").

    Parameters
    ----------
    step : int, default=8
        Distance of neighbouring patches in pixels, in both directions and at all scales.
    patch_size : float, default=16
        Side of a patch at scale 1 in pixels: 4 × 4 bins, each of ``patch_size * scale / 4`` pixels, rounded.
    scales : sequence of float, default=(1.0,)
        Sizes of the patches relative to `patch_size`; each at least one pixel a bin.
    sigma : float, default=0.7
        Blur in pixels that the image has when its gradients are taken, at scale 1; `sigma` times the scale elsewhere.
        Images are taken to have 0.5 already, so sqrt((sigma · scale)² − 0.25) is added; nothing if that is not
        positive. The 1.6 of `SIFT` is too much for small pictures of scenes.
    contrast_threshold : float, default=0.005
        Descriptors whose contrast is lower become zero, and stay zero as RootSIFT. Contrast is the mean gradient
        magnitude per pixel in the patch for pixels in [0, 1], weighted by the window: VLFeat's "norm". 0 keeps all.
    root : bool, default=False
        RootSIFT, see `SIFT`.
    window : {"gaussian", "flat", None}, default="gaussian"
        Weights of the pixels of a patch: a Gaussian of two bins about its centre, its mean over each bin (VLFeat's
        "flat window"), or none.
    reader : ImageReader, optional
        How images are read; default ``ImageReader()``.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change the result.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Each pixel's gradient magnitude is shared linearly between its two nearest orientations and its four nearest bins.
    Descriptors are L2-normalised, clipped at 0.2 and L2-normalised again. Plain ones are then multiplied by 512, the
    length of those of `SIFT`, and not rounded. Element ``t + 8 * (b_x + 4 * b_y)`` is orientation t, counted from the x
    towards the y axis, of bin b_x, b_y: VLFeat's order. OpenCV's SIFT counts orientations from x towards −y, so a
    codebook of one does not fit the other. Angles are approximated to 0.006 radians as in VLFeat, with which
    descriptors agree to 1e-4 of their norm.

    All bins are centred inside the image: at each scale the grid holds as many patches as fit and is centred in the
    image. Descriptors come scale by scale, row by row; an image too small for one patch has none. The scale of a
    keypoint is a third of a bin, in pixels: the sigma at which `SIFT` would measure the same patch. Its angle is 0.

    References
    ----------
    .. [1] D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 6.
    .. [2] A. Bosch, A. Zisserman and X. Muñoz, "Image classification using random forests and ferns", ICCV 2007
       (several scales on one grid, low contrast zeroed).
    .. [3] A. Vedaldi and B. Fulkerson, "VLFeat: an open and portable library of computer vision algorithms", 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import DenseSIFT
    >>> noise = np.random.default_rng(0).integers(0, 256, (2, 64, 48)).astype(np.uint8)
    >>> X = DenseSIFT(step=8, scales=(1.0, 2.0), root=True).transform(noise)
    >>> X.lengths.tolist(), X.n_dims
    ([50, 50], 128)
    """

    def __init__(
        self,
        *,
        step: int = 8,
        patch_size: float = 16,
        scales: Sequence[float] = (1.0,),
        sigma: float = 0.7,
        contrast_threshold: float = 0.005,
        root: bool = False,
        window: str | None = "gaussian",
        reader: ImageReader | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.step = step
        self.patch_size = patch_size
        self.scales = scales
        self.sigma = sigma
        self.contrast_threshold = contrast_threshold
        self.root = root
        self.window = window
        self.reader = reader
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors, 128."""
        return _N_DIMS

    @property
    def descriptor_codec(self) -> dict[str, Any]:
        """Bytes hold plain descriptors rounded to whole numbers, and RootSIFT to within 1/1024."""
        return {"dtype": "uint8", "scale": 512.0 if self.root else 1.0}

    def _check_parameters(self) -> None:
        check_number(self, "step", self.step, low=1, integer=True)
        check_number(self, "patch_size", self.patch_size, low=_N_BINS)
        check_number(self, "sigma", self.sigma, low=0)
        check_number(self, "contrast_threshold", self.contrast_threshold, low=0)
        check_flag(self, "root", self.root)
        check_choice(self, "window", self.window, ("gaussian", "flat", None))
        if isinstance(self.scales, str) or not isinstance(self.scales, Sequence | np.ndarray) or not len(self.scales):
            raise ValueError(
                f"The 'scales' parameter of DenseSIFT must be a sequence of numbers, such as (1.0, 1.5). "
                f"Got {self.scales!r} instead."
            )
        for scale in self.scales:
            check_number(self, "scales", scale, low=_N_BINS / self.patch_size)

    def _detector(self) -> _Detector:
        scales = []
        for scale in self.scales:
            size = max(round(self.patch_size * scale / _N_BINS), 1)
            added = (self.sigma * scale) ** 2 - _CAMERA_BLUR**2
            scales.append(_Scale(size, float(np.sqrt(max(added, 0.0))), bin_weights(size, self.window)))
        return _Detector(scales)

    def _extract(
        self, detector: _Detector, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        image = pixels.astype(np.float32)
        image *= np.float32(1 / 255)
        described, places = [], []
        for scale in detector.scales:
            extent = (_N_BINS - 1) * scale.size
            x = centred_grid(image.shape[1] - extent, int(self.step))
            y = centred_grid(image.shape[0] - extent, int(self.step))
            if not len(x) or not len(y):
                continue
            maps = detector.orientation_maps(_blurred(image, scale.blur), scale.size)
            described.append(self._describe(maps, scale, x, y))
            keypoints = np.zeros((len(y), len(x), 4), dtype=np.float32)
            keypoints[..., 0] = x + extent / 2
            keypoints[..., 1] = y[:, None] + extent / 2
            keypoints[..., 2] = scale.size / _MAGNIFICATION
            places.append(keypoints.reshape(-1, 4))
        if not described:
            return np.empty((0, _N_DIMS), dtype=np.float32), np.empty((0, 4), dtype=np.float32)
        if len(described) == 1:
            return described[0], places[0]  # the usual case, without a copy
        return np.concatenate(described), np.concatenate(places)

    def _describe(
        self, maps: NDArray[np.float32], scale: _Scale, x: NDArray[np.int64], y: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the descriptors whose first bins are centred at `x`, `y`, row by row."""
        grid = np.empty((len(y), len(x), _N_BINS, _N_BINS, _N_ORIENTATIONS), dtype=np.float32)
        sample_bins(maps, scale.size, scale.weights, int(self.step), int(x[0]), int(y[0]), grid)
        descriptors = grid.reshape(-1, _N_DIMS)
        contrasts = np.empty(len(descriptors), dtype=np.float32)
        n_pixels = ((_N_BINS - 1) * scale.size + 1) ** 2
        normalize_bins(descriptors, n_pixels, float(self.contrast_threshold), contrasts)
        if self.root:
            return root_sift(descriptors)
        descriptors *= np.float32(_NORM)
        return descriptors


class _Scale(NamedTuple):
    """What is the same for all images at one scale."""

    size: int  # of a bin, pixels
    blur: float  # to be added, pixels
    weights: NDArray[np.float32]


class _Detector:
    """The scales, and memory for the orientation maps: fresh memory for each image costs more than filling it."""

    def __init__(self, scales: list[_Scale]) -> None:
        self.scales = scales
        self._memory = np.empty(0, dtype=np.float32)

    def orientation_maps(self, image: NDArray[np.float32], margin: int) -> NDArray[np.float32]:
        """Return what `map_orientations` makes of an image, until the next call."""
        shape = (image.shape[0], image.shape[1] + 2 * margin, _N_ORIENTATIONS)
        n_elements = int(np.prod(shape))
        if n_elements > len(self._memory):
            self._memory = np.empty(n_elements, dtype=np.float32)
        maps = self._memory[:n_elements].reshape(shape)
        map_orientations(image, margin, maps)
        return maps


def bin_weights(
    size: int, window: str | None, *, n_bins: int = _N_BINS, window_size: float = _WINDOW
) -> NDArray[np.float32]:
    """Return the weights of the pixels about the centre of each bin, (n_bins, 2 size).

    weights[b, d] = (1 − |d| / size) · exp(−½ ((c_b + d) / (window_size · size))²) for d from −(size − 1) to size
    and the offset c_b of bin b from the centre of the patch. "flat" replaces the exponential by its mean over
    |d| < size, None by 1.
    """
    d = np.arange(1 - size, size + 1)
    centres = size * (np.arange(n_bins) - 0.5 * (n_bins - 1))
    windows = np.ones((n_bins, len(d)))
    if window is not None:
        windows = np.exp(-0.5 * ((centres[:, None] + d) / (window_size * size)) ** 2)
    if window == "flat":
        windows = np.repeat(windows[:, :-1].mean(axis=1, keepdims=True), len(d), axis=1)
    return ((1 - np.abs(d) / size) * windows).astype(np.float32)


def centred_grid(n_places: int, step: int) -> NDArray[np.int64]:
    """Return as many multiples of `step` as fit into range(n_places), moved to its middle."""
    if n_places < 1:
        return np.empty(0, dtype=np.int64)
    n = (n_places - 1) // step + 1
    return (n_places - 1 - (n - 1) * step) // 2 + step * np.arange(n)


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    if sigma == 0:
        return image
    import cv2

    blurred: NDArray[np.float32] = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred
