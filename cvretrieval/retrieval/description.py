"""``index.json``: the format of a store, the stages it was built with, and the libraries that built it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cvretrieval._durable import file_digest, replace_file, write_file
from cvretrieval._validation import StoreError
from cvretrieval._version import __version__

#: Version of the format; a store of a newer one is refused.
FORMAT = 2

# What a store with dense vectors has, which earlier versions read as well.
_DENSE_FORMAT = 1

_NAME = "index.json"
_LIBRARIES = ("numpy", "scikit-learn", "opencv-contrib-python", "numba", "pillow")


def write_description(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the description of a new store."""
    versions = {"cvretrieval": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    text = _text(config, versions)
    write_file(folder / _NAME, lambda file: file.write(text.encode()))


def _text(config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    found = _DENSE_FORMAT if config.get("index") is None else FORMAT
    return json.dumps({"format": found, "versions": dict(versions), "config": dict(config)}, indent=2)


def rewrite_description(folder: Path, config: Mapping[str, Any]) -> None:
    """Put another configuration in the place of that of a store, in one step.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    text = _text(config, read_description(folder)["versions"])
    replace_file(folder / _NAME, lambda file: file.write(text.encode()))


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of a store: ``format``, ``versions`` and ``config``.

    Raises
    ------
    StoreError
        If the folder is no store, the description is damaged, or the format is newer than this code.
    """
    file = folder / _NAME
    # Asked before the file is: another process may be moving a whole store to its place right now.
    is_there = folder.exists()
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        found = int(description["format"])
        for name in ("config", "versions"):
            if not isinstance(description[name], dict):
                raise ValueError(f"{name!r} is no object")
    except FileNotFoundError:
        if is_there:
            what = "is not an index: it has no index.json. Name one that `cvretrieval index` has made, or a new one."
        else:
            what = f"does not exist. Make an index with: cvretrieval index PHOTOS --out {folder}"
        raise StoreError(f"{folder} {what}") from None
    except NotADirectoryError:
        raise StoreError(f"{folder} is a file, not the folder of an index.") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{file} is damaged ({error}). Restore it from a copy or index the photos again.") from error
    if found > FORMAT:
        raise StoreError(
            f"{folder} has format {found}, but this cvretrieval ({__version__}) reads formats up to {FORMAT}; "
            "upgrade it with: pip install -U cvretrieval"
        )
    return dict(description)


def description_digest(folder: Path) -> bytes:
    """Return the digest of the description, by which a store is told from another one under the same path.

    Raises
    ------
    StoreError
        As of `read_description`.
    """
    read_description(folder)
    return file_digest(folder / _NAME)
