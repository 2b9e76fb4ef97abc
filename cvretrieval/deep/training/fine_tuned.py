"""Descriptors whose network and pooling are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._validation import check_number
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.inference import PreparedNetwork
from cvretrieval.deep.inference.batches import ImageSource
from cvretrieval.deep.losses import WeaklySupervisedRanking
from cvretrieval.deep.training.estimator import TrainedDescriptor, TrainedParts
from cvretrieval.deep.training.hard_negatives import HardNegativeSampler
from cvretrieval.deep.training.places import PlaceSampler, check_positions, classes_as_positions
from cvretrieval.deep.training.ranking import make_ranking_loss
from cvretrieval.deep.training.trainer import Trainer
from cvretrieval.images import ImageReader
from cvretrieval.postprocessing.power_norm import l2_normalize


class FineTuned(TrainedDescriptor):
    """A descriptor (GeM, NetVLAD, R-MAC, …) whose network and pooling are trained from where it is without training.

    Parameters
    ----------
    descriptor : estimator
        What is trained: ``GeM("resnet50")``, with its exponent; ``GeM(…, whitening=LearnedWhitening())`` and
        ``RMAC(…, whitening=PCAWhitening())``, the whitening a trained layer, too; ``NetVLAD("vgg16")``, its
        centres from k-means at the start. How images are described afterwards, and on which device, is told by its
        parameters.
    ranking_loss : str or callable, default="contrastive"
        "contrastive", "batch_hard", "semi_hard" (triplets), "multi_similarity", "smooth_ap", "weakly_supervised"
        (NetVLAD's, of positions): see `cvretrieval.deep.losses`. Or what takes vectors (B, D) and class numbers (B,),
        such as a loss of pytorch-metric-learning; a copy of its weights, if it has some, is trained, too.
    margin : float or None, default=None
        Of the ranking loss; None is its own, 0.7 for "contrastive".
    classes_per_batch, images_per_class : int, default=32, 4
        Classes in a batch, and images of each (`ClassBalancedSampler`).
    n_negatives : int, default=0
        0: batches of classes as above. Otherwise a batch holds `classes_per_batch` tuples of a query, another image of
        its class, and so many images of other classes: the most similar ones, found anew before each epoch
        (`HardNegativeSampler`). With "weakly_supervised", at least 1: a query, the most similar of its potential
        positives, and negatives (`PlaceSampler`).
    positive_radius, negative_radius : float, default=10, 25
        With "weakly_supervised" and positions in metres: how near potential positives of a query are, and how far
        its negatives. A search is right within `negative_radius`.
    n_epochs : int, default=30
        Epochs of about as many images as there are.
    learning_rate : float, default=1e-5
        Of Adam.
    decay_at : sequence of float, default=(0.5, 0.8)
        Shares of the training after which the learning rate is multiplied by `decay`.
    decay : float, default=0.1
    weight_decay : float, default=0.0
    accumulate : int, default=1
        Batches whose gradients are averaged for one step.
    freeze_batch_norm : bool, default=True
        Keep the running statistics of the network's batch normalisations.
    resize_to, input_size : int, default=252, 224
        In training an image is squashed to a square of `resize_to` pixels, and a random square of `input_size` is cut
        out. Afterwards images are read as `descriptor` reads them.
    flip : bool, default=True
        Mirror every other training image.
    augment : str, callable or None, default=None
        What is done instead of crop and mirror: "random_resized_crop" cuts out a random part, 0.16 to 1 of the image,
        and makes `input_size` of it; "trivial_augment" changes crops once more (TrivialAugment, wide). Or
        ``torchvision.transforms.v2.Compose([…])``, or whatever makes of an image (3, H, W), uint8, one of (3,
        input_size, input_size), uint8, and draws by functions of torch. An estimator with a callable is stored in a
        file after ``set_params(augment=None)``, which changes no vector.
    patience : int or None, default=None
        Epochs without a better recall at 1 of the validation after which training ends.
    random_state : int, RandomState or None, default=None
        Seed of batches, crops and mirrors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    descriptor_ : estimator
        The descriptor as it was fitted before training.
    history_ : dict of str to ndarray of shape (n_epochs,)
        See `CGD`.
    best_epoch_, classes_, weights_, layout_
        See `CGD`. Trained on positions, `classes_` is empty.

    Notes
    -----
    The loss is of L2-normalised vectors of one scale.

    NetVLAD as its paper trains it, on photos with positions (n_images, 2) in metres:
    ``FineTuned(NetVLAD(…), ranking_loss="weakly_supervised", n_negatives=10, classes_per_batch=4).fit(X, positions)``.
    Given classes, potential positives are of the query's class, and negatives of any other.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019.
    .. [2] A. Gordo, J. Almazán, J. Revaud and D. Larlus, "End-to-end learning of deep visual representations for image
       retrieval", IJCV 2017.
    .. [3] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, FineTuned, GeM
    >>> images = list(np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8))
    >>> gem = FineTuned(GeM(Backbone("resnet18", weights=None, layer="layer2")), n_epochs=1, images_per_class=2,
    ...                 resize_to=36, input_size=32, random_state=0)
    >>> gem.fit(images, [0, 0, 1, 1]).transform(images).shape
    (4, 128)
    """

    def __init__(
        self,
        descriptor: Any,
        *,
        ranking_loss: Any = "contrastive",
        margin: float | None = None,
        classes_per_batch: int = 32,
        images_per_class: int = 4,
        n_negatives: int = 0,
        positive_radius: float = 10.0,
        negative_radius: float = 25.0,
        n_epochs: int = 30,
        learning_rate: float = 1e-5,
        decay_at: Sequence[float] = (0.5, 0.8),
        decay: float = 0.1,
        weight_decay: float = 0.0,
        accumulate: int = 1,
        freeze_batch_norm: bool = True,
        resize_to: int = 252,
        input_size: int = 224,
        flip: bool = True,
        augment: Any = None,
        patience: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.descriptor = descriptor
        self.ranking_loss = ranking_loss
        self.margin = margin
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
        self.n_negatives = n_negatives
        self.positive_radius = positive_radius
        self.negative_radius = negative_radius
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.decay_at = decay_at
        self.decay = decay
        self.weight_decay = weight_decay
        self.accumulate = accumulate
        self.freeze_batch_norm = freeze_batch_norm
        self.resize_to = resize_to
        self.input_size = input_size
        self.flip = flip
        self.augment = augment
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    # What the base classes ask of an estimator, as the descriptor has it.
    @property
    def backbone(self) -> Any:  # type: ignore[override]
        return self.descriptor.backbone

    @property
    def scales(self) -> Sequence[float]:  # type: ignore[override]
        scales: Sequence[float] = self.descriptor.scales
        return scales

    @property
    def image_size(self) -> int | None:  # type: ignore[override]
        size: int | None = self.descriptor.image_size
        return size

    @property
    def norm(self) -> str | None:  # type: ignore[override]
        norm: str | None = self.descriptor.norm
        return norm

    @property
    def reader(self) -> ImageReader | None:  # type: ignore[override]
        reader: ImageReader | None = self.descriptor.reader
        return reader

    @property
    def device(self) -> Any:  # type: ignore[override]
        return self.descriptor.device

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return str(self.descriptor.dtype)

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        return int(self.descriptor.batch_size)

    @property
    def n_workers(self) -> int | None:  # type: ignore[override]
        n_workers: int | None = self.descriptor.n_workers
        return n_workers

    def _make_head(self, n_channels: int, images: Sequence[Any] | None = None, y: Any = None) -> nn.Module:
        if images is not None:
            classes = None if np.ndim(y) == 2 else y
            self.descriptor_ = clone(self.descriptor).fit(images, classes)
        head: nn.Module = self.descriptor_._make_pooling(n_channels)
        return head

    def _loss_terms(self, sampler: Any) -> Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]:
        ranking: Callable[[Tensor, Tensor], Tensor]
        if isinstance(sampler, PlaceSampler):
            ranking = partial(_mean_of_tuples, self._weak_loss(), sampler.tuple_size)
        else:
            ranking = make_ranking_loss(self, self.ranking_loss, self.margin)

        def terms(parts: TrainedParts, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
            vectors = self._combine([self._describe(parts.head, parts.maps(images))])
            together = parts.together(F.normalize(vectors, dim=1), targets)
            return {"ranking": (parts.ranking or ranking)(together, targets)}

        return terms  # type: ignore[return-value]

    def _make_sampler(
        self, images: Sequence[Any], targets: Any, seed: int, prepared: PreparedNetwork, head: nn.Module
    ) -> Any:
        if self.n_negatives == 0:
            return super()._make_sampler(images, targets, seed, prepared, head)

        def describe(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
            vectors = self._vectors_of([images[int(i)] for i in chosen], prepared, head)
            return vectors if self.norm == "l2" else l2_normalize(vectors)

        options = {"n_tuples": self.classes_per_batch, "n_negatives": self.n_negatives, "seed": seed}
        if not self._is_weak:
            return HardNegativeSampler(targets, describe, **options)
        positions = targets if targets.ndim == 2 else classes_as_positions(targets, self.negative_radius)
        return PlaceSampler(
            positions,
            describe,
            positive_radius=self.positive_radius,
            negative_radius=self.negative_radius,
            **options,
        )

    def _check_labels(self, images: Sequence[Any], y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        if y is None or np.ndim(y) != 2:
            return super()._check_labels(images, y)
        if not self._is_weak:
            raise ValueError(
                f"FineTuned with ranking_loss={self.ranking_loss!r} is trained with one class for each image. Got y of "
                f"shape {np.shape(y)}; positions need ranking_loss='weakly_supervised' and n_negatives, e.g. 10."
            )
        positions = check_positions(y)
        if len(positions) != len(images):
            raise ValueError(f"y must be one position for each image. Got {len(images)} images, {len(positions)}.")
        return np.empty(0), positions

    @property
    def _is_weak(self) -> bool:
        return isinstance(self.ranking_loss, str) and self.ranking_loss == "weakly_supervised"

    def _weak_loss(self) -> WeaklySupervisedRanking:
        return WeaklySupervisedRanking() if self.margin is None else WeaklySupervisedRanking(self.margin)

    @property
    def _recall_radius(self) -> float:
        return float(self.negative_radius)

    def _install(self, trainer: Trainer, prepared: PreparedNetwork, classes: Any) -> None:
        super()._install(trainer, prepared, classes)
        head = self._make_pooling(prepared.n_channels)
        power = float(self.descriptor_._scale_power)
        exponent = getattr(head, "p", None)
        # Scales are averaged with the exponent of the pooling, which was trained.
        self.scale_power_ = power if power == 1 or exponent is None else float(exponent.detach().mean())

    def _describe(self, pooling: nn.Module, found: Tensor) -> Tensor:
        described: Tensor = self.descriptor_._describe(pooling, found)
        return described

    def _combine(self, by_scale: list[Tensor]) -> Tensor:
        if type(self.descriptor_)._combine is MapDescriptor._combine:
            return super()._combine(by_scale)
        combined: Tensor = self.descriptor_._combine(by_scale)
        return combined

    @property
    def _scale_power(self) -> float:
        power = self.__dict__.get("scale_power_")
        return float(self.descriptor._scale_power if power is None else power)

    def _image_reader(self) -> ImageSource:
        reader: ImageSource = self.descriptor._image_reader()
        return reader

    def _check_parameters(self) -> None:
        is_map_descriptor = isinstance(self.descriptor, MapDescriptor) and not self.descriptor._network_options()
        if not is_map_descriptor or isinstance(self.descriptor, TrainedDescriptor):
            raise TypeError(
                "The 'descriptor' parameter of FineTuned must be a descriptor of feature maps such as GeM, RMAC or "
                f"NetVLAD. Got {type(self.descriptor).__name__} instead."
            )
        self.descriptor._check_parameters()
        super()._check_parameters()

    def _check_pooling(self) -> None:
        if self._is_weak:
            self._weak_loss()
        else:
            make_ranking_loss(self, self.ranking_loss, self.margin, more=("weakly_supervised",))
        check_number(self, "n_negatives", self.n_negatives, low=int(self._is_weak), integer=True)
        check_number(self, "positive_radius", self.positive_radius, low=0)
        check_number(self, "negative_radius", self.negative_radius, low=self.positive_radius)
        self._check_training_parameters()


def _mean_of_tuples(loss: WeaklySupervisedRanking, size: int, vectors: Tensor, _: Tensor) -> Tensor:
    return torch.stack([loss(part[0], part[1:2], part[2:]) for part in vectors.split(size)]).mean()
