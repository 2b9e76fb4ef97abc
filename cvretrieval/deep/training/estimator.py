"""What estimators share whose network is trained by `fit`: the trained weights are theirs, and stand in their file."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from cvretrieval._validation import check_flag, check_number
from cvretrieval.deep.backbones.backbone import Backbone, check_backbone
from cvretrieval.deep.backbones.normalization import NormalizedNetwork
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.learning import SameObject
from cvretrieval.deep.inference import PreparedNetwork, resolve_device, run_images
from cvretrieval.deep.inference.batches import limited_reader
from cvretrieval.deep.inference.devices import precision
from cvretrieval.deep.training.augmentation import AugmentingReader, check_augmentation, make_training_reader
from cvretrieval.deep.training.checkpoints import CheckpointFolder
from cvretrieval.deep.training.evaluation import recall_at_1
from cvretrieval.deep.training.processes import join_processes, normalize_together, running_processes
from cvretrieval.deep.training.sampling import ClassBalancedSampler
from cvretrieval.deep.training.trainer import Trainer, TrainingSettings
from cvretrieval.deep.training.weights import load_part, pack_weights, unpack_weights
from cvretrieval.images import check_images

Self = TypeVar("Self", bound="TrainedDescriptor")

#: Parameters that change how long a training takes, or what it does when it stops, but no number in it.
_WITHOUT_EFFECT = ("device", "batch_size", "n_workers", "verbose", "patience", "random_state")

#: What torchvision's two networks that normalise by themselves do with their weights.
_HALVES = ("googlenet", "inception_v3")


class TrainedParts(nn.Module):
    """A network, the head that makes vectors of its maps, and what is needed in training alone.

    Of a ranking loss with weights of its own, such as proxies of classes, there is a copy, `ranking`, which is trained.
    """

    def __init__(
        self, network: nn.Module, head: nn.Module, auxiliary: nn.Module | None, dtype: str, ranking: Any = None
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.auxiliary = auxiliary
        self.ranking = copy.deepcopy(ranking) if isinstance(ranking, nn.Module) else None
        self.dtype = dtype
        self.processes = running_processes()

    def together(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Return rows of the whole batch from those of this process's images."""
        return self.processes.together(rows, len(targets))

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps of images in float32, whatever the network computes in."""
        with precision(images.device, self.dtype):
            found = self.network(images)
        return found.to(torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        """Return the vectors of images."""
        return self.head(self.maps(images))


class TrainedDescriptor(MapDescriptor):
    """Base of the descriptors whose network is trained; a subclass stores the parameters named here."""

    n_epochs: int
    classes_per_batch: int
    images_per_class: int
    learning_rate: float
    decay_at: Sequence[float]
    decay: float
    weight_decay: float
    accumulate: int
    freeze_batch_norm: bool
    resize_to: int
    input_size: int
    flip: bool
    augment: Any
    ranking_loss: Any
    patience: int | None
    random_state: Any

    def fit(
        self: Self,
        X: Any,
        y: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        checkpoint_to: str | os.PathLike[str] | None = None,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on images and their classes.

        Parameters
        ----------
        X : sequence of paths, arrays, PIL images, file objects or ImageRegion
            Images as `ImageReader` reads them.
        y : sequence of shape (n_images,)
            The class of each: numbers or strings. At least two classes.
        validation : tuple of images and classes, optional
            Other images: after each epoch each of them is searched among the others, and the epoch with the best
            recall at 1 is kept. Without, the last one is.
        checkpoint_to : path, optional
            Folder that each epoch is written to.
        resume_from : path, optional
            Folder that a training was written to which had not come to its end: it is gone on with, and ends as if it
            had not been interrupted, bit by bit on the same CPU. Written to as `checkpoint_to`, too, unless that is
            given.

        Returns
        -------
        self

        Raises
        ------
        FloatingPointError
            If the loss is NaN or infinite; the message names the images of the batch.
        ImageReadError
            For an image that cannot be read.
        StoreError
            If a checkpoint cannot be written, does not exist or is of another training.

        Notes
        -----
        Whatever ends the training, the best epoch so far is kept, once there is one: an interruption (Ctrl-C) ends it
        with a warning, any other error is raised, and the estimator is fitted all the same.
        """
        self._check_parameters()
        images = check_images(X, estimator=self)
        classes, targets = self._check_labels(images, y)
        last = None if resume_from is None else CheckpointFolder(resume_from)
        processes, device = join_processes(resolve_device(self.device))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if last is not None and not isinstance(self.random_state, (int, np.integer)):
            seed = int(last.read_last()["seed"])
        seed = processes.same(seed)
        checkpoints = last if checkpoint_to is None else CheckpointFolder(checkpoint_to)
        if checkpoints is not None:
            checkpoints.create()
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            prepared, head, parts = self._make_parts(device, images, y, len(classes))
            reader = make_training_reader(
                limited_reader(self.reader, None), self.augment, self.resize_to, self.input_size, self.flip
            )
            if isinstance(reader, AugmentingReader):
                reader.check_repeatable(images[0])
            sampler = self._make_sampler(images, targets, seed, prepared, head)
            trainer = Trainer(
                parts,
                self._loss_terms(sampler),
                images,
                targets,
                sampler,
                reader,
                self._settings(seed),
                run=self._run_description(classes, targets, seed),
                validate=self._validation(validation, prepared, head),
                checkpoints=checkpoints,
                n_workers=self.n_workers,
                description=type(self).__name__,
                verbose=self.verbose,
            )
            if last is not None:
                trainer.resume(last)
            try:
                trainer.run()
            finally:
                if trainer.kept is not None:
                    self._install(trainer, prepared, classes)
        return self

    def score(self, X: Any, y: Any) -> float:
        """Return the recall at 1 of images among each other: the share whose nearest other is of their class."""
        return recall_at_1(self.transform(X), y, self._recall_radius)

    @property
    def history_(self) -> dict[str, NDArray[np.float64]]:
        """What was noted of each epoch: name → one value for each.

        ``epoch`` from 1; ``loss``, the mean over batches, and its parts; ``learning_rate`` at the end;
        ``recall_at_1`` of the validation, NaN without; ``images_per_second``.
        """
        check_is_fitted(self)
        return dict(zip(self.history_names_, self.history_values_.T, strict=True))

    @abstractmethod
    def _make_head(self, n_channels: int, images: Sequence[Any] | None = None, y: Any = None) -> nn.Module:
        """Return the module from maps to vectors; with images, as training begins."""

    @abstractmethod
    def _loss_terms(self, sampler: Any) -> Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]:
        """Return the function from `TrainedParts`, images and targets to the parts of the loss of a sampler's batch."""

    @property
    def _recall_radius(self) -> float | None:
        """Metres within which an image is of the same place, for labels that are positions; None if they may not be."""
        return None

    def _make_auxiliary(self, n_channels: int, n_classes: int) -> nn.Module | None:
        return None

    def _start_backbone(self) -> Backbone:
        """Return the description of the network, with the weights that training begins with."""
        return check_backbone(self.backbone)

    def _architecture(self, mean: Any, std: Any) -> Backbone:
        """Return the description of the network without weights: those that matter are in `weights_`."""
        return clone(self._start_backbone()).set_params(weights=None, mean=mean, std=std)

    def _make_parts(
        self, device: torch.device, images: Sequence[Any], y: Any, n_classes: int
    ) -> tuple[PreparedNetwork, nn.Module, TrainedParts]:
        start = self._start_backbone()
        built = start.build()
        mean, std = _normalization_of(built, start)
        if _normalizes_itself(start):
            network = self._architecture(mean, std).build()
            network.load_state_dict(built.state_dict())
        else:
            network = copy.deepcopy(built)
        self._normalization = mean, std
        prepared = PreparedNetwork(Backbone(network.eval()), device, size=self.input_size)
        for parameter in prepared.network.parameters():
            parameter.requires_grad_(True)
        head = self._make_head(prepared.n_channels, images, y).to(device)
        auxiliary = self._make_auxiliary(prepared.n_channels, n_classes)
        parts = TrainedParts(prepared.network, head, auxiliary, self.dtype, self.ranking_loss).to(device)
        normalize_together(parts, device)
        return prepared, head, parts

    def _validation(
        self, validation: tuple[Any, Any] | None, prepared: PreparedNetwork, head: nn.Module
    ) -> Callable[[], float] | None:
        if validation is None:
            return None
        images = check_images(validation[0], estimator=self)
        labels = np.asarray(validation[1])
        if len(images) < 2 or len(images) != len(labels) or labels.ndim > (1 if self._recall_radius is None else 2):
            raise ValueError(
                f"validation must be at least two images and the class of each. Got {len(images)} images and "
                f"classes of shape {labels.shape}."
            )

        def recall() -> float:
            return recall_at_1(self._vectors_of(images, prepared, head), labels, self._recall_radius)

        return recall

    def _make_sampler(
        self, images: Sequence[Any], targets: NDArray[np.int64], seed: int, prepared: PreparedNetwork, head: nn.Module
    ) -> Any:
        return ClassBalancedSampler(
            targets, n_classes=self.classes_per_batch, n_per_class=self.images_per_class, seed=seed
        )

    def _vectors_of(self, images: Sequence[Any], prepared: PreparedNetwork, head: nn.Module) -> NDArray[np.float32]:
        """Return the vectors of images by a network and a head that are being trained."""
        processes, own = running_processes(), images
        if 1 < processes.size <= len(images):
            share = processes.share(len(images))
            own = [images[i] for i in range(share.start, share.stop)]
        vectors: list[Any] = [None] * len(own)
        for indices, by_scale, _ in run_images(
            own,
            prepared,
            lambda found: self._describe(head, found),
            reader=self._image_reader(),
            scales=self.scales,
            dtype=self.dtype,
            batch_size=self.batch_size,
            n_workers=self.n_workers,
        ):
            for i, row in zip(indices, self._combine(by_scale).cpu().numpy(), strict=True):
                vectors[i] = row
        rows: NDArray[np.float32] = np.stack(vectors)
        if len(own) < len(images):
            rows = processes.together(torch.from_numpy(rows).to(prepared.device), len(images)).cpu().numpy()
        return rows

    def _install(self, trainer: Trainer, prepared: PreparedNetwork, classes: NDArray[Any]) -> None:
        kept = trainer.kept or {}
        self.weights_, self.layout_ = pack_weights(
            {name: value for name, value in kept.items() if not name.startswith(("auxiliary.", "ranking."))}
        )
        self.n_channels_ = prepared.n_channels
        self.mean_, self.std_ = self.__dict__.pop("_normalization")
        self.classes_ = classes
        self.best_epoch_ = trainer.kept_epoch
        self.history_names_ = tuple(trainer.history[0])
        self.history_values_ = np.array([list(row.values()) for row in trainer.history], dtype=np.float64)

    def _prepare(self) -> PreparedNetwork:
        check_is_fitted(self)
        device = resolve_device(self.device)

        def make() -> PreparedNetwork:
            network = self._architecture(self.mean_, self.std_).build()
            load_part(network, unpack_weights(self.weights_, self.layout_), "network")
            return PreparedNetwork(Backbone(network.eval()), device, size=self.input_size)

        prepared: PreparedNetwork = self._cache().get("network", (SameObject(self.weights_), str(device)), make)
        return prepared

    def _make_pooling(self, n_channels: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # its weights are drawn, and replaced
            head = self._make_head(n_channels)
        load_part(head, unpack_weights(self.weights_, self.layout_), "head")
        return head

    def _pooling_key(self) -> tuple[Any, ...]:
        return (SameObject(self.weights_),)

    def _check_labels(self, images: Sequence[Any], y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        name = type(self).__name__
        if y is None:
            raise ValueError(
                f"{name} is trained with classes: fit(X, y), a number or a string for each image. An ImageRetriever is "
                "given a trained one as FrozenEstimator(…)."
            )
        labels = np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(images):
            raise ValueError(
                f"y must be one class for each image. Got {len(images)} images and labels of shape {labels.shape}."
            )
        if len(images) == 0:
            raise ValueError(f"{name} cannot be trained: X has no images.")
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"{name} is trained to tell classes apart and needs at least two. Got {len(classes)}.")
        return classes, targets.astype(np.int64)

    def _settings(self, seed: int) -> TrainingSettings:
        names = [name for name in TrainingSettings.__dataclass_fields__ if name != "seed"]
        return TrainingSettings(seed=seed, **{name: getattr(self, name) for name in names})

    def _run_description(self, classes: NDArray[Any], targets: NDArray[np.int64], seed: int) -> dict[str, Any]:
        params = {key: value for key, value in self.get_params(deep=False).items() if key not in _WITHOUT_EFFECT}
        digest = hashlib.blake2b(repr((classes.tolist(), targets.tolist())).encode(), digest_size=8).hexdigest()
        described = {key: _words(value) for key, value in params.items()}
        return {**described, "the number of images": len(targets), "the digest of the classes": digest, "seed": seed}

    def _check_training_parameters(self) -> None:
        for name, low in (("n_epochs", 1), ("classes_per_batch", 2), ("images_per_class", 1), ("accumulate", 1)):
            check_number(self, name, getattr(self, name), low=low, integer=True)
        check_number(self, "learning_rate", self.learning_rate, low=0, low_open=True)
        check_number(self, "decay", self.decay, low=0, high=1, low_open=True)
        for share in self.decay_at:
            check_number(self, "decay_at", share, low=0, high=1)
        check_number(self, "weight_decay", self.weight_decay, low=0)
        check_number(self, "input_size", self.input_size, low=1, integer=True)
        check_number(self, "resize_to", self.resize_to, low=self.input_size, integer=True)
        check_number(self, "patience", self.patience, low=1, integer=True, optional=True)
        check_flag(self, "flip", self.flip)
        check_augmentation(self, self.augment)
        check_flag(self, "freeze_batch_norm", self.freeze_batch_norm)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")


def _normalization_of(built: nn.Module, backbone: Backbone) -> tuple[Any, Any]:
    if not isinstance(built, NormalizedNetwork):
        return None, None
    if _normalizes_itself(backbone):
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(built.mean.flatten().tolist()), tuple(built.std.flatten().tolist())


def _normalizes_itself(backbone: Backbone) -> bool:
    is_default = backbone.mean is None and backbone.std is None
    return backbone.model in _HALVES and backbone.weights is not None and is_default


def _words(value: Any) -> str:
    """Return what a parameter is in one line, the same in another process."""
    if callable(value) and not isinstance(value, nn.Module):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return " ".join(repr(value).split())[:300]
