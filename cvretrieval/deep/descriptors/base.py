"""What all descriptors from feature maps share: images in, batches through the network, one vector per image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._parallel import progress_bar
from cvretrieval._validation import check_choice
from cvretrieval.deep.inference import NetworkEstimator, PreparedNetwork
from cvretrieval.images import check_images


class MapDescriptor(NetworkEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ABC):
    """Base of the descriptors: subclasses say how a feature map is pooled, and what is learned from maps.

    A subclass stores the parameters named here and in `NetworkEstimator`, and implements `_make_pooling` and
    `_check_pooling`.
    """

    norm: str | None

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
            for indices, by_scale, _ in self._run(images, lambda found: self._describe(pooling, found)):
                rows = self._combine(by_scale)
                if not bool(torch.isfinite(rows).all()):
                    bad = indices[int((~torch.isfinite(rows)).any(1).nonzero()[0, 0])]
                    raise self._refuse_activations(bad)
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
        self._check_network_parameters()
        check_choice(self, "norm", self.norm, ("l2", None))
        self._check_pooling()

    def __sklearn_is_fitted__(self) -> bool:
        return True
