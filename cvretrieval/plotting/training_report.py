"""How a network was trained: one HTML file with its curves, or a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvretrieval._optional import import_optional
from cvretrieval.plotting.page import count, definition_list, escape, render_page, write_page

#: Values of a history that are drawn, in this order, with their titles; parts of the loss come behind them.
_TITLES = {"loss": "Loss", "recall_at_1": "Recall at 1 of the validation"}

#: Values that are no curves of their own.
_NOT_DRAWN = ("epoch", "learning_rate", "images_per_second")

_WIDTH, _HEIGHT = 320, 160


def write_training_report(
    history: Mapping[str, ArrayLike],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    method: Mapping[str, Any] | None = None,
    best_epoch: int | None = None,
) -> Path:
    """Write the curves of a training as one self-contained HTML file.

    Parameters
    ----------
    history : mapping of str to array-like of shape (n_epochs,)
        As ``deep.CGD.history_``: ``epoch``, ``loss`` and its parts, ``recall_at_1``, …; NaN is a value that there is
        not.
    path : path
        File to write; an old one is replaced in one step.
    title : str, optional
        What was trained on what.
    method : mapping of str to values, optional
        Names and values of what the training was told.
    best_epoch : int, optional
        The epoch that was kept, from 1.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    ValueError
        If the history has no epoch, or its values are of different lengths.

    Examples
    --------
    >>> import tempfile
    >>> from cvretrieval.plotting import write_training_report
    >>> history = {"epoch": [1, 2], "loss": [1.5, 0.7], "recall_at_1": [0.6, 0.8]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_training_report(history, folder + "/report.html", best_epoch=2).name
    'report.html'
    """
    values = _check(history)
    curves = "".join(
        f'<section class="panel"><h2>{escape(name)}</h2>{_curve(values["epoch"], row, name, best_epoch)}</section>'
        for name, row in _curves(values).items()
    )
    facts = {name.replace("_", " "): value for name, value in (method or {}).items()}
    body = "\n".join(
        [
            _header(values, title, best_epoch),
            f'<div class="panels">{curves}</div>',
            f'<div class="panels">{_epochs(values)}</div>',
            f'<section class="panel code wide"><h2>Method</h2>{definition_list(facts)}</section>' if facts else "",
        ]
    )
    page = render_page(
        title=f"Training report: {title or count(len(values['epoch']), 'epoch')}",
        body=body,
        sprite="",
        data={"queries": []},
        kind="training",
    )
    return write_page(page, path)


def plot_training(history: Mapping[str, ArrayLike], *, axes: Sequence[Any] | None = None) -> Any:
    """Draw the curves of a training.

    Parameters
    ----------
    history : mapping of str to array-like of shape (n_epochs,)
        As ``deep.CGD.history_``.
    axes : sequence of matplotlib Axes, optional
        Where to draw the loss with its parts, and the recall of the validation, if there is one; by default a new
        figure of pyplot.

    Returns
    -------
    list of matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the history has no epoch, or its values are of different lengths.

    Examples
    --------
    >>> from cvretrieval.plotting import plot_training
    >>> axes = plot_training({"epoch": [1, 2], "loss": [1.5, 0.7], "recall_at_1": [0.6, 0.8]})
    >>> [ax.get_ylabel() for ax in axes]
    ['loss', 'recall at 1']
    """
    pyplot = import_optional("matplotlib.pyplot", "plot_training")
    values = _check(history)
    curves = _curves(values)
    recall = curves.pop(_TITLES["recall_at_1"], None)
    n_axes = 1 if recall is None else 2
    if axes is None:
        axes = pyplot.subplots(1, n_axes, figsize=(5 * n_axes, 3.5), layout="constrained", squeeze=False)[1][0]
    for name, row in curves.items():
        axes[0].plot(values["epoch"], row, label=name.lower())
    axes[0].set(xlabel="epoch", ylabel="loss")
    if len(curves) > 1:
        axes[0].legend()
    if recall is not None:
        axes[1].plot(values["epoch"], recall)
        axes[1].set(xlabel="epoch", ylabel="recall at 1")
    return list(axes)[:n_axes]


def _check(history: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    values = {str(name): np.asarray(row, dtype=np.float64).reshape(-1) for name, row in history.items()}
    lengths = {len(row) for row in values.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"history must hold one value of each name for every epoch. Got {sorted(lengths)} values for "
            f"{', '.join(values) or 'no names'}."
        )
    values.setdefault("epoch", np.arange(1.0, next(iter(lengths)) + 1))
    return values


def _curves(values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return title → values of what is drawn; what is NaN throughout is left out."""
    names = [*_TITLES, *(name for name in values if name not in _TITLES and name not in _NOT_DRAWN)]
    return {
        _TITLES.get(name, f"Part of the loss: {name.replace('_', ' ')}"): values[name]
        for name in names
        if name in values and np.isfinite(values[name]).any()
    }


def _header(values: Mapping[str, NDArray[np.float64]], title: str | None, best_epoch: int | None) -> str:
    name = f'<p class="lead"><span class="name">{escape(title)}</span></p>' if title else ""
    n_epochs = len(values["epoch"])
    recall = values.get("recall_at_1", np.full(n_epochs, np.nan))
    verdict = count(n_epochs, "epoch")
    if best_epoch is not None:
        found = recall[best_epoch - 1]
        shown = f", R@1 {100 * found:.1f} %" if np.isfinite(found) else ""
        verdict += f"; <strong>epoch {best_epoch} is kept{shown}</strong>"
    return f'<header class="page-header"><h1>Training report</h1>{name}<p class="verdict">{verdict}.</p></header>'


def _curve(epochs: NDArray[np.float64], row: NDArray[np.float64], name: str, best_epoch: int | None) -> str:
    finite = np.isfinite(row)
    low, high = float(row[finite].min()), float(row[finite].max())
    span = high - low or 1.0
    first, last = float(epochs[0]), float(epochs[-1])
    x = (epochs - first) / ((last - first) or 1.0) * _WIDTH
    y = (high - row) / span * _HEIGHT
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[finite], y[finite], strict=True))
    mark = ""
    if best_epoch is not None and best_epoch in epochs:
        place = f"{x[int(np.flatnonzero(epochs == best_epoch)[0])]:.1f}"
        mark = f'<line class="kept" x1="{place}" x2="{place}" y1="0" y2="{_HEIGHT}"/>'
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"><title>epoch {epoch:.0f}: {value:.4g}</title></circle>'
        for a, b, epoch, value in zip(x[finite], y[finite], epochs[finite], row[finite], strict=True)
    )
    label = f"{name}: from {row[finite][0]:.4g} to {row[finite][-1]:.4g}"
    return (
        f'<svg class="curve" role="img" aria-label="{escape(label)}" '
        f'viewBox="-6 -6 {_WIDTH + 12} {_HEIGHT + 12}">{mark}<polyline points="{points}"/>{dots}</svg>'
        f'<p class="note">{low:.4g} to {high:.4g}; epochs {first:.0f} to {last:.0f}</p>'
    )


def _epochs(values: Mapping[str, NDArray[np.float64]]) -> str:
    head = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in values)
    rows = "".join(
        "<tr>" + "".join(f"<td>{'–' if np.isnan(value) else f'{value:.4g}'}</td>" for value in row) + "</tr>"
        for row in zip(*values.values(), strict=True)
    )
    return (
        '<section class="panel wide"><h2>Epochs</h2><div class="scroll" tabindex="0" role="region" aria-label="Epochs">'
        f'<table class="times per-class"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )
