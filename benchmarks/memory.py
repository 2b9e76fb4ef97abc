"""Peak resident memory while 10,000 images are indexed by the command line.

The images are those of a folder, repeated under other names by hard links (or copies) until there are enough.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import data_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    source = sorted((data_folder(arguments.data) / "imagenet1k_sample" / "images").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        for i in range(arguments.images):
            original = source[i % len(source)]
            target = photos / f"{i:06d}{original.suffix}"
            try:
                os.link(original, target)
            except OSError:
                shutil.copy(original, target)
        program = str(Path(sys.executable).with_name("cvretrieval"))
        start = time.perf_counter()
        subprocess.run([program, "index", str(photos), "--out", str(Path(folder, "photos.cvr"))], check=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{arguments.images} images in {seconds:.0f} s: peak resident memory {peak / 1e9:.2f} GB (target < 1.5)")


if __name__ == "__main__":
    main()
