"""The report of a classification: one HTML file with accuracies, the confusion matrix and the worst mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvretrieval.images import ImageReader, describe_source
from cvretrieval.plotting.confusion import confusion_shares
from cvretrieval.plotting.page import count, definition_list, escape, render_page, write_page
from cvretrieval.plotting.thumbnails import Thumbnail, ThumbnailSheet, picture

#: Mistakes that are shown, the most confident first.
MAX_MISTAKES = 60


def write_classification_report(
    images: Sequence[Any],
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    method: Mapping[str, str] | None = None,
    failures: Sequence[tuple[str, str]] = (),
    reader: ImageReader | None = None,
    n_jobs: int | None = None,
) -> Path:
    """Write how well images were classified as one self-contained HTML file.

    Parameters
    ----------
    images : sequence of paths, arrays or PIL images
        The classified images.
    labels : sequence of str
        The true class of each.
    probabilities : array-like of shape (n_images, n_classes)
        As ``predict_proba`` returns them. The largest of a row is the prediction, and its confidence.
    classes : sequence of str
        Names of the columns; true classes are among them.
    path : path
        File to write; an old one is replaced in one step.
    title : str, optional
        What was classified by what.
    method : mapping of str to str, optional
        Stage → its estimator and parameters.
    failures : sequence of (name, reason), optional
        Images that could not be read.
    reader : ImageReader, optional
        How images are read for display.
    n_jobs : int, optional
        Threads that read the images.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    ValueError
        If there is no image, the lengths differ, or a label is not among the classes.

    Notes
    -----
    The 60 mistakes with the highest confidence are shown, as thumbnails of at most 320 pixels.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from cvretrieval.plotting import write_classification_report
    >>> images = np.zeros((2, 40, 60, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = folder + "/report.html"
    ...     write_classification_report(images, ["a", "b"], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"], path).name
    'report.html'
    """
    images = list(images)  # the rows of an array are new objects whenever they are taken
    true, shares = _check(images, labels, probabilities, classes)
    predicted = shares.argmax(axis=1)
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    confidence = shares.max(axis=1)
    wrong = np.flatnonzero(true != predicted)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    sheet = ThumbnailSheet((images[i] for i in worst), reader=reader, max_size=320, max_bytes_each=30_000,
                           n_jobs=n_jobs)  # fmt: skip
    names = _names([images[i] for i in worst])
    cards = "".join(
        _card(sheet[images[i]], name, classes, true[i], predicted[i], shares[i])
        for i, name in zip(worst, names, strict=True)
    )
    body = "\n".join(
        [
            _header(matrix, title, len(images)),
            _failures(failures),
            f'<section class="panel"><h2>Confusion matrix</h2>{_matrix_table(matrix, classes)}</section>',
            f'<div class="panels">{_class_table(matrix, classes)}</div>',
            _mistakes(cards, len(wrong), len(worst)),
            f'<div class="panels" id="method">{_method(method)}</div>',
        ]
    )
    page = render_page(
        title=f"Classification report: {title or count(len(images), 'image')}",
        body=body,
        sprite=sheet.sprite(),
        data={"queries": []},
        kind="classification",
    )
    return write_page(page, path)


def _check(
    images: Sequence[Any], labels: Sequence[str], probabilities: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    shares = np.asarray(probabilities, dtype=np.float64)
    if not len(images) or len(labels) != len(images) or shares.shape != (len(images), len(classes)):
        raise ValueError(
            f"A report needs at least one image, one label each, and one row of {len(classes)} probabilities each. Got "
            f"{len(images)} images, {len(labels)} labels and probabilities of shape {shares.shape}."
        )
    numbers = {name: i for i, name in enumerate(classes)}
    unknown = sorted({str(label) for label in labels if label not in numbers})
    if unknown:
        raise ValueError(f"The labels {', '.join(unknown)} are not among the classes {', '.join(map(str, classes))}.")
    return np.array([numbers[label] for label in labels]), shares


def _header(matrix: NDArray[np.int64], title: str | None, n_images: int) -> str:
    n_per_class = matrix.sum(axis=1)
    tested = n_per_class > 0
    mean = (np.diag(matrix)[tested] / n_per_class[tested]).mean()
    n_right = int(np.trace(matrix))
    name = f'<p class="lead"><span class="name">{escape(title)}</span></p>' if title else ""
    return (
        f'<header class="page-header"><h1>Classification report</h1>{name}<p class="verdict"><strong>'
        f"{_percent(mean)} mean accuracy of {count(int(tested.sum()), 'class', 'classes')}</strong>; "
        f"{n_right:,} of {count(n_images, 'image')} right ({_percent(n_right / n_images)}).</p></header>"
    )


def _matrix_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the matrix as a table that is shaded by the share of each row."""
    shares = confusion_shares(matrix)
    head = "".join(f'<th scope="col"><span class="name">{escape(name)}</span></th>' for name in classes)
    rows = []
    for i, name in enumerate(classes):
        cells = "".join(
            f'<td class="{"right" if i == j else "wrong"} s{_shade(shares[i, j])}"'
            f"{_hover(name, other, matrix[i, j], shares[i, j])}>{matrix[i, j] or ''}</td>"
            for j, other in enumerate(classes)
        )
        rows.append(f'<tr><th scope="row"><span class="name">{escape(name)}</span></th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion">'
        f'<thead><tr><td class="corner">true ↓ predicted →</td>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        '</table></div><p class="note">Numbers are images; the shade is the share of the true class. Blue is right, '
        "red is wrong.</p>"
    )


def _shade(share: float) -> int:
    """Return 0 to 10; what is not zero can be seen."""
    return 0 if share == 0 else max(1, round(10 * share))


def _hover(true: str, predicted: str, n: int, share: float) -> str:
    if not n:
        return ""
    return f' title="{escape(f"{true} taken for {predicted}: {n} ({_percent(share)})")}"'


def _class_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the accuracy of each class, the lowest first, with its most frequent confusion."""
    rows = []
    n_images, n_predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    shares = confusion_shares(matrix)
    for i in sorted(map(int, np.flatnonzero(n_images)), key=lambda c: (shares[c, c], classes[c])):
        off = matrix[i].copy()
        off[i] = 0
        j = int(off.argmax())
        confused = f"{escape(classes[j])} ({off[j]})" if off[j] else "–"
        precision = _percent(matrix[i, i] / n_predicted[i]) if n_predicted[i] else "–"
        rows.append(
            f'<tr><th scope="row"><span class="name">{escape(classes[i])}</span></th><td>{n_images[i]:,}</td>'
            f"<td>{_percent(shares[i, i])}</td>"
            f'<td class="bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{100 * shares[i, i]:.1f}" height="8"/></svg></td><td>{precision}</td>'
            f'<td class="name">{confused}</td></tr>'
        )
    return (
        '<section class="panel wide"><h2>Accuracy of each class</h2><div class="scroll" tabindex="0" role="region" '
        'aria-label="Accuracy of each class"><table class="times per-class"><thead><tr><th scope="col">class</th>'
        '<th scope="col">images</th><th scope="col">accuracy</th><td></td><th scope="col">precision</th>'
        f'<th scope="col">most taken for</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="note">Accuracy: share of the images of the class that were recognised. Precision: share of the '
        "images taken for the class that are of it.</p></section>"
    )


def _names(images: Sequence[Any]) -> list[str]:
    """Return how images are called: files by their path below the folder that holds them all."""
    names = [describe_source(image) for image in images]
    if len(names) < 2 or not all(isinstance(image, (str, os.PathLike)) for image in images):
        return names
    try:
        root = os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # on several drives, or absolute and relative ones
        return names
    return [os.path.relpath(name, root) if root else name for name in names]


def _card(
    thumbnail: Thumbnail, name: str, classes: Sequence[str], true: int, predicted: int, shares: NDArray[np.float64]
) -> str:
    taken, right = (f"{escape(classes[c])}</span> {_percent(shares[c])}" for c in (predicted, true))
    return (
        f'<li class="mistake"><span class="frame">{picture(thumbnail, name)}</span>'
        f'<p class="line"><span class="mark empty">{taken}</p>'
        f'<p class="line">is <span class="mark verified">{right}</p>'
        f'<p class="line name">{escape(name)}</p></li>'
    )


def _mistakes(cards: str, n_wrong: int, n_shown: int) -> str:
    if not n_wrong:
        return '<section class="mistakes"><h2>No mistakes</h2></section>'
    what = "the most confident first" if n_shown == n_wrong else f"the {n_shown} most confident"
    return (
        f'<section class="mistakes"><h2>{count(n_wrong, "mistake")}, {what}</h2>'
        '<p class="note">Red: the class it was taken for. Green: the class it is of. The percentages are the '
        f'probabilities that the classifier gave them.</p><ol class="cards">{cards}</ol></section>'
    )


def _failures(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    title = count(len(failures), "image")
    rows = {str(name): reason for name, reason in failures}
    return f'<section class="panel warning"><h2>{title} could not be read</h2>{definition_list(rows)}</section>'


def _method(method: Mapping[str, str] | None) -> str:
    if not method:
        return ""
    named = {name.replace("_", " "): value for name, value in method.items()}
    return f'<section class="panel code wide"><h2>Method</h2>{definition_list(named)}</section>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
