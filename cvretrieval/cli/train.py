"""``train``: networks trained on labelled folders."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.common import JobsOption, QuietOption, check_report, human_bytes, say

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(help="Train a network on labelled folders of photos.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Train a network on labelled folders of photos."""


@app.command(epilog="Example: cvretrieval train cgd TRAIN/ --backbone resnet50 --out cgd.cvm --report curves.html")
def cgd(
    folder: Annotated[
        Path, typer.Argument(help="Folder with one sub-folder of images per class, named after it.", metavar="DIR")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the model, e.g. cgd.cvm.")],
    backbone: Annotated[
        str, typer.Option("--backbone", help="Network of torchvision, or of timm as timm/NAME, to begin with.")
    ] = "resnet50",
    weights: Annotated[
        str, typer.Option("--weights", help="Its weights: default, a file, or a name that torchvision lists.")
    ] = "default",
    branches: Annotated[
        str, typer.Option(help="Descriptors in their order: S (mean), M (maximum), G (GeM); classified is the first.")
    ] = "MG",
    dims: Annotated[int, typer.Option("--dims", min=1, help="Dimensions of the vectors.")] = 1536,
    epochs: Annotated[int, typer.Option(min=1, help="Times that about all photos are seen.")] = 33,
    learning_rate: Annotated[float, typer.Option(help="Of Adam; times 0.1 after 4/15 and 8/15 of it all.")] = 1e-4,
    size: Annotated[int, typer.Option(min=16, help="Side in pixels that photos are squashed to.")] = 224,
    classes: Annotated[int, typer.Option(min=2, help="Classes in a batch.")] = 32,
    images: Annotated[int, typer.Option(min=1, help="Photos of each of them.")] = 4,
    augment: Annotated[
        str | None, typer.Option(help="random_resized_crop or trivial_augment instead of a random crop, mirrored.")
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the classes that is held out to validate with: the epoch with the "
                     "best R@1 among their photos is kept. 0: the last one."),
    ] = 0.1,
    patience: Annotated[int | None, typer.Option(min=1, help="End after so many epochs without a better R@1.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder to write each epoch to, and to go on from if it holds one.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, or mixed precision: bfloat16, float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto: a GPU where there is one.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Write the curves as an HTML report.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Train a combination of global descriptors (CGD) on labelled images and write it as one file, without pickle."""
    from cvretrieval import deep
    from cvretrieval.cli.networks import weights_of
    from cvretrieval.datasets import load_class_folders

    start = time.perf_counter()
    is_first = _is_first()
    quiet = quiet or not is_first
    if out.is_dir() or not out.parent.is_dir():
        what = f"{out} is a folder" if out.is_dir() else f"The folder {out.parent} does not exist"
        raise ValueError(f"{what}; give the model a file name such as cgd.cvm.")
    check_report(report)
    files, labels = load_class_folders(folder)
    held = _held_out(labels, hold_out, seed)
    train = [i for i, label in enumerate(labels) if label not in held]
    validation = [i for i, label in enumerate(labels) if label in held]
    estimator = deep.CGD(
        deep.Backbone(backbone, weights=weights_of(weights)), branches=branches, n_components=dims, n_epochs=epochs,
        learning_rate=learning_rate, resize_to=size * 9 // 8, input_size=size, classes_per_batch=classes,
        images_per_class=images, augment=augment, patience=patience, dtype=dtype, device=device, random_state=seed,
        n_workers=jobs, verbose=not quiet,
    )  # fmt: skip
    resumes = checkpoints is not None and (checkpoints / "last.pt").is_file()
    if not quiet:
        begun = f", going on from {checkpoints}" if resumes else ""
        say(f"{len(train)} images of {len(set(labels)) - len(held)} classes, {len(validation)} of {len(held)} held out"
            f"{begun}")  # fmt: skip
    try:
        estimator.fit(
            [files[i] for i in train],
            [labels[i] for i in train],
            validation=([files[i] for i in validation], [labels[i] for i in validation]) if held else None,
            **{"resume_from" if resumes else "checkpoint_to": checkpoints},
        )
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    if not is_first:
        return
    estimator.set_params(n_workers=4, verbose=False)
    estimator.save(out)
    history = estimator.history_
    if not quiet:
        recall = history["recall_at_1"][estimator.best_epoch_ - 1]
        found = f", R@1 {100 * recall:.1f} %" if held else ""
        kept = f"epoch {estimator.best_epoch_} of {len(history['loss'])}{found}"
        say(f"{out}: CGD {branches}, {dims} dimensions, {kept}, "
            f"{human_bytes(out.stat().st_size)}; {time.perf_counter() - start:.1f} s")  # fmt: skip
    if report is not None:
        from cvretrieval.plotting import write_training_report

        path = write_training_report(
            history, report, title=f"CGD {branches} of {backbone} on {folder}", best_epoch=estimator.best_epoch_,
            method=_described(estimator),
        )  # fmt: skip
        say(f"report: {path}")


def _held_out(labels: list[str], share: float, seed: int) -> set[str]:
    """Draw classes to validate with; none if that would be fewer than two, or leave fewer than two."""
    import numpy as np

    names: np.ndarray[Any, Any] = np.unique(labels)
    n_held = round(share * len(names))
    if n_held < 2 or len(names) - n_held < 2:
        return set()
    return set(np.random.default_rng(seed).choice(names, n_held, replace=False).tolist())


def _is_first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one: it writes and tells."""
    return int(os.environ.get("WORLD_SIZE") or 1) < 2 or int(os.environ.get("RANK") or 0) == 0


def _described(estimator: Any) -> dict[str, str]:
    params = estimator.get_params(deep=False)
    shown = {key: value for key, value in params.items() if key not in ("verbose", "n_workers", "reader")}
    return {key: " ".join(str(value).split()) for key, value in shown.items()}
