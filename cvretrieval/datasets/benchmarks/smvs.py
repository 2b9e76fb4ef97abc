"""Stanford Mobile Visual Search: reference pictures, and phone pictures of the same things."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Query, RetrievalDataset

SMVS = PublicSet(
    "SMVS",
    "a folder for each category (dvd_covers/, landmarks/, …), in each a folder Reference/ and one for every camera "
    "(Canon/, Droid/, E63/, Palm/, …), files paired by name.",
    "https://purl.stanford.edu/rb470rw0983 (datasets.fetch_smvs).",
)

#: Categories as their archives are named.
CATEGORIES = (
    *("book_covers", "business_cards", "cd_covers", "dvd_covers"),
    *("landmarks", "museum_paintings", "print", "video_frames"),
)


def load_smvs(path: Folder, *, cameras: Sequence[str] | None = None, complete: bool = True) -> RetrievalDataset:
    """Load Stanford Mobile Visual Search: all categories under a folder, or one category.

    Parameters
    ----------
    path : path
        The folder of a category, with ``Reference`` in it, or one that holds the folders of categories.
    cameras : sequence of str, optional
        Sub-folders that the queries are taken from, e.g. ``["E63"]``; default: all besides ``Reference``.
    complete : bool, default=True
        Whether every query must have its reference, and the folder above the categories all eight of them. False
        leaves out queries without a reference. (There are no official counts of each category to check.)

    Returns
    -------
    RetrievalDataset
        Ids are paths under `path`. Query ``NNN.*`` shows what the reference ``NNN.*`` of its category shows. Measured
        with ``smvs`` and ``smvs-map``.

    References
    ----------
    V. R. Chandrasekhar et al. The Stanford mobile visual search data set. MMSys 2011.
    """
    root = SMVS.root(path)
    categories = _categories(root, complete=complete)
    database: dict[str, Path] = {}
    queries: list[Query] = []
    known: set[str] = set()
    for category, reference in categories.items():
        by_name: dict[str, str] = {}
        for file in SMVS.images(reference):
            if file.stem in by_name:
                raise SMVS.error(f"{reference} has two images named {file.stem!r}; names must be unique.")
            by_name[file.stem] = file.relative_to(root).as_posix()
            database[by_name[file.stem]] = file
        own_cameras = [child for child in sorted(category.iterdir()) if child.is_dir() and child != reference]
        known |= {camera.name for camera in own_cameras}
        for camera in own_cameras:
            if cameras is None or camera.name in cameras:
                queries += _read_camera(camera, by_name, root, complete=complete)
    unknown = sorted(set(cameras or ()) - known)
    if unknown:
        raise SMVS.error(f"There is no folder {unknown[0]} in {root}; there are {', '.join(sorted(known)) or 'none'}.")
    return make_dataset(SMVS, Labels(database, queries, "smvs", ("smvs", "smvs-map")), complete=complete)


def _categories(root: Path, *, complete: bool) -> dict[Path, Path]:
    """Return folder of each category → its folder of references."""
    found = {}
    for folder in (root, *sorted(child for child in root.iterdir() if child.is_dir())):
        references = [child for child in folder.iterdir() if child.is_dir() and child.name.lower() == "reference"]
        if references:
            found[folder] = references[0]
    if not found:
        raise SMVS.error(f"{root} has no folder Reference, and neither have its sub-folders.")
    if root in found:
        return {root: found[root]}
    missing = [category for category in CATEGORIES if root / category not in found]
    if complete and missing:
        raise SMVS.error(
            f"{root} has {len(found)} categories, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing (complete=False loads what there is; or name the folder "
            "of a category)."
        )
    return found


def _read_camera(camera: Path, references: dict[str, str], root: Path, *, complete: bool) -> list[Query]:
    queries = []
    for file in SMVS.images(camera):
        if file.stem in references:
            queries.append(Query(file.relative_to(root).as_posix(), file, frozenset({references[file.stem]})))
        elif complete:
            raise SMVS.error(f"{file} has no reference named {file.stem!r} (complete=False leaves it out).")
    return queries
