"""Pittsburgh and Tokyo 24/7: place recognition with the lists that came with NetVLAD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvretrieval._validation import check_choice
from cvretrieval.datasets.benchmarks.matlab import read_structure, text_list
from cvretrieval.datasets.benchmarks.places import Places, label_places
from cvretrieval.datasets.benchmarks.public_set import Folder, PublicSet, make_dataset
from cvretrieval.datasets.dataset import RetrievalDataset

_LISTS = "https://www.di.ens.fr/willow/research/netvlad/ (netvlad_v100_datasets.tar.gz; datasets.fetch_place_lists)"
PITTSBURGH = PublicSet(
    "Pittsburgh",
    "folders images/ (with 000/ to 010/; they may also lie directly) and queries/ or queries_real/ beside the lists, "
    "e.g. pitts30k_test.mat.",
    f"the authors (www.ok.ctrl.titech.ac.jp/~torii/project/repttile/), the lists from {_LISTS}.",
)
TOKYO247 = PublicSet(
    "Tokyo 24/7",
    "folders images/ (with 03814/ to 03829/; they may also lie directly) and query/ (247query_subset_v2) beside "
    "tokyo247.mat.",
    f"the authors (www.ok.ctrl.titech.ac.jp/~torii/project/247/), the lists from {_LISTS}.",
)

#: Cut-outs of one panorama of Tokyo 24/7, which follow each other in the list.
_CUTOUTS = 12

_PITTS_COUNTS = {
    ("30k", "train"): (10_000, 7_416),
    ("30k", "val"): (10_000, 7_608),
    ("30k", "test"): (10_000, 6_816),
    ("250k", "train"): (91_464, 7_824),
    ("250k", "val"): (78_648, 7_608),
    ("250k", "test"): (83_952, 8_280),
}


def load_pitts30k(path: Folder, *, split: str = "test", complete: bool = True) -> RetrievalDataset:
    """Load Pittsburgh 30k: 10,000 database images and, in the test set, 6,816 queries.

    Parameters
    ----------
    path : path
        Folder with ``images`` (or the folders ``000`` to ``010`` themselves), ``queries`` or ``queries_real``, and
        ``pitts30k_test.mat`` (directly, or in ``datasets`` or ``raw``).
    split : {"test", "val", "train"}, default="test"
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of the list. Relevant is what was taken within 25 m. Measured with ``pitts30k``.

    References
    ----------
    A. Torii, J. Sivic, T. Pajdla and M. Okutomi. Visual place recognition with repetitive structures. CVPR 2013.

    R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic. NetVLAD: CNN architecture for weakly supervised place
    recognition. CVPR 2016. (The split.)
    """
    return _load_pittsburgh("30k", path, split, complete=complete)


def load_pitts250k(path: Folder, *, split: str = "test", complete: bool = True) -> RetrievalDataset:
    """Load Pittsburgh 250k: in the test set, 83,952 database images and 8,280 queries.

    Parameters
    ----------
    path, split, complete
        See `load_pitts30k`; the list is ``pitts250k_test.mat``.

    Returns
    -------
    RetrievalDataset
        See `load_pitts30k`; measured with ``pitts250k``.
    """
    return _load_pittsburgh("250k", path, split, complete=complete)


def load_tokyo247(path: Folder, *, complete: bool = True) -> RetrievalDataset:
    """Load Tokyo 24/7: 75,984 database images cut out of panoramas, and 315 queries by day, at sunset and at night.

    Parameters
    ----------
    path : path
        Folder with ``images`` or ``database_gsv_vga`` (or the folders ``03814`` to ``03829`` themselves), ``query`` or
        ``247query_subset_v2``, and ``tokyo247.mat`` (directly, or in ``datasets`` or ``raw``). The list names files
        ``.jpg``; they may be ``.png``, as they are handed out.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of the list. Relevant is what was taken within 25 m; `Query.panorama_of` says which 12 images
        come from one panorama. Measured with ``tokyo247``, which keeps one image of each.

    References
    ----------
    A. Torii, R. Arandjelović, J. Sivic, M. Okutomi and T. Pajdla. 24/7 place recognition by view synthesis. CVPR 2015.
    """
    folders = ("images", "database_gsv_vga", "tokyo247", "."), ("query", "queries", "247query_subset_v2")
    return _load(TOKYO247, "tokyo247", "tokyo247", path, folders, (75_984, 315), _CUTOUTS, complete=complete)


def _load_pittsburgh(size: str, path: Folder, split: str, *, complete: bool) -> RetrievalDataset:
    check_choice(f"load_pitts{size}", "split", split, ("test", "val", "train"))
    public = replace(PITTSBURGH, title=f"Pitts{size}" + ("" if split == "test" else f" {split}"))
    folders = ("images", "."), ("queries", "queries_real")
    counts = _PITTS_COUNTS[size, split]
    return _load(public, f"pitts{size}", f"pitts{size}_{split}", path, folders, counts, None, complete=complete)


def _load(
    public: PublicSet,
    key: str,
    name: str,
    path: Folder,
    folders: tuple[Sequence[str], Sequence[str]],
    counts: tuple[int, int],
    n_cutouts: int | None,
    *,
    complete: bool,
) -> RetrievalDataset:
    root = public.root(path)
    file = public.file(root, *(f"{place}{name}.mat" for place in ("", "datasets/", "raw/", "datasets/datasets/")))
    fields = ("dbImageFns", "utmDb", "qImageFns", "utmQ", "posDistThr")
    listed = read_structure(public, file, "dbStruct", fields)
    places: list[Places] = []
    for names, positions, places_of in (("dbImageFns", "utmDb", folders[0]), ("qImageFns", "utmQ", folders[1])):
        ids = text_list(listed[names])
        utm = np.asarray(listed[positions], dtype=np.float64).reshape(2, -1).T
        if len(utm) != len(ids) or len(set(ids)) < len(ids):
            raise public.error(f"{file} has {len(utm)} positions for {len(ids)} names, {len(set(ids))} different ones.")
        panoramas = {image: str(i // n_cutouts) for i, image in enumerate(ids)} if n_cutouts and not places else {}
        there = public.present(_files(public.folder(root, *places_of), ids), complete=complete)
        rows = [i for i, image in enumerate(ids) if image in there]
        places.append(Places(there, utm[rows], panoramas))
    labels = label_places(places[0], places[1], float(listed["posDistThr"]), key, key)
    return make_dataset(public, replace(labels, n_database=counts[0], n_queries=counts[1]), complete=complete)


def _files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    found = {}
    for name in names:
        file = folder / name
        if file.suffix.lower() == ".jpg" and not file.is_file() and file.with_suffix(".png").is_file():
            file = file.with_suffix(".png")
        found[name] = file
    return found
