"""Ground truth that the names of files and folders carry."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from cvretrieval._validation import check_number
from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.images import find_images

Folder = str | os.PathLike[str]


def folder_per_class(path: Folder) -> RetrievalDataset:
    """Load images sorted into one sub-folder per class: every image is a query against all others.

    Parameters
    ----------
    path : path
        Its sub-folders are the classes; images may lie deeper.

    Returns
    -------
    RetrievalDataset
        Relevant: the other images of the class. Junk: the query itself. A class of one image gives a query without
        relevant images; the protocols say what they do with it.
    """
    root = Path(path)
    database = images_by_id(root, root)
    classes: dict[str, list[str]] = defaultdict(list)
    for image_id in database:
        label, separator, _ = image_id.partition("/")
        if not separator:
            raise ValueError(f"{root / image_id} lies beside the class folders; move it into the folder of its class.")
        classes[label].append(image_id)
    if len(classes) < 2:
        raise ValueError(f"{root} has the images of a single class, {next(iter(classes))!r}; retrieval needs two.")
    members = {label: frozenset(ids) for label, ids in classes.items()}
    queries = tuple(
        Query(image_id, file, members[image_id.partition("/")[0]] - {image_id}, frozenset({image_id}), own_id=image_id)
        for image_id, file in database.items()
    )
    return RetrievalDataset(folder_name(root), database, queries, "folder_per_class", ("recall@1,2,4,8", "finite_sum"))


def query_reference(query_dir: Folder, reference_dir: Folder) -> RetrievalDataset:
    """Load queries and references that are paired by name: query ``NNN.*`` shows what reference ``NNN.*`` shows.

    Parameters
    ----------
    query_dir : path
        Query images; several in different sub-folders may have one name.
    reference_dir : path
        The database, one image per name. References without a query are distractors.

    Returns
    -------
    RetrievalDataset
        Ids are relative to the folder that holds both. With one relevant image each, the mean average precision
        (finite sum) is the mean reciprocal rank.
    """
    query_root, reference_root = Path(query_dir), Path(reference_dir)
    root = Path(os.path.commonpath([query_root.absolute(), reference_root.absolute()]))
    if root in (query_root.absolute(), reference_root.absolute()):
        raise ValueError(f"{query_root} and {reference_root} must lie beside each other, not one in the other.")
    database = images_by_id(reference_root, root)
    by_stem: dict[str, str] = {}
    for image_id, file in database.items():
        if file.stem in by_stem:
            raise ValueError(
                f"The references {by_stem[file.stem]!r} and {image_id!r} have one name; it must be unique."
            )
        by_stem[file.stem] = image_id
    queries = []
    for image_id, file in images_by_id(query_root, root).items():
        if file.stem not in by_stem:
            raise ValueError(f"The query {image_id!r} has no reference named {file.stem!r} in {reference_root}.")
        queries.append(Query(image_id, file, frozenset({by_stem[file.stem]})))
    name = f"{folder_name(root)}/{query_root.name}"
    return RetrievalDataset(name, database, tuple(queries), "query_reference", ("finite_sum", "recall@1,5,10"))


def groups_of_n(path: Folder, n: int = 4) -> RetrievalDataset:
    """Load images that come in groups of n in the order of their names; UKBench has n = 4.

    Parameters
    ----------
    path : path
        Folder of the images; the i-th of them, sorted, belongs to group ``i // n``.
    n : int, default=4

    Returns
    -------
    RetrievalDataset
        Relevant: the others of the group. Junk: the query itself, which the N-S score counts all the same.
    """
    check_number("groups_of_n", "n", n, low=2, integer=True)
    root = Path(path)
    database = images_by_id(root, root)
    ids = list(database)
    if len(ids) % n:
        raise ValueError(
            f"{root} has {len(ids)} images, which is not a multiple of {n}: the group of {ids[-1]!r} is incomplete."
        )
    queries = []
    for index, image_id in enumerate(ids):
        start = index // n * n
        others = frozenset(ids[start : start + n]) - {image_id}
        queries.append(Query(image_id, database[image_id], others, frozenset({image_id}), own_id=image_id))
    return RetrievalDataset(folder_name(root), database, tuple(queries), f"groups_of_{n}", (f"ns@{n}", "recall@1"))


def images_by_id(folder: Path, root: Path) -> dict[str, Path]:
    """List the images of a folder by their POSIX path relative to `root`."""
    files = find_images(folder)
    if not files:
        raise ValueError(f"{folder} has no images.")
    return {file.absolute().relative_to(root.absolute()).as_posix(): file for file in files}


def folder_name(folder: Path) -> str:
    """Return the name of a folder, also of ``.``."""
    return folder.absolute().name or str(folder)
