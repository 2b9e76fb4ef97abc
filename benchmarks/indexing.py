"""Indexing throughput: an index that has learned its encoder takes new images, against nothing but cv2.SIFT.

The peer reads each image in grey, runs ``detectAndCompute`` with the same number of features and throws the result
away, over the same number of threads (OpenCV releases the GIL; its own threads are off on both sides). Ours reads under
the image policy, extracts, encodes, quantises and commits to disk.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from common import data_folder

from cvretrieval import SIFT, VLAD, ImageReader, ImageRetriever
from cvretrieval._parallel import effective_n_jobs, single_threaded


def bare(paths: list[Path], n_features: int, n_threads: int) -> None:
    """OpenCV alone."""

    def work(path: Path) -> int:
        detector = cv2.SIFT_create(nfeatures=n_features, enable_precise_upscale=True)
        return len(detector.detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)[0])

    with single_threaded(), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    smvs = data_folder(arguments.data) / "smvs_dvd"
    paths = sorted([*(smvs / "Canon").glob("*.jpg"), *(smvs / "E63").glob("*.jpg")])[: arguments.images]
    extractor = SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640))
    n_threads = effective_n_jobs(arguments.jobs)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        learned = Path(folder, "learned.cvr")
        retriever = ImageRetriever(
            extractor=extractor, encoder=VLAD(64, random_state=0), location=learned, n_jobs=arguments.jobs
        )
        retriever.fit(sorted((smvs / "Reference").glob("*.jpg"))).close()
        for repeat in range(arguments.repeats + 1):
            copy = Path(folder, f"{repeat}.cvr")
            shutil.copytree(learned, copy)
            start = time.perf_counter()
            with ImageRetriever.load(copy, n_jobs=arguments.jobs) as filled:
                filled.add(paths)
            ours = time.perf_counter() - start
            start = time.perf_counter()
            bare(paths, arguments.features, n_threads)
            peer = time.perf_counter() - start
            shutil.rmtree(copy)
            if repeat:  # the first one warms up
                ratios.append(peer / ours)
                print(f"ours {len(paths) / ours:.1f} images/s, cv2.SIFT alone {len(paths) / peer:.1f} images/s")
    ratio = statistics.median(ratios)
    print(f"{n_threads} threads, {len(paths)} images: share of bare cv2.SIFT's throughput {ratio:.3f} (target ≥ 0.90)")


if __name__ == "__main__":
    main()
