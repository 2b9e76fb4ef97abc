"""CGD: a network trained for a combination of global descriptors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sklearn.base import clone
from torch import Tensor, nn

from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.deep.backbones.backbone import Backbone, check_backbone
from cvretrieval.deep.inference.batches import ImageSource, limited_reader
from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from cvretrieval.deep.layers.combined import COMBINATIONS, CombinedDescriptors, check_branches
from cvretrieval.deep.losses import CrossEntropy
from cvretrieval.deep.training.estimator import TrainedDescriptor, TrainedParts
from cvretrieval.deep.training.ranking import make_ranking_loss
from cvretrieval.images import ImageReader

#: Networks whose last stage, called layer4, halves the resolution.
_WITH_LAYER4 = ("resnet", "resnext")


class CGD(TrainedDescriptor):
    """Combination of multiple global descriptors (CGD): several poolings of one network, trained together.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network that training begins with; any that gives feature maps. A module given so is copied, and the
        estimator cannot be stored in a file.
    branches : str, default="MG"
        The descriptors in their order: S (SPoC, average pooling), M (MAC), G (GeM). The auxiliary classifier sees the
        first, so "MG" is not "GM".
    n_components : int, default=1536
        Dimensions of the vectors; a multiple of the number of branches.
    p : float, default=3.0
        Exponent of G.
    train_p : bool, default=False
        Whether it is trained.
    combine : {"concatenate", "concatenate_before_fc", "sum_before_fc"}, default="concatenate"
        See `layers.CombinedDescriptors`.
    last_stride : int or None, default=1
        Stride of the last stage (layer4) of a ResNet or ResNeXt by name: 1 leaves out its down-sampling, as the paper
        does, 224 pixels → 14 × 14. None leaves every network as it is; other networks, modules, and a `Backbone` that
        has strides are left in any case.
    ranking_loss : str or callable, default="batch_hard"
        "batch_hard", "semi_hard" (triplets), "contrastive", "multi_similarity", "smooth_ap": see
        `cvretrieval.deep.losses`. Or what takes vectors (B, D) and class numbers (B,), such as a
        loss of pytorch-metric-learning; a copy of its weights, if it has some, is trained, too.
    margin : float or None, default=None
        Of the ranking loss; None is its own, 0.1 for "batch_hard".
    ranking_weight, classification_weight : float, default=1.0
        Weights of the two losses in their sum. A `classification_weight` of 0 leaves the auxiliary classifier out;
        with a `ranking_weight` of 0 the linear layers stay as they begin.
    temperature : float, default=0.5
        Temperature τ of the softmax of the auxiliary classifier; 1 is none.
    label_smoothing : float, default=0.1
        Share of its targets that is spread over all classes; 0 is none.
    classes_per_batch, images_per_class : int, default=32, 4
        Classes in a batch, and images of each (`ClassBalancedSampler`).
    n_epochs : int, default=33
        Epochs of about as many images as there are.
    learning_rate : float, default=1e-4
        Of Adam.
    decay_at : sequence of float, default=(4/15, 8/15)
        Shares of the training after which the learning rate is multiplied by `decay`.
    decay : float, default=0.1
    weight_decay : float, default=0.0
    accumulate : int, default=1
        Batches whose gradients are averaged for one step. Losses compare images within a batch.
    freeze_batch_norm : bool, default=False
        Keep the running statistics of the network's batch normalisations. The authors do not.
    resize_to, input_size : int, default=252, 224
        In training an image is squashed to a square of `resize_to` pixels, and a random square of `input_size` is cut
        out; afterwards it is squashed to `input_size`.
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
    reader : ImageReader, optional
        How images are read before; the default one if None.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in, mixed precision in training: descriptors and losses are float32.
    batch_size : int, default=16
        Images that `transform` computes at once. Halved, with a warning, where memory does not suffice.
    n_workers : int or None, default=4
        Threads that read images while the network runs; None is 1, -1 as many as there are processors.
    random_state : int, RandomState or None, default=None
        Seed of the linear layers at the start, of batches, crops and mirrors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    history_ : dict of str to ndarray of shape (n_epochs,)
        Of each epoch ``loss`` and its parts ``ranking`` and ``classification``, ``learning_rate``, ``recall_at_1`` of
        the validation (NaN without), ``images_per_second``.
    best_epoch_ : int
        The epoch that is kept, from 1.
    classes_ : ndarray
        The classes that were trained on.
    weights_, layout_ : ndarray of uint8, tuple
        The trained weights, one after the other, and name, type and shape of each.

    Notes
    -----
    Each branch: descriptor, linear layer without bias, L2; their concatenation, L2. Loss: ``ranking_weight`` ·
    batch-hard triplet (Euclidean, margin 0.1) of these vectors + ``classification_weight`` · cross entropy of the
    auxiliary classifier, batch normalisation and a linear layer on the first descriptor before its own layer. Trained
    at once, network and all. Adam, 1e-4, times 0.1 after 400 and 800 of 1,500 batches on CUB-200-2011: the defaults.

    A training follows from its seed, whatever `n_workers`; on a GPU, and in several processes (torchrun), up to
    rounding.

    References
    ----------
    .. [1] H. Jun, B. Ko, Y. Kim, I. Kim and J. Kim, "Combination of multiple global descriptors for image retrieval",
       arXiv:1903.10663.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import CGD, Backbone
    >>> images = list(np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8))
    >>> cgd = CGD(Backbone("resnet18", weights=None, layer="layer2"), branches="SG", n_components=8, n_epochs=1,
    ...           images_per_class=2, resize_to=36, input_size=32, random_state=0)
    >>> cgd.fit(images, ["cup", "cup", "cup", "pen", "pen", "pen"]).transform(images).shape
    (6, 8)
    """

    scales = (1.0,)
    image_size = None
    norm = "l2"

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        branches: str = "MG",
        n_components: int = 1536,
        p: float = 3.0,
        train_p: bool = False,
        combine: str = "concatenate",
        last_stride: int | None = 1,
        ranking_loss: Any = "batch_hard",
        margin: float | None = None,
        ranking_weight: float = 1.0,
        classification_weight: float = 1.0,
        temperature: float = 0.5,
        label_smoothing: float = 0.1,
        classes_per_batch: int = 32,
        images_per_class: int = 4,
        n_epochs: int = 33,
        learning_rate: float = 1e-4,
        decay_at: Sequence[float] = (4 / 15, 8 / 15),
        decay: float = 0.1,
        weight_decay: float = 0.0,
        accumulate: int = 1,
        freeze_batch_norm: bool = False,
        resize_to: int = 252,
        input_size: int = 224,
        flip: bool = True,
        augment: Any = None,
        patience: int | None = None,
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
        n_workers: int | None = 4,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.branches = branches
        self.n_components = n_components
        self.p = p
        self.train_p = train_p
        self.combine = combine
        self.last_stride = last_stride
        self.ranking_loss = ranking_loss
        self.margin = margin
        self.ranking_weight = ranking_weight
        self.classification_weight = classification_weight
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
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
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.random_state = random_state
        self.verbose = verbose

    def _make_head(self, n_channels: int, images: Sequence[Any] | None = None, y: Any = None) -> nn.Module:
        return CombinedDescriptors(
            n_channels,
            branches=self.branches,
            n_components=self.n_components,
            p=self.p,
            train_p=bool(self.train_p),
            combine=self.combine,
        )

    def _make_auxiliary(self, n_channels: int, n_classes: int) -> nn.Module | None:
        if self.classification_weight == 0:
            return None
        return nn.Sequential(nn.BatchNorm1d(n_channels), nn.Linear(n_channels, n_classes))

    def _loss_terms(self, sampler: Any = None) -> Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]:
        ranking = make_ranking_loss(self, self.ranking_loss, self.margin)
        classification = CrossEntropy(self.temperature, self.label_smoothing)

        def terms(parts: TrainedParts, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
            descriptors = parts.head.descriptors(parts.maps(images))
            found = {}
            if self.ranking_weight > 0:
                vectors = parts.together(parts.head.combined(descriptors), targets)
                found["ranking"] = self.ranking_weight * (parts.ranking or ranking)(vectors, targets)
            if parts.auxiliary is not None:
                scores = parts.together(parts.auxiliary(descriptors[0]), targets)
                found["classification"] = self.classification_weight * classification(scores, targets)
            return found

        return terms  # type: ignore[return-value]

    def _start_backbone(self) -> Backbone:
        backbone = check_backbone(self.backbone)
        name = backbone.model if isinstance(backbone.model, str) else ""
        has_layer4 = any(word in name for word in _WITH_LAYER4) and "resnetv2" not in name
        if self.last_stride is None or backbone.strides or backbone.layer is not None or not has_layer4:
            return backbone
        return clone(backbone).set_params(strides=(("layer4", int(self.last_stride)),))

    def _image_reader(self) -> ImageSource:
        return FixedSizeReader(limited_reader(self.reader, None), int(self.input_size), "squash")

    def _check_pooling(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True)
        check_branches(self, self.branches, self.n_components)
        check_choice(self, "combine", self.combine, COMBINATIONS)
        check_number(self, "p", self.p, low=0, low_open=True)
        check_flag(self, "train_p", self.train_p)
        check_number(self, "last_stride", self.last_stride, low=1, integer=True, optional=True)
        for name in ("ranking_weight", "classification_weight"):
            check_number(self, name, getattr(self, name), low=0)
        if self.ranking_weight == 0 and self.classification_weight == 0:
            raise ValueError("CGD has nothing to learn from: ranking_weight and classification_weight are both 0.")
        make_ranking_loss(self, self.ranking_loss, self.margin)
        CrossEntropy(self.temperature, self.label_smoothing)
        self._check_training_parameters()
