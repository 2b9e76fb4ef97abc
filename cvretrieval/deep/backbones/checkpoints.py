"""Weights from files, and nothing but weights: no file is trusted with code."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones.matconvnet import convolutions, read_matconvnet
from cvretrieval.deep.backbones.plain_pickles import plain_globals

#: Where training programs put the weights among other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model_ema", "model", "net", "backbone")

#: What they put before the name of a weight, alone or one after the other.
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "_orig_mod.")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of a network: safetensors, or what ``torch.save`` wrote, read with ``weights_only=True``.

    A checkpoint that holds the weights beside other things, such as an optimiser's state, is looked through for them.
    Of MATLAB files (``.mat``) MatConvNet's convolutions are read, as ``features.N``.

    Raises
    ------
    StoreError
        If the file does not exist, is damaged, or holds something else.
    """
    return _tensors(Path(path), read_checkpoint(path))


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Return all that a file of weights holds: tensors, arrays of numbers, and plain values; nothing in it is run.

    Raises
    ------
    StoreError
        If the file does not exist, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file of weights" if path.is_dir() else "does not exist"
        raise StoreError(f"{path} {what}: put the weights there, or give the path of another file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".mat":
            return convolutions(read_matconvnet(path))
        with torch.serialization.safe_globals(plain_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except StoreError:
        raise
    except Exception as error:  # torch and safetensors raise many types for damaged files
        if type(error).__name__ == "UnpicklingError":
            raise StoreError(
                f"{path} is damaged, or holds more than weights{_named_class(error)}, which is never run from a file. "
                "If you trust it, load it once with torch.load(path, weights_only=False), and save what is needed of "
                "it as tensors, numbers and strings: torch.save({'state_dict': network.state_dict(), …}, new_path)."
            ) from error
        raise StoreError(f"{path} cannot be read as weights ({error}).") from error


def _named_class(error: Exception) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return "" if found is None else f" ({found[1]})"


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> set[str]:
    """Give a network the weights that fit it, and return their names.

    What the names begin with is taken away as far as that makes them those of the network. Programs that keep the
    steps of a network in a sequence name them by numbers, which are understood as well.
    """
    own = network.state_dict()
    candidates = [named for renamed in _renamed(weights) for named in (renamed, *_numbered(network, renamed))]
    named = max(candidates, key=lambda names: len(own.keys() & names.keys()))
    fitting = {name: value for name, value in named.items() if name in own and value.shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)
    return set(fitting)


def check_weights_loaded(network: nn.Module, loaded: set[str], source: str, model: str) -> None:
    """Refuse weights that leave a part of the network as it was made.

    Raises
    ------
    StoreError
        With the first of the missing weights.
    """
    needed = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in loaded]
    if missing:
        raise StoreError(
            f"{source} does not fit {model}: {len(missing)} of {len(needed)} weights are missing or of another shape, "
            f"{missing[0]!r} the first. Name the architecture that the weights belong to."
        )
    # Every file comes this way, and a network of NaN describes all images alike.
    for name, value in network.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise StoreError(f"{source} is damaged: {name!r} has NaN or infinite weights.")


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(found, Mapping):
            break
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        found = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
    raise StoreError(f"{path} holds no weights by name. Save them with torch.save(network.state_dict(), path).")


def _numbered(network: nn.Module, weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the weights named ``features.N.…`` or ``N.…`` as those of the N-th step of the network, or of a part."""
    found = []
    for part, prefix in ((network, ""), (getattr(network, "features", None), "features.")):
        steps = [] if part is None else [name for name, _ in part.named_children()]
        named = {}
        for name, value in weights.items():
            number, _, rest = name.removeprefix("features.").partition(".")
            if number.isdecimal() and int(number) < len(steps):
                named[f"{prefix}{steps[int(number)]}.{rest}"] = value
        found.append(named)
    return found


def _renamed(weights: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
    candidates: list[Mapping[str, Tensor]] = [weights]
    for candidate in candidates:
        for prefix in _PREFIXES:
            cut = {name[len(prefix) :]: value for name, value in candidate.items() if name.startswith(prefix)}
            if cut and len(candidates) < 20:
                candidates.append(cut)
    return candidates
