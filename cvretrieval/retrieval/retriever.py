"""`ImageRetriever`: from a folder of photos to a ranked list, in one object."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from cvretrieval._validation import check_choice, check_number
from cvretrieval.encoders import VLAD
from cvretrieval.extraction import SIFT
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval import configuration, ingestion, reranking, searching
from cvretrieval.retrieval.ingestion import IndexingReport
from cvretrieval.retrieval.integrity import Damage
from cvretrieval.retrieval.learning import StoredFeatures
from cvretrieval.retrieval.records import StaleSnapshotError
from cvretrieval.retrieval.result import SearchResult
from cvretrieval.retrieval.stages import Stages
from cvretrieval.retrieval.store import Store


class ImageRetriever(BaseEstimator):
    """Find the images that show the same thing as a query.

    Images are described by local features, encoded as one vector each, compared by the index, and the best candidates
    are verified by the geometry of their features.

    Parameters
    ----------
    extractor : estimator or None, default=None
        Images → `LocalFeatures`; None means ``SIFT(root=True)``.
    encoder : estimator or None, default=None
        Local features → vectors (`VLAD`, or a Pipeline beginning with an encoder), or images → vectors; None means
        ``VLAD(n_words=64, power=None, intra_norm=True)``. `fit` learns a copy of it.
    verifier : SpatialVerifier or None, default=None
        Verifies the best candidates; None ranks by the vectors alone.
    reranker : reranker or None, default=None
        Makes a better ranked list of the first one, before the best candidates are verified, or by what is verified
        (`AverageQueryExpansion`, `Diffusion`, …, a `RerankingPipeline` of several). Needs the cosine metric.
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        How the index compares vectors; higher scores are better for all of them.
    n_verify : int, default=50
        Number of candidates of each query that are verified.
    max_train_images : int, default=500
        The encoder is learned on at most so many images, drawn at random.
    location : path, optional
        Folder of the index, conventionally ``name.cvr``, created by `fit`. Without it the index lives in a temporary
        folder that goes with the object; `save` keeps it.
    on_error : {"raise", "skip"}, default="raise"
        What an unreadable image does: raise `ImageReadError`, or be recorded with the reason (see `failures`) and left
        out.
    n_jobs : int, optional
        Threads for features, encoding, verification and search; the number does not change any result.
    random_state : int, RandomState or None, default=None
        Seed of the draw of training images. The encoder has its own.
    verbose : bool, default=False
        Show progress bars on a terminal.

    Attributes
    ----------
    encoder_ : estimator
        The learned encoder.
    path_ : Path
        Folder of the index.
    report_ : IndexingReport
        What the last `fit` or `add` did.

    Notes
    -----
    Verified images rank above all others, by number of inliers, then by score; equal ones in the order they were
    indexed. An image without features is kept in the index and never found.

    Images are named by ids: the path as given for files, the path inside the folder for the images of a folder,
    ``image-000001`` and so on for arrays, or whatever ``ids=`` says.

    Examples
    --------
    >>> from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier
    >>> from cvretrieval.datasets import make_scenes
    >>> scenes = make_scenes(n_scenes=3, n_views=2, random_state=0)
    >>> retriever = ImageRetriever(
    ...     extractor=SIFT(root=True), encoder=VLAD(n_words=16, random_state=0), verifier=SpatialVerifier()
    ... )
    >>> retriever.fit(scenes.images[:-1])  # doctest: +ELLIPSIS
    ImageRetriever(...)
    >>> result = retriever.search(scenes.images[-1:], k=2)
    >>> len(result.ids[0])
    2
    """

    def __init__(
        self,
        *,
        extractor: Any = None,
        encoder: Any = None,
        verifier: Any = None,
        reranker: Any = None,
        metric: str = "cosine",
        n_verify: int = 50,
        max_train_images: int = 500,
        location: str | os.PathLike[str] | None = None,
        on_error: str = "raise",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.extractor = extractor
        self.encoder = encoder
        self.verifier = verifier
        self.reranker = reranker
        self.metric = metric
        self.n_verify = n_verify
        self.max_train_images = max_train_images
        self.location = location
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, *, ids: Sequence[str] | None = None) -> ImageRetriever:
        """Create the index, learn the encoder on its images, and add them.

        Parameters
        ----------
        X : path of a folder, or sequence of folders, paths, arrays, PIL images or file objects
            The images.
        y : ignored
        ids : sequence of str, optional
            A name for each image.

        Raises
        ------
        StoreError
            If `location` exists already.
        ImageReadError
            With ``on_error="raise"``, for the first image that cannot be read.
        """
        self._check_parameters()
        # Copies, not clones: a clone of an encoder would forget the words of the codebook it was given.
        extractor = copy.deepcopy(self.extractor) if self.extractor is not None else SIFT(root=True)
        default = VLAD(n_words=64, power=None, intra_norm=True)
        encoder = copy.deepcopy(self.encoder) if self.encoder is not None else default
        path, cleanup = self._new_location()
        config = configuration.describe(self, extractor, encoder)
        try:
            Store.create(path, config).close()
            self._attach(path, Stages(extractor, encoder), cleanup)
            self.add(X, ids=ids)
        except BaseException:
            # A temporary index is of no use to anyone; one with a location resumes where it stopped.
            if cleanup is not None:
                cleanup()
            raise
        return self

    def add(self, X: Any, *, ids: Sequence[str] | None = None) -> IndexingReport:
        """Add images to the index; what is in it unchanged is skipped, changed files are replaced.

        Parameters
        ----------
        X, ids
            As for `fit`.

        Returns
        -------
        IndexingReport
            Numbers of added, replaced, unchanged and featureless images, and the failures.
        """
        self._check_open()
        with Store.open(self.path_, mode="w") as store:
            self._learn_from(store)
            self.report_ = ingestion.add(
                store,
                self._stages,
                X,
                ids,
                on_error=self.on_error,
                max_train_images=self.max_train_images,
                random_state=self.random_state,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
            )
        self._reload()
        return self.report_

    def remove(self, ids: Sequence[str]) -> ImageRetriever:
        """Remove images by id or by the path of their file; `compact` gives their space back.

        Raises
        ------
        KeyError
            Naming those that are not in the index; nothing is removed then.
        """
        self._check_open()
        with Store.open(self.path_, mode="w") as store:
            store.remove([ids] if isinstance(ids, str) else list(ids))
        self._reload()
        return self

    def compact(self) -> ImageRetriever:
        """Rewrite the index without what was removed."""
        self._check_open()
        with Store.open(self.path_, mode="w") as store:
            store.compact(verbose=self.verbose)
        self._reload()
        return self

    def search(
        self,
        X: Any = None,
        k: int = 10,
        *,
        ids: Sequence[str] | None = None,
        boxes: Sequence[Any] | None = None,
        within: Sequence[str] | None = None,
    ) -> SearchResult:
        """Rank the indexed images by similarity to each query.

        Parameters
        ----------
        X : sequence of images, or path of one image
            The queries.
        k : int, default=10
            Length of the ranked lists; all images if the index has fewer.
        ids : sequence of str, optional
            Instead of `X`: ids of indexed images to search with. An image does not find itself.
        boxes : sequence of (x1, y1, x2, y2) or None, optional
            For each query of `X` the region to search for, in its pixels; None takes the whole image.
        within : sequence of str, optional
            Search only among these ids.

        Returns
        -------
        SearchResult
            One `QueryResult` per query that could be read; with ``on_error="skip"`` the others are in its
            ``failures``.
        """
        self._check_open()
        check_number(self, "k", k, low=1, integer=True)
        self._reload()
        return searching.search(self, X, int(k), ids=ids, boxes=boxes, within=within)

    def check(self) -> list[Damage]:
        """Read every byte of the index, compare it with its checksums, and return the files that are damaged.

        The images in damaged files can be removed and added again; nothing else need be.
        """
        self._check_open()
        self._reload()
        return self._store.check(verbose=self.verbose)

    def info(self) -> dict[str, Any]:
        """Return facts about the index: counts, bytes, versions, the stages."""
        self._check_open()
        self._reload()
        return self._store.info()

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Path and reason of every image that could not be read, by ``on_error="skip"``."""
        self._check_open()
        self._reload()
        return [(path, reason) for path, reason in self._store.failures()]

    @property
    def ids(self) -> list[str]:
        """Ids of the indexed images, in the order they were added."""
        self._check_open()
        self._reload()
        return [record.id for record in self._store.records() if record.status != "failed"]

    def __len__(self) -> int:
        return len(self.ids)

    def iter_features(self) -> StoredFeatures:
        """Return the features of the indexed images as chunks of `LocalFeatures`, to be iterated over.

        They come in the order of `ids`, as the encoder gets them. One chunk after the other is in memory:
        ``KMeansCodebook(1000).fit(retriever.iter_features())`` learns on an index of any size.
        """
        self._check_open()
        self._reload()
        keys = [record.key for record in self._store.records() if record.status != "failed"]
        return StoredFeatures(self._read_features, keys)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the index to a new folder and return its path.

        Raises
        ------
        StoreError
            If the folder exists already.
        """
        self._check_open()
        return self._store.copy(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> ImageRetriever:
        """Open an index; nothing in it is executed.

        Parameters
        ----------
        path : path
            Folder written by `save`, by `fit` with a `location`, or by ``cvretrieval index``.
        **parameters
            Parameters that do not belong to the index: ``verifier``, ``reranker``, ``n_verify``, ``on_error``,
            ``n_jobs``, ``verbose``, …

        Raises
        ------
        StoreError
            If it is no index, damaged, or of a newer format.
        """
        fixed = {"extractor", "encoder", "metric", "location"} & set(parameters)
        if fixed:
            raise TypeError(f"{', '.join(sorted(fixed))} cannot be changed: the index was built with them.")
        with Store.open(path, mode="r") as store:
            stored, stages = configuration.restore(store)
        retriever = cls(**{**stored, **parameters})
        retriever._check_parameters()
        retriever._attach(Path(path), stages, None)
        return retriever

    def close(self) -> None:
        """Release the files of the index; a temporary index is deleted."""
        if hasattr(self, "_store"):
            self._store.close()
            del self._store
        if getattr(self, "_cleanup", None) is not None:
            self._cleanup()

    def __enter__(self) -> ImageRetriever:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_store")

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_store"):
            raise TypeError("A fitted ImageRetriever cannot be pickled; use save(path) and ImageRetriever.load(path).")
        return dict(super().__getstate__())

    def _check_parameters(self) -> None:
        check_choice(self, "metric", self.metric, ("cosine", "inner_product", "l2"))
        check_choice(self, "on_error", self.on_error, ("raise", "skip"))
        check_number(self, "n_verify", self.n_verify, low=1, integer=True)
        reranking.check_parameters(self)
        check_number(self, "max_train_images", self.max_train_images, low=1, integer=True)

    def _check_open(self) -> None:
        check_is_fitted(self)

    def _new_location(self) -> tuple[Path, Any]:
        if self.location is not None:
            return Path(self.location), None
        folder = tempfile.mkdtemp(prefix="cvretrieval-")
        return Path(folder, "index.cvr"), weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def _attach(self, path: Path, stages: Stages, cleanup: Any) -> None:
        self.close()
        self.path_ = Path(os.path.abspath(path))
        self.encoder_ = stages.encoder
        self._stages = stages
        self._cleanup = cleanup
        self._store = Store.open(path, mode="r")
        self._index = None
        self._learn_from(self._store)

    def _read_features(self, keys: Sequence[int]) -> LocalFeatures:
        try:
            return self._stages.decode(self._store.features(keys))
        except StaleSnapshotError:
            # Compacted by another process since; one of the images may also have been removed, which is said then.
            self._reload()
            return self._stages.decode(self._store.features(keys))

    def _reload(self) -> None:
        """See what writers committed meanwhile."""
        if self._store.reload():
            self._index = None
            self._learn_from(self._store)

    def _learn_from(self, store: Store) -> None:
        """Take over what the encoder has learned in another process."""
        if self._stages.model != store.model:
            self._stages = configuration.learned_stages(store, self._stages.extractor)
            self.encoder_ = self._stages.encoder
