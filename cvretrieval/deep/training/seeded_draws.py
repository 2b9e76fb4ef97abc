"""Random numbers of torch from a generator of one's own, in functions that take none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: Functions and methods of torch that draw, and take a generator.
_DRAWING = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "binomial", "uniform_",
    "normal_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_", "_sample_dirichlet",
    "_standard_gamma",
}  # fmt: skip

#: Those that take the shape of another tensor, and no generator, → those that take both.
_LIKE: dict[str, Callable[..., Any]] = {"rand_like": torch.rand, "randn_like": torch.randn}


class SeededDraws(TorchFunctionMode):
    """Context in which torch draws from a generator instead of the one of the process; in this thread alone.

    The transforms of torchvision draw from the generator that all threads share: what one of them gets depends on what
    the others do meanwhile.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _LIKE and options.get("generator") is None:
            like, *rest = args or (options.pop("input"),)
            options = {"dtype": like.dtype, "device": like.device, **options, "generator": self._generator}
            options.pop("memory_format", None)
            return _LIKE[name](like.shape, *rest, **options)
        if name in _DRAWING and options.get("generator") is None:
            options["generator"] = self._generator
        return func(*args, **options)
