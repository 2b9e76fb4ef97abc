"""Sum-pooled convolutional features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cvretrieval._validation import check_flag
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.images import ImageReader


class SPoC(MapDescriptor):
    """Sum-pooled convolutional features (SPoC): the sum of each channel of a feature map, its centre counting more.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    center_prior : bool, default=True
        Weight pixels by a Gaussian about the centre of the map, with a third of the way to the nearest border as σ.
        Leave it out for photographs that are not about their centre, or turned.
    scales : sequence of float, default=(1.0,)
        Factors that images are resized by; their vectors are averaged.
    image_size : int or None, default=1024
        Longest side in pixels: larger images are reduced, never enlarged. None keeps the reader's.
    norm : {"l2", None}, default="l2"
        L2-normalise the vector of each scale, and their mean.
    reader : ImageReader, optional
        How images are read; the default one if None.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in; maps are pooled in float32.
    batch_size : int, default=16
        Images of one size that are computed at once. Halved, with a warning, where memory does not suffice.
    n_workers : int or None, default=4
        Threads that read images while the network runs; None is 1, -1 as many as there are processors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Weighted sum, L2; over several scales the mean of these, L2. The paper's descriptor is
    ``make_pipeline(SPoC(…), PCAWhitening(256))``: sum, L2, PCA whitening learned on other images, L2.

    References
    ----------
    .. [1] A. Babenko and V. Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015,
       equations 1 to 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import SPoC, Backbone
    >>> images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    >>> SPoC(Backbone("resnet18", weights=None)).transform(images).shape
    (2, 512)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        center_prior: bool = True,
        scales: Sequence[float] = (1.0,),
        image_size: int | None = 1024,
        norm: str | None = "l2",
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
        n_workers: int | None = 4,
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.center_prior = center_prior
        self.scales = scales
        self.image_size = image_size
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    def _make_pooling(self, n_channels: int) -> nn.Module:
        return layers.SPoC(center_prior=self.center_prior)

    def _pooling_key(self) -> tuple[Any, ...]:
        return (self.center_prior,)

    def _check_pooling(self) -> None:
        check_flag(self, "center_prior", self.center_prior)
