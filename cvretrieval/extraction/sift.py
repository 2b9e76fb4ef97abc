"""SIFT on OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_flag, check_number
from cvretrieval.extraction.base import LocalFeatureExtractor
from cvretrieval.images import ImageReader


class SIFT(LocalFeatureExtractor):
    """Scale-invariant feature transform (Lowe), with the RootSIFT variant (Arandjelović & Zisserman).

    Parameters
    ----------
    root : bool, default=False
        RootSIFT: each descriptor is L1-normalised and its elements' square roots are taken, which gives unit L2 norm
        and makes the inner product the Hellinger kernel. Zero descriptors stay zero.
    max_features : int or None, default=1200
        Keep exactly the strongest so many features of each image (fewer if it has fewer): by response, ties by y, x,
        scale and angle.
    contrast_threshold : float, default=0.04
        Extrema with a lower contrast are dropped; Lowe's value for pixels in [0, 1].
    edge_threshold : float, default=10
        Largest ratio of principal curvatures.
    upright : bool, default=False
        Take every orientation as 0: one feature per place; for pictures that are never rotated.
    n_octave_layers : int, default=3
        Scales per octave.
    sigma : float, default=1.6
        Gaussian blur of the first octave in pixels.
    reader : ImageReader, optional
        How images are read; default ``ImageReader()``.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change the result.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Descriptors are float32 with 128 dimensions: whole numbers in [0, 255] as OpenCV computes them, or RootSIFT.
    Keypoint scale is sigma (half of OpenCV's diameter), angle is in radians, from the x towards the y axis. An image
    without features yields none.

    The keypoints are the same on one machine for any number of threads; across processors and OpenCV versions they may
    differ in the last bits.

    References
    ----------
    .. [1] D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004.
    .. [2] R. Arandjelović and A. Zisserman, "Three things everyone should know to improve object retrieval",
       CVPR 2012, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SIFT
    >>> blocks = np.random.default_rng(0).integers(0, 256, (2, 16, 16)).repeat(8, axis=1).repeat(8, axis=2)
    >>> X = SIFT(root=True, max_features=10).transform(blocks.astype(np.uint8))
    >>> X.lengths.tolist(), X.n_dims
    ([10, 10], 128)
    """

    def __init__(
        self,
        *,
        root: bool = False,
        max_features: int | None = 1200,
        contrast_threshold: float = 0.04,
        edge_threshold: float = 10.0,
        upright: bool = False,
        n_octave_layers: int = 3,
        sigma: float = 1.6,
        reader: ImageReader | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.root = root
        self.max_features = max_features
        self.contrast_threshold = contrast_threshold
        self.edge_threshold = edge_threshold
        self.upright = upright
        self.n_octave_layers = n_octave_layers
        self.sigma = sigma
        self.reader = reader
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors, 128."""
        return 128

    @property
    def descriptor_codec(self) -> dict[str, Any]:
        """Bytes hold plain SIFT exactly, and RootSIFT to within 1/1024 (components above 0.498 are clipped)."""
        return {"dtype": "uint8", "scale": 512.0 if self.root else 1.0}

    def _check_parameters(self) -> None:
        check_flag(self, "root", self.root)
        check_flag(self, "upright", self.upright)
        check_number(self, "max_features", self.max_features, low=1, integer=True, optional=True)
        check_number(self, "contrast_threshold", self.contrast_threshold, low=0)
        check_number(self, "edge_threshold", self.edge_threshold, low=0, low_open=True)
        check_number(self, "n_octave_layers", self.n_octave_layers, low=1, integer=True)
        check_number(self, "sigma", self.sigma, low=0, low_open=True)

    def _detector(self) -> Any:
        import cv2

        # Upright features are cut after their orientations are merged, so all of them are needed until then.
        n_features = 0 if self.upright or self.max_features is None else int(self.max_features)
        options: dict[str, Any] = {}
        if "enable_precise_upscale" in (cv2.SIFT_create.__doc__ or ""):  # type: ignore[attr-defined]
            # Without it OpenCV's doubled base image is shifted by a quarter of a pixel.
            options["enable_precise_upscale"] = True
        return cv2.SIFT_create(  # type: ignore[attr-defined]
            nfeatures=n_features,
            nOctaveLayers=int(self.n_octave_layers),
            contrastThreshold=float(self.contrast_threshold),
            edgeThreshold=float(self.edge_threshold),
            sigma=float(self.sigma),
            **options,
        )

    def _extract(self, detector: Any, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.upright:
            found = _upright(detector.detect(pixels, None))
            found = [found[i] for i in self._strongest(_keypoint_rows(found))]
            found, descriptors = detector.compute(pixels, found)
            rows = _keypoint_rows(found)
        else:
            found, descriptors = detector.detectAndCompute(pixels, None)
            rows = _keypoint_rows(found)
            if len(rows):
                kept = self._strongest(rows)
                rows, descriptors = rows[kept], descriptors[kept]
        if descriptors is None or not len(rows):
            return np.empty((0, 128), dtype=np.float32), np.empty((0, 4), dtype=np.float32)
        return root_sift(descriptors) if self.root else descriptors, rows[:, :4].astype(np.float32)

    def _strongest(self, rows: NDArray[np.float64]) -> NDArray[np.intp]:
        """Order by response, descending, then y, x, scale, angle; cut to `max_features`."""
        x, y, scale, angle, response = rows.T
        order = np.lexsort((angle, scale, x, y, -response))
        return order if self.max_features is None else order[: self.max_features]


def root_sift(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the RootSIFT form of non-negative descriptors: L1-normalised, then square-rooted; zero rows stay zero."""
    descriptors = np.asarray(descriptors, dtype=np.float32)
    sums = descriptors.sum(axis=1, keepdims=True)
    return np.sqrt(descriptors / np.where(sums > 0, sums, 1))


def _keypoint_rows(found: Any) -> NDArray[np.float64]:
    """Return x, y, sigma, angle in radians and response of OpenCV's keypoints, one row each."""
    values = [(*point.pt, point.size, point.angle, point.response) for point in found]
    rows = np.array(values, dtype=np.float64).reshape(-1, 5)
    rows[:, 2] *= 0.5
    rows[:, 3] = np.deg2rad(rows[:, 3])
    return rows


def _upright(found: Any) -> list[Any]:
    """Turn every keypoint to angle 0 and keep one of those that differed in nothing else."""
    unique: dict[tuple[float, float, float, int], Any] = {}
    for point in found:
        point.angle = 0.0
        unique.setdefault((*point.pt, point.size, point.octave), point)
    return list(unique.values())
