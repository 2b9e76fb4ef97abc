"""Verification of a short list: ours, by each way of matching, against OpenCV's BFMatcher with USAC_MAGSAC.

Real photos: phone queries of DVD covers (Stanford Mobile Visual Search). The 100 candidates of a query are 50 reference
covers, the right one among them, and the 50 most textured of 250 photos of ImageNet; RootSIFT in bytes, as an index
keeps them. One thread on both sides, everything from stored features to inliers included. Every query is a repeat: the
methods run in turn, medians of the times and of the paired ratios are printed.

OpenCV matches with the same ratio test, keeps the nearest of all that chose the same feature (without it, matches
collapse onto a few points), and runs 20,000 iterations at most; in float32, which its matcher takes faster than bytes.
All rank the candidates by inliers: AP is 1 / rank of the right cover, ties to its disadvantage. Inliers are those of
the right cover as MAGSAC counts them and as ours do, each of our places once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from common import data_folder

from cvretrieval import SIFT, ImageReader, LocalFeatures, SpatialVerifier
from cvretrieval._parallel import single_threaded
from cvretrieval.verification.matching import make_matcher

WAYS = ("words", "quantized", "exhaustive")
N_REFERENCES = 50


def opencv_inliers(query: Any, candidate: Any, matcher: Any) -> int:
    """Inliers of one pair."""
    pairs = matcher.knnMatch(query.descriptors, candidate.descriptors, k=2)
    nearest: dict[int, Any] = {}
    for best, second in (pair for pair in pairs if len(pair) == 2):
        if best.distance < 0.9 * second.distance:
            held = nearest.get(best.trainIdx)
            if held is None or best.distance < held.distance:
                nearest[best.trainIdx] = best
    if len(nearest) < 8:
        return 0
    a = np.float32([query.keypoints[match.queryIdx, :2] for match in nearest.values()])
    b = np.float32([candidate.keypoints[match.trainIdx, :2] for match in nearest.values()])
    _, mask = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 3.0, maxIters=20_000, confidence=0.999)
    return 0 if mask is None else int(mask.sum())


def as_bytes(X: LocalFeatures) -> LocalFeatures:
    return X.with_descriptors(np.clip(np.rint(X.descriptors * 512), 0, 255).astype(np.uint8))


def match_all(query: Any, candidates: LocalFeatures, matching: str) -> None:
    """Match without verification."""
    matcher = make_matcher(
        query.descriptors, ratio=0.9, mutual=True, metric="euclidean", matching=matching, n_assignments=5
    )
    for candidate in candidates:
        matcher.match(candidate.descriptors)


def bare_products(query: Any, candidates: LocalFeatures) -> None:
    """Multiply all descriptors in float32, and look at none of the products."""
    rows = query.descriptors.astype(np.float32)
    for candidate in candidates:
        np.matmul(candidate.descriptors.astype(np.float32), rows.T)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--queries", type=int, default=20, help="per camera")
    parser.add_argument("--features", type=int, default=1000)
    arguments = parser.parse_args()
    data = data_folder(arguments.data)
    references = sorted((data / "smvs_dvd" / "Reference").glob("*.jpg"))
    photos = sorted((data / "imagenet1k_sample" / "images").rglob("*.*"))[::4][:250]
    step = max(1, len(references) // arguments.queries)
    chosen = list(range(0, len(references), step))[: arguments.queries]
    extractor = SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640), n_jobs=-1)
    covers, distractors = as_bytes(extractor.transform(references)), as_bytes(extractor.transform(photos))
    distractors = distractors[np.sort(np.argsort(-distractors.lengths, kind="stable")[:50])]
    queries = [
        (as_bytes(extractor.transform([data / "smvs_dvd" / camera / references[i].name]))[0], i)
        for camera in ("E63", "Canon")
        for i in chosen
    ]
    verifiers = {way: SpatialVerifier(matching=way) for way in WAYS}
    bf = cv2.BFMatcher(cv2.NORM_L2)
    seconds: dict[str, list[float]] = {}
    precisions: dict[str, list[float]] = {}
    inliers: dict[str, list[int]] = {}
    n_features = []
    with single_threaded():
        for way, verifier in verifiers.items():  # compile the kernels
            verifier.verify_candidates(queries[0][0], covers[:2])
            match_all(queries[0][0], covers[:2], way)
        for query, i in queries:
            near = (i + np.arange(N_REFERENCES)) % len(covers)
            candidates = LocalFeatures.concatenate([covers[near], distractors])
            n_features += [len(query.descriptors), candidates.lengths.mean()]
            floats = candidates.with_descriptors(candidates.descriptors.astype(np.float32))
            query_floats = query._replace(descriptors=query.descriptors.astype(np.float32))
            runs: dict[str, Callable[[], Any]] = {
                **{
                    way: lambda v=verifier, q=query, c=candidates: [r.n_inliers for r in v.verify_candidates(q, c)]
                    for way, verifier in verifiers.items()
                },
                "OpenCV": lambda q=query_floats, c=floats: [opencv_inliers(q, candidate, bf) for candidate in c],
                **{f"{way}, matching": lambda w=way, q=query, c=candidates: match_all(q, c, w) for way in WAYS},
                "bare products": lambda q=query, c=candidates: bare_products(q, c),
            }
            for name, run in runs.items():
                took, counts = timed(run)
                seconds.setdefault(name, []).append(took)
                if counts is not None:
                    rank = 1 + sum(count >= counts[0] for count in counts[1:])
                    precisions.setdefault(name, []).append(1 / rank)
                    inliers.setdefault(name, []).append(counts[0])
    print(
        f"100 candidates of {np.mean(n_features[1::2]):.0f} features on average, {len(queries)} queries of "
        f"{np.mean(n_features[::2]):.0f}; one thread, milliseconds per query, OpenCV {cv2.__version__}"
    )
    print(f"{'':12}{'matching':>10}{'total':>8}{'× OpenCV':>10}{'mAP':>8}{'R@1':>7}{'inliers':>9}")
    for name in (*WAYS, "OpenCV"):
        matching = seconds.get(f"{name}, matching")
        ratio = statistics.median(o / t for o, t in zip(seconds["OpenCV"], seconds[name], strict=True))
        print(
            f"{name:12}{statistics.median(matching) * 1e3 if matching else float('nan'):10.0f}"
            f"{statistics.median(seconds[name]) * 1e3:8.0f}{ratio:10.2f}{np.mean(precisions[name]):8.3f}"
            f"{np.mean(np.array(precisions[name]) == 1):7.2f}{np.mean(inliers[name]):9.1f}"
        )
    bare = statistics.median(seconds["bare products"])
    print(f"Limit of exhaustive matching, the products alone: {bare * 1e3:.0f} ms")
    met = statistics.median(o / t for o, t in zip(seconds["OpenCV"], seconds["words"], strict=True)) >= 15
    print(f"Target of the default, words: ≥ 15 times OpenCV at equal or better mAP: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
