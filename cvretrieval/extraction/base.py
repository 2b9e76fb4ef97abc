"""What all extractors share: images in, blocks over workers, one `LocalFeatures` out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from cvretrieval._base import ImageInputMixin
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval.images import ImageReader, ReadImage, check_images
from cvretrieval.local_features import LocalFeatures

# Large enough to amortise the dispatch of a task, small enough to keep all workers busy on small collections.
_BLOCK_SIZE = 4


class LocalFeatureExtractor(ImageInputMixin, TransformerMixin, BaseEstimator, ABC):
    """Base of the extractors: subclasses say how one image is described.

    A subclass stores at least the parameters ``reader``, ``n_jobs`` and ``verbose`` and implements `_detector` and
    `_extract`. Extractors learn nothing: `transform` works without `fit`.
    """

    reader: ImageReader | None
    n_jobs: int | None
    verbose: bool | int

    def fit(self, X: Any, y: Any = None) -> LocalFeatureExtractor:
        """Check the parameters; nothing is learned from `X`."""
        self._check_parameters()
        return self

    def transform(self, X: Any) -> LocalFeatures:
        """Extract the local features of images.

        Parameters
        ----------
        X : sequence of paths, arrays, PIL images, file objects or ImageRegion
            Images as `ImageReader` reads them.

        Returns
        -------
        LocalFeatures
            One entry per image, in order, coordinates in pixels of the original images. An image without features
            has none.

        Raises
        ------
        ImageReadError
            For the first image that cannot be read.
        """
        self._check_parameters()
        images = check_images(X, estimator=self)
        blocks = block_slices(len(images), _BLOCK_SIZE)
        parts = map_blocks(
            self._extract_block,
            ([images[i] for i in range(block.start, block.stop)] for block in blocks),
            n_jobs=self.n_jobs,
            weights=[block.stop - block.start for block in blocks],
            description=type(self).__name__,
            verbose=self.verbose,
        )
        described = [image for part in parts for image in part]
        if not described:
            described_empty = np.empty((0, self.n_dims), dtype=np.float32)
            return LocalFeatures(described_empty, np.zeros(1, np.int64), np.empty((0, 4)), np.empty((0, 2)))
        return LocalFeatures.from_images(described, n_dims=self.n_dims)

    def _extract_block(self, images: list[Any]) -> list[tuple[NDArray[Any], NDArray[Any], tuple[int, int]]]:
        reader = self.reader if self.reader is not None else ImageReader()
        # Detectors of OpenCV can be neither pickled nor shared: each block builds its own.
        detector = self._detector()
        described = []
        for source in images:
            image = reader.read(source, color="grey")
            descriptors, keypoints = self._extract(detector, image.pixels)
            self._to_original(image, keypoints)
            described.append((descriptors, keypoints, (image.width, image.height)))
        return described

    @staticmethod
    def _to_original(image: ReadImage, keypoints: NDArray[np.float32]) -> None:
        """Move keypoints from the pixels that were read to those of the original image, in place."""
        keypoints[:, :2] = image.to_original(keypoints[:, :2])
        keypoints[:, 2] *= np.sqrt(image.scale[0] * image.scale[1])

    @property
    @abstractmethod
    def n_dims(self) -> int:
        """Dimension of the descriptors."""

    @property
    def descriptor_codec(self) -> dict[str, Any] | None:
        """How a store may keep the descriptors in bytes: ``{"dtype": "uint8", "scale": s}``, or None for as they are.

        Encoded is ``clip(round(scale * descriptor), 0, 255)``.
        """
        return None

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise ValueError for a parameter out of its range."""

    @abstractmethod
    def _detector(self) -> Any:
        """Build what `_extract` needs, once per block."""

    @abstractmethod
    def _extract(self, detector: Any, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return descriptors (n, n_dims) and keypoints (n, 4) of one grey image, in its own pixels."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
