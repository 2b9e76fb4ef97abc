"""A figure under the fixed rules of a published benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cvretrieval.metrics.protocols.base import EvaluationProtocol, join
from cvretrieval.metrics.protocols.truth import QueryTruth
from cvretrieval.metrics.ranking import JudgedRanking


@dataclass(frozen=True)
class Benchmark:
    """The rules of a benchmark.

    Attributes
    ----------
    key : str
        Its name for `get_protocol`.
    title : str
        Its name beside figures.
    figure : EvaluationProtocol
        What is computed; its AP convention and junk rule hold.
    form : str
        Form of its data set, as `cvretrieval.datasets.load_dataset` takes it.
    crop : {"box", "full"}
        Part of the query image that is searched with.
    exif : {"apply", "ignore"}
        What becomes of the orientation recorded by the camera. The programs that published the figures read pixels as
        they are stored.
    about : str
        A line for help texts.
    """

    key: str
    title: str
    figure: EvaluationProtocol
    form: str
    about: str
    crop: str = "full"
    exif: str = "ignore"


@dataclass(frozen=True)
class BenchmarkProtocol(EvaluationProtocol):
    """The protocol of a published benchmark: a figure, and how images are cut and read.

    Made by `get_protocol`, not by hand.

    Parameters
    ----------
    benchmark : Benchmark
    figure : EvaluationProtocol
        The figure of the benchmark, perhaps at other k.

    Examples
    --------
    >>> from cvretrieval.metrics import get_protocol
    >>> protocol = get_protocol("roxford-medium@10")
    >>> protocol.labels
    ('mAP (ROxford medium)', 'mP@10 (ROxford medium)')
    >>> protocol.crop, protocol.exif, protocol.convention, protocol.form
    ('box', 'ignore', 'trapezoid', 'roxford5k')
    """

    benchmark: Benchmark
    figure: EvaluationProtocol

    @property
    def name(self) -> str:
        ks = getattr(self.figure, "ks", ())
        return self.benchmark.key + ("" if self.figure == self.benchmark.figure else f"@{join(ks)}")

    @property
    def figure_names(self) -> tuple[str, ...]:
        return self.figure.figure_names

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{figure} ({self.benchmark.title})" for figure in self.figure_names)

    @property
    def crop(self) -> str:  # type: ignore[override]
        return self.benchmark.crop

    @property
    def exif(self) -> str:  # type: ignore[override]
        return self.benchmark.exif

    @property
    def form(self) -> str:  # type: ignore[override]
        return self.benchmark.form

    @property
    def depth(self) -> int | None:  # type: ignore[override]
        return self.figure.depth

    @property
    def without_relevant(self) -> str | None:  # type: ignore[override]
        return self.figure.without_relevant

    @property
    def convention(self) -> str | None:  # type: ignore[override]
        return self.figure.convention

    @property
    def junk_rule(self) -> str:  # type: ignore[override]
        return self.figure.junk_rule

    def at(self, ks: tuple[int, ...]) -> BenchmarkProtocol:
        """Return the protocol with other cut-offs; a ValueError if it has none."""
        if not hasattr(self.figure, "ks"):
            raise ValueError(f"The protocol {self.benchmark.key!r} has no k to choose.")
        return replace(self, figure=replace(self.figure, ks=ks))  # type: ignore[type-var]

    def depth_for(self, n_relevant: int) -> int | None:
        return self.figure.depth_for(n_relevant)

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        return self.figure.select(truth)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return self.figure.figures(judged)

    def judge(self, truth: QueryTruth, ranking: Sequence[Any]) -> JudgedRanking:
        return self.figure.judge(truth, ranking)
