"""UKBench: objects photographed four times each."""

from __future__ import annotations

import re
from pathlib import Path

from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, label_queries, make_dataset
from cvretrieval.datasets.dataset import RetrievalDataset

UKBENCH = PublicSet(
    "UKBench",
    "a folder full/ with ukbench00000.jpg to ukbench10199.jpg.",
    "https://archive.org/details/ukbench (ukbench.zip; datasets.fetch_ukbench).",
)


def load_ukbench(path: Folder, *, complete: bool = True) -> RetrievalDataset:
    """Load UKBench: 10,200 images of 2,550 objects; every image is a query.

    Parameters
    ----------
    path : path
        Folder with ``full``, or with the images themselves, named ``ukbench00000.jpg``.
    complete : bool, default=True
        Whether all images must be there. False takes the groups there are; each must still have its four images.

    Returns
    -------
    RetrievalDataset
        Ids are file names. Images 4i to 4i + 3 show one object. Measured with ``ukbench``, the N-S score, which counts
        the query itself.

    References
    ----------
    D. Nistér and H. Stewénius. Scalable recognition with a vocabulary tree. CVPR 2006.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cvretrieval.datasets import load_ukbench
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(8):
    ...         (pathlib.Path(folder) / f"ukbench{i:05d}.jpg").touch()
    ...     dataset = load_ukbench(folder, complete=False)
    >>> sorted(dataset.queries[5].relevant)
    ['ukbench00004.jpg', 'ukbench00006.jpg', 'ukbench00007.jpg']
    """
    root = UKBENCH.root(path)
    folder = UKBENCH.folder(root, "full", "images", ".")
    database: dict[str, Path] = {}
    labels: dict[str, int] = {}
    sizes: dict[int, int] = {}
    for file in UKBENCH.images(folder):
        named = re.fullmatch(r"ukbench(\d{5})", file.stem)
        if not named:
            raise UKBENCH.error(f"{file} is not named like ukbench00000.jpg.")
        database[file.name] = file
        group = labels[file.name] = int(named[1]) // 4
        sizes[group] = sizes.get(group, 0) + 1
    broken = next((group for group, size in sizes.items() if size != 4), None)
    if broken is not None:
        raise UKBENCH.error(
            f"The group ukbench{4 * broken:05d} to ukbench{4 * broken + 3:05d} has {sizes[broken]} of its 4 images."
        )
    queries = label_queries(database, labels, database)
    return make_dataset(UKBENCH, Labels(database, queries, "ukbench", ("ukbench",), 10_200, 10_200), complete=complete)
