"""Dense SIFT, one thread: against ``cv2.SIFT.compute`` on a grid of keypoints, and against VLFeat's ``vl_dsift``.

All sides describe the same patches of the same grey images (15-Scene's, or synthetic ones without data). Ours is the
public call, `DenseSIFT.transform` on arrays, with everything that it does. OpenCV gets its keypoints ready made. VLFeat
is Debian's ``libvlfeat1`` through ctypes; it gets float images ready made, and since it does not smooth, ours does not
either there. Its Gaussian window is its default, the flat window its fast approximation. Each comparison first checks
that both sides say the same.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
from pathlib import Path

import cv2
import numpy as np
from common import data_folder, paired, report

from cvretrieval import DenseSIFT, LocalFeatures
from cvretrieval._parallel import single_threaded

N_BINS = 4


def scenes(folder: Path, n_images: int) -> list[np.ndarray]:
    """Every so-manieth picture of 15-Scene."""
    paths = sorted((folder / "scene15").rglob("*.jpg"))
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths[:: max(len(paths) // n_images, 1)][:n_images]]


def synthetic(n_images: int) -> list[np.ndarray]:
    """Blurred noise of the size of a 15-Scene picture."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.uniform(size=(250, 300)), (0, 0), 3) for _ in range(n_images)]
    return [((a - a.min()) / np.ptp(a) * 255).astype(np.uint8) for a in noise]


class OpenCV:
    """``cv2.SIFT.compute`` at the keypoints of ours."""

    def __init__(self, images: list[np.ndarray], X: LocalFeatures) -> None:
        self.images = images
        self.sift = cv2.SIFT_create()
        self.points = [
            [cv2.KeyPoint(float(x), float(y), float(2 * scale), 0.0, 1.0, 0) for x, y, scale, _ in image.keypoints]
            for image in X
        ]

    def __call__(self) -> np.ndarray:
        rows = [self.sift.compute(image, p)[1] for image, p in zip(self.images, self.points, strict=True)]
        # Orientations from the x towards the y axis, as ours.
        return np.concatenate(rows).reshape(-1, 16, 8)[:, :, -np.arange(8)].reshape(-1, 128)


class VLFeat:
    """VLFeat's C library; raises OSError where it is not installed."""

    # Fields of the C structure, as numbers of 32-bit integers from its start.
    BOUNDS, FLAT, WINDOW_SIZE, N_FRAMES, DESCRIPTORS = 4, 13, 14, 16, 20

    def __init__(self, images: list[np.ndarray], size: int, step: int, window: str) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("vl") or "libvl.so.1")
        library.vl_set_num_threads(1)
        library.vl_dsift_new_basic.argtypes = [ctypes.c_int] * 4
        library.vl_dsift_new_basic.restype = ctypes.c_void_p
        library.vl_dsift_process.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library._vl_dsift_update_buffers.argtypes = [ctypes.c_void_p]
        self.library = library
        self.images = [image.astype(np.float32) / 255 for image in images]
        # One filter per size of image, made beforehand.
        self.filters = {image.shape: self._filter(image.shape, size, step, window) for image in images}

    def _filter(self, shape: tuple[int, int], size: int, step: int, window: str) -> int:
        height, width = shape
        address = self.library.vl_dsift_new_basic(width, height, step, size)
        fields = (ctypes.c_int * 20).from_address(address)
        if ctypes.c_double.from_address(address + 4 * self.WINDOW_SIZE).value != 2:
            raise SystemExit("This build of VLFeat lays its structure out differently.")
        extent = (N_BINS - 1) * size
        fields[self.BOUNDS : self.BOUNDS + 2] = [(side - 1 - extent) % step // 2 for side in (width, height)]
        fields[self.FLAT] = window == "flat"
        self.library._vl_dsift_update_buffers(address)
        return address

    def __call__(self) -> np.ndarray:
        rows = []
        for image in self.images:
            address = self.filters[image.shape]
            self.library.vl_dsift_process(address, image.ctypes.data)
            n = ctypes.c_int.from_address(address + 4 * self.N_FRAMES).value
            data = ctypes.c_void_p.from_address(address + 4 * self.DESCRIPTORS).value
            found = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
            rows.append(np.ctypeslib.as_array(found, (n, N_BINS * N_BINS * 8)).copy())
        return np.concatenate(rows)


def agreement(name: str, ours: np.ndarray, peer: np.ndarray, at_least: float) -> None:
    """Print the median cosine; stop if the sides describe different things."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(peer, axis=1)
    textured = norms > 0
    cosine = np.median((ours * peer).sum(axis=1)[textured] / norms[textured])
    print(f"  median cosine of ours with {name}: {cosine:.6f}")
    if cosine < at_least:
        raise SystemExit(f"The descriptors of {name} are not ours: the timings would compare different things.")


def compare(images: list[np.ndarray], kind: str, patch_size: int, step: int, repeats: int) -> None:
    """Time both peers at one size of patch."""
    extractor = DenseSIFT(step=step, patch_size=patch_size)
    X = extractor.transform(images)
    print(f"{len(images)} images ({kind}), {X.n_descriptors} patches of {patch_size} px every {step} px, one thread")
    opencv = OpenCV(images, X)
    # OpenCV blurs by 1.6 pixels whatever the size of the keypoint.
    blurred = DenseSIFT(step=step, patch_size=patch_size, sigma=1.6, contrast_threshold=0)
    agreement("OpenCV", blurred.transform(images).descriptors, opencv(), 0.9)
    report(f"DenseSIFT({patch_size})", *paired(lambda: extractor.transform(images), opencv, repeats),
           "cv2.SIFT.compute", target=3)  # fmt: skip
    for window in ("gaussian", "flat"):
        unsmoothed = DenseSIFT(step=step, patch_size=patch_size, sigma=0, window=window, contrast_threshold=0)
        try:
            vlfeat = VLFeat(images, patch_size // N_BINS, step, window)
        except OSError:
            print("VLFeat: skipped, libvl.so.1 is not installed (Debian: libvlfeat1)")
            return
        agreement(f"VLFeat, {window} window", unsmoothed.transform(images).descriptors, vlfeat(), 0.99999)
        times = paired(lambda estimator=unsmoothed: estimator.transform(images), vlfeat, repeats)
        report(f"DenseSIFT({patch_size}, {window} window)", *times, "vl_dsift", target=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA; synthetic without)")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.data or os.environ.get("CVRETRIEVAL_DATA"):
        images, kind = scenes(data_folder(arguments.data), arguments.images), "15-Scene"
    else:
        images, kind = synthetic(arguments.images), "synthetic"
    for patch_size in (16, 32):
        with single_threaded():
            compare(images, kind, patch_size, arguments.step, arguments.repeats)


if __name__ == "__main__":
    main()
