"""Where the vectors of an index are: the options that say so, and ``export``, which moves them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.common import IndexArgument, JobsOption, QuietOption, say

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever


class Place(str, Enum):
    """Where vectors are."""

    folder = "folder"
    milvus = "milvus"


class Structure(str, Enum):
    """What Milvus builds over dense vectors."""

    flat = "flat"
    hnsw = "hnsw"
    ivf = "ivf"


PlaceOption = Annotated[
    Place | None, typer.Option("--index", help="Keep the vectors in the folder of the index or in Milvus.",
                               show_default="folder")
]  # fmt: skip
UriOption = Annotated[
    str | None, typer.Option("--uri", help="Address of Milvus, e.g. http://milvus:19530, or a local path that ends in "
                             ".db. Credentials go into the environment variable MILVUS_TOKEN.")
]  # fmt: skip
CollectionOption = Annotated[
    str | None, typer.Option("--collection", help="Name of a new collection in Milvus.", show_default="a random one")
]
StructureOption = Annotated[
    Structure | None, typer.Option("--structure", help="What Milvus builds over the vectors.", show_default="flat")
]


def engine_options(
    place: Place | None, uri: str | None, collection: str | None, structure: Structure | None
) -> dict[str, Any]:
    """Return the options by name, those that were given.

    Raises
    ------
    ValueError
        If one is missing, or has no meaning.
    """
    given = {"index": place and place.value, "uri": uri, "collection": collection, "structure": structure
             and structure.value}  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if place is Place.milvus and uri is None:
        raise ValueError("Milvus needs --uri: the address of a server, or a local path that ends in .db.")
    if place is not Place.milvus and given.keys() - {"index"}:
        name = min(given.keys() - {"index"})
        raise ValueError(f"--{name} is about Milvus; say so by `--index milvus`, or `--to milvus` of export.")
    return given


def put_in_milvus(retriever: ImageRetriever, options: dict[str, Any]) -> None:
    """Give a new retriever an engine in Milvus, and an encoder whose vectors it compares.

    Raises
    ------
    ValueError
        If Milvus has no engine for what the encoder gives.
    """
    from sklearn.pipeline import make_pipeline

    from cvretrieval import InvertedIndex, TfIdf

    if options.get("index") != "milvus":
        return
    index = retriever.index
    if isinstance(index, InvertedIndex) and index.kind == "sparse":
        # Milvus has no weights of words that follow its contents; these are those of the first images.
        retriever.set_params(encoder=make_pipeline(retriever.encoder, TfIdf()))
        index = InvertedIndex("inner_product", idf=None)
    retriever.set_params(index=milvus_for(retriever.metric if index is None else index, options))


def milvus_for(held: Any, options: dict[str, Any]) -> Any:
    """Return the engine in Milvus that finds what another one, or a dense one of some metric, finds.

    Raises
    ------
    ValueError
        If there is none.
    """
    from cvretrieval import InvertedIndex, MilvusIndex

    metric, kind = (held, "dense") if isinstance(held, str) else (held.metric, held.kind)
    place = (options["uri"], options.get("collection"))
    if kind == "dense":
        return MilvusIndex(*place, metric=metric, structure=options.get("structure", "flat"))
    if kind != "sparse" or (isinstance(held, InvertedIndex) and (metric != "inner_product" or held.idf is not None)):
        raise ValueError(
            f"Milvus has no engine that compares as {' '.join(repr(held).split())} does. It holds dense vectors, and "
            "bags of words whose tf-idf the encoder computes."
        )
    if "structure" in options:
        raise ValueError("--structure is about dense vectors; sparse ones are in posting lists.")
    return MilvusIndex(*place, metric=metric, structure="sparse")


def engine_differences(options: dict[str, Any], retriever: ImageRetriever) -> str:
    """Name the options that were given and differ from what the index was built with."""
    from cvretrieval import MilvusIndex
    from cvretrieval.index.milvus_service import check_uri

    index, stored = retriever.index, {"index": "folder"}
    given = dict(options)
    if isinstance(index, MilvusIndex):
        stored = {"index": "milvus", "uri": check_uri(index.uri), "collection": index.collection,
                  "structure": index.structure}  # fmt: skip
    if "uri" in given:
        given["uri"] = check_uri(given["uri"])
    return ", ".join(f"--{name} {stored[name]}" for name in given if name in stored and given[name] != stored[name])


def export(
    index: IndexArgument,
    to: Annotated[Place, typer.Option("--to", help="Where the vectors go.")],
    uri: UriOption = None,
    collection: CollectionOption = None,
    structure: StructureOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Leave the index as it is, and move those of a copy in a new "
                                  "folder.")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Delete the collection that the vectors come from.")
    ] = False,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Move the vectors of an index to Milvus, or back to its folder; searches find the same as before."""
    from cvretrieval import DenseIndex, ImageRetriever, InvertedIndex, MilvusIndex

    options = engine_options(to, uri, collection, structure)
    if drop and (to is Place.milvus or out is not None):
        raise ValueError("--drop is for `--to folder` without --out: the collection is needed otherwise.")
    retriever = ImageRetriever.load(index, n_jobs=jobs, verbose=not quiet)
    held = retriever._template()
    target: Any
    if to is Place.milvus:
        target = milvus_for(held, options)
    elif isinstance(held, MilvusIndex):
        target = DenseIndex(held.metric) if held.kind == "dense" else InvertedIndex(held.metric, idf=None)
    else:
        raise ValueError(f"The vectors of {index} are in its folder already.")
    moved = retriever if out is None else ImageRetriever.load(retriever.save(out), n_jobs=jobs)
    moved.change_index(target)
    if drop:
        held.drop()
    if not quiet:
        place = "its folder" if to is Place.folder else f"{target.uri}, collection {moved.index.collection}"
        say(f"{moved.path_}: the vectors of {len(moved)} images are in {place}")
        if to is Place.folder and not drop and out is None:
            say(f"the collection {held.collection} is still in Milvus at {held.uri}")
