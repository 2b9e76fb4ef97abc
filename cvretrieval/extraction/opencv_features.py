"""Any detector and descriptor of OpenCV, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_number
from cvretrieval.extraction.base import LocalFeatureExtractor
from cvretrieval.images import ImageReader

#: What the literature calls them, and what OpenCV does.
_ALIASES = {
    "AGAST": "AgastFeatureDetector",
    "BLOB": "SimpleBlobDetector",
    "BOOST": "BoostDesc",
    "BRIEF": "BriefDescriptorExtractor",
    "FAST": "FastFeatureDetector",
    "GFTT": "GFTTDetector",
    "HARRISLAPLACE": "HarrisLaplaceFeatureDetector",
    "MSD": "MSDDetector",
    "STAR": "StarDetector",
}

#: Networks, which need a model file, and wrappers, which need another detector: not to be made from numbers.
_NOT_OFFERED = {"ALIKED", "AffineFeature", "DISK", "Feature2D", "XFeat"}

_ONLY_DESCRIBE = {
    "BEBLID",
    "BoostDesc",
    "BriefDescriptorExtractor",
    "DAISY",
    "FREAK",
    "LATCH",
    "LUCID",
    "TEBLID",
    "VGG",
}

#: Below the first, OpenCV is not asked: some of its detectors crash. Below the second, its refusal means no features.
_SMALLEST_SIDE, _SMALL_SIDE = 8, 64

#: OpenCV's detectors that want a number of features get this one for "all".
_ALL = 1_000_000


class OpenCVFeatures(LocalFeatureExtractor):
    """Local features by any detector and descriptor that the installed OpenCV has: AKAZE, KAZE, ORB, BRISK, FREAK, …

    Parameters
    ----------
    descriptor : str, default="AKAZE"
        OpenCV's name of the descriptor, looked up in ``cv2``, then in ``cv2.xfeatures2d``; the usual short names
        ("BRIEF", "BOOST") are known, too.
    detector : str, optional
        Another detector for the keypoints, such as "FAST" or "MSER". Needed by descriptors that do not detect (BRIEF,
        FREAK, DAISY, LATCH, …).
    options : mapping or sequence of pairs, default=()
        Arguments of OpenCV's factory of the descriptor: ``{"threshold": 0.002}`` or ``(("threshold", 0.002),)``. Only
        pairs, with numbers and strings, can be stored with an index.
    detector_options : mapping or sequence of pairs, default=()
        Likewise of the detector.
    max_features : int or None, default=1200
        Keep exactly the strongest so many features of each image (fewer if it has fewer): by response, ties by y, x,
        scale and angle. Unless `options` say otherwise, ORB and SIFT are asked for as many; ORB then spreads them over
        its scales.
    reader : ImageReader, optional
        How images are read; default ``ImageReader()``.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change the result.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Binary descriptors are uint8 of shape (n_descriptors, n_bytes), eight bits a byte, and meet Hamming distances:
    `metric` says so, and ``SpatialVerifier(metric="hamming")`` and `KMajorityCodebook` compare them. Others are
    float32, as OpenCV computes them.

    Keypoint scale is half of OpenCV's diameter, angle is in radians; detectors without orientation give 0. Keypoints
    too near to the border for the descriptor are dropped, before the strongest are kept.

    References
    ----------
    .. [1] P. Alcantarilla, J. Nuevo and A. Bartoli, "Fast explicit diffusion for accelerated features in nonlinear
       scale spaces", BMVC 2013 (AKAZE).
    .. [2] E. Rublee, V. Rabaud, K. Konolige and G. Bradski, "ORB: an efficient alternative to SIFT or SURF", ICCV 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import OpenCVFeatures
    >>> blocks = np.kron(np.random.default_rng(0).integers(0, 256, (20, 20)), np.ones((12, 12))).astype(np.uint8)
    >>> extractor = OpenCVFeatures("ORB", max_features=20)
    >>> X = extractor.transform([blocks])
    >>> X.n_dims, X.descriptors.dtype.name, extractor.metric
    (32, 'uint8', 'hamming')
    """

    def __init__(
        self,
        descriptor: str = "AKAZE",
        *,
        detector: str | None = None,
        options: Any = (),
        detector_options: Any = (),
        max_features: int | None = 1200,
        reader: ImageReader | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.descriptor = descriptor
        self.detector = detector
        self.options = options
        self.detector_options = detector_options
        self.max_features = max_features
        self.reader = reader
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors; of binary ones, the number of bytes."""
        return int(self._create(self.descriptor, self.options, "options").descriptorSize())

    @property
    def metric(self) -> str:
        """Distance that the descriptors are made for: "hamming" (binary descriptors) or "euclidean"."""
        return "hamming" if _is_binary(self._create(self.descriptor, self.options, "options")) else "euclidean"

    def _check_parameters(self) -> None:
        check_number(self, "max_features", self.max_features, low=1, integer=True, optional=True)
        self._detector()

    def _detector(self) -> tuple[Any, Any]:
        """Build what detects (None: the descriptor itself) and what describes."""
        import cv2

        describing = self._create(self.descriptor, self.options, "options")
        if describing.descriptorSize() == 0:
            raise ValueError(
                f"{self.descriptor} of OpenCV only detects. Name a descriptor for its keypoints, such as "
                f'OpenCVFeatures("BRIEF", detector={self.descriptor!r}).'
            )
        if describing.defaultNorm() == cv2.NORM_HAMMING2:
            raise ValueError(
                f"These options of {self.descriptor} give descriptors for OpenCV's NORM_HAMMING2, which counts pairs "
                "of bits and is not available here. Leave WTA_K at 2."
            )
        if self.detector is None:
            if _stem(self.descriptor) in _ONLY_DESCRIBE:
                raise ValueError(
                    f"{self.descriptor} of OpenCV describes, but does not detect. Name a detector, such as "
                    f'OpenCVFeatures({self.descriptor!r}, detector="FAST").'
                )
            return None, describing
        if _stem(self.detector) in _ONLY_DESCRIBE:
            raise ValueError(f"The 'detector' parameter of OpenCVFeatures, {self.detector!r}, does not detect.")
        return self._create(self.detector, self.detector_options, "detector_options"), describing

    def _create(self, name: str, options: Any, parameter: str) -> Any:
        import cv2

        create = _factory(name)
        arguments = _as_dict(options, parameter)
        if "nfeatures" not in arguments and "nfeatures" in (create.__doc__ or ""):
            arguments["nfeatures"] = _ALL if self.max_features is None else int(self.max_features)
        try:
            return create(**arguments)
        except (TypeError, cv2.error) as error:
            raise ValueError(f"OpenCV's {name} cannot be made with the {parameter} {options!r}: {error}") from error

    def _extract(self, detector: Any, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        import cv2

        detecting, describing = detector
        dtype = np.uint8 if _is_binary(describing) else np.float32
        found, descriptors = (), None  # type: tuple[Any, ...], Any
        if min(pixels.shape) >= _SMALLEST_SIDE:
            try:
                if detecting is None:
                    found, descriptors = describing.detectAndCompute(pixels, None)
                else:
                    found = detecting.detect(pixels, None)
                    found, descriptors = describing.compute(pixels, found) if len(found) else ((), None)
            except cv2.error as error:
                if min(pixels.shape) >= _SMALL_SIDE:
                    height, width = pixels.shape
                    raise ValueError(
                        f"OpenCV's {self.descriptor} failed on an image of {width} x {height} pixels: {error}"
                    ) from error
                found = ()
        if descriptors is None or not found:
            return np.empty((0, describing.descriptorSize()), dtype=dtype), np.empty((0, 4), dtype=np.float32)
        rows = np.array([(*p.pt, 0.5 * p.size, p.angle, p.response) for p in found], dtype=np.float64)
        # OpenCV's −1 degree means that there is no orientation.
        rows[:, 3] = np.where(rows[:, 3] < 0, 0.0, np.deg2rad(rows[:, 3]))
        x, y, scale, angle, response = rows.T
        order = np.lexsort((angle, scale, x, y, -response))[: self.max_features]
        return descriptors[order].astype(dtype, copy=False), rows[order, :4].astype(np.float32)


def _is_binary(describing: Any) -> bool:
    import cv2

    # The type alone does not tell: SIFT can be asked for bytes, which are numbers.
    return bool(describing.defaultNorm() in (cv2.NORM_HAMMING, cv2.NORM_HAMMING2) and describing.descriptorType() == 0)


def _stem(name: str) -> str:
    return _ALIASES.get(name, name)


def _factory(name: Any) -> Any:
    """Return OpenCV's function that creates a detector or descriptor.

    Raises
    ------
    ValueError
        If this OpenCV has none of this name; the message lists those that it has.
    """
    import cv2

    if isinstance(name, str) and name.upper() == "SURF":
        raise ValueError("No wheel of OpenCV has SURF switched on. Use cvretrieval.SURF, which needs none.")
    if isinstance(name, str) and _stem(name) not in _NOT_OFFERED:
        for module in _modules():
            if _is_feature(module, _stem(name)):
                return getattr(module, f"{_stem(name)}_create")
    offered = {
        stem for module in _modules() for stem in dir(module) if _is_feature(module, stem) and stem not in _NOT_OFFERED
    } - {"SURF"}
    short = {stem: alias for alias, stem in _ALIASES.items()}
    names = ", ".join(sorted(short.get(stem, stem) for stem in offered))
    raise ValueError(f"OpenCV {cv2.__version__} has no detector or descriptor {name!r} to offer. It has: {names}.")


def _modules() -> list[Any]:
    import cv2

    return [cv2] + ([cv2.xfeatures2d] if hasattr(cv2, "xfeatures2d") else [])


def _is_feature(module: Any, stem: str) -> bool:
    import cv2

    kind = getattr(module, stem, None)
    return hasattr(module, f"{stem}_create") and isinstance(kind, type) and issubclass(kind, cv2.Feature2D)


def _as_dict(options: Any, parameter: str) -> dict[str, Any]:
    try:
        arguments = dict(options.items() if isinstance(options, Mapping) else options)
    except (TypeError, ValueError):
        arguments = {0: None}
    if not all(isinstance(name, str) for name in arguments):
        raise ValueError(
            f"The {parameter!r} parameter of OpenCVFeatures must be a mapping or pairs of names and values, such as "
            f'(("threshold", 0.002),). Got {options!r} instead.'
        )
    return arguments
