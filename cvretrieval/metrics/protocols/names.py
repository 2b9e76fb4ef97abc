"""From the name of a protocol to the protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cvretrieval.metrics.protocols.at_k import PrecisionAtK, RecallAtK
from cvretrieval.metrics.protocols.at_r import MAPAtR, RPrecision
from cvretrieval.metrics.protocols.average_precision import AveragePrecision
from cvretrieval.metrics.protocols.base import EvaluationProtocol
from cvretrieval.metrics.protocols.benchmark import BenchmarkProtocol
from cvretrieval.metrics.protocols.benchmarks import BENCHMARKS, PROTOCOL_GROUPS
from cvretrieval.metrics.protocols.ns_score import NSScore
from cvretrieval.metrics.protocols.place_recognition import PlaceRecall
from cvretrieval.metrics.protocols.revisited import DIFFICULTIES, Revisited

#: name → what it is: first the figures that any labelled set can be measured with, then the published benchmarks.
PROTOCOL_NAMES = {
    "oxford": "mAP, trapezoid, as of the Oxford and Paris buildings and Holidays",
    "finite_sum": "mAP, sum of the precisions at each relevant item",
    "recall@1,2,4,8": "R@k: any relevant item among the first k, query excluded; any list of k",
    "precision@1,5,10": "P@k: share of relevant items among the first k, query excluded; any list of k",
    "r_precision": "R-precision: share of relevant items among as many as there are",
    "map@r": "MAP@R: average precision cut off after as many items as are relevant",
    "ns": "N-S score of UKBench, query included; ns@3 for groups of 3",
    "revisited-easy": "mAP and mP@k, hard items are junk",
    "revisited-medium": "mAP and mP@k, easy and hard items are relevant",
    "revisited-hard": "mAP and mP@k, easy items are junk",
    "vpr-25m": "R@N of place recognition within 25 m; any radius, e.g. vpr-10m, or vpr-10frames",
    "vpr-25m-panorama": "the same with one image per panorama",
    **{key: b.about for key, b in BENCHMARKS.items() if not key.startswith(("copydays-jpeg", "copydays-crop"))},
    "copydays-jpeg75": "mAP, JPEG quality 75 against the originals; also 3, 5, 8, 10, 15, 20, 30, 50",
    "copydays-crop80": "mAP, 80 % cropped away against the originals; also 10, 15, 20, 30, 40, 50, 60, 70",
}

_FIGURES = {
    "oxford": AveragePrecision("trapezoid"),
    "finite_sum": AveragePrecision("finite_sum"),
    "map@r": MAPAtR(),
    "r_precision": RPrecision(),
    "recall": RecallAtK(),
    "precision": PrecisionAtK(),
    "ns": NSScore(),
    **{f"revisited-{difficulty}": Revisited(difficulty) for difficulty in DIFFICULTIES},
}
_WITH_K = {"recall": RecallAtK, "precision": PrecisionAtK}


def get_protocol(name: str | EvaluationProtocol) -> EvaluationProtocol:
    """Return the protocol of a name: one of `PROTOCOL_NAMES`, with other k or n after the ``@`` where one is taken.

    Examples
    --------
    >>> from cvretrieval.metrics import get_protocol
    >>> get_protocol("recall@1,10")
    RecallAtK(ks=(1, 10))
    >>> get_protocol("oxford").labels
    ('mAP (Oxford trapezoid)',)
    >>> get_protocol("cub200@1").labels
    ('R@1 (CUB-200-2011)',)
    """
    if isinstance(name, EvaluationProtocol):
        return name
    if not isinstance(name, str):
        raise TypeError(f"A protocol is a name or an EvaluationProtocol. Got {type(name).__name__} instead.")
    if name in _FIGURES:
        return _FIGURES[name]
    if name in PROTOCOL_GROUPS:
        raise ValueError(
            f"{name!r} stands for {', '.join(PROTOCOL_GROUPS[name][:3])}, …: name one, or use get_protocols."
        )
    match = re.fullmatch(r"(.+?)(?:@([1-9]\d*(?:,[1-9]\d*)*))?", name)
    key, ks = (match[1], tuple(map(int, (match[2] or "").split(",") if match[2] else ()))) if match else ("", ())
    found = _with_numbers(key, ks)
    if found is None:
        raise ValueError(f"There is no protocol {name!r}. Known: {', '.join([*PROTOCOL_NAMES, *PROTOCOL_GROUPS])}.")
    return found


def get_protocols(names: str | EvaluationProtocol | Sequence[str | EvaluationProtocol]) -> list[EvaluationProtocol]:
    """Return the protocols of some names; one of `PROTOCOL_GROUPS` stands for several.

    Examples
    --------
    >>> from cvretrieval.metrics import get_protocols
    >>> [protocol.name for protocol in get_protocols("roxford")]
    ['roxford-easy', 'roxford-medium', 'roxford-hard']
    """
    found: list[EvaluationProtocol] = []
    for name in [names] if isinstance(names, (str, EvaluationProtocol)) else names:
        group = PROTOCOL_GROUPS.get(name) if isinstance(name, str) else None
        found += map(get_protocol, group or [name])
    return found


def _with_numbers(key: str, ks: tuple[int, ...]) -> EvaluationProtocol | None:
    if key in BENCHMARKS:
        protocol = BenchmarkProtocol(BENCHMARKS[key], BENCHMARKS[key].figure)
        return protocol.at(ks) if ks else protocol
    place = re.fullmatch(r"vpr-(?:(\d+(?:\.\d+)?)m|(\d+)frames)(-panorama)?", key)
    if place:
        radius, unit = (float(place[1]), "metres") if place[1] else (int(place[2]), "frames")
        return PlaceRecall(ks or PlaceRecall.ks, radius, unit, place[3] is not None)
    if key in _WITH_K and ks:
        return _WITH_K[key](ks)
    if key == "ns" and len(ks) == 1:
        return NSScore(ks[0])
    if key.startswith("revisited-") and key in _FIGURES and ks:
        return Revisited(key.partition("-")[2], ks)
    return None
