"""The training loop: batches, steps, validation, checkpoints, and what becomes of the best model."""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvretrieval._parallel import map_ahead, progress_bar
from cvretrieval._validation import StoreError
from cvretrieval.deep.training.augmentation import AugmentingReader, CropReader
from cvretrieval.deep.training.checkpoints import CheckpointFolder
from cvretrieval.deep.training.hard_negatives import HardNegativeSampler
from cvretrieval.deep.training.processes import running_processes
from cvretrieval.deep.training.sampling import ClassBalancedSampler
from cvretrieval.deep.training.schedule import step_decay
from cvretrieval.images import describe_source

#: From the trained module, images (B, 3, H, W) and class numbers (B,) to the parts of the loss; they are added up. With
#: several processes the images are this one's share of them.
LossTerms = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]

_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """What the loop is told; `CGD` documents each of them."""

    n_epochs: int
    learning_rate: float
    decay_at: Sequence[float]
    decay: float
    weight_decay: float
    accumulate: int
    freeze_batch_norm: bool
    dtype: str
    patience: int | None
    seed: int


class _LossOf(nn.Module):
    """The loss as a module's output, which is where gradients of several processes are added up."""

    def __init__(self, module: nn.Module, terms: LossTerms) -> None:
        super().__init__()
        self.module = module
        self.terms = terms

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return self.terms(self.module, images, targets)


class Trainer:
    """Trains a module on images of classes; in several processes, each with a share of every batch.

    Parameters
    ----------
    module : Module
        On its device; its parameters that require a gradient are trained, by Adam.
    terms : callable
        The parts of the loss.
    images, targets : sequence, array of shape (n_images,)
        Images, and their classes as numbers from 0.
    sampler : ClassBalancedSampler or HardNegativeSampler
    reader : CropReader or AugmentingReader
    settings : TrainingSettings
    run : dict
        Plain values that describe the training: another one may not go on from its checkpoints.
    validate : callable, optional
        Returns the recall at 1 of the module as it is, in evaluation mode; without it the last epoch is the best.
    checkpoints : CheckpointFolder, optional
        Where each epoch is written to.
    n_workers : int or None
        Threads that read images meanwhile.
    description, verbose : str, bool
        Of the progress bar.

    Attributes
    ----------
    history : list of dict
        Of each epoch: mean loss and its parts, learning rate, recall at 1 (NaN without validation), images a second.
    kept : dict or None
        Weights of the best epoch; None before the first one is complete.
    kept_epoch : int
        Which it is, from 1.
    """

    def __init__(
        self,
        module: nn.Module,
        terms: LossTerms,
        images: Sequence[Any],
        targets: NDArray[np.int64],
        sampler: ClassBalancedSampler | HardNegativeSampler,
        reader: CropReader | AugmentingReader,
        settings: TrainingSettings,
        *,
        run: dict[str, Any],
        validate: Callable[[], float] | None = None,
        checkpoints: CheckpointFolder | None = None,
        n_workers: int | None = None,
        description: str = "",
        verbose: bool | int = False,
    ) -> None:
        self.module = module
        self.images = images
        self.targets = targets
        self.sampler = sampler
        self.reader = reader
        self.settings = settings
        self.run_json = json.dumps(run, sort_keys=True)
        self.validate = validate
        self.checkpoints = checkpoints
        self.n_workers = n_workers
        self.description = description
        self.verbose = verbose if running_processes().rank == 0 else False
        self.device = next(module.parameters()).device
        self.processes = running_processes()
        self.loss: nn.Module = _LossOf(module, terms)
        if self.processes.size > 1:
            self.processes.check_same(self.run_json)
            # Its gradient is that of the whole batch in each of them already.
            ranking = getattr(module, "ranking", None)
            for weight in () if ranking is None else ranking.parameters():
                weight.register_hook(lambda gradient: gradient / self.processes.size)
            # Some parts may be without effect on the loss, such as linear layers at a ranking weight of 0.
            self.loss = nn.parallel.DistributedDataParallel(self.loss, find_unused_parameters=True)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=settings.dtype == "float16" and self.device.type == "cuda"
        )
        self.history: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] | None = None
        self.kept_epoch = 0

    def run(self) -> None:
        """Train until all epochs are done, or no better one came for long.

        Interrupted (Ctrl-C) after the first epoch it ends with a warning; any other error is raised, and `kept` is the
        best model all the same.

        Raises
        ------
        FloatingPointError
            If the loss is NaN or infinite.
        ImageReadError
            For an image that cannot be read.
        StoreError
            If a checkpoint cannot be written.
        """
        try:
            while len(self.history) < self.settings.n_epochs and not self._is_patience_lost():
                self._epoch(len(self.history))
        except KeyboardInterrupt:
            if self.kept is None:
                raise
            warnings.warn(
                f"{self.description} was interrupted after epoch {len(self.history)} of {self.settings.n_epochs}; "
                f"epoch {self.kept_epoch} is kept.",
                stacklevel=4,
            )

    def resume(self, folder: CheckpointFolder) -> None:
        """Go on from where the training that wrote a folder of checkpoints was.

        Raises
        ------
        StoreError
            If it holds none, or those of another training.
        """
        last = folder.read_last()
        other, own = json.loads(last["run"]), json.loads(self.run_json)
        differing = sorted(key for key in other.keys() | own.keys() if other.get(key) != own.get(key))
        if differing:
            key = differing[0]
            raise StoreError(
                f"The checkpoint in {folder.path} is of another training: {key} was {other.get(key)!r} and is "
                f"{own.get(key)!r} now. Give what it was begun with, or begin anew."
            )
        self.module.load_state_dict(last["module"])
        self.optimizer.load_state_dict(last["optimizer"])
        self.scaler.load_state_dict(last["scaler"])
        self.history = [dict(row) for row in last["history"]]
        best = folder.read_best() if self.validate is not None else {"module": last["module"], "epoch": last["epoch"]}
        self.kept, self.kept_epoch = best["module"], int(best["epoch"])

    def _epoch(self, epoch: int) -> None:
        self.module.eval()
        batches = self.processes.same(self.sampler.batches(epoch))
        self.processes.check_batch(min(map(len, batches)))
        self.module.train()
        if self.settings.freeze_batch_norm:
            for part in self.module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        # What torch draws, in dropout, follows from the epoch as all else does; other processes have other images.
        source = [self.settings.seed, epoch, *([self.processes.rank] if self.processes.rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(source).generate_state(1)[0]))
        n_images = sum(map(len, batches))
        sums: dict[str, float] = {}
        start = time.perf_counter()
        description = f"{self.description} {epoch + 1}/{self.settings.n_epochs}"
        with progress_bar(total=n_images, description=description, verbose=self.verbose) as bar:
            self.optimizer.zero_grad(set_to_none=True)
            with closing(self._read(epoch, batches)) as read:
                for step, (indices, pixels) in enumerate(read):
                    rate = self._set_learning_rate((epoch + step / len(batches)) / self.settings.n_epochs)
                    for name, value in self._step(step, len(batches), indices, pixels, epoch).items():
                        sums[name] = sums.get(name, 0.0) + value / len(batches)
                    bar.update(len(indices))
                    seen = {name: total * len(batches) / (step + 1) for name, total in sums.items()}
                    recall = {"R@1": self.history[-1]["recall_at_1"]} if self.history and self.validate else {}
                    bar.set_postfix({"loss": f"{seen['loss']:.3f}", **{k: f"{v:.3f}" for k, v in recall.items()}})
        row = {"epoch": epoch + 1.0, **sums, "learning_rate": rate, "recall_at_1": np.nan}
        row["images_per_second"] = n_images / (time.perf_counter() - start)
        self.module.eval()
        self.processes.same_buffers(self.module)
        if self.validate is not None:
            row["recall_at_1"] = self.processes.same(self.validate())
        self._keep(row)

    def _read(
        self, epoch: int, batches: list[NDArray[np.int64]]
    ) -> Generator[tuple[NDArray[np.int64], Tensor], None, None]:
        """Yield the batches of an epoch as they are read: which images, and the pixels (B, H, W, 3) of this share."""
        shares = [self.processes.share(len(batch)) for batch in batches]
        places = [
            (step, place, int(batch[place]))
            for step, (batch, share) in enumerate(zip(batches, shares, strict=True))
            for place in range(share.start, share.stop)
        ]

        def read(where: tuple[int, int, int]) -> NDArray[np.uint8]:
            step, place, i = where
            rng = np.random.default_rng([self.settings.seed, epoch, step, place])
            return self.reader.read(self.images[i], rng)

        with closing(map_ahead(read, places, n_workers=self.n_workers)) as found:
            for batch, share in zip(batches, shares, strict=True):
                yield batch, torch.from_numpy(np.stack([next(found) for _ in batch[share]]))

    def _step(
        self, step: int, n_steps: int, indices: NDArray[np.int64], pixels: Tensor, epoch: int
    ) -> dict[str, float]:
        """Compute the loss of one batch and its gradient, and move the weights; return the parts of the loss."""
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        targets = torch.from_numpy(self.targets[indices]).to(self.device)
        # The last batches of an epoch may be fewer than are accumulated.
        accumulate = self.settings.accumulate
        n_together = min(accumulate, n_steps - step // accumulate * accumulate)
        is_last = (step + 1) % accumulate == 0 or step + 1 == n_steps
        with self._exchanging(is_last):
            terms = self.loss(images, targets)
            loss = torch.stack(list(terms.values())).sum()
            found = {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in terms.items()}}
            if not np.isfinite(found["loss"]):
                raise self._not_finite(found["loss"], epoch, step, indices)
            # Gradients are averaged over processes, but each has that of its own images alone.
            self.scaler.scale(loss * (self.processes.size / n_together)).backward()
        if is_last:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return found

    def _exchanging(self, exchange: bool) -> AbstractContextManager[Any]:
        """Return the context in which processes add up their gradients, or keep them until later."""
        if exchange or not isinstance(self.loss, nn.parallel.DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[Any] = self.loss.no_sync()
        return context

    def _set_learning_rate(self, progress: float) -> float:
        rate = self.settings.learning_rate * step_decay(progress, self.settings.decay_at, self.settings.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _keep(self, row: dict[str, float]) -> None:
        """Take an epoch into the history, keep it if it is the best, and write the checkpoint."""
        epoch = int(row["epoch"])
        before = max((old["recall_at_1"] for old in self.history), default=-np.inf)
        is_best = self.validate is None or row["recall_at_1"] > before
        state = self.module.state_dict()
        if is_best:
            self.kept = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.kept_epoch = epoch
        self.history.append(row)
        if self.checkpoints is not None and self.processes.rank == 0:
            last = {
                "run": self.run_json,
                "seed": self.settings.seed,
                "epoch": epoch,
                "module": state,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": self.history,
            }
            best = {"module": self.kept, "epoch": self.kept_epoch} if is_best and self.validate is not None else None
            self.checkpoints.write(last, best)

    def _is_patience_lost(self) -> bool:
        patience = self.settings.patience
        return self.validate is not None and patience is not None and len(self.history) - self.kept_epoch >= patience

    def _not_finite(self, loss: float, epoch: int, step: int, indices: NDArray[np.int64]) -> FloatingPointError:
        names = [describe_source(self.images[int(i)]) for i in indices]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        half = ", or dtype='float32'" if self.settings.dtype != "float32" else ""
        return FloatingPointError(
            f"The loss of {self.description} is {loss} in epoch {epoch + 1}, batch {step + 1}, on the images "
            f"{', '.join(names[:_SHOWN])}{more}. Use a smaller learning_rate{half}."
        )
