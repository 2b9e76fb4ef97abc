"""Devices by name, number formats, and the ways in which memory runs out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

#: Formats that the network may compute in.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: Any) -> torch.device:
    """Return the device that a name stands for: "auto" is the GPU where there is one.

    Raises
    ------
    ValueError
        For a device that torch does not know, or that this machine or this build of torch lacks.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"The 'device' parameter must be 'auto' or a device of torch, such as 'cpu' or 'cuda:0'. Got {device!r}."
        ) from error
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise ValueError(
            f"There is no device {str(found)!r}: torch {torch.__version__}, {build}, sees {torch.cuda.device_count()} "
            "GPUs. Use device='auto' or 'cpu'."
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("There is no device 'mps' on this machine. Use device='auto' or 'cpu'.")
    return found


def precision(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Return the context in which convolutions and products are computed in a format, and all else in float32."""
    return torch.autocast(device.type, dtype=DTYPES[dtype], enabled=dtype != "float32")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it says that memory, of a GPU or the machine's, is used up."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
