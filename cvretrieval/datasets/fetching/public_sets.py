"""One function for each public set with a stable address: download it into the layout that its loader reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cvretrieval._validation import check_choice
from cvretrieval.datasets.benchmarks.plain_pickle import read_plain_pickle
from cvretrieval.datasets.benchmarks.smvs import CATEGORIES
from cvretrieval.datasets.fetching.download import fetch
from cvretrieval.datasets.fetching.sources import SOURCES, Source
from cvretrieval.datasets.fetching.unpacking import unpack
from cvretrieval.datasets.oxford import oxford_ground_truth

Folder = str | os.PathLike[str]


def fetch_oxford5k(folder: Folder, *, verbose: bool = True) -> Path:
    """Download Oxford5k, images (1.8 GB) and lists, into the layout of `load_oxford5k`.

    Parameters
    ----------
    folder : path
        Of the set; made if it does not exist.
    verbose : bool, default=True
        Show a progress bar on a terminal.

    Returns
    -------
    Path
        `folder`. What is there already is not downloaded again; a download that was interrupted is resumed.
    """
    fetch_oxford5k_ground_truth(folder, verbose=verbose)
    return _fetch_all("oxford5k_images", folder, verbose=verbose)


def fetch_oxford5k_ground_truth(folder: Folder, *, verbose: bool = True) -> Path:
    """Download the lists of Oxford5k into ``gt_files_170407``; see `fetch_oxford5k`."""
    return _fetch_all("oxford5k_ground_truth", folder, verbose=verbose, check=_check_lists)


def fetch_paris6k(folder: Folder, *, verbose: bool = True) -> Path:
    """Download Paris6k, images and lists, into the layout of `load_paris6k`; see `fetch_oxford5k`."""
    fetch_paris6k_ground_truth(folder, verbose=verbose)
    return _fetch_all("paris6k_images", folder, verbose=verbose)


def fetch_paris6k_ground_truth(folder: Folder, *, verbose: bool = True) -> Path:
    """Download the lists of Paris6k into ``paris_120310``; see `fetch_oxford5k`."""
    return _fetch_all("paris6k_ground_truth", folder, verbose=verbose, check=_check_lists)


def fetch_roxford5k_ground_truth(folder: Folder, *, verbose: bool = True) -> Path:
    """Download ``gnd_roxford5k.pkl``; the images are those of `fetch_oxford5k`. It is parsed, never executed."""
    return _fetch_all("roxford5k_ground_truth", folder, verbose=verbose, check=read_plain_pickle)


def fetch_rparis6k_ground_truth(folder: Folder, *, verbose: bool = True) -> Path:
    """Download ``gnd_rparis6k.pkl``; the images are those of `fetch_paris6k`. It is parsed, never executed."""
    return _fetch_all("rparis6k_ground_truth", folder, verbose=verbose, check=read_plain_pickle)


def fetch_revisitop1m(folder: Folder, *, verbose: bool = True) -> Path:
    """Download the million distractors in 100 parts, hundreds of gigabytes; see `fetch_oxford5k`."""
    return _fetch_all("revisitop1m", folder, verbose=verbose)


def fetch_ukbench(folder: Folder, *, verbose: bool = True) -> Path:
    """Download UKBench (1.5 GB) into the layout of `load_ukbench`; see `fetch_oxford5k`."""
    return _fetch_all("ukbench", folder, verbose=verbose)


def fetch_cub200(folder: Folder, *, verbose: bool = True) -> Path:
    """Download CUB-200-2011 (1.1 GB) into the layout of `load_cub200`; see `fetch_oxford5k`."""
    return _fetch_all("cub200", folder, verbose=verbose)


def fetch_sop(folder: Folder, *, verbose: bool = True) -> Path:
    """Download Stanford Online Products (2.9 GB) into the layout of `load_sop`; see `fetch_oxford5k`."""
    return _fetch_all("sop", folder, verbose=verbose)


def fetch_smvs(folder: Folder, category: str, *, verbose: bool = True) -> Path:
    """Download one category of Stanford Mobile Visual Search into the layout of `load_smvs`.

    Parameters
    ----------
    folder : path
        Above the folders of the categories.
    category : str
        E.g. ``"dvd_covers"``.
    verbose : bool, default=True
        Show a progress bar on a terminal.

    Returns
    -------
    Path
        `folder`.
    """
    check_choice("fetch_smvs", "category", category, CATEGORIES)
    return _fetch_all(f"smvs_{category}", folder, verbose=verbose)


def fetch_copydays(folder: Folder, *, verbose: bool = True) -> Path:
    """Download the originals and the strong attacks of Copydays into the layout of `load_copydays`.

    JPEG and cropping attacks are to be had from the authors only. See `fetch_oxford5k`.
    """
    return _fetch_all("copydays", folder, verbose=verbose)


def fetch_place_lists(folder: Folder, *, verbose: bool = True) -> Path:
    """Download the lists of Pittsburgh and Tokyo 24/7 (``pitts30k_test.mat``, …); the images are on request only."""
    return _fetch_all("place_lists", folder, verbose=verbose)


def _fetch_all(name: str, folder: Folder, *, verbose: bool, check: Callable[[Path], object] | None = None) -> Path:
    """Download and unpack the files of a set; archives go once they are unpacked, and leave a note that they were."""
    root = Path(folder)
    for source in SOURCES[name]:
        place = root / source.folder
        if not source.is_archive:
            _checked(fetch(source.url, place / source.name, md5=source.md5, verbose=verbose), source, check)
            continue
        done = root / f".{source.name}.unpacked"
        if done.exists():
            continue
        archive = fetch(source.url, root / source.name, md5=source.md5, verbose=verbose)
        try:
            unpack(archive, place)
        except ValueError:
            # Whole by its length and no archive: downloading it again is all that helps.
            archive.unlink()
            raise
        _checked(place, source, check)
        done.touch()
        archive.unlink()
    return root


def _checked(place: Path, source: Source, check: Callable[[Path], object] | None) -> None:
    if check is None:
        return
    try:
        check(place)
    except ValueError as error:
        if place.is_file():
            place.unlink()
        raise ValueError(f"What came from {source.url} is not what it should be: {error}") from error


def _check_lists(folder: Path) -> None:
    n_queries = len(oxford_ground_truth(folder))
    if n_queries != 55:
        raise ValueError(f"{folder} has the lists of {n_queries} queries, not of 55.")
