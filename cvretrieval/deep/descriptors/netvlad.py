"""NetVLAD on a given network, its centres learned by k-means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor, nn

from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.learning import SameObject, draw_images
from cvretrieval.images import ImageReader, check_images


class NetVLAD(MapDescriptor):
    """NetVLAD: residuals of the pixels of a feature map to centres, softly assigned, added up and normalised.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    n_clusters : int, default=64
        Centres.
    form : {"paper", "authors"}, default="paper"
        Assign by distance, or by angle as the models do that the authors published.
    normalize_input : bool, default=True
        L2-normalise the features of each pixel first.
    max_train_images : int or None, default=500
        Images that the centres are learned on, drawn from those given to `fit`; None takes all.
    descriptors_per_image : int, default=100
        Pixels drawn from each of their maps.
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
        Seed of the draws and of k-means.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    centers_ : ndarray of shape (n_clusters, n_channels)
        float32.
    alpha_ : float
        Sharpness of the assignment, by the authors' rule (`layers.NetVLAD.init_from`).
    assignment_ : ndarray of shape (n_clusters, n_channels)
        Weights of the assignment that were trained apart from the centres, in place of those that follow from them;
        of published models alone (`load_netvlad`).

    Notes
    -----
    This is NetVLAD as its training starts from: VLAD of the map with soft assignment, intra-normalisation, L2; over
    several scales the mean of these, L2. The paper's descriptor is trained from there, whitened to 4096 dimensions and
    normalised: ``make_pipeline(NetVLAD(…), PCAWhitening(4096))``. It takes the map before the last ReLU,
    ``Backbone("vgg16", layer="features.28")``. Cluster-major, as `VLAD`.

    References
    ----------
    .. [1] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016, equations 1 to 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, NetVLAD
    >>> images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    >>> NetVLAD(Backbone("resnet18", weights=None), n_clusters=2, random_state=0).fit_transform(images).shape
    (4, 1024)
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        n_clusters: int = 64,
        form: str = "paper",
        normalize_input: bool = True,
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
        self.n_clusters = n_clusters
        self.form = form
        self.normalize_input = normalize_input
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

    def fit(self, X: Any, y: Any = None) -> NetVLAD:
        """Learn the centres, and how sharply pixels are assigned to them, from images."""
        super().fit(X, y)
        images = check_images(X, estimator=self)
        if len(images) == 0:
            raise ValueError("NetVLAD cannot learn its centres: X has no images.")
        random_state = check_random_state(self.random_state)
        chosen = draw_images(len(images), self.max_train_images, random_state)
        rows = self._draw_descriptors([images[i] for i in chosen], random_state)
        layer = self._layer(rows.shape[1]).init_from(rows, random_state=random_state)
        self.__dict__.pop("assignment_", None)
        self.centers_ = layer.centers.detach().numpy().copy()
        self.alpha_ = float(layer.alpha)
        return self

    def _draw_descriptors(self, images: Sequence[Any], random_state: Any) -> NDArray[np.float32]:
        """Return features of pixels drawn from the maps of images, in the order of the images."""
        # A seed for each image: batches come in another order when their size changes.
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(images))
        drawn: list[list[NDArray[np.float32]]] = [[] for _ in images]

        def columns(x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)

        for indices, by_scale, _ in self._run(images, columns):
            for maps in by_scale:
                for i, rows in zip(indices, maps.cpu().numpy(), strict=True):
                    pixels = draw_images(len(rows), self.descriptors_per_image, int(seeds[i]))
                    drawn[i].append(rows[pixels])
        return np.concatenate([rows for of_image in drawn for rows in of_image])

    def _layer(self, n_channels: int) -> layers.NetVLAD:
        return layers.NetVLAD(
            self.n_clusters,
            n_channels,
            form=self.form,
            normalize_input=self.normalize_input,
            norm=self.norm == "l2",
        )

    def _make_pooling(self, n_channels: int) -> nn.Module:
        if n_channels != self.centers_.shape[1]:
            raise ValueError(
                f"The backbone gives {n_channels} channels, but NetVLAD was fitted with {self.centers_.shape[1]}."
            )
        layer = self._layer(n_channels).set_centers(self.centers_, self.alpha_)
        if hasattr(self, "assignment_"):
            with torch.no_grad():
                layer.weight.copy_(torch.as_tensor(self.assignment_))
        return layer

    def _pooling_key(self) -> tuple[Any, ...]:
        learned = SameObject(self.centers_), SameObject(getattr(self, "assignment_", None))
        return self.form, self.normalize_input, self.norm, self.alpha_, *learned

    def _check_pooling(self) -> None:
        check_number(self, "n_clusters", self.n_clusters, low=1, integer=True)
        check_choice(self, "form", self.form, ("paper", "authors"))
        check_flag(self, "normalize_input", self.normalize_input)
        check_number(self, "max_train_images", self.max_train_images, low=1, integer=True, optional=True)
        check_number(self, "descriptors_per_image", self.descriptors_per_image, low=1, integer=True)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "centers_")
