"""What all estimators have that run images through a network: the network prepared once, images in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sklearn.base import BaseEstimator
from torch import Tensor

from cvretrieval._base import ImageInputMixin
from cvretrieval._validation import check_choice, check_number
from cvretrieval.deep.backbones.backbone import check_backbone
from cvretrieval.deep.inference.batches import ImageSource, limited_reader
from cvretrieval.deep.inference.devices import DTYPES, resolve_device
from cvretrieval.deep.inference.fitted_network import check_fitted_network, fitted_network
from cvretrieval.deep.inference.network import NetworkCache, PreparedNetwork, network_key, prepare_network
from cvretrieval.deep.inference.runner import Batch, run_images
from cvretrieval.images import ImageReader

Self = TypeVar("Self", bound="NetworkEstimator")


class NetworkEstimator(ImageInputMixin, BaseEstimator, ABC):
    """Base of the estimators; a subclass stores the parameters named here and implements `_check_parameters`."""

    backbone: Any
    scales: Sequence[float]
    image_size: int | None
    reader: ImageReader | None
    device: Any
    dtype: str
    batch_size: int
    n_workers: int | None
    verbose: bool | int

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the network; nothing is learned from `X`.

        The network is remembered by a digest of its weights: where they are others when what was fitted is used again,
        loaded from a file in which only their name stands, that is an error.
        """
        return self.remember_network()

    def remember_network(self: Self) -> Self:
        """Take note of the network's weights as those that this was fitted with, and return self."""
        self.__dict__.pop("network_", None)
        self.network_ = fitted_network(check_backbone(self.backbone), self.prepare()._prepare())
        return self

    def prepare(self: Self) -> Self:
        """Check the parameters, load the network onto its device unless it is there, and return self.

        Raises
        ------
        ValueError, ImportError
            For what cannot be: a parameter out of its range, a network or device that does not exist.
        StoreError
            If its weights cannot be had, or are not those that this was fitted with.
        """
        self._check_parameters()
        self._prepare()
        return self

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise ValueError for a parameter out of its range."""

    def _run(
        self,
        images: Sequence[Any],
        function: Callable[[Tensor], Any],
        around: Callable[[Tensor], AbstractContextManager[Any]] | None = None,
    ) -> Iterator[Batch]:
        return run_images(
            images,
            self._prepare(),
            function,
            reader=self._image_reader(),
            scales=self.scales,
            dtype=self.dtype,
            batch_size=self.batch_size,
            n_workers=self.n_workers,
            around=around,
        )

    def _image_reader(self) -> ImageSource:
        return limited_reader(self.reader, self.image_size)

    def _cache(self) -> NetworkCache:
        cache: NetworkCache = self.__dict__.setdefault("_network_cache", NetworkCache())
        return cache

    def _prepare(self) -> PreparedNetwork:
        """Return the network on its device, the one of the last call if it is still the same."""
        backbone, device = check_backbone(self.backbone), resolve_device(self.device)
        options = self._network_options()
        key = (network_key(backbone, device), options)
        prepared: PreparedNetwork = self._cache().get(
            "network", key, lambda: prepare_network(backbone, device, **options)
        )
        check_fitted_network(type(self).__name__, backbone, prepared, self.__dict__.get("network_"))
        return prepared

    def _network_options(self) -> dict[str, Any]:
        """Return what the network is tried out with, and must return; see `PreparedNetwork`."""
        return {}

    def _refuse_activations(self, image: int) -> ValueError:
        narrow = "; dtype='float16' may be too narrow for this network" if self.dtype == "float16" else ""
        return ValueError(f"{type(self).__name__} got NaN or infinite activations for image {image}{narrow}.")

    def _check_network_parameters(self) -> None:
        check_number(self, "image_size", self.image_size, low=1, integer=True, optional=True)
        check_number(self, "batch_size", self.batch_size, low=1, integer=True)
        check_choice(self, "dtype", self.dtype, tuple(DTYPES))
        if len(tuple(self.scales)) == 0:
            raise ValueError(f"The 'scales' parameter of {type(self).__name__} must name at least one scale.")
        for scale in self.scales:
            check_number(self, "scales", scale, low=0, low_open=True)
