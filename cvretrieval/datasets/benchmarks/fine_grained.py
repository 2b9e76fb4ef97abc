"""CUB-200-2011 and Cars196: metric learning, tested on classes that were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvretrieval._validation import check_choice, check_flag
from cvretrieval.datasets.benchmarks.matlab import read_structure
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, label_queries, make_dataset
from cvretrieval.datasets.benchmarks.tables import read_table
from cvretrieval.datasets.dataset import Box, RetrievalDataset

CUB200 = PublicSet(
    "CUB-200-2011",
    "a folder CUB_200_2011/ with images/, images.txt, image_class_labels.txt and bounding_boxes.txt.",
    "https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz; datasets.fetch_cub200).",
)
CARS196 = PublicSet(
    "Cars196",
    "a folder car_ims/ with 000001.jpg to 016185.jpg beside cars_annos.mat.",
    "the authors' page, https://ai.stanford.edu/~jkrause/cars/car_dataset.html (car_ims.tgz, cars_annos.mat); when it "
    "is down, from a mirror of your choice.",
)

SPLITS = ("test", "train")


@dataclass(frozen=True)
class _Image:
    """An image as the annotations list it."""

    name: str
    label: int
    box: Box


def load_cub200(path: Folder, *, split: str = "test", cropped: bool = False, complete: bool = True) -> RetrievalDataset:
    """Load CUB-200-2011: 5,924 images of the classes 101 to 200; every image is a query.

    Parameters
    ----------
    path : path
        The folder ``CUB_200_2011``, or the one above it.
    split : {"test", "train"}, default="test"
        The classes 101 to 200, or 1 to 100 (5,864 images).
    cropped : bool, default=False
        Whether every image, of queries and database, is cut to its box.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of ``images.txt``. Measured with ``cub200`` or ``cub200-cropped``.

    References
    ----------
    C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie. The Caltech-UCSD Birds-200-2011 dataset. Technical
    report CNS-TR-2011-001, 2011.

    H. O. Song, Y. Xiang, S. Jegelka and S. Savarese. Deep metric learning via lifted structured feature embedding.
    CVPR 2016. (The split.)
    """
    check_choice("load_cub200", "split", split, SPLITS)
    check_flag("load_cub200", "cropped", cropped)
    root = CUB200.root(path)
    names = CUB200.file(root, "images.txt", "CUB_200_2011/images.txt")
    root = names.parent
    columns = [
        read_table(CUB200, CUB200.file(root, file), n_columns)
        for file, n_columns in (("images.txt", 2), ("image_class_labels.txt", 2), ("bounding_boxes.txt", 5))
    ]
    labels = {row[0]: row[1] for row in columns[1]}
    boxes = {row[0]: row[1:] for row in columns[2]}
    images = []
    for number, name in columns[0]:
        try:
            x, y, width, height = (float(value) for value in boxes[number])
            # Boxes are given from the edge of the first pixel, as ours are.
            images.append(_Image(name, int(labels[number]), (x, y, x + width, y + height)))
        except (KeyError, ValueError) as error:
            raise CUB200.error(f"Image {number} ({name}) has no class or no box in the lists of {root}.") from error
    counts = {"test": 5924, "train": 5864}
    return _load(CUB200, "cub200", images, root / "images", 100, counts, split, cropped=cropped, complete=complete)


def load_cars196(
    path: Folder, *, split: str = "test", cropped: bool = False, complete: bool = True
) -> RetrievalDataset:
    """Load Cars196: 8,131 images of the classes 99 to 196; every image is a query.

    Parameters
    ----------
    path : path
        Folder with ``car_ims`` and ``cars_annos.mat``.
    split : {"test", "train"}, default="test"
        The classes 99 to 196, or 1 to 98 (8,054 images). The flag ``test`` of the annotations belongs to the task of
        classification and is not used.
    cropped : bool, default=False
        Whether every image, of queries and database, is cut to its box.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of the annotations, e.g. ``car_ims/000001.jpg``. Measured with ``cars196`` or
        ``cars196-cropped``.

    References
    ----------
    J. Krause, M. Stark, J. Deng and L. Fei-Fei. 3D object representations for fine-grained categorization. 3dRR 2013.

    H. O. Song, Y. Xiang, S. Jegelka and S. Savarese. Deep metric learning via lifted structured feature embedding.
    CVPR 2016. (The split.)
    """
    check_choice("load_cars196", "split", split, SPLITS)
    check_flag("load_cars196", "cropped", cropped)
    root = CARS196.root(path)
    file = CARS196.file(root, "cars_annos.mat", "cars196/cars_annos.mat")
    names = ("relative_im_path", "class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    columns = read_structure(CARS196, file, "annotations", names)
    images = []
    for row in zip(*(columns[name] for name in names), strict=True):
        label, x1, y1, x2, y2 = (int(value) for value in row[1:])
        # Pixels are counted from 1 and the last one belongs to the box.
        images.append(_Image(str(row[0]), label, (x1 - 1, y1 - 1, x2, y2)))
    counts = {"test": 8131, "train": 8054}
    return _load(CARS196, "cars196", images, file.parent, 98, counts, split, cropped=cropped, complete=complete)


def _load(
    public: PublicSet,
    key: str,
    images: Sequence[_Image],
    folder: Path,
    n_train_classes: int,
    counts: dict[str, int],
    split: str,
    *,
    cropped: bool,
    complete: bool,
) -> RetrievalDataset:
    chosen = [image for image in images if (image.label > n_train_classes) == (split == "test")]
    database = public.present({image.name: folder / image.name for image in chosen}, complete=complete)
    boxes = {image.name: image.box for image in chosen} if cropped else {}
    queries = label_queries(database, {image.name: image.label for image in chosen}, database, boxes)
    suffix = "cropped" if cropped else ""
    form = ":".join(filter(None, (key, suffix)))
    protocol = "-".join(filter(None, (key, suffix)))
    n = counts[split]
    return make_dataset(public, Labels(database, queries, form, (protocol,), n, n, boxes), complete=complete)
