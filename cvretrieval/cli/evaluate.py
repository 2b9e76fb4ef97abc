"""``evaluate``: figures of the method on a labelled set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cvretrieval.cli.common import JobsOption, JsonOption, OnError, OnErrorOption, QuietOption, report_failures, say
from cvretrieval.cli.method import (
    ExifOption,
    FeaturesOption,
    MaxSizeOption,
    PcaOption,
    SeedOption,
    UprightOption,
    WordsOption,
    make_retriever,
)


def evaluate(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder of the labelled set: one sub-folder per class; or queries/ and reference/ paired by name; "
            "or ground_truth.csv with the columns query, relevant, junk.",
            metavar="DATASET",
        ),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="oxford (mAP, trapezoid), finite_sum (mAP, finite sum), recall@1,2,4, precision@1,5,10, ns (UKBench), "
            "revisited-easy, revisited-medium, revisited-hard; may be repeated.",
            show_default="what the form is usually measured with",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="csv, query_reference, query_reference:NAME, folder_per_class, groups_of_4 (any number).",
            show_default="told from the folder",
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Length of the ranked lists.", show_default="the whole database")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Verify the best candidates by geometry.")] = True,
    n_verify: Annotated[int, typer.Option(min=1, help="How many candidates to verify.")] = 50,
    features: FeaturesOption = None,
    max_size: MaxSizeOption = None,
    words: WordsOption = None,
    pca: PcaOption = None,
    exif: ExifOption = None,
    upright: UprightOption = None,
    seed: SeedOption = None,
    on_error: OnErrorOption = OnError.skip,
    as_json: JsonOption = False,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Measure the method on a labelled set: the database is indexed, every query searched, the figures printed."""
    from cvretrieval.datasets import load_dataset
    from cvretrieval.metrics import get_protocol
    from cvretrieval.retrieval.evaluation import evaluate_retriever
    from cvretrieval.retrieval.searching import method_of

    protocols = [get_protocol(name) for name in protocol or []]
    labelled = load_dataset(dataset, form)
    method: dict[str, Any] = {
        "features": features, "max_size": max_size, "words": words, "pca": pca, "exif": exif and exif.value,
        "upright": upright, "seed": seed,
    }  # fmt: skip
    retriever = make_retriever(
        method, on_error=on_error.value, n_jobs=jobs, verbose=not quiet and not as_json, n_verify=n_verify
    )
    if not verify:
        retriever.set_params(verifier=None)
    if not quiet and not as_json:
        say(str(labelled))
    with retriever:
        result = evaluate_retriever(retriever, labelled, protocols, k=k)
        failures = retriever.failures
        stages = method_of(retriever)
    if as_json:
        print(json.dumps({"dataset": str(labelled), "method": stages, **result.to_dict()}))
    else:
        print(result)
        for name, stage in stages.items():
            print(f"{name}: {stage}")
    report_failures(failures)
