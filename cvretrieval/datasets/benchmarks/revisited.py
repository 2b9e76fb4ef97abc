"""Revisited Oxford and Paris: new queries and new lists, easy and hard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval.datasets.benchmarks.distractors import with_distractors
from cvretrieval.datasets.benchmarks.plain_pickle import read_plain_pickle
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Box, Query, RetrievalDataset

_DIFFICULTIES = ("easy", "medium", "hard")


def _public(title: str, key: str, images: str, fetch: str) -> PublicSet:
    return PublicSet(
        title,
        f"a folder jpg/ with all images beside gnd_{key}.pkl.",
        f"http://cmp.felk.cvut.cz/revisitop/ (images: {images}; datasets.{fetch}).",
    )


ROXFORD5K = _public(
    "ROxford5k", "roxford5k", "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/", "fetch_roxford5k_ground_truth"
)
RPARIS6K = _public(
    "RParis6k", "rparis6k", "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/", "fetch_rparis6k_ground_truth"
)


def load_roxford5k(path: Folder, *, distractors: Folder | None = None, complete: bool = True) -> RetrievalDataset:
    """Load revisited Oxford: 4,993 database images, 70 queries that are not in the database.

    Parameters
    ----------
    path : path
        Folder with ``jpg`` (all images of Oxford5k) and ``gnd_roxford5k.pkl``, or the folder ``datasets`` above it.
        The pickle is parsed, never executed; see `read_plain_pickle`.
    distractors : path, optional
        Folder of the million distractors, ``revisitop1m``.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are file names without suffix. Relevant are easy and hard, `Query.hard` the hard ones. Measured with
        ``roxford-easy``, ``roxford-medium`` and ``roxford-hard``.

    References
    ----------
    F. Radenović, A. Iscen, G. Tolias, Y. Avrithis and O. Chum. Revisiting Oxford and Paris. CVPR 2018.
    """
    return _load(ROXFORD5K, "roxford5k", "roxford", 4993, path, distractors, complete=complete)


def load_rparis6k(path: Folder, *, distractors: Folder | None = None, complete: bool = True) -> RetrievalDataset:
    """Load revisited Paris: 6,322 database images, 70 queries that are not in the database.

    Parameters
    ----------
    path : path
        Folder with ``jpg`` (all images of Paris6k) and ``gnd_rparis6k.pkl``, or the folder ``datasets`` above it.
    distractors : path, optional
        Folder of the million distractors, ``revisitop1m``.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        See `load_roxford5k`; measured with ``rparis-easy``, ``rparis-medium`` and ``rparis-hard``.

    References
    ----------
    F. Radenović, A. Iscen, G. Tolias, Y. Avrithis and O. Chum. Revisiting Oxford and Paris. CVPR 2018.
    """
    return _load(RPARIS6K, "rparis6k", "rparis", 6322, path, distractors, complete=complete)


def _load(
    public: PublicSet,
    key: str,
    protocol: str,
    n_database: int,
    path: Folder,
    distractors: Folder | None,
    *,
    complete: bool,
) -> RetrievalDataset:
    root = public.root(path)
    file = public.file(root, f"gnd_{key}.pkl", f"{key}/gnd_{key}.pkl")
    truth = _check_truth(public, file, read_plain_pickle(file))
    folder = public.folder(file.parent, "jpg", "images", ".")
    names, queries = truth["imlist"], truth["qimlist"]
    database = public.present({name: _image(folder, name) for name in names}, complete=complete)
    labels = Labels(
        database,
        [
            _read_query(public, file, name, entry, names, folder)
            for name, entry in zip(queries, truth["gnd"], strict=True)
        ],
        key,
        tuple(f"{protocol}-{difficulty}" for difficulty in _DIFFICULTIES),
        n_database,
        70,
    )
    public.present({query.id: query.path for query in labels.queries}, complete=complete)
    dataset = make_dataset(public, labels, complete=complete)
    if distractors is None:
        return dataset
    large = tuple(f"{protocol}-{difficulty}+1m" for difficulty in _DIFFICULTIES)
    return with_distractors(dataset, distractors, "1m", large, complete=complete)


def _image(folder: Path, name: str) -> Path:
    return folder / (name if name.lower().endswith((".jpg", ".jpeg")) else f"{name}.jpg")


def _check_truth(public: PublicSet, file: Path, truth: Any) -> Mapping[str, Any]:
    if not isinstance(truth, dict) or not {"imlist", "qimlist", "gnd"} <= truth.keys():
        raise public.error(f"{file} must hold imlist, qimlist and gnd.")
    for name in ("imlist", "qimlist"):
        names = truth[name]
        if not isinstance(names, (list, tuple)) or not all(isinstance(image, str) for image in names):
            raise public.error(f"{name} in {file} must be a list of names.")
        if any("/" in image or "\\" in image or image.startswith(".") for image in names):
            raise public.error(f"{name} in {file} must hold plain names.")
    if not isinstance(truth["gnd"], (list, tuple)) or len(truth["gnd"]) != len(truth["qimlist"]):
        raise public.error(f"gnd in {file} must be a list with one entry for each of {len(truth['qimlist'])} queries.")
    return truth


def _read_query(public: PublicSet, file: Path, name: str, entry: Any, names: Sequence[str], folder: Path) -> Query:
    try:
        easy, hard, junk = (frozenset(names[i] for i in _indices(entry[kind])) for kind in ("easy", "hard", "junk"))
        box: Box | None = None
        if entry.get("bbx") is not None:
            x1, y1, x2, y2 = (float(value) for value in np.ravel(entry["bbx"]))
            box = (x1, y1, x2, y2)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise public.error(
            f"The entry of query {name!r} in {file} must hold easy, hard and junk as numbers of images and bbx as "
            f"x1, y1, x2, y2 ({type(error).__name__}: {error})."
        ) from error
    return Query(name, _image(folder, name), easy | hard, junk, hard, box=box)


def _indices(values: Any) -> list[int]:
    found = np.ravel(np.asarray(values))
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"{found.dtype} where numbers of images should be")
    if found.size and found.min() < 0:
        raise IndexError(f"image {found.min()}")
    return [int(index) for index in found]
