"""``duplicates``: which photos are the same picture?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.common import (
    JobsOption,
    JsonOption,
    OnError,
    OnErrorOption,
    QuietOption,
    check_report,
    report_failures,
    say,
)
from cvretrieval.cli.method import make_retriever

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever


def duplicates(
    folder: Annotated[
        Path, typer.Argument(help="Folder of photos, searched with all sub-folders; or an index.", metavar="DIR")
    ],
    between: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Only pairs of a photo in A and one in B: two folders inside DIR, e.g. train test.", metavar="A B"
        ),
    ] = None,
    min_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the features that must agree in place.")
    ] = 0.25,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the groups side by side.")] = None,
    on_error: OnErrorOption = OnError.skip,
    as_json: JsonOption = False,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """List groups of near-duplicates: copies, also scaled, cut, turned or recompressed. Nothing is changed or deleted.

    Without an index the photos are indexed in a temporary one; with many photos, make one and give it instead.
    """
    from cvretrieval.plotting import write_duplicates_report
    from cvretrieval.retrieval import find_duplicates

    check_report(report)
    with _open(folder, {"on_error": on_error.value, "n_jobs": jobs, "verbose": not quiet and not as_json}) as retriever:
        sides = None if between is None else _sides(retriever, folder, between)
        groups = find_duplicates(retriever, between=sides, min_share=min_share)
        failures, n_images = retriever.failures, len(retriever)
        reader = getattr(retriever.extractor, "reader", None)
    if as_json:
        print(json.dumps({"n_images": n_images, "groups": [group.to_dict() for group in groups]}))
    else:
        for group in groups:
            print("\n".join(group.ids))
            print()
        say(f"{len(groups)} groups, {sum(len(group.ids) for group in groups)} of {n_images} images")
    if report is not None:
        say(f"report: {write_duplicates_report(groups, report, n_images=n_images, reader=reader, n_jobs=jobs)}")
    report_failures(failures)


def _open(folder: Path, session: dict[str, Any]) -> ImageRetriever:
    from cvretrieval import ImageRetriever

    if not folder.is_dir():
        raise ValueError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}.")
    if (folder / "index.json").is_file():
        return ImageRetriever.load(folder, **session)
    return make_retriever({}, **session).fit([folder])


def _sides(retriever: ImageRetriever, folder: Path, between: tuple[Path, Path]) -> tuple[list[str], list[str]]:
    """Return the ids of the photos inside each of two folders."""
    sides = []
    for place in between:
        root = place if place.is_dir() else folder / place
        inside = [
            record.id
            for record in retriever._store.records()
            if record.status != "failed" and record.path and Path(record.path).is_relative_to(os.path.abspath(root))
        ]
        if not inside:
            raise ValueError(f"--between: no indexed photo lies in {place}.")
        sides.append(inside)
    return sides[0], sides[1]
