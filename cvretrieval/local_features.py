"""`LocalFeatures`: the ragged container that flows between extraction, encoding and verification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import (
    describe_array,
    dimension_mismatch,
    refuse_array_conversion,
    refuse_single_matrix,
)


class ImageFeatures(NamedTuple):
    """The features of one image: views into a `LocalFeatures`."""

    descriptors: NDArray[Any]
    keypoints: NDArray[np.float32] | None = None
    image_size: tuple[float, float] | None = None


class LocalFeatures:
    """The local features of a sequence of images, kept in flat arrays; immutable by convention.

    Image ``i`` owns rows ``offsets[i]:offsets[i + 1]`` of `descriptors` and `keypoints`. An image without features is
    two equal offsets and is legal everywhere.

    Parameters
    ----------
    descriptors : ndarray of shape (n_descriptors, n_dims)
        float32 or uint8, C-contiguous (other layouts and float64 are converted).
    offsets : ndarray of shape (n_images + 1,)
        int64, starting at 0, non-decreasing, ending at ``n_descriptors``.
    keypoints : ndarray of shape (n_descriptors, 4), optional
        float32 columns x, y, scale, angle. x and y are pixels of the original image, the centre of its top-left pixel
        is (0, 0), x to the right, y down; scale is the standard deviation sigma in pixels; angle in radians, turning
        from the x towards the y axis.
    image_sizes : ndarray of shape (n_images, 2), optional
        float32 columns width, height, in pixels of the original images.

    Attributes
    ----------
    shape : tuple
        ``(n_images,)``; with it scikit-learn's splitters select images and keep the container.
    lengths : ndarray of shape (n_images,)
        Number of descriptors of each image.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import LocalFeatures
    >>> X = LocalFeatures.from_images([np.ones((3, 128)), np.ones((0, 128)), np.ones((2, 128))])
    >>> len(X), X.lengths.tolist(), X.n_dims
    (3, [3, 0, 2], 128)
    >>> X[[2, 0]].lengths.tolist()
    [2, 3]
    """

    def __init__(
        self,
        descriptors: NDArray[Any],
        offsets: NDArray[Any],
        keypoints: NDArray[Any] | None = None,
        image_sizes: NDArray[Any] | None = None,
    ) -> None:
        descriptors = _as_descriptors(descriptors)
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise ValueError("offsets must be a non-decreasing 1-D array of integers that starts with 0.")
        if offsets[-1] != len(descriptors):
            raise ValueError(f"offsets end at {offsets[-1]}, but there are {len(descriptors)} descriptors.")
        if keypoints is not None:
            keypoints = np.ascontiguousarray(keypoints, dtype=np.float32)
            if keypoints.shape != (len(descriptors), 4):
                raise ValueError(
                    f"keypoints must have shape ({len(descriptors)}, 4): x, y, scale, angle of each descriptor. "
                    f"Got {keypoints.shape} instead."
                )
        if image_sizes is not None:
            image_sizes = np.ascontiguousarray(image_sizes, dtype=np.float32)
            if image_sizes.shape != (len(offsets) - 1, 2):
                raise ValueError(
                    f"image_sizes must have shape ({len(offsets) - 1}, 2): width and height of each image. "
                    f"Got {image_sizes.shape} instead."
                )
        self.descriptors = descriptors
        self.offsets = offsets
        self.keypoints = keypoints
        self.image_sizes = image_sizes

    @classmethod
    def from_images(cls, images: Iterable[Any], *, n_dims: int | None = None) -> LocalFeatures:
        """Build the container from one entry per image.

        Parameters
        ----------
        images : iterable
            Each entry is a 2-D array of descriptors, None (no features), or a tuple ``(descriptors, keypoints)`` or
            ``(descriptors, keypoints, (width, height))``.
        n_dims : int, optional
            Dimension of the descriptors when no entry has any. Without it such a container has ``n_dims == 0``.

        Raises
        ------
        ValueError
            If the entries disagree in dimension, or only some of them have keypoints or image sizes.
        """
        parts = [_as_image_features(entry, i) for i, entry in enumerate(images)]
        dims = {part.descriptors.shape[1] for part in parts if part.descriptors.shape[1] > 0}
        if len(dims) > 1:
            raise ValueError(f"The images have descriptors of different dimensions: {sorted(dims)}.")
        n_dims = dims.pop() if dims else (n_dims or 0)
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part.descriptors) for part in parts], out=offsets[1:])
        filled = [part.descriptors for part in parts if len(part.descriptors)]
        descriptors = np.concatenate(filled) if filled else np.empty((0, n_dims), dtype=np.float32)
        keypoints = _stack_keypoints(parts)
        sizes = [part.image_size for part in parts]
        if any(size is not None for size in sizes) and any(size is None for size in sizes):
            raise ValueError("Either every image or none must have an image size.")
        image_sizes = np.array(sizes, dtype=np.float32) if sizes and sizes[0] is not None else None
        return cls(descriptors, offsets, keypoints, image_sizes)

    @classmethod
    def concatenate(cls, parts: Sequence[LocalFeatures]) -> LocalFeatures:
        """Join containers, image after image; geometry is kept only where every part has it."""
        if not parts:
            return cls(np.empty((0, 0), dtype=np.float32), np.zeros(1, dtype=np.int64))
        filled = [part for part in parts if len(part.descriptors)]
        dims = {part.n_dims for part in filled}
        if len(dims) > 1:
            raise ValueError(f"The parts have descriptors of different dimensions: {sorted(dims)}.")
        n_dims = dims.pop() if dims else max(part.n_dims for part in parts)
        descriptors = [part.descriptors for part in filled] or [np.empty((0, n_dims), dtype=np.float32)]
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        keypoints = None
        if all(part.keypoints is not None for part in parts):
            keypoints = np.concatenate([part.keypoints for part in parts])  # type: ignore[misc]
        image_sizes = None
        if all(part.image_sizes is not None for part in parts):
            image_sizes = np.concatenate([part.image_sizes for part in parts])  # type: ignore[misc]
        return cls(np.concatenate(descriptors), offsets, keypoints, image_sizes)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.offsets) - 1,)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors."""
        return int(self.descriptors.shape[1])

    @property
    def n_descriptors(self) -> int:
        """Number of descriptors of all images together."""
        return int(self.descriptors.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        arrays = (self.descriptors, self.offsets, self.keypoints, self.image_sizes)
        return sum(array.nbytes for array in arrays if array is not None)

    def image_index(self) -> NDArray[np.int64]:
        """Return the image of each descriptor row, int64 of shape (n_descriptors,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def with_descriptors(self, descriptors: NDArray[Any]) -> LocalFeatures:
        """Return a container with other descriptors, row for row, and the same geometry."""
        if len(descriptors) != self.n_descriptors:
            raise ValueError(f"Expected {self.n_descriptors} descriptor rows. Got {len(descriptors)} instead.")
        return LocalFeatures(descriptors, self.offsets, self.keypoints, self.image_sizes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[ImageFeatures]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Select images: an integer gives an `ImageFeatures` of views; everything else gives a container.

        A slice of step 1 makes no copy; an integer array, a boolean mask or a list gathers a copy. ``X[key, ...]`` is
        what scikit-learn sends to objects with a ``shape`` and means ``X[key]``.
        """
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_)):
            return self._image(int(key))
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._contiguous(start, max(start, stop))
            key = np.arange(start, stop, step)
        index = np.asarray(key)
        if index.dtype == bool:
            if index.shape != self.shape:
                raise IndexError(f"A boolean mask needs shape {self.shape}. Got {index.shape} instead.")
            index = np.flatnonzero(index)
        elif index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise IndexError(f"Images are selected by integers, slices, masks or 1-D integer arrays. Got {key!r}.")
        return self._gather(index.astype(np.int64, copy=False))

    def _image(self, i: int) -> ImageFeatures:
        if not -len(self) <= i < len(self):
            raise IndexError(f"Image {i} of {len(self)} images.")
        i %= len(self)
        rows = slice(self.offsets[i], self.offsets[i + 1])
        size = self.image_sizes[i] if self.image_sizes is not None else None
        return ImageFeatures(
            self.descriptors[rows],
            self.keypoints[rows] if self.keypoints is not None else None,
            (float(size[0]), float(size[1])) if size is not None else None,
        )

    def _contiguous(self, start: int, stop: int) -> LocalFeatures:
        rows = slice(self.offsets[start], self.offsets[stop])
        return LocalFeatures(
            self.descriptors[rows],
            self.offsets[start : stop + 1] - self.offsets[start],
            self.keypoints[rows] if self.keypoints is not None else None,
            self.image_sizes[start:stop] if self.image_sizes is not None else None,
        )

    def _gather(self, index: NDArray[np.int64]) -> LocalFeatures:
        n_images = len(self)
        if index.size and (index.min() < -n_images or index.max() >= n_images):
            wrong = index[(index < -n_images) | (index >= n_images)][0]
            raise IndexError(f"Image {wrong} of {n_images} images.")
        index = np.where(index < 0, index + n_images, index)
        lengths = self.lengths[index]
        offsets = np.zeros(len(index) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        rows = np.repeat(self.offsets[index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return LocalFeatures(
            self.descriptors[rows],
            offsets,
            self.keypoints[rows] if self.keypoints is not None else None,
            self.image_sizes[index] if self.image_sizes is not None else None,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        refuse_array_conversion(len(self))

    def __repr__(self) -> str:
        geometry = "" if self.keypoints is None else ", with keypoints"
        return (
            f"LocalFeatures({len(self)} images, {self.n_descriptors} {self.descriptors.dtype} descriptors "
            f"of {self.n_dims} dimensions{geometry})"
        )


def check_local_features(
    X: Any,
    *,
    n_dims: int | None = None,
    estimator: Any = None,
    keypoints: bool = False,
    dtype: Any = None,
    min_images: int = 0,
) -> LocalFeatures:
    """Validate the input of a stage: the one door behind which there is only `LocalFeatures`.

    Parameters
    ----------
    X : LocalFeatures, list of 2-D arrays, object array, 3-D array, or iterable of per-image tuples
        Anything `LocalFeatures.from_images` takes. A bare 2-D array is refused: it would be ambiguous.
    n_dims : int, optional
        Required dimension of the descriptors. A container without any descriptor satisfies every dimension.
    estimator : object, optional
        The caller, named in messages.
    keypoints : bool, default=False
        Require keypoints.
    dtype : dtype, optional
        Convert the descriptors, e.g. to float32; without it uint8 stays uint8.
    min_images : int, default=0
        Smallest number of images.

    Returns
    -------
    LocalFeatures
        ``X`` itself if nothing had to be changed.
    """
    name = type(estimator).__name__ if estimator is not None else "This function"
    if not isinstance(X, LocalFeatures):
        if isinstance(X, np.ndarray) and X.dtype != object:
            if X.ndim == 2:
                refuse_single_matrix(name, X)
            if X.ndim != 3:
                raise ValueError(f"{name} expects local features of images. Got {describe_array(X)} instead.")
        if isinstance(X, (str, bytes)) or not isinstance(X, Iterable):
            raise TypeError(f"{name} expects LocalFeatures or a list of 2-D arrays. Got {type(X).__name__} instead.")
        X = LocalFeatures.from_images(X, n_dims=n_dims)
    if len(X) < min_images:
        raise ValueError(f"{name} needs at least {min_images} image(s). X has {len(X)}.")
    if n_dims is not None and X.n_dims != n_dims:
        if X.n_descriptors:
            raise dimension_mismatch(name, X.n_dims, n_dims)
        X = X.with_descriptors(np.empty((0, n_dims), dtype=X.descriptors.dtype))
    if keypoints and X.keypoints is None:
        raise ValueError(f"{name} needs keypoints, but X has descriptors only.")
    if dtype is not None and X.descriptors.dtype != np.dtype(dtype):
        X = X.with_descriptors(X.descriptors.astype(dtype))
    return X


def _as_descriptors(array: Any, what: str = "descriptors") -> NDArray[Any]:
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(f"{what} must be a 2-D array (n_descriptors, n_dims). Got {describe_array(array)} instead.")
    if array.dtype in (np.uint8, np.float32):
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must be numbers. Got an array of {array.dtype} instead.")
    return np.ascontiguousarray(array, dtype=np.float32)


def _as_image_features(entry: Any, i: int) -> ImageFeatures:
    keypoints = size = None
    if isinstance(entry, tuple):
        if not 1 <= len(entry) <= 3:
            raise ValueError(f"Image {i}: expected (descriptors, keypoints, (width, height)). Got {len(entry)} items.")
        entry, keypoints, size = (*entry, None, None)[:3]
    if entry is None:
        descriptors = np.empty((0, 0), dtype=np.float32)
    else:
        array = np.asarray(entry)
        if array.size == 0 and array.ndim != 2:
            array = array.reshape(0, 0)
        descriptors = _as_descriptors(array, f"The descriptors of image {i}")
    if keypoints is not None:
        keypoints = np.asarray(keypoints, dtype=np.float32).reshape(-1, 4)
        if len(keypoints) != len(descriptors):
            raise ValueError(f"Image {i} has {len(descriptors)} descriptors, but {len(keypoints)} keypoints.")
    return ImageFeatures(descriptors, keypoints, size)


def _stack_keypoints(parts: Sequence[ImageFeatures]) -> NDArray[np.float32] | None:
    filled = [part for part in parts if len(part.descriptors)] or parts
    with_geometry = [part.keypoints for part in filled if part.keypoints is not None]
    if not with_geometry:
        return None
    if len(with_geometry) != len(filled):
        raise ValueError("Either every image or none must have keypoints.")
    return np.concatenate(with_geometry)
