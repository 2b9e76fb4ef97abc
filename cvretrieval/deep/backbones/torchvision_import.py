"""torchvision, or a message that mends its import."""

from __future__ import annotations

import importlib
from types import ModuleType

from cvretrieval._optional import import_optional


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import torchvision or a module of it.

    Raises
    ------
    ImportError
        If it is not installed, or was built for another torch.
    """
    try:
        import_optional("torchvision", "A backbone of cvretrieval.deep")
        return importlib.import_module(name)
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise _mismatch(error) from error


def _mismatch(error: RuntimeError) -> ImportError:
    return ImportError(
        f"torchvision does not fit the torch that is installed ({error}). Install both together, from one index: "
        "pip install --force-reinstall torch torchvision"
    )
