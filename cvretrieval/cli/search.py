"""``search``: ask with photos."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.common import (
    IndexArgument,
    JobsOption,
    OnError,
    OnErrorOption,
    check_found,
    check_report,
    report_failures,
    say,
    table,
)
from cvretrieval.cli.rerankers import Rerank, make_reranker

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever


def search(
    index: IndexArgument,
    queries: Annotated[
        list[str] | None, typer.Argument(help="Photos to search with: files, folders, URLs.", metavar="[QUERY]...")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Length of the ranked list.")] = 10,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report, one self-contained file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per query, one a line.")] = False,
    box: Annotated[
        str | None,
        typer.Option(help="Search for a region: x1,y1,x2,y2 in pixels of the query (left, top, right, bottom)."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--id", help="Search with an indexed image, by its id; may be repeated.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Verify the best candidates by geometry.")] = True,
    n_verify: Annotated[
        int | None, typer.Option(min=1, help="How many candidates to verify.", show_default="50")
    ] = None,
    rerank: Annotated[
        list[Rerank] | None,
        typer.Option(
            help="Rerank before verifying; several times for a chain. 'none' switches off what the index has."
        ),
    ] = None,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
) -> None:
    """Rank the indexed photos by what they have in common with each query, best first."""
    from cvretrieval import ImageRetriever
    from cvretrieval.retrieval.sources import expand_images

    if bool(queries) == bool(name):
        raise ValueError("Give photos to search with, or --id of indexed images.")
    check_report(report)
    session: dict[str, Any] = {"on_error": on_error.value, "n_jobs": jobs, "verbose": not as_json}
    if not verify:
        session["verifier"] = None
    if n_verify is not None:
        session["n_verify"] = n_verify
    if rerank:
        session["reranker"] = make_reranker([choice.value for choice in rerank])
    retriever = ImageRetriever.load(index, **session)
    if name:
        result = retriever.search(ids=name, k=k)
        failures: list[tuple[str, str]] = []
    else:
        found, failures = expand_images(queries, None)
        files = [file for _, file, _ in found]
        check_found(queries or [], [*files, *failures])
        regions = [_parse_box(box)] * len(files) if box is not None else None
        result = retriever.search([os.fspath(file) for file in files], k=k, boxes=regions)
        failures += result.failures
        result.failures = failures
    if not as_json:
        _warn(retriever)
    if as_json:
        for query in result:
            print(_dump(query.to_dict()))
    else:
        for query in result:
            _print(query)
    if report is not None:
        say(f"report: {result.to_html(report)}")
    report_failures(failures, "query" if len(failures) == 1 else "querie")


def _warn(retriever: ImageRetriever) -> None:
    """Say what is missing in the index that was searched."""
    facts = retriever.info()
    if not facts["n_images"]:
        say(f"{facts['path']} holds no images yet")
    if facts["n_pending"]:
        say(f"{facts['n_pending']} images have no vectors yet and are not found; run `index` or `add` again")


def _parse_box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise ValueError(f"--box needs four numbers x1,y1,x2,y2. Got {text!r} instead.")
    return box


def _dump(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name with bytes that are no text
        return json.dumps(value)
    return text


def _print(query: Any) -> None:
    print(f"{query.query}  ({query.seconds:.2f} s)")
    if not query.hits:
        empty = query.n_features == 0
        print("  no features in it: too small, blank or blurred to search with\n" if empty else "  nothing found\n")
        return
    rows = [
        (
            hit.rank,
            f"{hit.score:.3f}",
            "–" if hit.n_inliers is None else hit.n_inliers,
            "✓" if hit.verified else "",
            hit.id,
        )
        for hit in query.hits
    ]
    print(table(rows, ("rank", "score", "inliers", "", "image"), ">>><<"))
    if query.hits[0].n_inliers is not None and not query.hits[0].verified:
        print("nothing here shows the same thing for sure: no match passed the geometric check")
    print()
