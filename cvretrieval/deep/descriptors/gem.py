"""Generalised mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cvretrieval._validation import check_number
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.images import ImageReader


class GeM(MapDescriptor):
    """Generalised-mean pooling (GeM): the mean of p-th powers of each channel of a feature map, p-th root taken.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    p : float, default=3.0
        Exponent: 1 is average pooling; the larger, the closer to max pooling.
    scales : sequence of float, default=(1.0,)
        Factors that images are resized by; their vectors are combined by a mean of order p.
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
    Generalised mean, L2; over several scales (mean of v^p)^(1/p) of these vectors v, L2. The paper's descriptor with
    scales (1, 2**-0.5, 0.5) is whitened by `LearnedWhitening`, each scale by itself, and averaged with exponent 1;
    whitening what is returned here, as ``make_pipeline(GeM(…), PCAWhitening(…))`` does, comes after the mean.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019,
       equation 3 and section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import GeM, Backbone
    >>> images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    >>> GeM(Backbone("resnet18", weights=None), scales=(1, 0.5)).transform(images).shape
    (2, 512)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        p: float = 3.0,
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
        self.p = p
        self.scales = scales
        self.image_size = image_size
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    @property
    def _scale_power(self) -> float:
        return float(self.p)

    def _make_pooling(self, n_channels: int) -> nn.Module:
        return layers.GeM(self.p)

    def _pooling_key(self) -> tuple[Any, ...]:
        return (self.p,)

    def _check_pooling(self) -> None:
        check_number(self, "p", self.p, low=0, low_open=True)
