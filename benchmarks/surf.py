"""SURF: ours against OpenCV's at the same number of keypoints, one thread on both sides.

Wheels of OpenCV since 3.4.3 refuse to create SURF. The peer is therefore, the first that there is:

* ``--peer-python PYTHON``: an interpreter with opencv-contrib-python 3.4.2.17 (the last wheel with SURF; Python 3.7 or
  older). It runs in a process of its own, and each repeat times one call of either side in turn.
* the SURF of the installed cv2, if it was built with OPENCV_ENABLE_NONFREE.
* cv2.SIFT of the installed cv2 as a yardstick: OpenCV 3.4.2's SURF took 145 ms for a 0.2 Mpx image with 960 keypoints
  where cv2.SIFT took 92 ms on the same machine, so the ratio to SURF is estimated as 145 / 92 times the ratio to SIFT.
  The line says so.

Images are the first of graf, boat and wall (oxford_affine), reduced to 0.2 Mpx. The threshold is put between the
responses of the 960 strongest keypoints and the next, so that SURF finds the same keypoints on both sides.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import data_folder, paired, report

from cvretrieval import SURF, ImageReader
from cvretrieval._parallel import single_threaded

N_PIXELS = 200_000
SURF_PER_SIFT = 145 / 92

PEER = """
import sys, cv2, numpy
cv2.setNumThreads(1)
image = numpy.load(sys.argv[1])
surf = cv2.xfeatures2d.SURF_create(float(sys.argv[2]), 4, 3, sys.argv[3] == "1", sys.argv[4] == "1")
for line in sys.stdin:
    print(len(surf.detectAndCompute(image, None)[0]), flush=True)
"""


@contextmanager
def other_process(python: str, pixels: Any, options: list[Any]) -> Iterator[Callable[[], int]]:
    """Give a call that runs OpenCV's SURF in another interpreter; the pipe adds well below a millisecond."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, pixels)
        arguments = [python, "-c", PEER, str(path), *(str(option) for option in options)]
        with subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:

            def run() -> int:
                process.stdin.write("\n")
                process.stdin.flush()
                return int(process.stdout.readline())

            yield run


def installed_surf(options: list[Any]) -> Any:
    """Return the SURF of the installed cv2, or None."""
    try:
        return cv2.xfeatures2d.SURF_create(options[0], 4, 3, bool(options[1]), bool(options[2]))
    except (AttributeError, cv2.error):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--peer-python", help="a Python with opencv-contrib-python 3.4.2.17")
    parser.add_argument("--keypoints", type=int, default=960)
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    folder = data_folder(arguments.data) / "oxford_affine"
    with single_threaded():
        for name in ("graf", "boat", "wall"):
            whole = cv2.imread(str(folder / name / "img1.png"), cv2.IMREAD_GRAYSCALE)
            factor = (N_PIXELS / whole.size) ** 0.5
            pixels = cv2.resize(whole, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            for extended, upright in ((False, False), (True, False), (False, True)):
                found = SURF(hessian_threshold=0, max_features=None).detect_and_describe(pixels).responses
                threshold = float(found[arguments.keypoints - 1 : arguments.keypoints + 1].mean())
                surf = SURF(hessian_threshold=threshold, max_features=None, extended=extended, upright=upright,
                            reader=ImageReader(max_size=None))  # fmt: skip
                options = [threshold, int(extended), int(upright)]
                label = f"{name}, {surf.n_dims}-d{', upright' if upright else ''}"
                with ExitStack() as stack:
                    compare(label, surf, pixels, options, arguments, stack)


def compare(label: str, surf: SURF, pixels: Any, options: list[Any], arguments: Any, stack: ExitStack) -> None:
    """Print one comparison."""
    n_ours = len(surf.detect_and_describe(pixels).keypoints)
    peer_surf = installed_surf(options)
    factor = 1.0
    if arguments.peer_python:
        peer, peer_name = (
            stack.enter_context(other_process(arguments.peer_python, pixels, options)),
            "OpenCV 3.4.2's SURF",
        )
        n_peer = peer()
    elif peer_surf is not None:
        peer, peer_name = (lambda: peer_surf.detectAndCompute(pixels, None)), f"cv2 {cv2.__version__}'s SURF"
        n_peer = len(peer()[0])
    else:
        sift = cv2.SIFT_create(arguments.keypoints, contrastThreshold=0.01)  # type: ignore[attr-defined]
        peer, peer_name = (lambda: sift.detectAndCompute(pixels, None)), f"cv2 {cv2.__version__}'s SIFT"
        n_peer = len(peer()[0])
        factor = SURF_PER_SIFT
    times = paired(lambda: surf.detect_and_describe(pixels), peer, arguments.repeats)
    label = f"{label}, {pixels.shape[1]} x {pixels.shape[0]}, {n_ours} and {n_peer} keypoints"
    ratio = report(label, *times, peer_name, None if factor != 1 else 1.5)
    if factor != 1:
        print(
            f"  estimated against OpenCV 3.4.2's SURF: {factor:.2f} x {ratio:.2f} = {factor * ratio:.2f} (target ≥ 1.5)"
        )


if __name__ == "__main__":
    main()
