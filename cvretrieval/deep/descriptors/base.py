"""What all descriptors from feature maps share: images in, batches through the network, one vector per image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._base import ImageInputMixin
from cvretrieval._parallel import progress_bar
from cvretrieval._validation import check_choice, check_number
from cvretrieval.deep.backbones.backbone import check_backbone
from cvretrieval.deep.inference import (
    Batch,
    NetworkCache,
    PreparedNetwork,
    network_key,
    prepare_network,
    resolve_device,
    run_images,
)
from cvretrieval.deep.inference.batches import limited_reader
from cvretrieval.deep.inference.devices import DTYPES
from cvretrieval.images import ImageReader, check_images


class MapDescriptor(ImageInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """Base of the descriptors: subclasses say how a feature map is pooled, and what is learned from maps.

    A subclass stores the parameters named here and implements `_make_pooling` and `_check_pooling`.
    """

    backbone: Any
    scales: Sequence[float]
    image_size: int | None
    norm: str | None
    reader: ImageReader | None
    device: Any
    dtype: str
    batch_size: int
    n_workers: int | None
    verbose: bool | int

    def fit(self, X: Any, y: Any = None) -> MapDescriptor:
        """Check the parameters and the network; nothing is learned from `X`."""
        self._check_parameters()
        self._prepare()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Describe images.

        Parameters
        ----------
        X : sequence of paths, arrays, PIL images, file objects or ImageRegion
            Images as `ImageReader` reads them, in colour.

        Returns
        -------
        ndarray of shape (n_images, n_features)
            float32. Batches of other images change them by rounding only.

        Raises
        ------
        ImageReadError
            For an image that cannot be read, or is too small for the network.
        """
        check_is_fitted(self)
        self._check_parameters()
        images = check_images(X, estimator=self)
        prepared = self._prepare()
        pooling = self._pooling(prepared)
        vectors: NDArray[np.float32] | None = None
        with progress_bar(total=len(images), description=type(self).__name__, verbose=self.verbose) as bar:
            for indices, by_scale in self._run(images, lambda found: self._describe(pooling, found)):
                rows = self._combine(by_scale)
                if not bool(torch.isfinite(rows).all()):
                    bad = indices[int((~torch.isfinite(rows)).any(1).nonzero()[0, 0])]
                    narrow = "; dtype='float16' may be too narrow for this network" if self.dtype == "float16" else ""
                    name = type(self).__name__
                    raise ValueError(f"{name} got NaN or infinite activations for image {bad}{narrow}.")
                if vectors is None:
                    vectors = np.empty((len(images), rows.shape[1]), dtype=np.float32)
                vectors[indices] = rows.cpu().numpy()
                bar.update(len(indices))
        return np.empty((0, self._n_features_out), dtype=np.float32) if vectors is None else vectors

    @abstractmethod
    def _make_pooling(self, n_channels: int) -> nn.Module:
        """Return the layer that pools maps of so many channels, with what was learned."""

    @abstractmethod
    def _pooling_key(self) -> tuple[Any, ...]:
        """Return what the layer depends on; while it is equal, the layer is not made again."""

    def _check_pooling(self) -> None:
        """Raise ValueError for a parameter of the pooling out of its range; the layer checks its own."""

    @property
    def _scale_power(self) -> float:
        """Exponent of the mean over scales."""
        return 1.0

    def _run(self, images: Sequence[Any], function: Any) -> Iterator[Batch]:
        return run_images(
            images,
            self._prepare(),
            function,
            reader=limited_reader(self.reader, self.image_size),
            scales=self.scales,
            dtype=self.dtype,
            batch_size=self.batch_size,
            n_workers=self.n_workers,
        )

    def _describe(self, pooling: nn.Module, found: Tensor) -> Tensor:
        vectors = pooling(found)
        return F.normalize(vectors, dim=1) if self.norm == "l2" else vectors

    def _combine(self, by_scale: list[Tensor]) -> Tensor:
        """Return the power mean of the vectors of all scales, normalised."""
        if len(by_scale) == 1:
            return by_scale[0]
        stacked, power = torch.stack(by_scale), self._scale_power
        mean = stacked.mean(0) if power == 1 else stacked.pow(power).mean(0).pow(1 / power)
        return F.normalize(mean, dim=1) if self.norm == "l2" else mean

    def _cache(self) -> NetworkCache:
        cache: NetworkCache = self.__dict__.setdefault("_network_cache", NetworkCache())
        return cache

    def _prepare(self) -> PreparedNetwork:
        """Return the network on its device, the one of the last call if it is still the same."""
        backbone, device = check_backbone(self.backbone), resolve_device(self.device)
        key = network_key(backbone, device)
        prepared: PreparedNetwork = self._cache().get("network", key, lambda: prepare_network(backbone, device))
        return prepared

    def _pooling(self, prepared: PreparedNetwork) -> nn.Module:
        key = (prepared.n_channels, str(prepared.device), self._pooling_key())

        def make() -> nn.Module:
            return self._make_pooling(prepared.n_channels).to(prepared.device).eval()

        pooling: nn.Module = self._cache().get("pooling", key, make)
        return pooling

    @property
    def _n_features_out(self) -> int:
        prepared = self._prepare()
        empty = torch.zeros((1, prepared.n_channels, 1, 1), device=prepared.device)
        with torch.inference_mode():
            return int(self._pooling(prepared)(empty).shape[1])

    def _check_parameters(self) -> None:
        check_number(self, "image_size", self.image_size, low=1, integer=True, optional=True)
        check_number(self, "batch_size", self.batch_size, low=1, integer=True)
        check_choice(self, "norm", self.norm, ("l2", None))
        check_choice(self, "dtype", self.dtype, tuple(DTYPES))
        if len(tuple(self.scales)) == 0:
            raise ValueError(f"The 'scales' parameter of {type(self).__name__} must name at least one scale.")
        for scale in self.scales:
            check_number(self, "scales", scale, low=0, low_open=True)
        self._check_pooling()

    def __sklearn_is_fitted__(self) -> bool:
        return True
