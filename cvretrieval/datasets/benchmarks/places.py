"""Place recognition: images with positions, and what lies within a radius."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import check_choice, check_number
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.folders import folder_name

PLACES = PublicSet(
    "A set for place recognition",
    "folders database/ and queries/ beside places.csv with the columns image, easting, northing[, panorama]; or with "
    "file names @EASTING@NORTHING@….jpg (metres); or with two traverses whose sorted images correspond (frames).",
    "https://github.com/gmberton/VPR-datasets-downloader, which makes such folders.",
)

UNITS = ("metres", "frames")


@dataclass(frozen=True)
class Places:
    """Images with their positions.

    Attributes
    ----------
    files : mapping of str to Path
    positions : ndarray of shape (n_images, n_coordinates)
        Metres, or numbers of frames.
    panoramas : mapping of str to str
        Id → panorama, for images that were cut out of one.
    """

    files: Mapping[str, Path]
    positions: NDArray[np.float64]
    panoramas: Mapping[str, str] = field(default_factory=dict)


def load_places(
    path: Folder, radius: float = 25.0, unit: str = "metres", *, database: str | None = None, queries: str | None = None
) -> RetrievalDataset:
    """Load a set for place recognition: relevant is what was taken within a radius of the query.

    Parameters
    ----------
    path : path
        Folder with the sub-folders ``database`` and ``queries``, or with ``images/test`` above them. Positions in
        metres come from ``places.csv`` if there is one: columns ``image`` (path relative to `path`), ``easting``,
        ``northing`` (UTM) and perhaps ``panorama`` (any name that the images cut out of one panorama share). Without
        it they come from the names of the files, ``@EASTING@NORTHING@….jpg``.
    radius : float, default=25
        The limit counts as within.
    unit : {"metres", "frames"}, default="metres"
        With frames, positions are the places of the images in the sorted list of their folder: two traverses of one
        route, frame by frame. Several sub-folders are several stretches, each of which must be there in both.
    database, queries : str, optional
        Names of the two sub-folders, where they are other ones.

    Returns
    -------
    RetrievalDataset
        Ids are paths under `path`. Measured with ``vpr-25m``, ``vpr-10frames`` and so on.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cvretrieval.datasets import load_places
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("database/@0@0@.jpg", "database/@30@0@.jpg", "queries/@10@0@.jpg"):
    ...         (pathlib.Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         (pathlib.Path(folder) / name).touch()
    ...     dataset = load_places(folder, radius=15)
    >>> dataset.queries[0].relevant, dataset.protocols
    (frozenset({'database/@0@0@.jpg'}), ('vpr-15m',))
    """
    check_choice("load_places", "unit", unit, UNITS)
    check_number("load_places", "radius", radius, low=0.0, integer=unit == "frames")
    root = PLACES.root(path)
    names = [("database", database), ("queries", queries)]
    folders = [PLACES.folder(root, *([given] if given else [usual, f"images/test/{usual}"])) for usual, given in names]
    if unit == "frames":
        searched, asked = _frames(root, folders)
    elif (root / "places.csv").is_file():
        positions = _read_csv(root / "places.csv")
        searched, asked = (_listed(root, folder, positions) for folder in folders)
    else:
        searched, asked = (_named(root, folder) for folder in folders)
    reach = f"{radius:g}{'m' if unit == 'metres' else 'frames'}"
    labels = label_places(searched, asked, radius, f"vpr:{reach}", f"vpr-{reach}")
    return replace(make_dataset(PLACES, labels, complete=True), name=folder_name(root))


def label_places(searched: Places, asked: Places, radius: float, form: str, protocol: str) -> Labels:
    """Make the ground truth: for each query what lies within the radius, the limit included."""
    from scipy.spatial import cKDTree

    ids = list(searched.files)
    near = cKDTree(searched.positions).query_ball_point(asked.positions, r=radius)
    panorama_of = dict(searched.panoramas)
    queries = [
        Query(query_id, file, frozenset(ids[index] for index in found), panorama_of=panorama_of)
        for (query_id, file), found in zip(asked.files.items(), near, strict=True)
    ]
    return Labels(searched.files, queries, form, (protocol,))


def _named(root: Path, folder: Path) -> Places:
    """Read positions from the names of files."""
    files, positions = {}, []
    for file in PLACES.images(folder):
        named = re.match(r"@\s*([^@]+)@\s*([^@]+)@", file.name)
        position = _position(named.groups()) if named else None
        if position is None:
            raise PLACES.error(
                f"{root} has no places.csv, and the name of {file} does not say where it was taken "
                "(@EASTING@NORTHING@….jpg)."
            )
        files[file.relative_to(root).as_posix()] = file
        positions.append(position)
    return Places(files, np.array(positions))


def _position(texts: Sequence[str]) -> tuple[float, float] | None:
    try:
        east, north = (float(text) for text in texts)
    except ValueError:
        return None
    return (east, north) if math.isfinite(east) and math.isfinite(north) else None


def _read_csv(source: Path) -> dict[str, tuple[tuple[float, float], str]]:
    found: dict[str, tuple[tuple[float, float], str]] = {}
    with open(source, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        header = [name.strip().lower() for name in rows.fieldnames or []]
        if not {"image", "easting", "northing"} <= set(header):
            raise PLACES.error(f"The header of {source} is {','.join(header)!r}.")
        rows.fieldnames = header
        for row in rows:
            position = _position([row["easting"] or "", row["northing"] or ""])
            if position is None or not row["image"]:
                raise PLACES.error(f"{source}, line {rows.line_num}: an image and two finite numbers are needed.")
            name = row["image"].strip()
            if name in found:
                raise PLACES.error(f"{source}, line {rows.line_num}: {name!r} was given already.")
            found[name] = (position, (row.get("panorama") or "").strip())
    return found


def _listed(root: Path, folder: Path, listed: Mapping[str, tuple[tuple[float, float], str]]) -> Places:
    files = {file.relative_to(root).as_posix(): file for file in PLACES.images(folder)}
    unknown = next((name for name in files if name not in listed), None)
    if unknown is not None:
        raise PLACES.error(f"{root / 'places.csv'} does not say where {unknown!r} was taken.")
    panoramas = {name: listed[name][1] for name in files if listed[name][1]}
    return Places(files, np.array([listed[name][0] for name in files]), panoramas)


def _frames(root: Path, folders: Sequence[Path]) -> tuple[Places, Places]:
    """Read positions from the order of files; stretches lie too far from each other to be mixed up."""
    stretches: list[dict[str, list[Path]]] = []
    for folder in folders:
        found: dict[str, list[Path]] = {}
        for file in PLACES.images(folder):
            found.setdefault(file.parent.relative_to(folder).as_posix(), []).append(file)
        stretches.append(found)
    lengths = [{name: len(files) for name, files in found.items()} for found in stretches]
    if lengths[0] != lengths[1]:
        counts = " and ".join(f"{sum(length.values())} images in {len(length)} folders" for length in lengths)
        raise PLACES.error(f"The traverses in {root} do not correspond frame by frame: {counts}.")
    places = []
    for found in stretches:
        files = {file.relative_to(root).as_posix(): file for name in sorted(found) for file in found[name]}
        rows = [(i, stretch * 1e9) for stretch, name in enumerate(sorted(found)) for i in range(len(found[name]))]
        places.append(Places(files, np.array(rows, dtype=np.float64)))
    return places[0], places[1]
