"""``evaluate``: figures of one or more methods on a labelled set, as one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
    table,
)
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
from cvretrieval.cli.method_specs import parse_methods
from cvretrieval.cli.networks import BackboneOption, LayerOption, ScalesOption, WeightsOption


def evaluate(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder of the labelled set: one sub-folder per class; or queries/ and reference/ paired by name; "
            "or ground_truth.csv with the columns query, relevant, junk; or the official layout of a benchmark.",
            metavar="DATASET",
        ),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="oxford (mAP, trapezoid), finite_sum (mAP, finite sum), recall@1,2,4, precision@1,5,10, map@r, "
            "r_precision, ns (UKBench), vpr-25m, or a benchmark: roxford, oxford5k, holidays, cub200, …; may be "
            "repeated. A wrong name is answered with all of them.",
            show_default="what the form is usually measured with",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Row of the table: vlad, bow, fisher, hamming, asmk, or of a network gem, mac, spoc, crow, rmac, "
            "netvlad, with options of its own after a colon: vlad:words=256,pca=128,verify=no,rerank=alpha-qe, "
            "gem:backbone=resnet101,scales=1+0.7. May be repeated.",
            show_default="vlad",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="csv, query_reference, query_reference:NAME, folder_per_class, groups_of_4 (any number), or that of "
            "a benchmark.",
            show_default="told from the protocol or the folder",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="A benchmark of which not all images are there: take what there is.")
    ] = False,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Length of the ranked lists.", show_default="the whole database")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Verify the best candidates by geometry.")] = True,
    n_verify: Annotated[int, typer.Option(min=1, help="How many candidates to verify.")] = 50,
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
    seed: SeedOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with the table and the list of every query.")
    ] = None,
    on_error: OnErrorOption = OnError.skip,
    as_json: JsonOption = False,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Measure methods on a labelled set: its database is indexed, every query searched, one table printed.

    Seconds per query count everything from the file to the ranked list. Published figures stand in brackets.
    """
    from cvretrieval.datasets import load_dataset
    from cvretrieval.metrics import get_protocols
    from cvretrieval.retrieval.comparison import compare_methods

    check_report(report)
    options: dict[str, Any] = {
        "features": features, "max_size": max_size, "words": words, "pca": pca, "exif": exif and exif.value,
        "upright": upright, "seed": seed, "backbone": backbone, "weights": weights, "layer": layer, "scales": scales,
    }  # fmt: skip
    session = {"on_error": on_error.value, "n_jobs": jobs, "verbose": not quiet and not as_json}
    retrievers = {}
    for name, own in parse_methods(method or ["vlad"], {**options, "verify": verify, "rerank": None}).items():
        reranker = own.pop("rerank")
        retrievers[name] = make_retriever(own, reranker=reranker, n_verify=n_verify, **session)
    protocols = get_protocols(protocol or [])
    forms = [own_form for own_form in dict.fromkeys(rule.form for rule in protocols) if own_form is not None]
    if form is None and len(forms) > 1:
        raise ValueError(
            f"These protocols are for different data ({', '.join(forms)}), which one run cannot search. Evaluate them "
            "one by one."
        )
    labelled = load_dataset(dataset, form if form is not None else forms[0] if forms else None, complete=not partial)
    if not quiet and not as_json:
        say(str(labelled))
    comparison = compare_methods(retrievers, labelled, protocols or None, k=k)
    if as_json:
        print(json.dumps(comparison.to_dict()))
    else:
        print(comparison)
        if not quiet:
            for name, measured in comparison.methods.items():
                say(f"\n{name}")
                say(table([*measured.stages.items(), ("seconds", _stages(measured.timings))]))
    if report is not None:
        say(f"report: {comparison.to_html(report, n_jobs=jobs)}")
    report_failures(list(dict.fromkeys(f for measured in comparison.methods.values() for f in measured.failures)))


def _stages(timings: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.3f}" for name, seconds in timings.items()) + " per query"
