"""The pixels of a feature map as local features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from torch import Tensor

from cvretrieval._parallel import progress_bar
from cvretrieval._validation import check_choice, check_number
from cvretrieval.deep.inference import NetworkEstimator
from cvretrieval.deep.local.map_geometry import GeometryTracer, MapGeometry
from cvretrieval.images import ImageReader, ReadImage, check_images
from cvretrieval.local_features import LocalFeatures

#: Side of the region that a feature measures, in sigmas of its keypoint, as for SIFT.
_SIGMAS = 12.0


class _Map(NamedTuple):
    """The pixels of the maps of a batch, (B, H · W, C); where they lie in an image of (height, width)."""

    columns: Tensor
    shape: tuple[int, int]
    geometry: MapGeometry
    image_size: tuple[int, int]


class DeepLocalFeatures(NetworkEstimator, TransformerMixin):
    """Deep local features: the vectors of a feature map's pixels, each with its place and size in the image.

    An extractor, as `SIFT` is: everything that takes its features takes these.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    max_features : int or None, default=1000
        Keep so many features of each image, of all scales together: those of the largest L2 norm; fewer if it has
        fewer. None keeps all.
    min_norm : float, default=0.0
        Keep features whose L2 norm exceeds this, in the units of the map. Pixels at which no channel responds are none.
    scales : sequence of float, default=(1.0,)
        Factors that images are resized by; the features of all scales are put together.
    image_size : int or None, default=1024
        Longest side in pixels: larger images are reduced, never enlarged. None keeps the reader's.
    norm : {"l2", None}, default="l2"
        L2-normalise each descriptor, after the selection.
    reader : ImageReader, optional
        How images are read; the default one if None.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in; descriptors are float32.
    batch_size : int, default=16
        Images of one size that are computed at once. Halved, with a warning, where memory does not suffice.
    n_workers : int or None, default=4
        Threads that read images while the network runs; None is 1, -1 as many as there are processors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Descriptors have as many dimensions as the map has channels; reduce them before they are aggregated:
    ``make_pipeline(DeepLocalFeatures(…), PerDescriptor(PCA(128)), VLAD(64))``. A keypoint is the centre of the
    receptive field, in pixels of the original image, which need not be where a map stretched over the image would put
    it: for ResNets, whose convolutions are padded, pixel (0, 0) of the map sees what surrounds pixel (0, 0).
    Its scale is a twelfth of the receptive field's side, what SIFT's sigma is of its patch; at scale s of the image the
    field is 1 / s as large. Angle 0. The sides are those of theory: most of the response comes from the middle.

    Fields are followed through convolutions and poolings as the network runs. A map that can't be followed (of
    transformers, ConvNeXt) is taken to cover the image evenly, each feature measuring one cell. Global weights within a
    network, such as squeeze-and-excitation, do not count.

    Features come in the order of the scales, then of rows, then of columns. An image whose map is zero yields none.

    References
    ----------
    .. [1] H. Noh, A. Araujo, J. Sim, T. Weyand and B. Han, "Large-scale image retrieval with attentive deep local
       features", ICCV 2017, section 4.1 (dense features of several scales, centres of receptive fields).
    .. [2] G. Tolias, T. Jenicek and O. Chum, "Learning and aggregating deep local descriptors for instance-level
       recognition", ECCV 2020 (selection by L2 norm).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, DeepLocalFeatures
    >>> images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    >>> X = DeepLocalFeatures(Backbone("resnet18", weights=None, layer="layer3")).transform(images)
    >>> X.lengths.tolist(), X.n_dims
    ([24, 24], 256)
    >>> X.keypoints[:3].tolist()
    [[0.0, 0.0, 17.58333396911621, 0.0], [16.0, 0.0, 17.58333396911621, 0.0], [32.0, 0.0, 17.58333396911621, 0.0]]
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        max_features: int | None = 1000,
        min_norm: float = 0.0,
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
        self.max_features = max_features
        self.min_norm = min_norm
        self.scales = scales
        self.image_size = image_size
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    def transform(self, X: Any) -> LocalFeatures:
        """Extract the local features of images.

        Parameters
        ----------
        X : sequence of paths, arrays, PIL images, file objects or ImageRegion
            Images as `ImageReader` reads them, in colour.

        Returns
        -------
        LocalFeatures
            One entry per image, in order, coordinates in pixels of the original images.

        Raises
        ------
        ImageReadError
            For an image that cannot be read, or is too small for the network.
        """
        self._check_parameters()
        images = check_images(X, estimator=self)
        described: list[Any] = [None] * len(images)
        tracer = GeometryTracer()

        def take(found: Tensor) -> _Map:
            shape = (int(found.shape[2]), int(found.shape[3]))
            return _Map(found.flatten(2).transpose(1, 2), shape, tracer.geometry(found), tracer.image_size)

        with progress_bar(total=len(images), description=type(self).__name__, verbose=self.verbose) as bar:
            for indices, maps, read in self._run(images, take, tracer.watch):
                keypoints = np.concatenate([_keypoints(one, read[0].pixels.shape[:2]) for one in maps])
                columns = torch.cat([one.columns for one in maps], 1)
                norms = torch.linalg.vector_norm(columns, dim=2)
                if not bool(torch.isfinite(norms).all()):
                    bad = indices[int((~torch.isfinite(norms)).any(1).nonzero()[0, 0])]
                    raise self._refuse_activations(bad)
                for i, index in enumerate(indices):
                    kept = self._select(norms[i])
                    found = columns[i][kept]
                    if self.norm == "l2":
                        found /= norms[i][kept].unsqueeze(1)
                    places = _to_original(read[i], keypoints[kept.cpu().numpy()])
                    described[index] = (found.cpu().numpy(), places, (read[i].width, read[i].height))
                bar.update(len(indices))
        if not described:
            none = np.empty((0, self.n_dims), dtype=np.float32)
            return LocalFeatures(none, np.zeros(1, np.int64), np.empty((0, 4)), np.empty((0, 2)))
        return LocalFeatures.from_images(described, n_dims=self.n_dims)

    @property
    def n_dims(self) -> int:
        """Dimension of the descriptors: the channels of the map."""
        return self._prepare().n_channels

    def _select(self, norms: Tensor) -> Tensor:
        """Return which features are kept, in their order."""
        kept = (norms > self.min_norm).nonzero().squeeze(1)
        if self.max_features is None or len(kept) <= self.max_features:
            return kept
        strongest = torch.sort(norms[kept], descending=True, stable=True).indices[: int(self.max_features)]
        return kept[strongest.sort().values]

    def _check_parameters(self) -> None:
        self._check_network_parameters()
        check_number(self, "max_features", self.max_features, low=1, integer=True, optional=True)
        check_number(self, "min_norm", self.min_norm, low=0)
        check_choice(self, "norm", self.norm, ("l2", None))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def _keypoints(of: _Map, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return x, y, scale and angle of the pixels of a map, (H · W, 4), in an image that was read with this size."""
    axes, ratios = (of.geometry.y, of.geometry.x), [own / seen for own, seen in zip(size, of.image_size, strict=True)]
    # Resizing scales about the edge of the image, which is half a pixel before the centre of its first one.
    y, x = (
        (axis.start + np.arange(n) * axis.step + 0.5) * ratio - 0.5
        for axis, n, ratio in zip(axes, of.shape, ratios, strict=True)
    )
    keypoints = np.zeros((len(y), len(x), 4))
    keypoints[..., 0] = x
    keypoints[..., 1] = y[:, None]
    keypoints[..., 2] = np.sqrt(axes[0].size * ratios[0] * axes[1].size * ratios[1]) / _SIGMAS
    return keypoints.reshape(-1, 4)


def _to_original(image: ReadImage, keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return keypoints in pixels of the original image."""
    moved = keypoints.copy()
    moved[:, :2] = image.to_original(keypoints[:, :2])
    moved[:, 2] *= np.sqrt(image.scale[0] * image.scale[1])
    return moved
