"""``index``, ``add``, ``remove``, ``info``, ``compact``: an index and what is in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.cluster import ClusterOption, WorkersOption, working_on
from cvretrieval.cli.common import (
    IndexArgument,
    JobsOption,
    JsonOption,
    OnError,
    OnErrorOption,
    QuietOption,
    check_found,
    human_bytes,
    report_failures,
    say,
    table,
)
from cvretrieval.cli.engines import (
    CollectionOption,
    PlaceOption,
    StructureOption,
    UriOption,
    engine_differences,
    engine_options,
    put_in_milvus,
)
from cvretrieval.cli.method import (
    ExifOption,
    FeaturesOption,
    MaxSizeOption,
    MethodOption,
    PcaOption,
    SeedOption,
    UprightOption,
    VerifyOption,
    WordsOption,
    differences,
    make_retriever,
)
from cvretrieval.cli.networks import BackboneOption, LayerOption, ScalesOption, WeightsOption

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever
    from cvretrieval.retrieval.integrity import Damage
    from cvretrieval.retrieval.outcomes import IndexingReport

PhotosArgument = Annotated[
    list[str],
    typer.Argument(
        help="Folders (searched with all their sub-folders) and files, or URLs of them: s3://…, http://… (a folder of "
        "a web server ends in a slash).",
        metavar="PHOTOS",
    ),
]


def index(
    photos: PhotosArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index, e.g. photos.cvr.")],
    method: MethodOption = None,
    features: FeaturesOption = None,
    max_size: MaxSizeOption = None,
    words: WordsOption = None,
    pca: PcaOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    layer: LayerOption = None,
    scales: ScalesOption = None,
    exif: ExifOption = None,
    upright: UprightOption = None,
    verify: VerifyOption = None,
    seed: SeedOption = None,
    engine: PlaceOption = None,
    uri: UriOption = None,
    collection: CollectionOption = None,
    structure: StructureOption = None,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Index photos; run again to go on after an interruption or to bring the index up to date.

    Images that are in the index unchanged are skipped. Each gets one vector, of SIFT features or by a network, and SIFT
    features to be verified by.
    """
    from cvretrieval import ImageRetriever
    from cvretrieval.retrieval.durable_folders import is_empty_folder

    options: dict[str, Any] = {
        "method": method and method.value, "features": features, "max_size": max_size, "words": words, "pca": pca,
        "exif": exif and exif.value, "upright": upright, "seed": seed, "verify": verify, "backbone": backbone,
        "weights": weights, "layer": layer, "scales": scales,
    }  # fmt: skip
    place = engine_options(engine, uri, collection, structure)
    session: dict[str, Any] = {"on_error": on_error.value, "n_jobs": jobs, "verbose": not quiet}
    if out.exists() and not is_empty_folder(out):
        retriever = ImageRetriever.load(out, **session)
        changed = ", ".join(filter(None, (differences(options, retriever), engine_differences(place, retriever))))
        if changed:
            raise ValueError(f"{out} was built with other settings ({changed}); choose another --out for new ones.")
        with working_on(cluster, workers):
            report = retriever.add(photos)
    else:
        if not out.parent.is_dir():
            raise ValueError(f"The folder {out.parent} for the index does not exist.")
        _refuse_empty(photos)
        retriever = make_retriever(options, location=out, **session)
        put_in_milvus(retriever, place)
        with working_on(cluster, workers):
            report = retriever.fit(photos).report_
    _summary(retriever, report, out, quiet)


def add(
    index: IndexArgument,
    photos: PhotosArgument,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Add photos to an index; files that changed are replaced."""
    from cvretrieval import ImageRetriever

    retriever = ImageRetriever.load(index, on_error=on_error.value, n_jobs=jobs, verbose=not quiet)
    _refuse_empty(photos)
    with working_on(cluster, workers):
        report = retriever.add(photos)
    _summary(retriever, report, index, quiet)


def remove(
    index: IndexArgument,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Ids as `search` and `info` print them, or paths of the photos.", metavar="NAME"),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Remove the photos whose data in the index are damaged.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Remove photos from an index; the files themselves are not touched."""
    from cvretrieval import ImageRetriever

    if not names and not damaged:
        raise ValueError("Give the NAME of photos to remove, or --damaged.")
    retriever = ImageRetriever.load(index, verbose=not quiet)
    lost = {name for damage in retriever.check() for name in damage.ids} if damaged else set()
    chosen = {*(names or ()), *lost}
    retriever.remove(sorted(chosen))
    if not quiet:
        if lost:
            say("\n".join(sorted(lost)))
        say(f"removed {len(chosen)}, {len(retriever)} left; `cvretrieval compact {index}` gives their space back")


def compact(index: IndexArgument, quiet: QuietOption = False) -> None:
    """Rewrite an index without what was removed."""
    from cvretrieval import ImageRetriever

    retriever = ImageRetriever.load(index, verbose=not quiet)
    before = retriever.info()["n_bytes"]
    retriever.compact()
    after = retriever.info()["n_bytes"]
    if not quiet:
        say(f"{human_bytes(before)} → {human_bytes(after)}")


def info(
    index: IndexArgument,
    names: Annotated[bool, typer.Option("--names", help="List the ids of all images.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read every byte and compare it with the checksums; exit with 1 on damage.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is in an index: counts, size, method, and the images that could not be read."""
    from cvretrieval import ImageRetriever
    from cvretrieval.retrieval.searching import method_of

    retriever = ImageRetriever.load(index, verbose=not as_json)
    facts = retriever.info()
    method = method_of(retriever)
    failures = retriever.failures
    damages = retriever.check() if check else []
    if as_json:
        facts = {**facts, "method": method, "failures": [{"path": path, "reason": why} for path, why in failures]}
        if names:
            facts["ids"] = retriever.ids
        if check:
            facts["damages"] = [{**vars(damage), "path": str(damage.path)} for damage in damages]
        print(json.dumps(facts, indent=2, default=str))
    else:
        rows = [(name, human_bytes(value) if name.startswith("n_bytes") else value) for name, value in facts.items()]
        print(table([(name, value) for name, value in rows if not isinstance(value, dict)] + list(method.items())))
        if failures:
            print(f"\nunreadable ({len(failures)})")
            print(table(failures))
        if names:
            print()
            print("\n".join(retriever.ids))
        if check and not damages:
            print("\nevery file is as it was written")
    if damages:
        _report_damages(damages, index)


def _report_damages(damages: list[Damage], index: Path) -> None:
    say(f"\n{len(damages)} damaged file{'s' if len(damages) > 1 else ''}:")
    say(table([(damage.path, damage.reason, f"{len(damage.ids)} images") for damage in damages]))
    if any(damage.ids for damage in damages):
        say(f"`cvretrieval remove {index} --damaged` removes the images in them; then add these photos again")
    raise typer.Exit(1)


def _refuse_empty(photos: list[str]) -> None:
    """Say at once that there is nothing to index, before anything is created."""
    from cvretrieval.remote_files import is_url
    from cvretrieval.retrieval.sources import expand_images

    if not any(is_url(path) or os.path.lexists(path) for path in photos):
        raise ValueError(f"{photos[0]} does not exist.")
    images, failures = expand_images(photos, None)
    check_found(photos, [*images, *failures])


def _summary(retriever: ImageRetriever, report: IndexingReport, path: Path, quiet: bool) -> None:
    if not quiet:
        n_done = report.n_added + report.n_replaced
        rate = f" ({n_done / report.seconds:.1f} images/s)" if n_done and report.seconds else ""
        say(
            f"{path}: {report.n_added} added, {report.n_replaced} replaced, {report.n_unchanged} unchanged, "
            f"{len(retriever)} in all; {report.seconds:.1f} s{rate}"
        )
        if report.n_empty:
            say(f"{report.n_empty} without any feature (blank or tiny): they are kept and never found")
    report_failures(report.failures)
