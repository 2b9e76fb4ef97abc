"""The published benchmarks: their rules in one table."""

from __future__ import annotations

from cvretrieval.metrics.protocols.at_k import RecallAtK
from cvretrieval.metrics.protocols.average_precision import AveragePrecision
from cvretrieval.metrics.protocols.benchmark import Benchmark
from cvretrieval.metrics.protocols.ns_score import NSScore
from cvretrieval.metrics.protocols.place_recognition import PlaceRecall
from cvretrieval.metrics.protocols.revisited import DIFFICULTIES, Revisited

_TRAPEZOID = AveragePrecision("trapezoid")
_FINE_GRAINED = RecallAtK((1, 2, 4, 8))
_PLACES = PlaceRecall((1, 5, 10, 20))

#: Attacks of Copydays, as its protocols and its forms name them.
COPYDAYS_ATTACKS = (
    "strong",
    *(f"jpeg{quality}" for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)),
    *(f"crop{percent}" for percent in (10, 15, 20, 30, 40, 50, 60, 70, 80)),
)


def _buildings() -> list[Benchmark]:
    found = []
    for key, title, large_key, large_title in (
        ("oxford5k", "Oxford5k", "oxford105k", "Oxford105k"),
        ("paris6k", "Paris6k", "paris106k", "Paris106k"),
    ):
        found += [
            Benchmark(key, title, _TRAPEZOID, key, "mAP, queries cut to their region", crop="box"),
            Benchmark(f"{key}-full", f"{title}, full queries", _TRAPEZOID, key, "mAP, whole query images"),
            Benchmark(
                large_key, large_title, _TRAPEZOID, f"{key}+100k", f"{key} with the 100,000 distractors", crop="box"
            ),
        ]
    for key, title, form in (("roxford", "ROxford", "roxford5k"), ("rparis", "RParis", "rparis6k")):
        for suffix, with_distractors in (("", ""), ("+1m", " + R1M")):
            found += [
                Benchmark(
                    f"{key}-{difficulty}{suffix}",
                    f"{title} {difficulty}{with_distractors}",
                    Revisited(difficulty),
                    f"{form}{suffix}",
                    f"mAP and mP@k{', with the million distractors' if suffix else ''}",
                    crop="box",
                )
                for difficulty in DIFFICULTIES
            ]
    return found


def _copydays() -> list[Benchmark]:
    return [
        Benchmark(
            f"copydays-{attack}{suffix}",
            f"Copydays {attack}{' + 10k' if suffix else ''}",
            _TRAPEZOID,
            f"copydays:{attack}{suffix}",
            f"mAP, {attack} against the originals{' and 10,000 distractors' if suffix else ''}",
        )
        for attack in COPYDAYS_ATTACKS
        for suffix in ("", "+10k")
    ]


_TABLE = (
    *_buildings(),
    Benchmark("holidays", "Holidays", _TRAPEZOID, "holidays", "mAP, images as published"),
    Benchmark(
        "holidays-upright", "Holidays, upright", _TRAPEZOID, "holidays:upright", "mAP, images turned upright",
        exif="apply",
    ),
    Benchmark("ukbench", "UKB, max 4", NSScore(4), "ukbench", "N-S score, query included"),
    Benchmark("cub200", "CUB-200-2011", _FINE_GRAINED, "cub200", "R@k, whole images of classes 101 to 200"),
    Benchmark(
        "cub200-cropped", "CUB-200-2011, cropped", _FINE_GRAINED, "cub200:cropped", "R@k, every image cut to its box",
        crop="box",
    ),
    Benchmark("cars196", "Cars196", _FINE_GRAINED, "cars196", "R@k, whole images of classes 99 to 196"),
    Benchmark(
        "cars196-cropped", "Cars196, cropped", _FINE_GRAINED, "cars196:cropped", "R@k, every image cut to its box",
        crop="box",
    ),
    Benchmark("sop", "SOP", RecallAtK((1, 10, 100, 1000)), "sop", "R@k, the test classes"),
    Benchmark("inshop", "In-shop", RecallAtK((1, 10, 20, 30, 40, 50)), "inshop", "R@k, queries against the gallery"),
    Benchmark("pitts30k", "Pitts30k, 25 m", _PLACES, "pitts30k", "R@N, the test set"),
    Benchmark("pitts250k", "Pitts250k, 25 m", _PLACES, "pitts250k", "R@N, the test set"),
    Benchmark(
        "tokyo247", "Tokyo 24/7, 25 m", PlaceRecall(_PLACES.ks, one_per_panorama=True), "tokyo247",
        "R@N, one image per panorama",
    ),
    Benchmark("smvs", "SMVS", RecallAtK((1, 5, 10)), "smvs", "R@k, one reference per query"),
    Benchmark("smvs-map", "SMVS, finite sum", AveragePrecision("finite_sum"), "smvs", "mAP, here 1 / rank"),
    *_copydays(),
)  # fmt: skip

#: key → benchmark.
BENCHMARKS = {benchmark.key: benchmark for benchmark in _TABLE}

#: Names that stand for several protocols.
PROTOCOL_GROUPS = {
    f"{key}{suffix}": tuple(f"{key}-{difficulty}{suffix}" for difficulty in DIFFICULTIES)
    for key in ("roxford", "rparis")
    for suffix in ("", "+1m")
} | {f"copydays{suffix}": tuple(f"copydays-{attack}{suffix}" for attack in COPYDAYS_ATTACKS) for suffix in ("", "+10k")}
