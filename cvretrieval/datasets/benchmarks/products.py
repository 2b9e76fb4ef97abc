"""Stanford Online Products and In-shop Clothes Retrieval."""

from __future__ import annotations

from cvretrieval._validation import check_choice, check_flag
from cvretrieval.datasets.benchmarks.fine_grained import SPLITS
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, label_queries, make_dataset
from cvretrieval.datasets.benchmarks.tables import read_table
from cvretrieval.datasets.dataset import Box, RetrievalDataset

SOP = PublicSet(
    "Stanford Online Products",
    "a folder Stanford_Online_Products/ with Ebay_test.txt, Ebay_train.txt and folders such as bicycle_final/.",
    "https://cvgl.stanford.edu/projects/lifted_struct/ (Stanford_Online_Products.zip; datasets.fetch_sop).",
)
INSHOP = PublicSet(
    "In-shop Clothes Retrieval",
    "folders Eval/ with list_eval_partition.txt, Anno/ with list_bbox_inshop.txt, and Img/ with img/ in it.",
    "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html (after an agreement with the authors).",
)


def load_sop(path: Folder, *, split: str = "test", complete: bool = True) -> RetrievalDataset:
    """Load Stanford Online Products: 60,502 images of 11,316 products; every image is a query.

    Parameters
    ----------
    path : path
        The folder ``Stanford_Online_Products``, or the one above it.
    split : {"test", "train"}, default="test"
        Train: 59,551 images of 11,318 other products.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of the lists. Measured with ``sop``.

    References
    ----------
    H. O. Song, Y. Xiang, S. Jegelka and S. Savarese. Deep metric learning via lifted structured feature embedding.
    CVPR 2016.
    """
    check_choice("load_sop", "split", split, SPLITS)
    root = SOP.root(path)
    name = f"Ebay_{split}.txt"
    file = SOP.file(root, name, f"Stanford_Online_Products/{name}")
    rows = read_table(SOP, file, 4, n_header=1)
    labels = {image: product for _, product, _, image in rows}
    database = SOP.present({image: file.parent / image for image in labels}, complete=complete)
    n = {"test": 60_502, "train": 59_551}[split]
    queries = label_queries(database, labels, database)
    return make_dataset(SOP, Labels(database, queries, "sop", ("sop",), n, n), complete=complete)


def load_inshop(path: Folder, *, split: str = "test", cropped: bool = False, complete: bool = True) -> RetrievalDataset:
    """Load In-shop Clothes Retrieval: 14,218 queries against a gallery of 12,612 images.

    Parameters
    ----------
    path : path
        Folder with ``Eval/list_eval_partition.txt`` (or the list itself), and ``Img/img`` (or ``img``).
    split : {"test", "train"}, default="test"
        Train: 25,882 images of 3,997 other items; every image is a query among them.
    cropped : bool, default=False
        Whether every image, of queries and gallery, is cut to its box in ``Anno/list_bbox_inshop.txt``.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are the paths of the lists, e.g. ``img/WOMEN/Dresses/id_00000002/02_1_front.jpg``. Queries of the test
        are not in the gallery. Measured with ``inshop``.

    References
    ----------
    Z. Liu, P. Luo, S. Qiu, X. Wang and X. Tang. DeepFashion: powering robust clothes recognition and retrieval with
    rich annotations. CVPR 2016.
    """
    check_choice("load_inshop", "split", split, SPLITS)
    check_flag("load_inshop", "cropped", cropped)
    root = INSHOP.root(path)
    partition = INSHOP.file(root, "Eval/list_eval_partition.txt", "list_eval_partition.txt")
    rows = read_table(INSHOP, partition, 3, n_header=2)
    folder = INSHOP.folder(root, "Img/img", "img").parent
    labels = {image: item for image, item, _ in rows}
    searched, asked = ("gallery", "query") if split == "test" else ("train", "train")
    kinds = {
        kind: INSHOP.present({image: folder / image for image, _, role in rows if role == kind}, complete=complete)
        for kind in {searched, asked}
    }
    boxes: dict[str, Box] = {}
    if cropped:
        listed = INSHOP.file(root, "Anno/list_bbox_inshop.txt", "list_bbox_inshop.txt")
        for image, _, _, *values in read_table(INSHOP, listed, 7, n_header=2):
            x1, y1, x2, y2 = (float(value) for value in values)
            boxes[image] = (x1, y1, x2, y2)
    queries = label_queries(kinds[asked], labels, kinds[searched], boxes)
    n_searched, n_asked = {"test": (12_612, 14_218), "train": (25_882, 25_882)}[split]
    found = Labels(kinds[searched], queries, "inshop", ("inshop",), n_searched, n_asked, boxes)
    return make_dataset(INSHOP, found, complete=complete)
