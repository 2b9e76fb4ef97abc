"""Recall at N of visual place recognition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.metrics.protocols.base import EvaluationProtocol, check_ks, join
from cvretrieval.metrics.protocols.truth import QueryTruth
from cvretrieval.metrics.ranking import JudgedRanking

UNITS = {"metres": "m", "frames": "frames"}


@dataclass(frozen=True)
class PlaceRecall(EvaluationProtocol):
    """Recall@N of place recognition: share of queries with any image taken nearby among the first N.

    Every query counts, also one that no database image is near to.

    Parameters
    ----------
    ks : tuple of int, default=(1, 5, 10, 20)
        The N.
    radius : float, default=25
        What is nearby, the limit included. The ground truth carries it: the loaders of place recognition sets take it
        and list what is within it.
    unit : {"metres", "frames"}, default="metres"
        Of `radius`: distance on the ground, or number of frames between two traverses of one route.
    one_per_panorama : bool, default=False
        Keep only the first of the images that were cut out of one panorama, as is usual on Tokyo 24/7, where each
        panorama has 12. Lists must then be so many times as long as N; the ground truth names the panoramas
        (``panorama_of``).

    References
    ----------
    A. Torii, R. Arandjelović, J. Sivic, M. Okutomi and T. Pajdla. 24/7 place recognition by view synthesis. CVPR 2015.

    R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic. NetVLAD: CNN architecture for weakly supervised place
    recognition. CVPR 2016.
    """

    ks: tuple[int, ...] = (1, 5, 10, 20)
    radius: float = 25.0
    unit: str = "metres"
    one_per_panorama: bool = False
    without_relevant: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_ks(self, self.ks)
        check_choice(self, "unit", self.unit, tuple(UNITS))
        check_number(self, "radius", self.radius, low=0.0, integer=self.unit == "frames")
        check_flag(self, "one_per_panorama", self.one_per_panorama)

    @property
    def depth(self) -> int:  # type: ignore[override]
        return max(self.ks)

    @property
    def reach(self) -> str:
        """The radius with its unit, e.g. ``"25m"`` or ``"10frames"``."""
        return f"{self.radius:g}{UNITS[self.unit]}"

    @property
    def junk_rule(self) -> str:  # type: ignore[override]
        first = "; of each panorama only the first image is kept" if self.one_per_panorama else ""
        return f"junk is removed before ranks are counted{first}; relevant is what lies within {self.reach}"

    @property
    def form(self) -> str:  # type: ignore[override]
        return f"vpr:{self.reach}"

    @property
    def name(self) -> str:
        return f"vpr-{self.reach}{'-panorama' if self.one_per_panorama else ''}@{join(self.ks)}"

    @property
    def figure_names(self) -> tuple[str, ...]:
        return tuple(f"R@{k}" for k in self.ks)

    @property
    def labels(self) -> tuple[str, ...]:
        panorama = ", one per panorama" if self.one_per_panorama else ""
        return tuple(f"{figure} (place, {self.reach}{panorama})" for figure in self.figure_names)

    def figures(self, judged: JudgedRanking) -> tuple[float, ...]:
        return tuple(float(judged.n_hits(k) > 0) for k in self.ks)

    def judge(self, truth: QueryTruth, ranking: Sequence[Any]) -> JudgedRanking:
        return super().judge(truth, first_per_panorama(truth, ranking) if self.one_per_panorama else ranking)


def first_per_panorama(truth: QueryTruth, ranking: Sequence[Any]) -> list[Any]:
    """Return the ranking with only the first image of each panorama."""
    panorama_of = getattr(truth, "panorama_of", {})
    first: dict[Any, Any] = {}
    for item in ranking:
        if item not in panorama_of:
            raise ValueError(
                f"The ground truth does not say which panorama {item!r} was cut out of (panorama_of), so the protocol "
                "cannot keep one image per panorama. Evaluate without, e.g. with 'vpr-25m'."
            )
        first.setdefault(panorama_of[item], item)
    return list(first.values())
