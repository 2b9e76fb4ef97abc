"""The state of a training on disk: a folder that always holds the last whole epoch, and the best one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cvretrieval._durable import HashingFile, replace_file
from cvretrieval._validation import StoreError

#: Version of the format; a file of another one is refused.
FORMAT = 1

_LAST, _BEST = "last.pt", "best.pt"


class CheckpointFolder:
    """A folder with what training needs to go on, ``last.pt``, and the weights of the best epoch, ``best.pt``.

    Files are replaced at once, so that none is ever half written. They hold tensors, numbers and strings; they are read
    with ``weights_only=True``, so no code in them is run.

    Parameters
    ----------
    path : path
        The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def create(self) -> None:
        """Make the folder.

        Raises
        ------
        StoreError
            If it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder {self.path} for checkpoints cannot be made ({error.strerror}).") from error

    def write(self, last: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Replace what is there by the state of another epoch; None leaves the best as it is.

        Raises
        ------
        StoreError
            If they cannot be written; what was there before is kept.
        """
        # The best first: if the second write fails, the former last epoch goes on to the same best one.
        for name, state in ((_BEST, best), (_LAST, last)):
            if state is not None:
                replace_file(self.path / name, partial(_save, {"format": FORMAT, **state}))

    def read_last(self) -> dict[str, Any]:
        """Return the state of the last whole epoch."""
        return self._read(_LAST)

    def read_best(self) -> dict[str, Any]:
        """Return the weights of the best epoch."""
        return self._read(_BEST)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise StoreError(
                f"{self.path} holds no checkpoint ({name} does not exist). A training writes them when it is called "
                "with fit(…, checkpoint_to=folder)."
            )
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for damaged files
            raise StoreError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {error}).") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError(f"{path} is no checkpoint of this version of cvretrieval.")
        return found


def _save(state: dict[str, Any], file: HashingFile) -> None:
    torch.save(state, _Flushing(file))


class _Flushing:
    """A file as torch writes to it."""

    def __init__(self, file: HashingFile) -> None:
        self.write = file.write

    def flush(self) -> None:
        """Nothing: the file is flushed and synced by who opened it."""
