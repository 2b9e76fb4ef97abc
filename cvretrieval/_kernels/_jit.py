"""The one decorator for compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Reassociation and contraction let LLVM vectorise reductions. "nnan" and "ninf" stay out: with them a NaN check
# may be optimised away, and kernels must treat non-finite input predictably.
FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}


def njit(function: Callable[..., Any] | None = None, *, fastmath: bool = False, inline: bool = False) -> Any:
    """Compile a serial kernel that releases the GIL, lazily, with an on-disk cache where one is possible.

    No explicit signatures: they would compile at import. Where neither the package folder nor the user's cache
    folder is writable (containers, read-only installs), numba refuses ``cache=True`` and the kernel is compiled in
    memory instead.

    Parameters
    ----------
    function : callable, optional
        The kernel, when used as a bare decorator.
    fastmath : bool, default=False
        Allow reassociation of floating-point sums (never the assumption that values are finite).
    inline : bool, default=False
        Always inline into calling kernels; for helpers of a few lines.
    """

    def compile_lazily(kernel: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "fastmath": FASTMATH if fastmath else False}
        if inline:
            options["inline"] = "always"
        try:
            return numba.njit(cache=True, **options)(kernel)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(kernel)

    return compile_lazily if function is None else compile_lazily(function)
