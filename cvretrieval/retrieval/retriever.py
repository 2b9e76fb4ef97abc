"""`ImageRetriever`: from a folder of photos to a ranked list, in one object."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from cvretrieval._validation import check_choice, check_number
from cvretrieval.encoders import VLAD
from cvretrieval.extraction import SIFT
from cvretrieval.retrieval import configuration, ingestion, moving, reranking, searching
from cvretrieval.retrieval.engine import check_rows
from cvretrieval.retrieval.integrity import Damage
from cvretrieval.retrieval.learning import StoredFeatures
from cvretrieval.retrieval.opened import OpenedIndex
from cvretrieval.retrieval.outcomes import IndexingReport
from cvretrieval.retrieval.result import SearchResult
from cvretrieval.retrieval.stages import Stages
from cvretrieval.retrieval.store import Store


class ImageRetriever(OpenedIndex, BaseEstimator):
    """Find the images that show the same thing as a query.

    Images are described by local features, encoded as one vector each or as their visual words, compared by the index,
    and the best candidates are verified by the geometry of their features.

    Parameters
    ----------
    extractor : estimator or None, default=None
        Images → `LocalFeatures`; None means ``SIFT(root=True)``, or none at all where neither the encoder nor a
        verifier or reranker needs local features.
    encoder : estimator or None, default=None
        Local features → vectors (`VLAD`, or a Pipeline beginning with an encoder) or visual words (`HammingEmbedding`,
        `ASMK`), or images → vectors (`deep.GeM`, …); None means ``VLAD(n_words=64, residual_norm=True,
        local_coordinates=True, power=0.2)``. `fit` learns a copy of it.
    index : VectorIndex or None, default=None
        Engine that finds the images, without vectors: `InvertedIndex` for sparse bags of words, for `HammingEmbedding`
        and for `ASMK`, `BinaryIndex` for vectors of bytes, or an approximate one for dense vectors; None means
        ``DenseIndex(metric)``. Parameters that do not change what it holds, such as ``index__alpha``, may be set later.
    verifier : SpatialVerifier, deep.AML or None, default=None
        Verifies the best candidates by their local features; or reads them again and ranks them by the region that a
        network finds most like the query. None ranks by the vectors alone.
    reranker : reranker or None, default=None
        Makes a better ranked list of the first one, before the best candidates are verified, or by what is verified
        (`AverageQueryExpansion`, `Diffusion`, …, a `RerankingPipeline` of several). Needs dense vectors and the cosine
        metric.
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        How ``DenseIndex`` compares vectors; other engines have their own. Higher scores are better for all of them.
    n_verify : int, default=50
        Number of candidates of each query that are verified, or read again.
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
    Verified images rank above all others, by what the verifier scores (inliers, by default), then by their own score;
    equal ones in the order they were indexed. An image without features is kept in the index and never found.

    An inverted file finds only images that share a word with the query and, weighted by their rarity, only by words
    that not all images have. With `n_query_words` of the encoder the features of queries have several words each;
    images given by `ids` are then encoded anew from their features.

    What an engine other than ``DenseIndex`` makes of the vectors is kept in the folder ``engine`` of the index. That is
    a copy: it is brought up to date by `add`, `remove` and `compact`, or by a search that finds it behind; one that is
    damaged or missing is built anew, in memory where the folder cannot be written.

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
        index: Any = None,
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
        self.index = index
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
        default = VLAD(n_words=64, residual_norm=True, local_coordinates=True, power=0.2)
        encoder = copy.deepcopy(self.encoder) if self.encoder is not None else default
        extractor = copy.deepcopy(self.extractor)
        if extractor is None and configuration.needs_features(self, encoder):
            extractor = SIFT(root=True)
        configuration.check_index(self._template(), encoder)
        stages = Stages(extractor, encoder, kind=self._template().kind)
        stages.prepare()
        config = configuration.describe(self, extractor, encoder)
        path, cleanup = self._new_location()
        try:
            Store.create(path, config).close()
            self._attach(path, stages, cleanup)
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
                accept=partial(check_rows, self._template()),
                max_train_images=self.max_train_images,
                random_state=self.random_state,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
            )
            self._write_engine(store)
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
            self._write_engine(store)
        self._reload()
        return self

    def compact(self) -> ImageRetriever:
        """Rewrite the index without what was removed."""
        self._check_open()
        with Store.open(self.path_, mode="w") as store:
            store.compact(verbose=self.verbose)
            self._write_engine(store, compact=True)
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
        configuration.check_features(self, self._stages)
        self._reload()
        return searching.search(self, X, int(k), ids=ids, boxes=boxes, within=within)

    def check(self) -> list[Damage]:
        """Read every byte of the index, compare it with its checksums, and return the files that are damaged.

        The images in damaged files can be removed and added again; nothing else need be. A damaged engine is no loss:
        it is deleted, and built anew by the next search.
        """
        self._check_open()
        self._reload()
        self._engine.check(self._store, self._template())
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
        return StoredFeatures(self._read_features, keys, store=self._store, model=self._stages.model)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the index to a new folder and return its path.

        Raises
        ------
        StoreError
            If the folder exists already.
        """
        self._check_open()
        config = moving.config_of_copy(self._store.config)
        copied = self._store.copy(path, config)
        if config is None:
            self._engine.copy(self._store, copied)
        return copied

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
        fixed = {"extractor", "encoder", "index", "metric", "location"} & set(parameters)
        if fixed:
            raise TypeError(f"{', '.join(sorted(fixed))} cannot be changed: the index was built with them.")
        store = Store.open(path, mode="r")
        try:
            stored, stages = configuration.restore(store)
            retriever = cls(**{**stored, **parameters})
            retriever._check_parameters()
            configuration.check_features(retriever, stages)
        except BaseException:
            store.close()
            raise
        # Opened once: reading the manifest of a large index takes seconds.
        retriever._attach(Path(path), stages, None, store)
        return retriever

    def _check_parameters(self) -> None:
        check_choice(self, "metric", self.metric, ("cosine", "inner_product", "l2"))
        configuration.check_engine(self.index)
        check_choice(self, "on_error", self.on_error, ("raise", "skip"))
        check_number(self, "n_verify", self.n_verify, low=1, integer=True)
        reranking.check_parameters(self)
        check_number(self, "max_train_images", self.max_train_images, low=1, integer=True)
