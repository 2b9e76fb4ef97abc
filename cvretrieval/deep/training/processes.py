"""Several processes that train one network, started by torchrun: who is who, and what they tell each other."""

from __future__ import annotations

import atexit
import gc
import os
from typing import Any

import torch
from torch import Tensor, distributed, nn

#: What torchrun tells each process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Processes:
    """The processes of a training, of which this is one; without torchrun, this one alone.

    Parameters
    ----------
    rank : int, default=0
        Which of them this is; 0 writes checkpoints and shows progress.
    size : int, default=1
        How many there are.

    Notes
    -----
    A batch is shared among them. Their vectors are gathered, so that in each of them a loss compares all images of the
    batch; a process has the gradient of its own vectors, and the sum over processes is that of the whole batch.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def share(self, n_rows: int) -> slice:
        """Return which rows of so many are this process's: shares are contiguous, and equal but for one row."""
        return slice(self.rank * n_rows // self.size, (self.rank + 1) * n_rows // self.size)

    def together(self, rows: Tensor, n_rows: int) -> Tensor:
        """Return the rows (n_rows, …) of all, of which each has its share; its own alone have a gradient."""
        if self.size == 1:
            return rows
        most = -(-n_rows // self.size)
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(gathered, padded)
        parts = []
        for rank, part in enumerate(gathered):
            share = Processes(rank, self.size).share(n_rows)
            parts.append(rows if rank == self.rank else part[: share.stop - share.start])
        return torch.cat(parts)

    def same(self, value: Any) -> Any:
        """Return the value that the first of them has."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def check_same(self, description: str) -> None:
        """Check that all of them are told to do the same.

        Raises
        ------
        ValueError
            In all of them, if not.
        """
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, description)
        if len(set(found)) > 1:
            raise ValueError(
                f"The {self.size} processes were told to train differently; give each the same images, classes and "
                "parameters. What each of them takes of a batch is chosen here."
            )

    def check_batch(self, n_images: int) -> None:
        """Refuse a batch that leaves one of them without an image."""
        if n_images < self.size:
            raise ValueError(
                f"A batch of {n_images} images cannot be shared among {self.size} processes. Start fewer, or make "
                "batches larger (classes_per_batch, images_per_class)."
            )

    def same_buffers(self, module: nn.Module) -> None:
        """Give a module the buffers that the first of them has, such as the statistics of batch normalisations."""
        if self.size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)


def join_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """Join the processes that torchrun started, or that torch.distributed has joined; return them and the device.

    On "cuda" each process takes the GPU of its number on its machine. Exchange is by NCCL there, by gloo elsewhere.
    """
    is_told = all(os.environ.get(name) for name in _VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1
    if device.type == "cuda" and device.index is None and (is_told or running_processes().size > 1):
        rank = int(os.environ.get("LOCAL_RANK", running_processes().rank))
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if is_told and distributed.is_available() and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Stays for the next training: processes can be joined once.
        atexit.register(_leave)
    return running_processes(), device


def running_processes() -> Processes:
    """Return the processes that are joined."""
    if not distributed.is_available() or not distributed.is_initialized():
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    # Whatever refers to the group, such as a trained network, would end it with the interpreter: gloo aborts then.
    gc.collect()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def normalize_together(module: nn.Module, device: torch.device) -> nn.Module:
    """Have batch normalisations take the statistics of the whole batch; torch has that for GPUs alone."""
    if running_processes().size > 1 and device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    return module
