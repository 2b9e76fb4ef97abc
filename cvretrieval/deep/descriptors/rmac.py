"""Regional maximum activations of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn

from cvretrieval._validation import check_flag, check_number
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.learning import SameObject, draw_images
from cvretrieval.images import ImageReader, check_images


class RMAC(MapDescriptor):
    """Regional maximum activations of convolutions (R-MAC): maxima of a grid of regions, whitened and added up.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    levels : int, default=3
        Scales of regions.
    include_global : bool, default=False
        Add the whole map as one more region.
    whitening : estimator, optional
        What `fit` learns on the L2-normalised vectors of all regions, e.g. `PCAWhitening(512)`, and applies to them
        before they are added up. None leaves them.
    max_train_images : int or None, default=1000
        Images that the whitening is learned on, drawn from those given to `fit`; None takes all.
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
    Per region: maximum of each channel, L2, whitening, L2; then the sum of the regions, L2; over several scales the
    mean of these, L2. Fit on other images than those searched: the paper takes Paris for Oxford. Given labels as `y`,
    the whitening gets those of the regions' images.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import PCAWhitening
    >>> from cvretrieval.deep import RMAC, Backbone
    >>> images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    >>> RMAC(Backbone("resnet18", weights=None), whitening=PCAWhitening(8)).fit_transform(images).shape
    (4, 8)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        levels: int = 3,
        include_global: bool = False,
        whitening: Any = None,
        max_train_images: int | None = 1000,
        scales: Sequence[float] = (1.0,),
        image_size: int | None = 1024,
        norm: str | None = "l2",
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
        n_workers: int | None = 4,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.levels = levels
        self.include_global = include_global
        self.whitening = whitening
        self.max_train_images = max_train_images
        self.scales = scales
        self.image_size = image_size
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> RMAC:
        """Learn the whitening on the regions of images; without one, check the parameters and the network."""
        super().fit(X, y)
        if self.whitening is None:
            self.__dict__.pop("whitening_", None)
            return self
        images = check_images(X, estimator=self)
        if len(images) == 0:
            raise ValueError(f"{type(self).__name__} cannot learn its whitening: X has no images.")
        chosen = draw_images(len(images), self.max_train_images, self.random_state)
        regions, owners = self._regions([images[i] for i in chosen])
        labels = () if y is None else (np.asarray(y)[chosen][owners],)
        self.whitening_ = clone(self.whitening).fit(regions, *labels)
        return self

    def _regions(self, images: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the vectors of the regions of images, in their order, and the image that each belongs to."""
        plain = self._layer(None)
        found: list[list[NDArray[np.float32]]] = [[] for _ in images]

        def regions(x: Tensor) -> Tensor:
            return plain.regions(x)

        for indices, by_scale, _ in self._run(images, regions):
            for vectors in by_scale:
                for i, rows in zip(indices, vectors.cpu().numpy(), strict=True):
                    found[i].append(rows)
        rows_of = [np.concatenate(rows) for rows in found]
        owners = np.repeat(np.arange(len(images)), [len(rows) for rows in rows_of])
        return np.concatenate(rows_of), owners

    def _layer(self, whitening: nn.Module | None) -> layers.RMAC:
        return layers.RMAC(self.levels, include_global=self.include_global, whitening=whitening, norm=self.norm == "l2")

    def _make_pooling(self, n_channels: int) -> nn.Module:
        if self.whitening is None:
            return self._layer(None)
        n_fitted = int(self.whitening_.n_features_in_)
        if n_channels != n_fitted:
            name = type(self).__name__
            raise ValueError(f"The backbone gives {n_channels} channels, but {name} was fitted with {n_fitted}.")
        return self._layer(layers.Whitening(self.whitening_))

    def _pooling_key(self) -> tuple[Any, ...]:
        learned = None if self.whitening is None else SameObject(self.whitening_)
        return self.levels, self.include_global, self.norm, learned

    def _check_pooling(self) -> None:
        check_number(self, "levels", self.levels, low=1, integer=True)
        check_flag(self, "include_global", self.include_global)
        check_number(self, "max_train_images", self.max_train_images, low=1, integer=True, optional=True)

    def __sklearn_is_fitted__(self) -> bool:
        return self.whitening is None or hasattr(self, "whitening_")
