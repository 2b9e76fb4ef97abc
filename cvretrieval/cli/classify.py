"""``classify``: learn classes from labelled folders, predict them, measure."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.common import (
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
from cvretrieval.cli.recognition_method import DEFAULT_WORDS, Features, Method

if TYPE_CHECKING:
    from cvretrieval import LocalFeatures

app = typer.Typer(
    help="Tell which class a photo is of: train on labelled folders, predict, evaluate.", no_args_is_help=True
)

ModelArgument = Annotated[Path, typer.Argument(help="A model made by `classify train`.", metavar="MODEL")]
FolderArgument = Annotated[
    Path, typer.Argument(help="Folder with one sub-folder of images per class, named after it.", metavar="DIR")
]


@app.command(epilog="Example: cvretrieval classify train TRAIN/ --out model.cvc")
def train(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the model, e.g. model.cvc.")],
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            "-m",
            help="bow: bag of words, intersection kernel, logistic regression; bow-pyramid: the same in a spatial "
            "pyramid of 3 levels; vlad: VLAD and logistic regression; naive-bayes: on word counts; gmm: one Gaussian "
            "mixture per class.",
        ),
    ] = Method.bow_pyramid,
    features: Annotated[
        Features, typer.Option(help="dense: RootSIFT on a grid, for scenes; sift: at keypoints, for objects.")
    ] = Features.dense,
    words: Annotated[
        int | None,
        typer.Option(
            "--words",
            min=1,
            help="Visual words (gmm: Gaussians of each class).",
            show_default=", ".join(f"{name} {number}" for name, number in DEFAULT_WORDS.items()),
        ),
    ] = None,
    max_size: Annotated[int, typer.Option(min=16, help="Longest side in pixels; larger images are reduced.")] = 480,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Learn the classes of labelled images and write them as one file, without pickle."""
    from sklearn.pipeline import Pipeline

    from cvretrieval.cli.reading import extract_readable
    from cvretrieval.cli.recognition_method import make_extractor, make_stages, set_n_jobs
    from cvretrieval.datasets import load_class_folders
    from cvretrieval.recognition import save_classifier

    start = time.perf_counter()
    if out.is_dir() or not out.parent.is_dir():
        what = f"{out} is a folder" if out.is_dir() else f"The folder {out.parent} does not exist"
        raise ValueError(f"{what}; give the model a file name such as model.cvc.")
    files, labels = load_class_folders(folder)
    extractor = make_extractor(features.value, max_size)
    X, kept, failures = extract_readable(extractor, files, on_error=on_error.value, n_jobs=jobs, verbose=not quiet)
    y = [labels[i] for i in kept]
    lost = sorted(set(labels) - set(y))
    if lost:
        raise ValueError(f"No image of {', '.join(lost)} could be read ({failures[0][0]}: {failures[0][1]}).")
    line = Pipeline([("extractor", extractor), *make_stages(method.value, words, seed)])
    set_n_jobs(line, jobs)
    line[1:].fit(X, y)
    set_n_jobs(line, 1)
    counts = {name: y.count(name) for name in sorted(set(y))}
    n_empty = int((X.lengths == 0).sum())
    facts = {"method": method.value, "n_images": len(y), "n_images_per_class": counts, "n_without_features": n_empty}
    save_classifier(line, out, facts=facts)
    if not quiet:
        say(
            f"{out}: {len(counts)} classes, {len(y)} images, {method.value}, {human_bytes(out.stat().st_size)}; "
            f"{time.perf_counter() - start:.1f} s"
        )
        if n_empty:
            say(f"{n_empty} images without any feature (blank or tiny): they teach the classifier next to nothing")
        single = [name for name, n in counts.items() if n == 1]
        if single:
            say(f"only one image of {', '.join(single)}: expect little")
    report_failures(failures)


@app.command(epilog="Example: cvretrieval classify predict model.cvc PHOTOS/")
def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Images: files and folders.", metavar="IMAGES")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image, one a line.")] = False,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
) -> None:
    """Predict the class of images, with the confidence in it."""
    from cvretrieval.retrieval.sources import expand_images

    line, _ = _load(model)
    found, failures = expand_images(images, None)
    files = [file for _, file, _ in found]
    check_found(images, [*files, *failures])
    X, kept, unreadable = _features(line, files, on_error, jobs, verbose=not as_json)
    probabilities = _probabilities(line, X)
    classes = [str(name) for name in line.classes_]
    rows = []
    for i, row, n_features in zip(kept, probabilities, X.lengths, strict=True):
        best = int(row.argmax())
        if as_json:
            shares = {name: round(float(share), 6) for name, share in zip(classes, row, strict=True)}
            facts = {
                "image": str(files[i]), "class": classes[best], "confidence": round(float(row[best]), 6),
                "probabilities": shares, "n_features": int(n_features),
            }  # fmt: skip
            print(json.dumps(facts))
        note = "" if n_features else "no features in it: blank or tiny"
        rows.append((classes[best], f"{row[best]:.2f}", str(files[i]), note))
    if rows and not as_json:
        print(table(rows, ("class", "confidence", "image", ""), "<><<"))
    report_failures([*failures, *unreadable])


@app.command(epilog="Example: cvretrieval classify evaluate model.cvc TEST/ --report report.html")
def evaluate(
    model: ModelArgument,
    folder: FolderArgument,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report, one self-contained file.")] = None,
    as_json: JsonOption = False,
    on_error: OnErrorOption = OnError.skip,
    jobs: JobsOption = -1,
) -> None:
    """Measure a model on labelled images: accuracy per class, confusions, the worst mistakes."""
    import numpy as np
    from sklearn.metrics import confusion_matrix

    from cvretrieval.datasets import load_class_folders
    from cvretrieval.recognition import stage_names

    line, facts = _load(model)
    classes = [str(name) for name in line.classes_]
    files, labels = load_class_folders(folder, min_classes=1)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(
            f"{model} was not trained on the class {', '.join(unknown)} of {folder}; it knows {', '.join(classes)}."
        )
    X, kept, failures = _features(line, files, on_error, jobs, verbose=not as_json)
    if not kept:
        raise ValueError(f"No image of {folder} could be read ({failures[0][0]}: {failures[0][1]}).")
    probabilities = _probabilities(line, X)
    true = np.array([classes.index(labels[i]) for i in kept])
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(true, predicted, labels=range(len(classes)))
    n_images = matrix.sum(axis=1)
    tested = n_images > 0
    per_class = np.diag(matrix)[tested] / n_images[tested]
    names = [name for name, is_tested in zip(classes, tested, strict=True) if is_tested]
    if as_json:
        print(
            json.dumps(
                {
                    "model": str(model),
                    "n_images": len(kept),
                    "accuracy": float((true == predicted).mean()),
                    "mean_class_accuracy": float(per_class.mean()),
                    "class_accuracy": dict(zip(names, per_class.tolist(), strict=True)),
                    "classes": classes,
                    "confusion": matrix.tolist(),
                    "method": stage_names(line),
                }
            )
        )
    else:
        rows = [(name, n, f"{100 * a:.1f} %") for name, n, a in zip(names, n_images[tested], per_class, strict=True)]
        print(table(rows, ("class", "images", "accuracy"), "<>>"))
        print(f"\nmean of the classes  {100 * per_class.mean():.1f} %")
        print(f"all images           {100 * (true == predicted).mean():.1f} %")
    if report is not None:
        from cvretrieval.plotting import write_classification_report

        path = write_classification_report(
            [files[i] for i in kept], [labels[i] for i in kept], probabilities, classes, report,
            title=f"{folder} by {model}", method={**stage_names(line), **_plain(facts)}, failures=failures,
            reader=getattr(line[0], "reader", None), n_jobs=jobs,
        )  # fmt: skip
        say(f"report: {path}")
    report_failures(failures)


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read a model that begins with images and ends with probabilities."""
    from sklearn.pipeline import Pipeline

    from cvretrieval._base import input_kind
    from cvretrieval.recognition import load_classifier

    line, facts = load_classifier(path)
    if not isinstance(line, Pipeline) or input_kind(line) != "images" or not hasattr(line, "predict_proba"):
        raise ValueError(
            f"{path} does not lead from images to probabilities, which this command needs: an extractor first, a "
            "classifier with predict_proba last."
        )
    return line, facts


def _features(
    line: Any, files: list[Path], on_error: OnError, jobs: int, *, verbose: bool
) -> tuple[LocalFeatures, list[int], list[tuple[str, str]]]:
    from cvretrieval.cli.reading import extract_readable
    from cvretrieval.cli.recognition_method import set_n_jobs

    set_n_jobs(line, jobs)
    return extract_readable(line[0], files, on_error=on_error.value, n_jobs=jobs, verbose=verbose)


def _probabilities(line: Any, X: LocalFeatures) -> Any:
    import numpy as np

    return line[1:].predict_proba(X) if len(X) else np.empty((0, len(line.classes_)))


def _plain(facts: dict[str, Any]) -> dict[str, str]:
    shown = {"method": "method", "n_images": "training images"}
    return {title: str(facts[name]) for name, title in shown.items() if name in facts}
