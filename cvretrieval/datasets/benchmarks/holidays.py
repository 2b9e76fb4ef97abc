"""INRIA Holidays: groups of holiday photographs, as published or turned upright."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from cvretrieval._durable import replace_file
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Query, RetrievalDataset

HOLIDAYS = PublicSet(
    "Holidays",
    "a folder jpg/ with 100000.jpg, 100001.jpg, … (jpg_rotated/ for the images turned upright).",
    "https://thoth.inrialpes.fr/~jegou/data.php.html (jpg1.tar.gz, jpg2.tar.gz).",
)

#: Degrees clockwise that make an image upright → orientation as EXIF counts it.
_ORIENTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}


def load_holidays(path: Folder, *, upright: bool = False, complete: bool = True) -> RetrievalDataset:
    """Load INRIA Holidays: 1,491 photographs in 500 groups, of each of which the first is the query.

    Parameters
    ----------
    path : path
        Folder with ``jpg``, or with the images themselves, named ``100000.jpg``: four digits of the group, two of the
        image, 00 for the query.
    upright : bool, default=False
        Take the images turned upright: from the folder ``jpg_rotated`` (or ``jpg_upright``) if there is one, else the
        published images with the orientation recorded by the camera, which some lack. `turn_upright` makes such a
        folder from a list of rotations.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are file names. The query is in the database and its own junk, so it is passed over wherever it is ranked.
        Measured with ``holidays``, which reads pixels as they are stored, or with ``holidays-upright``, which applies
        the orientation.

    References
    ----------
    H. Jégou, M. Douze and C. Schmid. Hamming embedding and weak geometric consistency for large scale image search.
    ECCV 2008.
    """
    root = HOLIDAYS.root(path)
    folder = HOLIDAYS.folder(root, *(("jpg_rotated", "jpg_upright") if upright else ()), "jpg", ".")
    database = {file.name: file for file in HOLIDAYS.images(folder)}
    groups: dict[str, set[str]] = {}
    for name, file in database.items():
        if not (len(file.stem) == 6 and file.stem.isdecimal()):
            raise HOLIDAYS.error(f"{file} is not named by six digits.")
        groups.setdefault(file.stem[:4], set()).add(name)
    queries = [
        Query(name, file, frozenset(groups[file.stem[:4]]) - {name}, frozenset({name}), own_id=name)
        for name, file in database.items()
        if file.stem.endswith("00")
    ]
    form, protocol = ("holidays:upright", "holidays-upright") if upright else ("holidays", "holidays")
    return make_dataset(HOLIDAYS, Labels(database, queries, form, (protocol,), 1491, 500), complete=complete)


def read_rotations(path: str | os.PathLike[str]) -> dict[str, int]:
    """Read a list of rotations: a line for each image with its name and the degrees clockwise that make it upright.

    Parameters
    ----------
    path : path
        Text; name and degrees are separated by white space or a comma. Empty lines and those that begin with # are
        passed over.

    Returns
    -------
    dict of str to int
        Name → 0, 90, 180 or 270.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cvretrieval.datasets import read_rotations
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "rotations.txt"
    ...     _ = file.write_text("100000.jpg 90\\n100001.jpg -90\\n")
    ...     read_rotations(file)
    {'100000.jpg': 90, '100001.jpg': 270}
    """
    found: dict[str, int] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            name, degrees = fields[0], int(fields[1]) % 360
            if len(fields) != 2 or degrees not in _ORIENTATIONS:
                raise ValueError(degrees)
        except (IndexError, ValueError):
            raise ValueError(
                f"{path}, line {number}: {line.strip()!r} is not a name and a rotation by 0, 90, 180 or 270 degrees."
            ) from None
        if found.setdefault(name, degrees) != degrees:
            raise ValueError(f"{path}, line {number}: {name!r} was given another rotation already.")
    return found


def turn_upright(images: Folder, rotations: Mapping[str, int] | str | os.PathLike[str], out: Folder) -> Path:
    """Copy JPEG images with the orientation that makes them upright.

    The compressed pixels are copied as they are; what says how to turn them is the EXIF orientation, which
    `ImageReader` applies. Other EXIF data is left out of the copies.

    Parameters
    ----------
    images : path
        Folder of the images, such as ``jpg`` of Holidays.
    rotations : mapping of str to int, or path
        File name → degrees clockwise (0, 90, 180, 270) that make it upright; images that are not named are upright as
        they are stored. A path is read by `read_rotations`.
    out : path
        Folder of the copies, such as ``jpg_rotated`` beside ``jpg``; made if it does not exist.

    Returns
    -------
    Path
        `out`.
    """
    source, target = HOLIDAYS.root(images), Path(out)
    if source.absolute() == target.absolute():
        raise ValueError(f"{target} is the folder of the images; name another one for the copies.")
    degrees = rotations if isinstance(rotations, Mapping) else read_rotations(rotations)
    files = {file.name: file for file in HOLIDAYS.images(source)}
    unknown = sorted(degrees.keys() - files.keys())
    if unknown:
        raise ValueError(f"The rotations name {unknown[0]!r}, which is not in {source}.")
    wrong = next((name for name, value in degrees.items() if value not in _ORIENTATIONS), None)
    if wrong is not None:
        raise ValueError(f"The rotation of {wrong!r} must be 0, 90, 180 or 270 degrees. Got {degrees[wrong]!r}.")
    target.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        turned = _with_orientation(file, _ORIENTATIONS[degrees.get(name, 0)])
        replace_file(target / name, lambda copy, turned=turned: copy.write(turned))  # type: ignore[misc]
    return target


def _with_orientation(file: Path, orientation: int) -> bytes:
    """Return a JPEG file with its EXIF segments replaced by one that says the orientation alone."""
    data = file.read_bytes()
    if data[:2] != b"\xff\xd8":
        raise ValueError(f"{file} is not a JPEG image.")
    # Big-endian TIFF with one directory of one entry: tag 0x0112, a short, one of it.
    tiff = b"MM\x00\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    segments = [b"\xff\xd8", b"\xff\xe1", struct.pack(">H", len(exif) + 2), exif]
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):
        length = int.from_bytes(data[at + 2 : at + 4], "big") + 2
        if not (data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\x00\x00"):
            segments.append(data[at : at + length])
        at += length
    if data[at : at + 2] != b"\xff\xda":
        raise ValueError(f"{file} is damaged: its segments do not lead to an image.")
    return b"".join([*segments, data[at:]])
