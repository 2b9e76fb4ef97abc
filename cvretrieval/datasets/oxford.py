"""The ground-truth lists of the Oxford and Paris buildings."""

from __future__ import annotations

import os
from pathlib import Path

from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.folders import images_by_id

#: The Oxford lists put this before the name of a query's image.
_PREFIX = "oxc1_"


def oxford_ground_truth(folder: str | os.PathLike[str]) -> tuple[Query, ...]:
    """Read the published lists: ``NAME_query.txt`` with image and box, ``NAME_good``, ``_ok`` and ``_junk.txt``.

    Parameters
    ----------
    folder : path
        Folder of the lists.

    Returns
    -------
    tuple of Query
        In the order of their names, e.g. ``"all_souls_1"``. Ids of images are their names without a suffix. Relevant
        are good and ok. The image of the query stays in the database, as in the published protocol. `Query.path` is
        the name of the file alone: the lists come without the images.

    References
    ----------
    J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman. Object retrieval with large vocabularies and fast spatial
    matching. CVPR 2007.
    """
    lists = Path(folder)
    files = sorted(lists.glob("*_query.txt"))
    if not files:
        raise ValueError(f"{lists} has no *_query.txt; it should hold the ground-truth lists.")
    return tuple(_read_query(file) for file in files)


def oxford_buildings(images: str | os.PathLike[str], ground_truth: str | os.PathLike[str]) -> RetrievalDataset:
    """Load the Oxford or Paris buildings from the folder of the images and the folder of the lists.

    Parameters
    ----------
    images : path
        The images as downloaded; ids are their names without suffix.
    ground_truth : path
        See `oxford_ground_truth`.
    """
    root = Path(images)
    database: dict[str, Path] = {}
    for file in images_by_id(root, root).values():
        if file.stem in database:
            raise ValueError(f"{database[file.stem]} and {file} have one name; it must be unique.")
        database[file.stem] = file
    queries = []
    for query in oxford_ground_truth(ground_truth):
        if query.own_id not in database:
            raise ValueError(f"The image {query.path.name} of query {query.id!r} is not in {root}.")
        queries.append(
            Query(query.id, database[query.path.stem], query.relevant, query.junk, own_id=query.own_id, box=query.box)
        )
    return RetrievalDataset(root.absolute().name, database, tuple(queries), "oxford", ("oxford",))


def _read_query(file: Path) -> Query:
    name = file.name.removesuffix("_query.txt")
    fields = file.read_text(encoding="utf-8").split()
    try:
        image, (x1, y1, x2, y2) = fields[0], (float(value) for value in fields[1:])
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"{file} must hold an image and four numbers x1 y1 x2 y2. Got {' '.join(fields)!r}."
        ) from error
    image = image.removeprefix(_PREFIX)
    good, ok, junk = (_read_names(file.with_name(f"{name}_{kind}.txt")) for kind in ("good", "ok", "junk"))
    return Query(name, Path(f"{image}.jpg"), good | ok, junk, own_id=image, box=(x1, y1, x2, y2))


def _read_names(file: Path) -> frozenset[str]:
    if not file.is_file():
        raise ValueError(f"{file} is missing; every query needs its good, ok and junk lists.")
    return frozenset(file.read_text(encoding="utf-8").split())
