"""Transforms from matches: ours by model and hypotheses against OpenCV's USAC_MAGSAC and pydegensac, geometry alone.

Three tables, one thread, all methods on the same matches:

* oxford_affine (Mikolajczyk et al.): image 1 of each sequence with each other. A pair is solved if the corners of
  image 1 under the homography found are, on average, no farther from where the ground truth puts them than 2 % of the
  longer side; the ground truth itself is off by some pixels.
* Made-up matches with 50 to 95 % outliers (tests/data): inliers found, outliers taken for inliers.
* Scenes with depth and planes in two views: the same, and the median distance of noiseless points from their epipolar
  lines.

Times are the least of three runs. Peers run 20,000 iterations at most, confidence 0.9999, thresholds of 3 pixels for
homographies and 2 for fundamental matrices.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import data_folder

from cvretrieval import SIFT
from cvretrieval._parallel import single_threaded
from cvretrieval.verification import match_descriptors
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.epipolar import estimate_fundamental
from cvretrieval.verification.estimation import estimate_transform
from cvretrieval.verification.hypotheses import HYPOTHESES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.reference import epipolar  # noqa: E402

try:
    import pydegensac
except ImportError:
    pydegensac = None

BOUND = 0.02
Found = tuple[Any, Any]  # matrix or None, mask


def agreement(size_a: Any, size_b: Any) -> Agreement:
    """The tolerances of `SpatialVerifier` by default."""
    return Agreement(0.008 * max(size_a), 0.008 * max(size_b), float(np.log(2)), float(np.cos(np.deg2rad(30))))


def timed(method: Callable[..., Found], *arguments: Any) -> tuple[Found, float]:
    """The result of a method, and the least of three times in milliseconds."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = method(*arguments)
        seconds.append(time.perf_counter() - start)
    return found, min(seconds) * 1e3


def ours(a: Any, b: Any, sizes: Any, model: str, hypotheses: str) -> Found:
    found = estimate_transform(Correspondences(a, b), agreement(*sizes), model, 5, hypotheses)
    return (None, np.zeros(len(a), dtype=bool)) if found is None else (found[0], found[1] > 0)


def our_fundamental(a: Any, b: Any, sizes: Any) -> Found:
    found = estimate_fundamental(Correspondences(a, b), agreement(*sizes), 5, "single_correspondence")
    if found is None:
        return None, np.zeros(len(a), dtype=bool)
    return (found[0] if found[2] == "fundamental" else None), found[1] > 0


def opencv(a: Any, b: Any, *, fundamental: bool = False) -> Found:
    p, q = np.ascontiguousarray(a[:, :2]), np.ascontiguousarray(b[:, :2])
    if fundamental:
        matrix, mask = cv2.findFundamentalMat(p, q, cv2.USAC_MAGSAC, 2.0, 0.9999, 20_000)
    else:
        matrix, mask = cv2.findHomography(p, q, cv2.USAC_MAGSAC, 3.0, maxIters=20_000, confidence=0.9999)
    if matrix is None or matrix.shape != (3, 3):
        return None, np.zeros(len(a), dtype=bool)
    return matrix, mask.ravel() > 0


def degensac(a: Any, b: Any, *, fundamental: bool = False) -> Found:
    p, q = a[:, :2].astype(np.float64), b[:, :2].astype(np.float64)
    if fundamental:
        matrix, mask = pydegensac.findFundamentalMatrix(p, q, 2.0, 0.9999, 20_000)
    else:
        matrix, mask = pydegensac.findHomography(p, q, 3.0, 0.9999, 20_000)
    return matrix, np.asarray(mask, dtype=bool)


def corner_error(found: Any, truth: Any, size: Any) -> float:
    """Mean distance of the corners under both homographies, in units of the longer side."""
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], dtype=np.float64)
    one, other = corners @ found.T, corners @ truth.T
    return float(np.linalg.norm(one[:, :2] / one[:, 2:] - other[:, :2] / other[:, 2:], axis=1).mean() / max(size))


def oxford(folder: Path, n_features: int) -> None:
    methods: dict[str, Callable[..., Found]] = {
        f"ours, {name}": lambda a, b, sizes, name=name: ours(a, b, sizes, "homography", name) for name in HYPOTHESES
    }
    methods["MAGSAC"] = lambda a, b, sizes: opencv(a, b)
    if pydegensac is not None:
        methods["degensac"] = lambda a, b, sizes: degensac(a, b)
    print(f"\noxford_affine, {n_features or 'all'} features, homographies: corner error in % of the longer side; ms")
    print("pair      matches  " + "  ".join(f"{name:>27}" for name in methods))
    errors: dict[str, list[float]] = {name: [] for name in methods}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for sequence in ("graf", "wall", "boat", "ubc"):
        paths = [next((folder / sequence).glob(f"img{n}.*")) for n in range(1, 7)]
        X = SIFT(root=True, max_features=n_features or None).transform(paths)
        for n in range(2, 7):
            truth = np.loadtxt(next((folder / sequence).glob(f"H1to{n}p*")))
            matches = match_descriptors(X[0].descriptors, X[n - 1].descriptors)
            a, b = X[0].keypoints[matches[:, 0]], X[n - 1].keypoints[matches[:, 1]]
            sizes = X[0].image_size, X[n - 1].image_size
            cells = []
            for name, method in methods.items():
                (found, _), ms = timed(method, a, b, sizes)
                error = np.inf if found is None else corner_error(found, truth, sizes[0])
                errors[name].append(error)
                times[name].append(ms)
                cells.append(f"{100 * error:9.2f} {'✓' if error <= BOUND else '✗'} {ms:12.2f} ms")
            print(f"{sequence} 1-{n}  {len(matches):7d}  " + "  ".join(f"{cell:>27}" for cell in cells), flush=True)
    for name in methods:
        solved = np.array(errors[name]) <= BOUND
        error = 100 * np.median(np.array(errors[name])[solved])
        missed = int((~solved & (np.array(errors["MAGSAC"]) <= BOUND)).sum())
        print(
            f"{name}: solved {solved.sum()} of {len(solved)}, {missed} of MAGSAC's missed, median "
            f"{np.median(times[name]):.2f} ms, median error of the solved {error:.3f} %"
        )


def made_up() -> None:
    reference = np.load(ROOT / "tests" / "data" / "spatial_verification.npz")
    print("\nmade-up matches: true inliers found / outliers taken for some; ms")
    for kind in ("similarity", "affine", "homography"):
        for outliers in (50, 80, 90, 95):
            key = f"{kind}_{outliers}/"
            matches, truth = reference[key + "matches"], reference[key + "is_inlier"]
            a, b, sizes = matches[:, :4], matches[:, 4:], ((800, 600), (800, 600))
            cells = []
            for name in HYPOTHESES:
                (_, mask), ms = timed(ours, a, b, sizes, kind, name)
                cells.append(f"{name} {mask[truth].sum()}/{mask[~truth].sum()} {ms:.2f} ms")
            (_, mask), ms = timed(opencv, a, b)
            cells.append(f"MAGSAC homography {mask[truth].sum()}/{mask[~truth].sum()} {ms:.2f} ms")
            print(f"{kind} {outliers} % of {len(a)}, {truth.sum()} inliers: " + " · ".join(cells))


def two_views() -> None:
    print("\nscenes in two views: true inliers found / outliers taken for some, distance in pixels; ms; means of 5")
    for kind in ("volume", "dominant plane", "plane"):
        for n, share in ((300, 0.5), (200, 0.8), (100, 0.9), (60, 0.9)):
            methods: dict[str, Callable[..., Found]] = {
                "ours": lambda a, b: our_fundamental(a, b, ((800, 600), (800, 600))),
                "MAGSAC": lambda a, b: opencv(a, b, fundamental=True),
            }
            if pydegensac is not None:
                methods["degensac"] = lambda a, b: degensac(a, b, fundamental=True)
            rows: dict[str, list[list[float]]] = {name: [] for name in methods}
            for seed in range(5):
                a, b, _ = epipolar.two_views(np.random.default_rng(seed), n, round(n * share / (1 - share)), kind)
                p, q, _ = epipolar.two_views(np.random.default_rng(99), 200, 0, "volume", noise=0.0)
                for name, method in methods.items():
                    (matrix, mask), ms = timed(method, a, b)
                    error = np.nan
                    if matrix is not None:
                        error = np.median(
                            [max(epipolar.line_distances(matrix, x, y)) for x, y in zip(p, q, strict=True)]
                        )
                    rows[name].append([mask[:n].sum(), mask[n:].sum(), error, ms])
            cells = []
            for name, values in rows.items():
                found, wrong, error, ms = np.array(values).T
                planes = int(np.isnan(error).sum())
                shown = f"{np.nanmean(error):.2f} px" if planes < len(error) else "–"
                cells.append(
                    f"{name} {found.mean():.0f}/{wrong.mean():.1f} {shown}{f' ({planes} planes)' * bool(planes)} "
                    f"{ms.mean():.1f} ms"
                )
            print(f"{kind}, {n} of {round(n / (1 - share))}: " + " · ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--features", type=int, nargs="*", default=[1000, 2000], help="features an image; 0 for all")
    arguments = parser.parse_args()
    cv2.setRNGSeed(0)
    print(f"OpenCV {cv2.__version__}, {'pydegensac' if pydegensac else 'no pydegensac installed: skipped'}")
    with single_threaded():
        for n_features in arguments.features:
            oxford(data_folder(arguments.data) / "oxford_affine", n_features)
        made_up()
        two_views()


if __name__ == "__main__":
    main()
