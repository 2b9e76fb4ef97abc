"""Unpacking archives: plain files below one folder, which appear when all of them are there."""

from __future__ import annotations

import contextlib
import lzma
import os
import secrets
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cvretrieval._durable import TEMPORARY, cannot_write
from cvretrieval._validation import StoreError


def unpack(archive: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Unpack a tar (plain or compressed) or zip archive.

    Parameters
    ----------
    archive : path
    folder : path
        Where to; made if it does not exist. Files of the same names are replaced, others stay.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    ValueError
        If the archive is damaged, or holds a file that would lie outside of the folder.
    StoreError
        If the files cannot be written.

    Notes
    -----
    Links and devices in the archive are passed over. Files get to their places after all of them have been unpacked:
    a damaged archive leaves nothing behind.

    Examples
    --------
    >>> import pathlib, tempfile, zipfile
    >>> from cvretrieval.datasets import unpack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with zipfile.ZipFile(pathlib.Path(folder) / "set.zip", "w") as archive:
    ...         archive.writestr("full/ukbench00000.jpg", b"")
    ...     root = unpack(pathlib.Path(folder) / "set.zip", pathlib.Path(folder) / "set")
    ...     [file.relative_to(root).as_posix() for file in root.rglob("*.jpg")]
    ['full/ukbench00000.jpg']
    """
    source, target = Path(archive), Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        temporary = target / f"{TEMPORARY}{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            for name, content in _members(source):
                file = temporary / _inside(source, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
            _move_into(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (ValueError, StoreError):
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        # RuntimeError: zip archives that are encrypted or compressed by unknown methods.
        raise ValueError(f"{source} is damaged or no archive ({error}). Nothing was unpacked.") from error
    except OSError as error:
        if error.errno is None:  # of the decompressors: the archive, not the disk
            raise ValueError(f"{source} is damaged ({error}). Nothing was unpacked.") from error
        raise cannot_write(target, error) from error
    return target


def _members(source: Path) -> Iterator[tuple[str, BinaryIO]]:
    with contextlib.ExitStack() as opened:
        if zipfile.is_zipfile(source):
            zipped = opened.enter_context(zipfile.ZipFile(source))
            for info in zipped.infolist():
                if not info.is_dir():
                    with zipped.open(info) as content:
                        yield info.filename, content  # type: ignore[misc]
            return
        packed = opened.enter_context(tarfile.open(source, "r:*"))
        for member in packed:
            stored = packed.extractfile(member) if member.isreg() else None
            if stored is not None:
                yield member.name, stored  # type: ignore[misc]
        # The checksum of a compressed archive stands at its end, behind the last file.
        while packed.fileobj is not None and packed.fileobj.read(1 << 20):
            pass


def _inside(source: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise ValueError(f"{source} holds {name!r}, which lies outside of the folder. Nothing was unpacked.")
    return path


def _move_into(temporary: Path, target: Path) -> None:
    for parent, _, names in os.walk(temporary):
        place = target / Path(parent).relative_to(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(parent, name), place / name)
