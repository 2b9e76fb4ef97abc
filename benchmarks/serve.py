"""The local page under load: clients that search at once, junk meanwhile, and the memory of the server.

An index of ImageNet photos is served by the command in a process of its own. ``--clients`` threads send photos for
``--seconds``, each the next as soon as it has its answer; two more send junk all the while: random bytes, halves of
photos, images of a billion pixels, forms that break off. Every answer to a photo must be 200 and hold results, every
answer to junk an error that says so; the resident memory of the server is read once a second.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from common import data_folder
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageReader, ImageRetriever, SpatialVerifier


def junk(photos: list[Path], rng: random.Random) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200_000))
    if kind == 1:
        data = rng.choice(photos).read_bytes()
        return data[: len(data) // 100]
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    return file.getvalue()


def rss(pid: int) -> float:
    """Return resident megabytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--no-verify", action="store_true", help="search by vectors alone")
    arguments = parser.parse_args()
    photos = sorted((data_folder(arguments.data) / "imagenet1k_sample").rglob("*.[jJ]*"))[: arguments.images]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photos.cvr")
        ImageRetriever(
            extractor=SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640)),
            encoder=VLAD(64, residual_norm=True, local_coordinates=True, power=0.2, random_state=0),
            verifier=SpatialVerifier(), location=path, n_jobs=-1, random_state=0,
        ).fit(photos).close()  # fmt: skip
        command = [sys.executable, "-m", "cvretrieval", "serve", str(path), "--port", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        address = server.stderr.readline().split(" at ")[1].split()[0]
        try:
            load(arguments, photos, address, server.pid)
        finally:
            server.terminate()
            rest = server.stderr.read()
            server.wait()
    print(f"written to its log: {rest.strip() or 'nothing'}")


def load(arguments: argparse.Namespace, photos: list[Path], address: str, pid: int) -> None:
    seconds: list[float] = []
    wrong: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    memory: list[float] = []
    end = time.monotonic() + arguments.seconds
    fields = {"verify": "false" if arguments.no_verify else "true", "k": "20"}

    def ask(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=address, timeout=120) as client:
            while time.monotonic() < end:
                photo = rng.choice(photos)
                start = time.monotonic()
                answer = client.post("/api/search", files={"photo": (photo.name, photo.read_bytes())}, data=fields)
                seconds.append(time.monotonic() - start)
                if answer.status_code != 200:
                    wrong[f"{answer.status_code} {answer.text[:100]}"] += 1
                elif not answer.json()["results"][0]["id"].endswith(photo.name):
                    wrong["another photo first"] += 1

    def disturb(number: int) -> None:
        rng = random.Random(-number)
        with httpx.Client(base_url=address, timeout=120) as client:
            while time.monotonic() < end:
                answer = client.post("/api/search", files={"photo": ("junk.jpg", junk(photos, rng))})
                refused[answer.status_code] += 1
                time.sleep(0.1)

    def watch() -> None:
        while time.monotonic() < end:
            memory.append(rss(pid))
            time.sleep(1)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(arguments.clients)]
    threads += [threading.Thread(target=disturb, args=(i,)) for i in range(2)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(seconds)
    middle = memory[len(memory) // 2]
    print(
        f"{arguments.clients} clients, {arguments.images} images, {arguments.seconds:.0f} s: {len(seconds)} searches, "
        f"{len(seconds) / arguments.seconds:.1f} a second; median {statistics.median(seconds):.2f} s, p95 "
        f"{ordered[int(0.95 * len(ordered))]:.2f} s; errors: {dict(wrong) or 'none'}"
    )
    print(f"junk meanwhile: {dict(refused)}")
    print(f"resident memory: {memory[0]:.0f} MB at first, {middle:.0f} in the middle, {memory[-1]:.0f} at the end, "
          f"{max(memory):.0f} at most")  # fmt: skip


if __name__ == "__main__":
    main()
