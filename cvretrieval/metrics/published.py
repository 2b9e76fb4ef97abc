"""Figures that others published under the protocols of the benchmarks, to stand beside one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cvretrieval.metrics.protocols import EvaluationProtocol

_CIRTORCH = "README of filipradenovic/cnnimageretrieval-pytorch"
_DIR = "README of naver/deep-image-retrieval"
_REVISITOP = "README of filipradenovic/revisitop"
_SOLAR = "README of tonyngjichun/SOLAR"
_HOW = "README of gtolias/how"
_VITGAL = "table 1 of the ViTGaL paper"
_DELF = "DELF's Detect-to-Retrieve instructions in tensorflow/models"
_SONG = "README of chullhwan-song/OLD-Deep-Image-Retrieval"
_NAVER_CGD = "README of naver/cgd"
_LEFTTHOMAS_CGD = "README of leftthomas/CGD"
_VPR = "README of gmberton/deep-visual-geo-localization-benchmark"
_NETVLAD = "issue 19 of Nanne/pytorch-NetVlad"


@dataclass(frozen=True)
class PublishedFigure:
    """What a publication reports of a method under a protocol.

    Attributes
    ----------
    method : str
        As the publication calls it.
    protocol : str
        Name of the protocol.
    figures : mapping of str to float
        Name of the figure, without that of the benchmark, → value from 0 to 1.
    source : str
        Where the values were read.
    """

    method: str
    protocol: str
    figures: Mapping[str, float] = field(hash=False)
    source: str


def published_figures(protocols: Sequence[EvaluationProtocol]) -> list[PublishedFigure]:
    """Return what has been published under some protocols.

    Only figures that were read in the publication named as their source are held, so the list is far from complete.
    They are about the whole benchmark: a part of its images or queries is easier or harder.

    Parameters
    ----------
    protocols : sequence of EvaluationProtocol

    Returns
    -------
    list of PublishedFigure

    Examples
    --------
    >>> from cvretrieval.metrics import get_protocols, published_figures
    >>> known = published_figures(get_protocols("roxford-medium"))
    >>> [row.figures["mAP"] for row in known if row.method == "ResNet-101 SOLAR"]
    [0.699]
    """
    # With other k the figures of the others are still the same.
    keys = {protocol.name.partition("@")[0] for protocol in protocols}
    return [row for row in _TABLE if row.protocol in keys]


def _revisited(
    method: str, source: str, medium: Sequence[float | None], hard: Sequence[float | None] = (None,) * 4
) -> list[PublishedFigure]:
    """Return rows of mAP in % on ROxford, ROxford + R1M, RParis, RParis + R1M."""
    keys = ("roxford-{}", "roxford-{}+1m", "rparis-{}", "rparis-{}+1m")
    return [
        PublishedFigure(method, key.format(difficulty), {"mAP": round(value / 100, 4)}, source)
        for difficulty, values in (("medium", medium), ("hard", hard))
        for key, value in zip(keys, values, strict=True)
        if value is not None
    ]


def _recalls(method: str, protocol: str, source: str, ks: Sequence[int], values: Sequence[float]) -> PublishedFigure:
    """Return a row of R@k in %."""
    recalls = {f"R@{k}": round(value / 100, 4) for k, value in zip(ks, values, strict=True)}
    return PublishedFigure(method, protocol, recalls, source)


def _gem_in_full() -> list[PublishedFigure]:
    """Return the figures of ResNet-101 GeM that the benchmark's own program prints."""
    values = {
        "roxford-easy": (84.81, 97.06, 92.06, 86.49), "roxford-medium": (64.67, 97.14, 90.67, 84.67),
        "roxford-hard": (38.47, 81.43, 63.00, 53.00), "rparis-easy": (92.12, 100.0, 97.14, 96.14),
        "rparis-medium": (77.20, 100.0, 98.86, 98.14), "rparis-hard": (56.32, 94.29, 90.29, 89.14),
    }  # fmt: skip
    names = ("mAP", "mP@1", "mP@5", "mP@10")
    return [
        PublishedFigure(
            "ResNet-101 GeM, fine-tuned, whitened",
            protocol,
            {name: round(value / 100, 4) for name, value in zip(names, row, strict=True)},
            _REVISITOP,
        )
        for protocol, row in values.items()
    ]


_BUILDINGS = ("oxford5k", "oxford105k", "paris6k", "paris106k", "holidays")


def _maps(method: str, source: str, values: Sequence[float | None]) -> list[PublishedFigure]:
    """Return rows of mAP in % on the five sets of before the revision."""
    return [
        PublishedFigure(method, key, {"mAP": round(value / 100, 4)}, source)
        for key, value in zip(_BUILDINGS, values, strict=True)
        if value is not None
    ]


_TABLE: tuple[PublishedFigure, ...] = (
    *_revisited("Hessian-affine SIFT, ASMK*, verified", _VITGAL, (60.6, 46.8, 61.4, 42.3), (36.7, 26.9, 35.0, 16.8)),
    *_revisited("DELF, ASMK*, verified", _VITGAL, (67.8, 53.8, 76.9, 57.3), (43.1, 31.2, 55.4, 26.4)),
    *_revisited("DELF, regional ASMK", _DELF, (73.3, None, None, None), (47.61, None, None, None)),
    *_revisited("HOW, ResNet-18, ASMK*, 1,000 features", _HOW, (75.1, None, 79.4, None)),
    *_revisited("HOW, ResNet-50, ASMK*, 1,000 features", _HOW, (78.3, None, 80.1, None)),
    *_revisited("HOW, ResNet-50, ASMK*, 2,000 features", _HOW, (79.4, None, 81.6, None)),
    *_revisited("VGG-16 GeM, fine-tuned", _CIRTORCH, (61.9, None, 69.3, None), (33.7, None, 44.3, None)),
    *_gem_in_full(),
    *_revisited("ResNet-101 R-MAC (Gordo et al.)", _VITGAL, (60.9, 39.3, 78.9, 54.8), (32.4, 12.5, 59.4, 28.0)),
    *_revisited("ResNet-101 GeM, Google Landmarks 2018", _CIRTORCH, (67.3, None, 80.6, None), (44.3, None, 61.5, None)),
    *_revisited("ResNet-101 AP-GeM", _DIR, (67.1, None, 80.3, None), (42.3, None, 60.9, None)),
    *_revisited("ResNet-101 SOLAR", _SOLAR, (69.9, None, 81.57, None), (47.91, None, 64.45, None)),
    *_maps("VGG-16 R-MAC, siaMAC", _SONG, (79.7, 73.9, 83.8, 76.4, 82.5)),
    *_maps("ResNet-101 R-MAC, end to end (DIR)", _SONG, (86.1, 82.8, 94.5, 90.6, 90.3)),
    PublishedFigure("ResNet-101 R-MAC, end to end (DIR)", "holidays-upright", {"mAP": 0.948}, _SONG),
    *_maps("VGG-16 GeM, fine-tuned", _CIRTORCH, (87.9, None, 87.7, None, None)),
    *_maps("ResNet-101 GeM, fine-tuned", _CIRTORCH, (87.8, None, 92.7, None, None)),
    _recalls("CGD, ResNet-50, MG, 1,536-d", "cub200-cropped", _NAVER_CGD, (1, 2, 4, 8), (76.81, 84.84, 90.60, 94.33)),
    _recalls("CGD, ResNet-50, MG (port)", "cub200", _LEFTTHOMAS_CGD, (1,), (66.0,)),
    _recalls("CGD, ResNet-50, MG (port)", "cub200-cropped", _LEFTTHOMAS_CGD, (1,), (73.9,)),
    _recalls("CGD, ResNet-50, SG (port)", "cars196", _LEFTTHOMAS_CGD, (1,), (86.4,)),
    _recalls("CGD, ResNet-50, SG (port)", "cars196-cropped", _LEFTTHOMAS_CGD, (1, 2, 4, 8), (92.4, 96.1, 97.8, 98.7)),
    _recalls("CGD, ResNet-50, SG (port)", "sop", _LEFTTHOMAS_CGD, (1, 10, 100, 1000), (79.3, 90.6, 95.8, 98.6)),
    _recalls("CGD, ResNet-50, GS (port)", "inshop", _LEFTTHOMAS_CGD, (1, 10, 20, 30, 40, 50),
             (83.6, 95.7, 97.1, 97.7, 98.1, 98.4)),
    _recalls("NetVLAD, VGG-16 (port)", "pitts30k", _NETVLAD, (1, 5, 10), (86.1, 93.0, 95.0)),
    _recalls("NetVLAD, VGG-16", "pitts30k", _VPR, (1,), (83.2,)),
    _recalls("NetVLAD, ResNet-18", "pitts30k", _VPR, (1,), (86.4,)),
    _recalls("NetVLAD, ResNet-50", "pitts30k", _VPR, (1,), (86.0,)),
    _recalls("NetVLAD, ResNet-101", "pitts30k", _VPR, (1,), (86.5,)),
)  # fmt: skip
