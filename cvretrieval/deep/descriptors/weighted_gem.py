"""Generalised mean with weights of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor, nn

from cvretrieval._validation import check_number
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.attention_learning import learn_attention, split_pixels
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.learning import SameObject, draw_images
from cvretrieval.images import ImageReader, check_images


class WeightedGeM(MapDescriptor):
    """Weighted generalised mean: GeM in which pixels count by what their features are.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    p : float, default=3.0
        Exponent: 1 is a weighted average; the larger, the closer to max pooling.
    max_train_images : int or None, default=500
        Images that the weights are learned on, drawn from those given to `fit`; None takes all.
    descriptors_per_image : int, default=100
        Pixels drawn from each of their maps.
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
    random_state : int, RandomState or None, default=None
        Seed of the draws.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    attention_ : ndarray of shape (n_channels,)
        float32; a of the weights w = ln(1 + exp(⟨a, x⟩ + b)) of pixels x.
    attention_bias_ : float
        b.

    Notes
    -----
    f_c = (Σ w x_c^p / Σ w)^{1/p}, L2. The paper learns w together with the network; weights learned so are taken over
    by `set_attention`. `fit` learns what can be learned while the network stays as it is: a and b, so that two halves
    of the pixels of an image, or pixels of images of the same label, are found to match among those of all images. What
    looks alike everywhere, such as sky, then counts little. The idea of learning attention on fixed features is DELF's;
    the loss (`attention_learning.learn_attention`) is this package's. Give labels: on classes of groceries not learned
    from they raised the mAP of SqueezeNet from 0.467 to 0.482; without labels it stayed where it was.

    References
    ----------
    .. [1] X. Wu, G. Irie, K. Hiramatsu and K. Kashino, "Weighted generalized mean pooling for deep image retrieval",
       ICIP 2018.
    .. [2] H. Noh, A. Araujo, J. Sim, T. Weyand and B. Han, "Large-scale image retrieval with attentive deep local
       features", ICCV 2017, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, WeightedGeM
    >>> images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    >>> WeightedGeM(Backbone("resnet18", weights=None), random_state=0).fit_transform(images).shape
    (4, 512)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        p: float = 3.0,
        max_train_images: int | None = 500,
        descriptors_per_image: int = 100,
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
        self.p = p
        self.max_train_images = max_train_images
        self.descriptors_per_image = descriptors_per_image
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

    def fit(self, X: Any, y: Any = None) -> WeightedGeM:
        """Learn how much pixels count from images, and from what they show if labels are given as `y`."""
        super().fit(X, y)
        images = check_images(X, estimator=self)
        if len(images) == 0:
            raise ValueError("WeightedGeM cannot learn its weights: X has no images.")
        if y is not None and len(y) != len(images):
            raise ValueError(f"X has {len(images)} images, but y has {len(y)} labels.")
        random_state = check_random_state(self.random_state)
        chosen = draw_images(len(images), self.max_train_images, random_state)
        rows = self._draw_pixels([images[i] for i in chosen], random_state)
        labels = None if y is None else np.asarray(y)[chosen]
        eps = layers.GeM().eps
        self.attention_, self.attention_bias_ = learn_attention(
            rows, labels, float(self.p), eps, self._prepare().device
        )
        return self

    def set_attention(self, weight: Any, bias: Any) -> WeightedGeM:
        """Take weights that were learned elsewhere, and return self, fitted.

        Parameters
        ----------
        weight : array or tensor of shape (n_channels,)
            a.
        bias : float
            b; those of a trained `layers.WeightedGeM` are ``attention.weight`` and ``attention.bias``.
        """
        super().fit([])
        values, offset = (torch.as_tensor(value).detach().cpu().numpy() for value in (weight, bias))
        n_channels = self._prepare().n_channels
        if values.shape != (n_channels,) or offset.size != 1 or not np.isfinite([*values, offset.item()]).all():
            raise ValueError(
                f"The backbone gives {n_channels} channels, so weight must be {n_channels} finite numbers, and bias "
                f"one. Got shape {values.shape} and {offset.tolist()}."
            )
        self.attention_, self.attention_bias_ = values.astype(np.float32), float(offset.item())
        return self

    def _draw_pixels(self, images: Sequence[Any], random_state: Any) -> NDArray[np.float32]:
        """Return pixels of two views of the maps of images, (n_images, 2, n_drawn, n_channels)."""
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(images))
        n_drawn = (int(self.descriptors_per_image) + 1) // 2
        drawn = np.empty((len(images), 2, n_drawn, self._prepare().n_channels), dtype=np.float32)

        def columns(x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)

        for indices, by_scale, _ in self._run(images, columns):
            for i, found in zip(indices, torch.cat(by_scale, 1).cpu().numpy(), strict=True):
                drawn[i] = found[split_pixels(len(found), n_drawn, check_random_state(int(seeds[i])))]
                if not np.isfinite(drawn[i]).all():
                    raise self._refuse_activations(i)
        return drawn

    @property
    def _scale_power(self) -> float:
        return float(self.p)

    def _make_pooling(self, n_channels: int) -> nn.Module:
        if n_channels != len(self.attention_):
            raise ValueError(
                f"The backbone gives {n_channels} channels, but WeightedGeM was fitted with {len(self.attention_)}."
            )
        layer = layers.WeightedGeM(n_channels, self.p)
        with torch.no_grad():
            layer.attention.weight.copy_(torch.as_tensor(self.attention_))
            layer.attention.bias.fill_(self.attention_bias_)
        return layer

    def _pooling_key(self) -> tuple[Any, ...]:
        return self.p, self.attention_bias_, SameObject(self.attention_)

    def _check_pooling(self) -> None:
        check_number(self, "p", self.p, low=0, low_open=True)
        check_number(self, "max_train_images", self.max_train_images, low=1, integer=True, optional=True)
        check_number(self, "descriptors_per_image", self.descriptors_per_image, low=1, integer=True)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "attention_")
