"""Several methods on one labelled set: the table that papers print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvretrieval.datasets import RetrievalDataset
from cvretrieval.metrics import EvaluationProtocol, PublishedFigure, get_protocols, published_figures
from cvretrieval.retrieval.evaluation import MethodEvaluation, evaluate_method


class MethodComparison:
    """Methods and their figures on one data set; `str` of it is a table.

    Parameters
    ----------
    dataset : RetrievalDataset
    protocols : sequence of EvaluationProtocol
    methods : mapping of str to MethodEvaluation
        Name → what was measured, in the order of the rows.

    Attributes
    ----------
    labels : tuple of str
        Names of the figures, those of the protocols included: the first columns.
    published : list of PublishedFigure
        What others reported under these protocols.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        protocols: Sequence[EvaluationProtocol],
        methods: Mapping[str, MethodEvaluation],
    ) -> None:
        self.dataset = dataset
        self.protocols = list(protocols)
        self.methods = dict(methods)
        self.labels = tuple(label for protocol in self.protocols for label in protocol.labels)
        self.published = published_figures(self.protocols)

    def published_values(self, row: PublishedFigure) -> dict[str, float]:
        """Return label → value of a published row, for the labels it has."""
        return {
            label: row.figures[figure]
            for protocol in self.protocols
            if protocol.name.partition("@")[0] == row.protocol
            for figure, label in zip(protocol.figure_names, protocol.labels, strict=True)
            if figure in row.figures
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table as text: the header, one row a method, then what was published.

        The columns after the figures are seconds per query (everything, one query after the other or in parallel as
        `n_jobs` says), bytes per image of what is searched and of all that is stored, and the peak of the memory.
        """
        header = ("method", *self.labels, "s/query", "B/image", "stored B/image", "peak MB")
        rows = [header]
        for name, method in self.methods.items():
            memory = "–" if method.peak_memory is None else f"{method.peak_memory / 1e6:,.0f}"
            rows.append(
                (
                    name,
                    *(f"{method.result.figures[label]:.4f}" for label in self.labels),
                    f"{method.seconds_per_query:.3f}",
                    f"{method.bytes_per_image:,.0f}",
                    f"{method.stored_bytes_per_image:,.0f}",
                    memory,
                )
            )
        for row in self.published:
            values = self.published_values(row)
            if values:
                cells = (f"{values[label]:.4f}" if label in values else "–" for label in self.labels)
                rows.append((f"({row.method})", *cells, "", "", "", ""))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold, per-query values included."""
        return {
            "dataset": str(self.dataset),
            "protocols": [protocol.name for protocol in self.protocols],
            "methods": {name: method.to_dict() for name, method in self.methods.items()},
            "published": [
                {"method": row.method, "figures": self.published_values(row), "source": row.source}
                for row in self.published
                if self.published_values(row)
            ],
        }

    def to_html(self, path: Any, **options: Any) -> Any:
        """Write the table and the ranked lists of every query as one self-contained HTML file; return its path."""
        from cvretrieval.plotting import write_evaluation_report

        return write_evaluation_report(self, path, **options)

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        notes = dict.fromkeys(note for method in self.methods.values() for note in method.result.notes)
        if len(rows) > 1 + len(self.methods):
            sources = dict.fromkeys(row.source for row in self.published)
            lines.append(f"in brackets: published, not measured here ({'; '.join(sources)})")
        return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def compare_methods(
    methods: Mapping[str, Any],
    dataset: RetrievalDataset,
    protocols: Sequence[Any] | None = None,
    *,
    k: int | None = None,
) -> MethodComparison:
    """Measure several retrievers on one data set, one after the other.

    Parameters
    ----------
    methods : mapping of str to ImageRetriever
        Name of the row → retriever, fitted here on the database images. Those without a location are closed when they
        have been measured, so that the disk holds one index at a time.
    dataset, protocols, k
        See `evaluate_method`.

    Returns
    -------
    MethodComparison

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from cvretrieval import VLAD, ImageRetriever
    >>> from cvretrieval.datasets import load_dataset, make_scenes
    >>> from cvretrieval.retrieval import compare_methods
    >>> scenes = make_scenes(n_scenes=3, n_views=2, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, (image, label) in enumerate(zip(scenes.images, scenes.labels)):
    ...         Path(folder, str(label)).mkdir(exist_ok=True)
    ...         Image.fromarray(image).save(Path(folder, str(label), f"{i}.png"))
    ...     methods = {f"VLAD {n}": ImageRetriever(encoder=VLAD(n, random_state=0)) for n in (4, 8)}
    ...     comparison = compare_methods(methods, load_dataset(folder), ["recall@1"])
    >>> [row[0] for row in comparison.rows()]
    ['method', 'VLAD 4', 'VLAD 8']
    """
    if not methods:
        raise ValueError("There is no method to compare.")
    chosen = get_protocols(protocols or dataset.protocols)
    measured = {}
    for name, retriever in methods.items():
        measured[name] = evaluate_method(retriever, dataset, chosen, k=k)
        if retriever.location is None:
            retriever.close()
    return MethodComparison(dataset, chosen, measured)
