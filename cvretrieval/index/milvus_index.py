"""Search in Milvus, embedded or on a cluster."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._parallel import effective_n_jobs
from cvretrieval._validation import check_choice, check_number
from cvretrieval.index.checks import check_keys, check_new_keys, name_keys
from cvretrieval.index.milvus_collection import Collection, Structure
from cvretrieval.index.milvus_forms import DenseForm, Form, SparseForm
from cvretrieval.index.milvus_keys import KeysOfMilvus
from cvretrieval.index.milvus_search import Held, MilvusSearch
from cvretrieval.index.milvus_service import check_uri
from cvretrieval.index.ranking import no_results, rank

_DENSE = ("cosine", "inner_product", "l2")
_STRUCTURES = ("flat", "hnsw", "ivf", "sparse")


class MilvusIndex(KeysOfMilvus, BaseEstimator):
    """Search in Milvus: vectors that outgrow one machine, or a folder of this one, by the same words.

    Parameters
    ----------
    uri : str, default="milvus.db"
        Address of a server (``"http://milvus:19530"``), or a local path ending in ``.db``: Milvus Lite, embedded, a
        folder that one process at a time may use.
    collection : str, optional
        Name of the collection, which belongs to this index alone; None means a new one of a random name.
    metric : {"cosine", "inner_product", "l2"}, default="cosine"
        What is ranked by, as by `DenseIndex`; of ``structure="sparse"`` only ``"inner_product"``: give it tf-idf
        vectors (`BagOfWords`, then `TfIdf`), normalised for the cosine. Fixed by the first vectors.
    structure : {"flat", "hnsw", "ivf", "sparse"}, default="flat"
        What Milvus builds: ``"flat"`` compares every vector (FLAT); ``"hnsw"`` and ``"ivf"`` (HNSW, IVF_FLAT) miss
        some; ``"sparse"`` holds CSR rows of numbers that are not negative (SPARSE_INVERTED_INDEX).
    n_links : int, default=16
        Links of a node of HNSW, Milvus's ``M``, from 2 to 2048.
    ef_construction : int, default=200
        Candidates for the links of HNSW.
    ef : int, default=128
        Candidates of a search in HNSW; never fewer than are asked for.
    n_lists : int, default=1024
        Cells of IVF, Milvus's ``nlist``.
    n_probe : int, default=32
        Cells that a search in IVF visits.
    n_jobs : int, optional
        Threads over queries; the number does not change a bit of the result.

    Attributes
    ----------
    n_dims : int or None
        Dimension of the vectors; None before the first ones.

    Notes
    -----
    Milvus proposes candidates with their vectors, and these are scored again in float64: scores and order are those of
    `DenseIndex` and `InvertedIndex`, to the bit. With ``"flat"`` and ``"sparse"`` more are asked for until, given the
    largest rounding error of its float32 sums, none can be missing, ties included.

    Vectors go to Milvus as they are added, in batches, each written in place of what is under its key, so that a run
    that is cut off and done again leaves nothing twice. Which of them are *in the index* is known here: its keys are
    held in memory, and in the folder of `save`. So a search finds what an `add` that has returned has added, and
    nothing of one that has failed or is under way. `remove` takes effect here at once; Milvus deletes with `flush`,
    after the folder is committed. All reads have the consistency level "Strong": other clients of the collection do
    not see a vector any more once `flush` has returned.

    Zero vectors, which Milvus refuses or ranks arbitrarily, are held here as well, and found as `DenseIndex` finds
    them. A dimension above Milvus's limit (32,768) is refused before anything is inserted.

    Credentials are read from the environment variable ``MILVUS_TOKEN`` (``user:password``, or an API key) when a
    connection is made, and never saved. Calls are repeated, with growing pauses for up to a minute, while a server is
    busy or gone.

    The folder of `save` holds address, collection and keys; the vectors stay in Milvus. Two indexes must not share a
    collection. `drop` deletes it.

    Examples
    --------
    >>> from cvretrieval import MilvusIndex
    >>> index = MilvusIndex("photos_milvus.db", metric="l2")  # a server: MilvusIndex("http://milvus:19530")
    >>> index.add([10, 20, 30], [[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])  # doctest: +SKIP
    >>> index.search([[3.0, 4.0]], k=2)[0]  # doctest: +SKIP
    array([[20, 30]])
    """

    def __init__(
        self,
        uri: str | os.PathLike[str] = "milvus.db",
        collection: str | None = None,
        *,
        metric: str = "cosine",
        structure: str = "flat",
        n_links: int = 16,
        ef_construction: int = 200,
        ef: int = 128,
        n_lists: int = 1024,
        n_probe: int = 32,
        n_jobs: int | None = None,
    ) -> None:
        self.uri = uri
        self.collection = collection
        self.metric = metric
        self.structure = structure
        self.n_links = n_links
        self.ef_construction = ef_construction
        self.ef = ef
        self.n_lists = n_lists
        self.n_probe = n_probe
        self.n_jobs = n_jobs
        self._start()

    @property
    def kind(self) -> str:
        """What vectors are: "dense", or "sparse"."""
        return "sparse" if self.structure == "sparse" else "dense"

    @property
    def exact(self) -> bool:
        """Whether a search always finds the best vectors."""
        return self.structure in ("flat", "sparse")

    def check_vectors(self, vectors: Any) -> None:
        """Refuse vectors that `add` would refuse, without a word to Milvus.

        Parameters
        ----------
        vectors : array-like or CSR matrix of shape (n_vectors, n_dims)

        Raises
        ------
        ValueError, TypeError
        """
        form = self._form()
        rows = form.read("Vectors", vectors, self._n_dims)
        form.sizes(rows, np.arange(rows.shape[0]))
        self._check_dims(rows.shape[1])

    def add(self, keys: Any, vectors: Any) -> MilvusIndex:
        """Add vectors.

        Parameters
        ----------
        keys : array-like of shape (n_vectors,)
            Integers, each 0 or more and in the index at most once. A row with key -1 is not kept, whatever is in it.
        vectors : array-like or CSR matrix of shape (n_vectors, n_dims)
            Real numbers, finite in float32, with norms of at most 1e18; for ``structure="sparse"`` none negative.

        Returns
        -------
        MilvusIndex
            The index itself.

        Raises
        ------
        ValueError
            If a key is in the index (remove it first), the vectors are not as above, their dimension is beyond
            Milvus's limit, or the collection holds others. Nothing is added then.
        StoreError
            If Milvus cannot be reached or refuses. Nothing is added then either.
        """
        form = self._form()
        rows = form.read("Vectors", vectors, self._n_dims, keys)
        new = check_new_keys(keys, rows.shape[0])
        sizes = form.sizes(rows, new)
        self._check_dims(rows.shape[1])
        held = self._held
        known = new[(new >= 0) & (np.isin(new, held.keys) | np.isin(new, held.zeros))]
        if len(known):
            raise ValueError(
                f"Keys are in the index already: {name_keys(np.sort(known))}. "
                "Remove them first to replace their vectors."
            )
        is_sent = (new >= 0) & (sizes > 0)
        sent, zeros = new[is_sent], new[(new >= 0) & ~is_sent]
        if len(sent):
            collection = self._ready(rows.shape[1])
            # Whatever happens now, Milvus may hold them.
            self._gone = np.union1d(self._gone, sent)
            collection.upsert(sent, rows if is_sent.all() else rows[np.flatnonzero(is_sent)])
        longest = max(held.longest, float(sizes[is_sent].max(initial=0.0)))
        self._held = Held(np.union1d(held.keys, sent), np.union1d(held.zeros, zeros), longest)
        self._gone = np.setdiff1d(self._gone, sent, assume_unique=True)
        self._n_dims = rows.shape[1]
        return self

    def reconstruct(self, keys: Any) -> Any:
        """Return stored vectors.

        Parameters
        ----------
        keys : array-like of shape (n_keys,)

        Returns
        -------
        ndarray or CSR array of shape (n_keys, n_dims)
            float32, in the order of the keys.

        Raises
        ------
        KeyError
            If a key is not in the index.
        """
        wanted, inverse = np.unique(self._check_held(keys), return_inverse=True)
        form, n_dims = self._form(), self._n_dims or 0
        in_milvus = np.isin(wanted, self._held.keys, assume_unique=True)
        parts, order = [form.zeros(int((~in_milvus).sum()), n_dims)], [wanted[~in_milvus]]
        if self._collection is not None and in_milvus.any():
            for own, rows in self._collection.fetch(wanted[in_milvus]):
                parts.append(rows)
                order.append(own)
        places = np.argsort(np.concatenate(order))[inverse]
        if self.kind == "dense":
            return np.concatenate(parts)[places]
        from scipy.sparse import vstack

        return vstack(parts, format="csr")[places]

    def search(self, queries: Any, k: int, *, within: Any = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best vectors for each query.

        Parameters
        ----------
        queries : array-like or CSR matrix of shape (n_queries, n_dims)
            As the vectors of `add`.
        k : int
            Length of the ranked lists; may be more than there are vectors. Beyond some 13,000, Milvus's limit, all
            vectors are read.
        within : array-like of shape (n_keys,), optional
            Only these keys are searched; those that are not in the index make no difference.

        Returns
        -------
        keys : ndarray of shape (n_queries, k)
            int64, best first; -1 where there are no more vectors.
        scores : ndarray of shape (n_queries, k)
            float32, by `metric`; −inf where there are no more vectors.

        Raises
        ------
        StoreError
            If Milvus cannot be reached or refuses.
        """
        form = self._form()
        check_number("search", "k", k, low=1, integer=True)
        asked = form.queries(queries, self._n_dims)
        held, collection = self._held, self._collection
        if within is not None:
            held = held.among(check_keys(within))
        n_found = min(int(k), len(held))
        if not n_found or not asked.rows.shape[0]:
            return no_results(asked.rows.shape[0], int(k))
        own = self._new_collection(self._n_dims or 0)
        # Parameters of searching may have been changed since the collection was made.
        collection = own if collection is None else replace(collection, structure=own.structure)
        search = MilvusSearch(collection, held, within is not None, self.exact, n_found, asked)
        return rank(search, asked.rows.shape[0], int(k), n_found, self.n_jobs)

    def stats(self) -> dict[str, Any]:
        """Return facts.

        Returns
        -------
        dict
            ``n_vectors``; ``n_removed``, those that Milvus has not deleted yet; ``n_dims``; ``n_segments``, 1;
            ``n_bytes`` of the vectors, about; ``uri`` and ``collection``.
        """
        place = self._collection
        return {
            "n_vectors": len(self),
            "n_removed": len(self._gone),
            "n_dims": self._n_dims,
            "n_segments": 1,
            "n_bytes": (len(self) + len(self._gone)) * self._form().row_bytes(self._n_dims or 0),
            "uri": check_uri(self.uri),
            "collection": self.collection if place is None else place.name,
        }

    # -- what is in Milvus

    def _form(self) -> Form:
        """Return the form of the vectors, once all parameters are checked."""
        check_choice(self, "structure", self.structure, _STRUCTURES)
        check_choice(self, "metric", self.metric, _DENSE if self.kind == "dense" else ("inner_product",))
        check_number(self, "n_links", self.n_links, low=2, high=2048, integer=True)
        for name in ("ef_construction", "ef", "n_lists", "n_probe"):
            check_number(self, name, getattr(self, name), low=1, integer=True)
        effective_n_jobs(self.n_jobs)
        check_uri(self.uri)
        made = self._collection
        if made is not None and made.form.metric != self.metric:
            raise ValueError(
                f"The vectors are in Milvus for metric={made.form.metric!r}, which cannot be changed to "
                f"{self.metric!r}. Make a new index."
            )
        return DenseForm(self.metric) if self.kind == "dense" else SparseForm()

    def _check_dims(self, n_dims: int) -> None:
        most = self._form().most_dims
        if n_dims > most:
            raise ValueError(
                f"The vectors have {n_dims} dimensions, but Milvus holds at most {most}. Reduce them first, as by "
                "PCAWhitening(n_components=512) behind the encoder."
            )

    def _new_collection(self, n_dims: int) -> Collection:
        name = self.collection
        if name is None:
            name = f"cvretrieval_{secrets.token_hex(8)}"
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or len(name) > 255:
            raise ValueError(
                "The 'collection' parameter of MilvusIndex must be a name of letters, digits and underscores, not "
                f"beginning with a digit. Got {name!r} instead."
            )
        build: dict[str, dict[str, Any]] = {
            "hnsw": {"M": self.n_links, "efConstruction": self.ef_construction},
            "ivf": {"nlist": self.n_lists},
        }
        search: dict[str, dict[str, Any]] = {"hnsw": {"ef": self.ef}, "ivf": {"nprobe": self.n_probe}}
        types = {"flat": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT", "sparse": "SPARSE_INVERTED_INDEX"}
        structure = Structure(
            types[self.structure], build.get(self.structure, {}), search.get(self.structure, {})
        )  # fmt: skip
        return Collection(check_uri(self.uri), name, self._form(), structure, n_dims)

    def _ready(self, n_dims: int) -> Collection:
        """Return the collection, made if it is not there."""
        if self._collection is None:
            collection = self._new_collection(n_dims)
            collection.ensure()
            self._collection = collection
        return self._collection

    def _params_to_store(self) -> dict[str, Any]:
        # A relative path would be another database from another folder.
        return {**self.get_params(deep=False), "uri": check_uri(self.uri)}
