"""Generalised mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._validation import check_number
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.learning import SameObject
from cvretrieval.images import ImageReader, check_images


class GeM(MapDescriptor):
    """Generalised-mean pooling (GeM): the mean of p-th powers of each channel of a feature map, p-th root taken.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    p : float, default=3.0
        Exponent: 1 is average pooling; the larger, the closer to max pooling.
    whitening : estimator, optional
        What `fit` learns on the L2-normalised vectors of images, at each scale, and applies to them before scales are
        combined, e.g. `LearnedWhitening`, which needs labels. None leaves them.
    scales : sequence of float, default=(1.0,)
        Factors that images are resized by; their vectors are combined by a mean of order p, or, whitened, of order 1.
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

    Attributes
    ----------
    whitening_ : estimator
        The fitted whitening; only with `whitening`.

    Notes
    -----
    Generalised mean, L2; over several scales (mean of v^p)^(1/p) of these vectors v, L2. With `whitening`: generalised
    mean, L2, whitening, L2; over several scales the mean of these, L2. ``make_pipeline(GeM(…), PCAWhitening(…))``
    whitens after the mean.

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
        whitening: Any = None,
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
        self.whitening = whitening
        self.scales = scales
        self.image_size = image_size
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> GeM:
        """Learn the whitening on images; without one, check the parameters and the network."""
        super().fit(X, y)
        self.__dict__.pop("whitening_", None)
        if self.whitening is None:
            return self
        images = check_images(X, estimator=self)
        if len(images) == 0:
            raise ValueError("GeM cannot learn its whitening: X has no images.")
        pooling = nn.Sequential(layers.GeM(self.p), UnitLength()).to(self._prepare().device)
        by_scale: list[list[Any]] = [[None] * len(images) for _ in self.scales]
        for indices, found, *_ in self._run(images, pooling):
            for vectors, pooled in zip(by_scale, found, strict=True):
                for i, vector in zip(indices, pooled.cpu().numpy(), strict=True):
                    vectors[i] = vector
        labels = () if y is None else (np.tile(np.asarray(y), len(by_scale)),)
        self.whitening_ = clone(self.whitening).fit(np.concatenate(by_scale), *labels)
        return self

    @property
    def _scale_power(self) -> float:
        return float(self.p) if self.whitening is None else 1.0

    def _make_pooling(self, n_channels: int) -> nn.Module:
        if self.whitening is None:
            return layers.GeM(self.p)
        return nn.Sequential(layers.GeM(self.p), UnitLength(), layers.Whitening(self.whitening_, norm=False))

    def _pooling_key(self) -> tuple[Any, ...]:
        return self.p, None if self.whitening is None else SameObject(self.whitening_)

    def _check_pooling(self) -> None:
        check_number(self, "p", self.p, low=0, low_open=True)

    def __sklearn_is_fitted__(self) -> bool:
        return self.whitening is None or hasattr(self, "whitening_")


class UnitLength(nn.Module):
    """L2 normalisation as a step of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise vectors (n_images, n_features)."""
        return F.normalize(x, dim=1)
