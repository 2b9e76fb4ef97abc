"""R-MAC of several scales of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._validation import check_choice
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.rmac import RMAC
from cvretrieval.images import ImageReader


class MultiScaleRMAC(RMAC):
    """Multi-scale R-MAC: regional maxima of an image at several sizes, added up.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    sum_of : {"vectors", "regions"}, default="vectors"
        What the name means. "vectors": the R-MAC vector of each size, normalised, then their sum: every size counts
        alike. "regions": the regions of all sizes in one sum, each counting alike.
    levels : int, default=3
        Scales of regions within each map.
    include_global : bool, default=False
        Take the whole map as one more region, as some programs do.
    whitening : estimator, optional
        Learned by `fit` on the L2-normalised vectors of the regions of all sizes, e.g. `PCAWhitening(512)`, and applied
        to them before they are added up. None leaves them.
    max_train_images : int or None, default=1000
        Images that the whitening is learned on, drawn from those given to `fit`; None takes all.
    scales : sequence of float, default=(0.6875, 1.0, 1.3125)
        Factors that images are resized by: longest sides of 550, 800 and 1050 pixels.
    image_size : int or None, default=800
        Longest side in pixels at scale 1: larger images are reduced, never enlarged. None keeps the reader's.
    norm : {"l2", None}, default="l2"
        L2-normalise the vector of each scale, for "vectors", and the sum.
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
    random_state : int, RandomState or None, default=None
        Seed of the draw.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    whitening_ : estimator
        The fitted whitening; only with `whitening`.

    Notes
    -----
    With r the regions of scale s, each its maximum of every channel, L2, whitening, L2: "vectors" is
    L2(Σ_s L2(Σ_r v_sr)), "regions" L2(Σ_s Σ_r v_sr). In the former, which the paper describes, a size whose regions
    disagree, and whose sum is short, counts as much as the others; in the latter the larger maps' regions are not
    more, since their number depends on the shape of an image alone. `RMAC` with several `scales` is "vectors" with the
    mean instead of the sum, which is the same once normalised.

    References
    ----------
    .. [1] A. Gordo, J. Almazán, J. Revaud and D. Larlus, "End-to-end learning of deep visual representations for image
       retrieval", IJCV 2017 (three sizes, their vectors added up).
    .. [2] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 3.2 (the regions).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, MultiScaleRMAC
    >>> images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    >>> MultiScaleRMAC(Backbone("resnet18", weights=None), sum_of="regions").transform(images).shape
    (2, 512)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        sum_of: str = "vectors",
        levels: int = 3,
        include_global: bool = False,
        whitening: Any = None,
        max_train_images: int | None = 1000,
        scales: Sequence[float] = (0.6875, 1.0, 1.3125),
        image_size: int | None = 800,
        norm: str | None = "l2",
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
        n_workers: int | None = 4,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        super().__init__(
            backbone,
            levels=levels,
            include_global=include_global,
            whitening=whitening,
            max_train_images=max_train_images,
            scales=scales,
            image_size=image_size,
            norm=norm,
            reader=reader,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            n_workers=n_workers,
            random_state=random_state,
            verbose=verbose,
        )
        self.sum_of = sum_of

    def _layer(self, whitening: nn.Module | None) -> layers.RMAC:
        normalize = self.norm == "l2" and self.sum_of == "vectors"
        return layers.RMAC(self.levels, include_global=self.include_global, whitening=whitening, norm=normalize)

    def _pooling_key(self) -> tuple[Any, ...]:
        return (*super()._pooling_key(), self.sum_of)

    def _describe(self, pooling: nn.Module, found: Tensor) -> Tensor:
        return pooling(found)

    def _combine(self, by_scale: list[Tensor]) -> Tensor:
        total = torch.stack(by_scale).sum(0)
        return F.normalize(total, dim=1) if self.norm == "l2" else total

    def _check_pooling(self) -> None:
        super()._check_pooling()
        check_choice(self, "sum_of", self.sum_of, ("vectors", "regions"))
