"""Repeatability and matching score of local features against known homographies: a table, and curves as a picture.

The sequences graf, boat, wall and ubc of Mikolajczyk et al., "A comparison of affine region detectors", IJCV 2005
(folder oxford_affine): image 1 against images 2 to 6. Their measures, with circles in place of affine regions:

* A region is the circle of a keypoint. One of the other image is mapped to image 1: its centre by the homography, its
  radius times the square root of the determinant of the homography's derivative there (the circle as large as the
  ellipse that it would become).
* Only keypoints whose centres lie in both images count.
* Overlap error of two regions: 1 - intersection / union, after both radii were multiplied by what makes the first 30
  pixels; the distance of the centres stays in pixels of image 1. So the unit of the scales does not matter, and large
  regions are not at an advantage.
* Correspondences: pairs with an overlap error below 40 %, one-to-one, smallest errors first.
* Repeatability: correspondences / the smaller number of regions. Keypoints that differ only in orientation are one
  region.
* Matching score: correct matches / the smaller number of features. Matches are mutual nearest neighbours of the
  descriptors, without a ratio test; correct are those with an overlap error below 40 %.
* Chance: the repeatability if the centres in the other image were drawn anew, anywhere in the part that both show. It
  grows with the number of features, so all detectors are asked for equally many, their strongest.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder

from cvretrieval import SIFT, SURF, ImageReader, OpenCVFeatures
from cvretrieval.verification import match_descriptors

SEQUENCES = {"graf": "viewpoint", "wall": "viewpoint", "boat": "zoom and rotation", "ubc": "JPEG compression"}
OPENCV = ("AKAZE", "KAZE", "BRISK", "ORB")
RADIUS, MAX_ERROR = 30.0, 0.4


def extractors(n_features: int) -> dict[str, Any]:
    """All that this machine has; BRISK, KAZE and AKAZE are missing from some builds of OpenCV."""
    found: dict[str, Any] = {"SIFT": SIFT(max_features=n_features), "SURF": SURF(max_features=n_features)}
    for name in OPENCV:
        try:
            found[name] = OpenCVFeatures(name, max_features=n_features).fit([])
        except ValueError as error:
            print(f"{name} skipped: {error}")
    return found


def warp(homography: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mapped points, and the square root of the determinant of the derivative at each."""
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    factors = np.sqrt(np.abs(np.linalg.det(homography) / mapped[:, 2] ** 3))
    return mapped[:, :2] / mapped[:, 2:], factors


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ((points >= -0.5) & (points < np.array(size) - 0.5)).all(axis=1)


def overlap_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 - intersection / union of circles x, y, radius: rows of `a` against rows of `b`."""
    d = np.maximum(np.hypot(*(a[:, None, :2] - b[None, :, :2]).transpose(2, 0, 1)), 1e-9)
    r, s = RADIUS, RADIUS * b[None, :, 2] / a[:, None, 2]
    # Two circular sectors less the kite of centres and crossings; disjoint and nested circles by their limits.
    u = np.clip((d**2 + r**2 - s**2) / (2 * d * r), -1, 1)
    v = np.clip((d**2 + s**2 - r**2) / (2 * d * s), -1, 1)
    kite = np.sqrt(np.maximum((r + s - d) * (d + r - s) * (d - r + s) * (d + r + s), 0))
    common = r**2 * np.arccos(u) + s**2 * np.arccos(v) - 0.5 * kite
    return 1 - common / (np.pi * (r**2 + s**2) - common)


def n_correspondences(errors: np.ndarray) -> int:
    """Count pairs below the threshold, one-to-one, smallest errors first."""
    rows, columns = np.nonzero(errors < MAX_ERROR)
    order = np.argsort(errors[rows, columns], kind="stable")
    free_rows, free_columns = np.ones(errors.shape[0], bool), np.ones(errors.shape[1], bool)
    count = 0
    for row, column in zip(rows[order], columns[order], strict=True):
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            count += 1
    return count


def measure(
    a: Any, b: Any, to_other: np.ndarray, sizes: list[tuple[int, int]], metric: str
) -> tuple[float, float, float]:
    """Return repeatability, matching score and chance of two `ImageFeatures`."""
    back, factors = warp(np.linalg.inv(to_other), b.keypoints[:, :2].astype(float))
    in_a = inside(warp(to_other, a.keypoints[:, :2].astype(float))[0], sizes[1])
    in_b = inside(back, sizes[0])
    first = a.keypoints[in_a, :3].astype(float)
    second = np.c_[back, b.keypoints[:, 2] * factors][in_b]
    if not len(first) or not len(second):
        return 0.0, 0.0, 0.0
    matches = match_descriptors(a.descriptors[in_a], b.descriptors[in_b], ratio=1.0, mutual=True, metric=metric)
    errors = overlap_errors(first, second)
    score = np.count_nonzero(errors[matches[:, 0], matches[:, 1]] < MAX_ERROR) / min(errors.shape)
    regions, others = np.unique(first, axis=0), np.unique(second, axis=0)
    n_regions = min(len(regions), len(others))
    anywhere = np.random.default_rng(0).uniform(-0.5, np.array(sizes[0]) - 0.5, (20 * len(others), 2))
    anywhere = anywhere[inside(warp(to_other, anywhere)[0], sizes[1])]
    drawn = np.c_[anywhere[: len(others)], others[: len(anywhere), 2]]
    repeated, by_chance = (n_correspondences(overlap_errors(regions, those)) for those in (others, drawn))
    return 100 * repeated / n_regions, 100 * score, 100 * by_chance / n_regions


def draw(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(curves), 6), layout="constrained")
    axes = figure.subplots(2, len(curves), sharex=True, sharey=True, squeeze=False)
    for column, (sequence, lines) in enumerate(curves.items()):
        for row, label in enumerate(("repeatability, %", "matching score, %")):
            for name, values in lines.items():
                axes[row, column].plot(range(2, 7), values[:, row], marker="o", markersize=3, label=name)
            axes[row, column].grid(alpha=0.3)
            axes[row, 0].set_ylabel(label)
        axes[0, column].set_title(f"{sequence}: {SEQUENCES[sequence]}")
        axes[1, column].set_xlabel("image")
    axes[0, -1].legend()
    axes[0, 0].set(ylim=(0, 100), xticks=range(2, 7))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds oxford_affine; default CVRETRIEVAL_DATA")
    parser.add_argument("--features", type=int, default=1000, help="of each image")
    parser.add_argument("--out", type=Path, default=Path("repeatability.png"), help="picture of the curves")
    arguments = parser.parse_args()
    folder = data_folder(arguments.data) / "oxford_affine"
    reader, curves, start = ImageReader(), {}, time.perf_counter()
    methods = extractors(arguments.features)
    print(f"{'':17}{'repeatability, images 2-6':>33}       mean   chance{'matching score, images 2-6':>34}      mean")
    for sequence in SEQUENCES:
        files = [folder / sequence / f"img{i}.png" for i in range(1, 7)]
        images = [reader.read(file, color="grey").pixels for file in files]
        sizes = [image.shape[::-1] for image in images]
        curves[sequence] = {}
        for name, extractor in methods.items():
            X = extractor.transform(images)
            metric = getattr(extractor, "metric", "euclidean")
            values = np.array([
                measure(X[0], X[i], np.loadtxt(folder / sequence / f"H1to{i + 1}p"), [sizes[0], sizes[i]], metric)
                for i in range(1, 6)
            ])  # fmt: skip
            curves[sequence][name] = values
            shown = ["".join(f"{value:7.1f}" for value in column) for column in values.T]
            mean = values.mean(axis=0)
            print(
                f"{sequence:9} {name:7}{shown[0]}   {mean[0]:6.1f}   {mean[2]:6.1f}{shown[1]}   {mean[1]:6.1f}",
                flush=True,
            )
    print(f"{time.perf_counter() - start:.0f} s; the {arguments.features} strongest features of each image")
    draw(curves, arguments.out)


if __name__ == "__main__":
    main()
