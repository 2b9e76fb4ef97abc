"""Verification of a short list: ours against OpenCV's BFMatcher with findHomography(USAC_MAGSAC), matching included.

Real photos: phone queries of DVD covers (Stanford Mobile Visual Search, E63) against all 100 references, 1,000 RootSIFT
features an image, one thread on both sides. OpenCV matches with a ratio test, keeps the nearest of all that chose the
same feature (without it, matches collapse onto a few points), and runs 20,000 iterations at most. Both rank the 100
references by inliers; R@1 is the share of queries with the right one first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import cv2
import numpy as np
from common import data_folder

from cvretrieval import SIFT, ImageReader, SpatialVerifier
from cvretrieval._parallel import single_threaded


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--features", type=int, default=1000)
    arguments = parser.parse_args()
    smvs = data_folder(arguments.data) / "smvs_dvd"
    references = sorted((smvs / "Reference").glob("*.jpg"))
    step = max(1, len(references) // arguments.queries)
    chosen = list(range(0, len(references), step))[: arguments.queries]
    extractor = SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640), n_jobs=-1)
    database = extractor.transform(references)
    queries = extractor.transform([smvs / "E63" / references[i].name for i in chosen])
    verifier = SpatialVerifier()
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    ratios, times = [], ([], [])  # type: ignore[var-annotated]
    right = [0, 0]
    with single_threaded():
        verifier.verify(queries[0], database[0])  # compile the kernels
        for i, query in zip(chosen, queries, strict=True):
            start = time.perf_counter()
            ours = verifier.verify_candidates(query, database)
            middle = time.perf_counter()
            peer = [opencv_inliers(query, candidate, matcher) for candidate in database]
            end = time.perf_counter()
            times[0].append(middle - start)
            times[1].append(end - middle)
            ratios.append((end - middle) / (middle - start))
            right[0] += int(np.argmax([result.n_inliers for result in ours]) == i)
            right[1] += int(np.argmax(peer) == i)
    print(
        f"{len(database)} candidates, {np.mean(database.lengths):.0f} features on average, {len(chosen)} queries, one "
        f"thread: ours {statistics.median(times[0]) * 1e3:.0f} ms, OpenCV {cv2.__version__} "
        f"{statistics.median(times[1]) * 1e3:.0f} ms, ratio {statistics.median(ratios):.2f} (target ≥ 4)"
    )
    print(f"R@1 by inliers alone: ours {right[0] / len(chosen):.2f}, OpenCV {right[1] / len(chosen):.2f}")


if __name__ == "__main__":
    main()
