"""Features of the images of a command, with those that cannot be read set aside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvretrieval import LocalFeatures

_BLOCK_IMAGES = 8


def extract_readable(
    extractor: Any, files: Sequence[Path], *, on_error: str, n_jobs: int, verbose: bool
) -> tuple[LocalFeatures, list[int], list[tuple[str, str]]]:
    """Extract features; return them, the numbers of the files they are of, and the files that failed, with reasons.

    With ``on_error="raise"`` the first unreadable file is an ImageReadError.
    """
    from sklearn.base import clone

    from cvretrieval import ImageReadError, LocalFeatures
    from cvretrieval._parallel import block_slices, map_blocks

    serial = clone(extractor).set_params(n_jobs=None, verbose=False)

    def extract(block: slice) -> list[Any]:
        found = []
        for file in files[block]:
            try:
                found.append(serial.transform([file]))
            except ImageReadError as error:
                if on_error == "raise":
                    raise
                found.append(error.reason)
        return found

    blocks = block_slices(len(files), _BLOCK_IMAGES)
    weights = [block.stop - block.start for block in blocks]
    results = map_blocks(extract, blocks, n_jobs=n_jobs, weights=weights, description="features", verbose=verbose)
    extracted = [one for part in results for one in part]
    kept = [i for i, one in enumerate(extracted) if not isinstance(one, str)]
    failures = [(os.fspath(file), one) for file, one in zip(files, extracted, strict=True) if isinstance(one, str)]
    return LocalFeatures.concatenate([extracted[i] for i in kept]), kept, failures
