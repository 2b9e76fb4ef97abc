"""What more workers bring: photos described and encoded by one and by two processes, and what they cost in between.

Rows, each a function, are chosen by ``--rows``:

``workers``
    Photos added to an index that has learned its encoder, by one and by two workers of a local Dask cluster, one thread
    each, in turn. Workers are started, and have imported everything, before the clock runs.
``limit``
    What the machine allows: two processes that find features and talk to nobody, half of the photos each, against one
    with the same half.
``processes``
    Two Dask workers against two processes of joblib that are given the same tasks, twelve photos each.
``codebooks``
    Five passes of k-means and of a mixture over the descriptors of an index, by one and by two workers of a local Dask
    cluster, and by one thread, sampling included.
``traffic``
    Bytes between scheduler, workers and client for each photo, counted by a relay that all of them talk through,
    heartbeats and results included.
``resume``
    The command is killed (-9) when half of the photos are committed and run again: how many photos were read more than
    once, counted by the workers' own opening of files.
``milvus``
    Vectors in Milvus Lite beside the embedded index and faiss, as by ``milvus_index.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import milvus_index
from common import data_folder
from dask.distributed import Client, LocalCluster
from sklearn.base import clone

from cvretrieval import SIFT, VLAD, GMMCodebook, ImageReader, ImageRetriever, KMeansCodebook
from cvretrieval.retrieval.description import description_digest
from cvretrieval.retrieval.remote_tasks import StoreAddress, extract_images
from cvretrieval.retrieval.store import Store

IMAGES_PER_TASK = 12


class Bench:
    """Photos, and an index that has learned from some of them."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        photos = sorted((data_folder(arguments.data) / "imagenet1k_sample").rglob("*.[jJ]*"))
        self.photos = photos[: arguments.images]
        self.folder = folder
        self.repeats = arguments.repeats
        extractor = SIFT(root=True, max_features=arguments.features, reader=ImageReader(max_size=640))
        encoder = VLAD(64, residual_norm=True, local_coordinates=True, power=0.2, random_state=0)
        self.learned = folder / "learned.cvr"
        learner = ImageRetriever(extractor=extractor, encoder=encoder, location=self.learned, n_jobs=-1)
        learner.fit(photos[-64:]).close()
        self._n_copies = 0
        print(f"{len(self.photos)} photos, {arguments.features} features at most", flush=True)

    def copy(self) -> Path:
        self._n_copies += 1
        return Path(shutil.copytree(self.learned, self.folder / f"{self._n_copies}.cvr"))

    def add(self, client: Client, photos: list[Path] | None = None) -> float:
        """Return the seconds that a cluster takes."""
        path = self.copy()
        with ImageRetriever.load(path) as retriever, joblib.parallel_config("dask", client=client):
            start = time.perf_counter()
            retriever.add(self.photos if photos is None else photos)
            seconds = time.perf_counter() - start
        shutil.rmtree(path)
        return seconds

    def add_by_joblib(self) -> float:
        path = self.copy()
        with Store.open(path, mode="w") as store:
            address = StoreAddress(str(store.path), description_digest(store.path), store.model)
            names = [str(photo) for photo in self.photos]
            parts = [names[i : i + IMAGES_PER_TASK] for i in range(0, len(names), IMAGES_PER_TASK)]
            start = time.perf_counter()
            joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(extract_images)(address, part) for part in parts)
            seconds = time.perf_counter() - start
        shutil.rmtree(path)
        return seconds


@contextlib.contextmanager
def cluster(n_workers: int) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        yield client


def workers(bench: Bench) -> None:
    times: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(bench.repeats):
        for n_workers, seconds in times.items():
            with cluster(n_workers) as client:
                bench.add(client, bench.photos[:16])
                seconds.append(bench.add(client))
        print(f"  {repeat + 1}: one worker {times[1][-1]:.1f} s, two {times[2][-1]:.1f} s", flush=True)
    ratio = statistics.median(one / two for one, two in zip(times[1], times[2], strict=True))
    n = len(bench.photos)
    print(f"two workers against one: {ratio:.2f} ({n / statistics.median(times[2]):.1f} against "
          f"{n / statistics.median(times[1]):.1f} images/s)  (target ≥ 1.85)")  # fmt: skip


def _find_features(photos: list[Path]) -> float:
    start = time.perf_counter()
    SIFT(root=True, reader=ImageReader(max_size=640), n_jobs=1).transform(photos)
    return time.perf_counter() - start


def limit(bench: Bench) -> None:
    half = len(bench.photos) // 2
    ratios = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_find_features, [bench.photos[:16]] * 4))
        for _ in range(bench.repeats):
            alone = pool.submit(_find_features, bench.photos[:half]).result()
            together = max(pool.map(_find_features, [bench.photos[:half], bench.photos[half : 2 * half]]))
            ratios.append(2 * alone / together)
            print(f"  {half} photos alone {alone:.1f} s, twice at once {together:.1f} s", flush=True)
    print(f"two processes that share nothing, against one: {statistics.median(ratios):.2f}")


def codebooks(bench: Bench) -> None:
    path = bench.copy()
    learners: dict[str, Any] = {
        "k-means, 1,024 words": KMeansCodebook(1024, algorithm="lloyd", max_samples=None, max_iter=5, tol=0),
        "mixture of 64": GMMCodebook(64, max_samples=None, max_iter=5, tol=0),
    }
    with ImageRetriever.load(path, n_jobs=-1) as retriever:
        retriever.add(bench.photos)
        features = retriever.iter_features()
        n_descriptors = sum(chunk.n_descriptors for chunk in features)
        for name, learner in learners.items():
            times: dict[str, list[float]] = {"one thread": [], "one worker": [], "two workers": []}
            for _ in range(bench.repeats):
                for who, seconds in times.items():
                    with contextlib.ExitStack() as stack:
                        if who != "one thread":
                            client = stack.enter_context(cluster(1 if who == "one worker" else 2))
                            stack.enter_context(joblib.parallel_config("dask", client=client))
                            GMMCodebook(2, max_samples=1000, max_iter=1).fit(features)  # everything is imported
                        start = time.perf_counter()
                        clone(learner).set_params(random_state=0).fit(features)
                        seconds.append(time.perf_counter() - start)
            found = {who: statistics.median(seconds) for who, seconds in times.items()}
            print(f"{name}, {n_descriptors:,} descriptors, five passes: "
                  + ", ".join(f"{who} {seconds:.1f} s" for who, seconds in found.items())
                  + f"; two against one {found['one worker'] / found['two workers']:.2f}", flush=True)  # fmt: skip
    shutil.rmtree(path)


def processes(bench: Bench) -> None:
    shares = []
    with cluster(2) as client:
        bench.add(client, bench.photos[:16])
        bench.add_by_joblib()
        for _ in range(bench.repeats):
            ours, peer = bench.add(client), bench.add_by_joblib()
            shares.append(peer / ours)
            print(f"  Dask, committed: {ours:.1f} s; joblib's processes, not committed: {peer:.1f} s", flush=True)
    print(f"Dask's share of the throughput of joblib's processes: {statistics.median(shares):.3f}  (target ≥ 0.93)")


class Relay:
    """Passes bytes on to a port of this machine, and counts them."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.n_bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.create_connection(self._target)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.n_bytes += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def processes_of_a_cluster(environment: dict[str, str], relayed: bool) -> Iterator[tuple[str, Relay | None]]:
    """Start a scheduler and two workers as commands; yield the address to talk to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = [sys.executable, "-m"]
    scheduler = [
        *module,
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-dashboard",
    ]
    started = [subprocess.Popen(scheduler, stderr=subprocess.DEVNULL, env=environment)]
    time.sleep(3)
    relay = Relay(port) if relayed else None
    address = f"tcp://127.0.0.1:{port if relay is None else relay.port}"
    worker = [*module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    try:
        started += [subprocess.Popen(worker, stderr=subprocess.DEVNULL, env=environment) for _ in range(2)]
        yield address, relay
    finally:
        for process in started:
            process.kill()
            process.wait()


def traffic(bench: Bench) -> None:
    with processes_of_a_cluster(dict(os.environ), relayed=True) as (address, relay), Client(address) as client:
        client.wait_for_workers(2)
        bench.add(client, bench.photos[:16])
        assert relay is not None
        before = relay.n_bytes
        seconds = bench.add(client)
        n_bytes = relay.n_bytes - before
    print(
        f"through the scheduler: {n_bytes / len(bench.photos):.0f} bytes an image, in {seconds:.0f} s  (target ≤ 2,048)"
    )


def resume(bench: Bench) -> None:
    spy, log = bench.folder / "spy", bench.folder / "opened.txt"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "def spy(event, arguments):\n"
        "    if event == 'open' and 'imagenet1k_sample' in str(arguments[0]):\n"
        "        os.write(log, (str(arguments[0]) + '\\n').encode())\n"
        "sys.addaudithook(spy)\n"
    )
    path = bench.copy()
    with processes_of_a_cluster({**os.environ, "PYTHONPATH": str(spy)}, relayed=False) as (address, _):
        with Client(address) as client:
            client.wait_for_workers(2)
        command = [sys.executable, "-m", "cvretrieval", "add", str(path), *map(str, bench.photos), "--cluster", address]
        first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while _n_images(path) < 64 + len(bench.photos) // 2:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(2)
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert _n_images(path) == 64 + len(bench.photos)
    opened = log.read_text().splitlines()
    twice = len(opened) - len(set(opened))
    share = 100 * twice / len(bench.photos)
    print(f"killed at half, run again: {twice} of {len(bench.photos)} photos read twice, {share:.1f} %  (target ≤ 5)")


def milvus(bench: Bench) -> None:
    milvus_index.measure(bench.folder)


def _n_images(path: Path) -> int:
    with Store.open(path) as store:
        return len(store.records())


ROWS: dict[str, Callable[[Bench], None]] = {
    "workers": workers, "limit": limit, "processes": processes, "codebooks": codebooks, "traffic": traffic,
    "resume": resume, "milvus": milvus,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench: Any = Bench(arguments, Path(folder))
        for row in arguments.rows:
            ROWS[row](bench)


if __name__ == "__main__":
    main()
