"""Distractors: large sets of images that show none of what is searched, added to a database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cvretrieval.datasets.benchmarks.public_set import Folder, PublicSet, beside
from cvretrieval.datasets.dataset import RetrievalDataset

#: Suffix of the form → the set, the number of its images, and the names that its folder usually has.
DISTRACTORS: dict[str, tuple[PublicSet, int, tuple[str, ...]]] = {
    "100k": (
        PublicSet(
            "Flickr100k",
            "a folder oxc1_100k/ with one sub-folder for each of the 145 tags.",
            "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/flickr100k.html.",
        ),
        100_071,
        ("oxc1_100k", "flickr100k", "Flickr100k", "oxford100k"),
    ),
    "1m": (
        PublicSet(
            "revisitop1m",
            "a folder jpg/ with sub-folders of images beside revisitop1m.txt.",
            "http://ptak.felk.cvut.cz/revisitop/revisitop1m/ (datasets.fetch_revisitop1m).",
        ),
        1_001_001,
        ("revisitop1m",),
    ),
    "10k": (
        PublicSet(
            "10,000 distractors",
            "any folder of 10,000 images; published figures of Copydays use images of Flickr that are not to be had.",
            "your own photographs, e.g. 10,000 of YFCC100M.",
        ),
        10_000,
        ("distractors",),
    ),
}


def with_distractors(
    dataset: RetrievalDataset, folder: Folder, kind: str, protocols: tuple[str, ...], *, complete: bool
) -> RetrievalDataset:
    """Return a data set whose database also holds distractors.

    Parameters
    ----------
    dataset : RetrievalDataset
    folder : path
        Of the distractors.
    kind : str
        One of `DISTRACTORS`.
    protocols : tuple of str
        Of the result.
    complete : bool
        Whether the number of distractors must be right.

    Returns
    -------
    RetrievalDataset
        Ids of distractors begin with the name of their set.
    """
    public, n_expected, _ = DISTRACTORS[kind]
    root = public.root(folder)
    images = root / "jpg" if (root / "jpg").is_dir() else root
    files = {f"{public.title}/{file.relative_to(images).as_posix()}": file for file in public.images(images)}
    public.check_count("distractors", len(files), n_expected, complete=complete)
    return replace(
        dataset,
        name=f"{dataset.name} + {kind}",
        database={**dataset.database, **files},
        form=f"{dataset.form}+{kind}",
        protocols=protocols,
    )


def find_distractors(root: Path, kind: str) -> Path:
    """Return the folder of the distractors in or beside the folder of a set."""
    public, _, names = DISTRACTORS[kind]
    found = beside(root, *names)
    if found is None:
        raise public.error(f"{root} has no folder {' or '.join(names)}, and none is beside it.")
    return found
