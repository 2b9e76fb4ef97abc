"""Oxford5k and Paris6k: buildings, with good, ok and junk lists and a region for each query."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cvretrieval.datasets.benchmarks.distractors import with_distractors
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.oxford import oxford_ground_truth

OXFORD5K = PublicSet(
    "Oxford5k",
    "a folder images/ or jpg/ (or the images themselves) beside a folder gt_files_170407/ or groundtruth/ with the "
    "lists NAME_query.txt, _good.txt, _ok.txt, _junk.txt.",
    "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/ (oxbuild_images-v1.tgz, gt_files_170407.tgz; "
    "datasets.fetch_oxford5k).",
)
PARIS6K = PublicSet(
    "Paris6k",
    "a folder paris/, images/ or jpg/ (or the images themselves) beside a folder paris_120310/ or groundtruth/ with "
    "the lists NAME_query.txt, _good.txt, _ok.txt, _junk.txt.",
    "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/ (paris_1-v1.tgz, paris_2-v1.tgz, paris_120310.tgz; "
    "datasets.fetch_paris6k).",
)

#: SHA-256 of the 55 published queries of Oxford5k in the form of `ground_truth_digest`.
OXFORD5K_DIGEST = "7632d0a4164430141b3efffbc466f74288f793ed6808193aef621c21d41a7209"

#: Files of Paris6k that are no images; https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/corrupt.txt
PARIS6K_CORRUPT = frozenset(
    f"paris_{name}"
    for name in (
        *("louvre_000136", "louvre_000146", "moulinrouge_000422", "museedorsay_001059", "notredame_000188"),
        *("pantheon_000284", "pantheon_000960", "pantheon_000974", "pompidou_000195", "pompidou_000196"),
        *("pompidou_000201", "pompidou_000467", "pompidou_000640", "sacrecoeur_000299", "sacrecoeur_000330"),
        *("sacrecoeur_000353", "triomphe_000662", "triomphe_000833", "triomphe_000863", "triomphe_000867"),
    )
)

_LISTS = ("gt_files_170407", "paris_120310", "groundtruth", "ground_truth", "gt", "lab", ".")


def load_oxford5k(path: Folder, *, distractors: Folder | None = None, complete: bool = True) -> RetrievalDataset:
    """Load the Oxford buildings: 5,063 images, 55 queries of 11 buildings.

    Parameters
    ----------
    path : path
        Folder with the images (in ``images`` or ``jpg``, or directly) and the lists (in ``gt_files_170407``,
        ``groundtruth`` or ``lab``, or directly), as `fetch_oxford5k` leaves it.
    distractors : path, optional
        Folder of the 100,071 distractors (Flickr100k, ``oxc1_100k``): Oxford105k.
    complete : bool, default=True
        Whether counts must be right and no image missing. False takes what there is; figures are then about a part.

    Returns
    -------
    RetrievalDataset
        Ids are file names without suffix. Relevant are good and ok; the query stays in the database. Measured with the
        protocol ``oxford5k``, which cuts queries to their region, or ``oxford5k-full``.

    Raises
    ------
    ValueError
        Saying what is missing and where it is to be had.

    References
    ----------
    J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman. Object retrieval with large vocabularies and fast spatial
    matching. CVPR 2007.
    """
    root = OXFORD5K.root(path)
    queries = _queries(OXFORD5K, root)
    if complete and ground_truth_digest(queries) != OXFORD5K_DIGEST:
        raise OXFORD5K.error(
            f"The lists in {root} are not the 55 published queries of Oxford5k: they are damaged or changed."
        )
    labels = Labels(_images(OXFORD5K, root, ()), queries, "oxford5k", ("oxford5k",), 5063, 55)
    return _with_100k(OXFORD5K, "oxford105k", labels, distractors, complete=complete)


def load_paris6k(path: Folder, *, distractors: Folder | None = None, complete: bool = True) -> RetrievalDataset:
    """Load the Paris buildings: 6,392 images, 55 queries of 11 buildings.

    Parameters
    ----------
    path : path
        Folder with the images (in ``paris``, ``images`` or ``jpg``, or directly; sub-folders do not matter) and the
        lists (in ``paris_120310``, ``groundtruth`` or ``lab``, or directly), as `fetch_paris6k` leaves it.
    distractors : path, optional
        Folder of the 100,071 distractors (Flickr100k, ``oxc1_100k``): Paris106k.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        See `load_oxford5k`. The 20 files that are no images, as the authors' own list says, are left out of the
        database and of the ground truth.

    References
    ----------
    J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman. Lost in quantization: improving particular object
    retrieval in large scale image databases. CVPR 2008.
    """
    root = PARIS6K.root(path)
    queries = [
        Query(q.id, q.path, q.relevant - PARIS6K_CORRUPT, q.junk - PARIS6K_CORRUPT, own_id=q.own_id, box=q.box)
        for q in _queries(PARIS6K, root)
    ]
    labels = Labels(_images(PARIS6K, root, PARIS6K_CORRUPT), queries, "paris6k", ("paris6k",), 6392, 55)
    return _with_100k(PARIS6K, "paris106k", labels, distractors, complete=complete)


def images_by_name(public: PublicSet, folder: Path) -> dict[str, Path]:
    """List images by their names without suffix, which must be unique."""
    found: dict[str, Path] = {}
    for file in public.images(folder):
        if file.stem in found:
            raise public.error(f"{found[file.stem]} and {file} have one name; it must be unique.")
        found[file.stem] = file
    return found


def ground_truth_digest(queries: Iterable[Query]) -> str:
    """Return a SHA-256 of queries, regions and lists that does not depend on how they are written."""
    lines = [
        "|".join((query.id, str(query.own_id), repr(query.box), *sorted(query.relevant), "junk", *sorted(query.junk)))
        for query in sorted(queries, key=lambda query: query.id)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _queries(public: PublicSet, root: Path) -> list[Query]:
    for name in _LISTS:
        if any((root / name).glob("*_query.txt")):
            return list(oxford_ground_truth(root / name))
    raise public.error(f"{root} has no lists of queries (*_query.txt).")


def _images(public: PublicSet, root: Path, left_out: Iterable[str]) -> dict[str, Path]:
    folder = public.folder(root, "images", "jpg", "oxbuild_images", "paris", ".")
    found = images_by_name(public, folder)
    for name in left_out:
        found.pop(name, None)
    return found


def _with_100k(
    public: PublicSet, large: str, labels: Labels, distractors: Folder | None, *, complete: bool
) -> RetrievalDataset:
    placed = [_place(public, query, labels, complete=complete) for query in labels.queries]
    queries = [query for query in placed if query is not None]
    labels = Labels(labels.database, queries, labels.form, labels.protocols, labels.n_database, labels.n_queries)
    dataset = make_dataset(public, labels, complete=complete)
    if distractors is None:
        return dataset
    return with_distractors(dataset, distractors, "100k", (large,), complete=complete)


def _place(public: PublicSet, query: Query, labels: Labels, *, complete: bool) -> Query | None:
    """Give a query the file of its image; None if it is missing from a part."""
    file = labels.database.get(query.path.stem)
    if file is None:
        if complete:
            raise public.error(f"The image {query.path.name} of query {query.id!r} is missing.")
        return None
    return Query(query.id, file, query.relevant, query.junk, own_id=query.own_id, box=query.box)
