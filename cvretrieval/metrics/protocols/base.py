"""What every protocol fixes: what is relevant, what is junk, how the query is cut, and the names of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from cvretrieval._validation import check_number
from cvretrieval.metrics.protocols.truth import QueryTruth
from cvretrieval.metrics.ranking import JudgedRanking, judge_ranking


class EvaluationProtocol:
    """Base of the protocols: `select` says what is relevant, `figures` what is computed from a judged list."""

    #: Figures look no deeper than this into a list; None: the whole list matters.
    depth: int | None = None
    #: Why a query without relevant items is left out; None: it is scored.
    without_relevant: ClassVar[str | None] = "no relevant item"
    #: Convention of the average precision; None: there is none.
    convention: str | None = None
    #: What becomes of junk and of the query itself, in words.
    junk_rule: ClassVar[str] = "junk is removed before ranks are counted; the query counts as the ground truth says"
    #: Part of the query image that is searched with: "box", the region of the ground truth, or "full"; None: the region
    #: where the ground truth gives one.
    crop: str | None = None
    #: Orientation recorded by the camera, as `ImageReader.exif`: "apply" or "ignore"; None: as the reader is set.
    exif: str | None = None
    #: Form of the data set that the protocol is for, as `cvretrieval.datasets.load_dataset` takes it; None: any.
    form: str | None = None

    @property
    def name(self) -> str:
        """The name that `get_protocol` understands."""
        raise NotImplementedError(f"{type(self).__name__} must define name.")

    @property
    def figure_names(self) -> tuple[str, ...]:
        """Names of the figures without that of the protocol, e.g. ``("mAP",)``."""
        raise NotImplementedError(f"{type(self).__name__} must define figure_names.")

    @property
    def labels(self) -> tuple[str, ...]:
        """Full names of the figures, one for each value of `figures`; no two protocols share one."""
        return self.figure_names

    @property
    def rules(self) -> dict[str, str]:
        """What the protocol fixes, in words."""
        region = {"box": "the region of the ground truth", "full": "the whole image"}
        return {
            "query image": region.get(self.crop or "", "the region of the ground truth where it gives one"),
            "EXIF orientation": {"apply": "applied", "ignore": "ignored"}.get(self.exif or "", "as the reader is set"),
            "average precision": (self.convention or "none").replace("_", " "),
            "junk": self.junk_rule,
            "queries without relevant items": "count 0" if self.without_relevant is None else "left out",
        }

    def depth_for(self, n_relevant: int) -> int | None:
        """Return how deep the figures of a query with so many relevant items look; None: to the end."""
        return self.depth

    def select(self, truth: QueryTruth) -> tuple[set[Any], set[Any]]:
        """Return what is relevant and what is junk."""
        return set(truth.relevant), set(truth.junk)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        """Return one value per label."""
        raise NotImplementedError(f"{type(self).__name__} must define figures.")

    def judge(self, truth: QueryTruth, ranking: Sequence[Any]) -> JudgedRanking:
        """Compare the ranking of one query with its ground truth as this protocol sees it."""
        relevant, junk = self.select(truth)
        return judge_ranking(ranking, relevant, junk)


def check_ks(protocol: EvaluationProtocol, ks: tuple[int, ...]) -> None:
    """Check a tuple of cut-offs."""
    if not isinstance(ks, tuple) or not ks or len(set(ks)) < len(ks):
        raise ValueError(f"The 'ks' parameter of {type(protocol).__name__} must be a tuple of distinct k. Got {ks!r}.")
    for k in ks:
        check_number(protocol, "ks", k, low=1, integer=True)


def join(ks: tuple[int, ...]) -> str:
    """Return e.g. ``"1,5,10"``."""
    return ",".join(map(str, ks))
