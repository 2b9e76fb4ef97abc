"""SURF, in compiled Python."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_flag, check_number
from cvretrieval.extraction.base import LocalFeatureExtractor
from cvretrieval.images import ImageReader

# Side of the smallest filter, and how much larger the next one of the first octave is.
_FILTER_SIDE, _FILTER_STEP = 9, 6
# Scale (sigma in pixels) of a filter of side 1: the smallest filter stands for sigma 1.2.
_SCALE_OF_SIDE = 1.2 / _FILTER_SIDE
# Sums over a filter of this side still fit into 31 bits.
_LARGEST_FILTER = 2000
# Large windows are sampled from an image reduced by a power of two, with at least this many pixels to each mean.
_PIXELS_PER_MEAN = 2.0
_UPRIGHT_ANGLE = 1.5 * np.pi


class SURFFeatures(NamedTuple):
    """What `SURF.detect_and_describe` says of one image, strongest first.

    Attributes
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
        float32.
    keypoints : ndarray of shape (n_descriptors, 4)
        float32: x, y, scale (sigma) in pixels of the original image, angle in radians.
    responses : ndarray of shape (n_descriptors,)
        float32, determinants of the Hessian.
    laplacians : ndarray of shape (n_descriptors,)
        int8, signs of the trace of the Hessian: -1 for a bright blob on dark ground, 1 for a dark one on bright ground
        (0 in between). Features of different signs show different things and need not be compared.
    """

    descriptors: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    responses: NDArray[np.float32]
    laplacians: NDArray[np.int8]


class SURF(LocalFeatureExtractor):
    """Speeded-up robust features (Bay et al.): a fast Hessian detector and Haar wavelet descriptors.

    **Patents.** SURF has been patented in several countries. Whether a patent is in force, and whether it covers your
    use, depends on where you are: check it for your jurisdiction before you use this class.

    Parameters
    ----------
    hessian_threshold : float, default=100
        Smallest determinant of the Hessian, for pixels in [0, 255]. 300 to 500 leaves out weak features.
    n_octaves : int, default=4
        Octaves of the pyramid of filters; the sampling step doubles with each.
    n_octave_layers : int, default=3
        Scales per octave at which maxima are looked for.
    extended : bool, default=False
        128 dimensions instead of 64: sums are kept apart by the sign of the other difference.
    upright : bool, default=False
        U-SURF: no orientation is assigned, for pictures that are never rotated. Faster.
    max_features : int or None, default=1200
        Keep exactly the strongest so many features of each image (fewer if it has fewer): by response, ties by y, x,
        scale and angle.
    reader : ImageReader, optional
        How images are read; default ``ImageReader()``.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change the result.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Descriptors are float32 and have unit L2 norm. They consist of 4 x 4 cells, row by row in the turned window; each
    cell is (sum dx, sum dy, sum abs dx, sum abs dy), or in 128 dimensions (sum dx, sum abs dx where dy >= 0, the same
    where dy < 0, then sum dy, sum abs dy where dx >= 0, and where dx < 0). An image without features yields none.

    Keypoint scale is sigma in pixels, 1.2 / 9 of the side of the filter, which is a whole number in pixels and what
    OpenCV's SURF calls ``size``: ``size = 7.5 * scale``. The angle is in radians in [0, 2 pi), from the x towards the
    y axis (y down), OpenCV's in degrees. Upright features have the angle 3 pi / 2, the one their windows are turned
    by, as in OpenCV. Filters larger than the image, or than 2000 pixels, are left out.
    The boxes stand for Gaussians only roughly: a Gaussian blob is found at about 3/4 of its own sigma.

    `LocalFeatures` has no place for the sign of the Laplacian; `detect_and_describe` returns it with the response.

    The same keypoints as with OpenCV 3.4's SURF are found, except for rounding. Descriptors differ slightly: windows
    are resampled in floating point, not in 8 bits.

    References
    ----------
    .. [1] H. Bay, A. Ess, T. Tuytelaars and L. Van Gool, "Speeded-up robust features (SURF)", Computer Vision and
       Image Understanding 110(3), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SURF
    >>> noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64)).astype(np.uint8)
    >>> X = SURF(max_features=10).transform(noise)
    >>> X.lengths.tolist(), X.n_dims
    ([10, 10], 64)
    >>> SURF(extended=True, max_features=10).detect_and_describe(noise[0]).laplacians.shape
    (10,)
    """

    def __init__(
        self,
        *,
        hessian_threshold: float = 100.0,
        n_octaves: int = 4,
        n_octave_layers: int = 3,
        extended: bool = False,
        upright: bool = False,
        max_features: int | None = 1200,
        reader: ImageReader | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.hessian_threshold = hessian_threshold
        self.n_octaves = n_octaves
        self.n_octave_layers = n_octave_layers
        self.extended = extended
        self.upright = upright
        self.max_features = max_features
        self.reader = reader
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors: 64, or 128 if `extended`."""
        return 128 if self.extended else 64

    def detect_and_describe(self, image: Any) -> SURFFeatures:
        """Extract the features of one image, with their responses and the signs of their Laplacians.

        Parameters
        ----------
        image : path, array, PIL image, file object or ImageRegion
            An image as `ImageReader` reads it.

        Returns
        -------
        SURFFeatures
            The same descriptors and keypoints as from `transform`.

        Raises
        ------
        ImageReadError
            If the image cannot be read.
        """
        self._check_parameters()
        reader = self.reader if self.reader is not None else ImageReader()
        read = reader.read(image, color="grey")
        features = self._features(read.pixels)
        self._to_original(read, features.keypoints)
        return features

    def _check_parameters(self) -> None:
        check_number(self, "hessian_threshold", self.hessian_threshold, low=0)
        check_number(self, "n_octaves", self.n_octaves, low=1, integer=True)
        check_number(self, "n_octave_layers", self.n_octave_layers, low=1, integer=True)
        check_flag(self, "extended", self.extended)
        check_flag(self, "upright", self.upright)
        check_number(self, "max_features", self.max_features, low=1, integer=True, optional=True)

    def _detector(self) -> None:
        return None

    def _extract(self, detector: None, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = self._features(pixels)
        return features.descriptors, features.keypoints

    def _features(self, pixels: NDArray[np.uint8]) -> SURFFeatures:
        from cvretrieval._kernels.surf_hessian import integrate
        from cvretrieval._kernels.surf_orientation import DISC_RADIUS, DISC_SIGMA, assign_orientations

        pixels = np.ascontiguousarray(pixels)
        integral = np.empty((pixels.shape[0] + 1, pixels.shape[1] + 1), dtype=np.int32)
        integrate(pixels, integral)
        found = np.concatenate([np.empty((0, 5), np.float32), *self._octaves(integral)])
        # Angles belong to the features, so no two of them differ in the angle only: it need not break ties.
        x, y, size, response = found.T[:4]
        found = found[np.lexsort((size, x, y, -response))[: self.max_features]]
        places = np.ascontiguousarray(found[:, :3])
        angles = np.full(len(places), _UPRIGHT_ANGLE, dtype=np.float32)
        if not self.upright:
            assign_orientations(integral, places, _gaussian(2 * DISC_RADIUS + 1, DISC_SIGMA), angles)
        descriptors = np.empty((len(places), self.n_dims), dtype=np.float32)
        self._describe(integral, places, angles, descriptors)
        keypoints = np.column_stack([places, angles])
        keypoints[:, 2] *= np.float32(_SCALE_OF_SIDE)
        return SURFFeatures(descriptors, keypoints, found[:, 3].copy(), found[:, 4].astype(np.int8))

    def _octaves(self, integral: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        """Return rows of x, y, filter side, response and sign of the Laplacian for each octave and layer."""
        from cvretrieval._kernels.surf_hessian import filter_layer, laplacian_signs, split_columns
        from cvretrieval._kernels.surf_maxima import find_maxima

        height, width = integral.shape[0] - 1, integral.shape[1] - 1
        largest = min(height, width, _LARGEST_FILTER)
        found = []
        for octave in range(int(self.n_octaves)):
            step = 2**octave
            sides = (_FILTER_SIDE + _FILTER_STEP * np.arange(int(self.n_octave_layers) + 2)) * step
            sides = sides[sides <= largest]
            if len(sides) < 3:
                break
            phases = np.empty((step, height + 1, -(-(width + 1) // step)), dtype=np.int32)
            split_columns(integral, phases)
            sums = np.empty((3, width), dtype=np.float32)
            # A place of the lattice is the middle of its filter: filters start half a side before it.
            layers = np.zeros((len(sides), height // step, width // step), dtype=np.float32)
            halves = sides // 2 // step
            for layer, side, half in zip(layers, sides, halves, strict=True):
                n_rows, n_columns = (height - side) // step + 1, (width - side) // step + 1
                filter_layer(phases, side, sums, layer[half : half + n_rows, half : half + n_columns])
            maxima = np.empty((-(-layers.shape[1] // 2) * -(-layers.shape[2] // 2), 6), dtype=np.float32)
            for k in range(1, len(sides) - 1):
                below, here, above = layers[k - 1 : k + 2]
                border = int(halves[k + 1]) + 1
                n_found = find_maxima(below, here, above, np.float32(self.hessian_threshold), border, maxima)
                row, column, dx, dy, ds, response = maxima[:n_found].T
                top, left = (row.astype(np.int64) - halves[k]) * step, (column.astype(np.int64) - halves[k]) * step
                middle = 0.5 * (sides[k] - 1)
                found.append(
                    np.column_stack(
                        [
                            left + middle + dx * step,
                            top + middle + dy * step,
                            np.rint(sides[k] + ds * (sides[k] - sides[k - 1])),
                            response,
                            laplacian_signs(integral, top, left, int(sides[k])),
                        ]
                    ).astype(np.float32)
                )
        return found

    @staticmethod
    def _describe(
        integral: NDArray[np.int32],
        places: NDArray[np.float32],
        angles: NDArray[np.float32],
        descriptors: NDArray[np.float32],
    ) -> None:
        """Fill `descriptors`, taking large windows from reduced images: they are averaged over many pixels anyway."""
        from cvretrieval._kernels.surf_descriptor import PATCH_SIDE, PATCH_SIGMA, describe_keypoints, reduce_image

        weights = _gaussian(PATCH_SIDE, PATCH_SIGMA)
        # The window is 21 scales wide and becomes 21 means, so a scale is what one mean covers.
        pixels_per_mean = _SCALE_OF_SIDE * places[:, 2]
        levels = np.maximum(np.floor(np.log2(pixels_per_mean / _PIXELS_PER_MEAN)), 0).astype(np.intp)
        for level in np.unique(levels):
            factor = 2 ** int(level)
            height, width = integral.shape[0] - 1, integral.shape[1] - 1
            reduced = np.empty((-(-height // factor), -(-width // factor)), dtype=np.float32)
            reduce_image(integral, factor, reduced)
            rows = np.flatnonzero(levels == level)
            part = np.empty((len(rows), descriptors.shape[1]), dtype=np.float32)
            describe_keypoints(reduced, factor, places[rows], angles[rows], weights, part)
            descriptors[rows] = part


def _gaussian(n: int, sigma: float) -> NDArray[np.float32]:
    """Return n samples of a Gaussian about the middle one (or the middle of the middle two), with sum 1."""
    values = np.exp(-0.5 * ((np.arange(n) - 0.5 * (n - 1)) / sigma) ** 2)
    return (values / values.sum()).astype(np.float32)
