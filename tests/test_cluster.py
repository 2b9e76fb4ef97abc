"""Indexing by other processes: equal to indexing by threads, whatever dies meanwhile."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import cv2
import joblib
import numpy as np
import pytest

from cvretrieval import SIFT, VLAD, GMMCodebook, ImageRetriever, StoreError, VocabularyTree
from cvretrieval._workers import ClusterError, LocalProcesses, WorkerDied, map_parts
from cvretrieval.cli import cluster
from cvretrieval.datasets import make_scenes
from cvretrieval.retrieval import cluster_ingestion, remote_tasks
from cvretrieval.retrieval.description import description_digest
from cvretrieval.retrieval.store import Store

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

SETTINGS = {
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.retry.count": 0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.monitor-interval": "20ms",
}

# Opening a file of these names kills the process that does, or takes its memory; the disk of one with the mark is full.
SABOTAGE = """
    import os, resource, signal, sys, time
    def sabotage(event, arguments):
        if event == "open" and str(arguments[0]).endswith("poison.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "open" and str(arguments[0]).endswith("huge.png"):
            held = b"x" * 1_000_000_000  # more than the worker may have
            time.sleep(20)
        if event == "open" and str(arguments[0]).endswith("descriptors.npy") and os.environ.get("FULL_DISK"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    sys.addaudithook(sabotage)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos of a cluster")
    scenes = make_scenes(n_scenes=6, n_views=4, image_size=(120, 90), random_state=2)
    for i, image in enumerate(scenes.images):
        cv2.imwrite(str(folder / f"{i:02d}.png"), image)
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "a.cvr"
    build(path).fit(photos)
    return contents(path)


@pytest.fixture(scope="module")
def dask_client():
    with local_cluster(2) as client:
        yield client


@contextmanager
def local_cluster(n_workers, **options):
    with (
        dask.config.set(SETTINGS),
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0", **options
        ) as processes,
        distributed.Client(processes) as client,
    ):
        yield client


def build(path, **parameters):
    return ImageRetriever(
        extractor=SIFT(max_features=80), encoder=VLAD(n_words=4, random_state=0), random_state=0, location=path,
        max_train_images=10, **parameters,
    )  # fmt: skip


def go_on(path, photos, **parameters):
    """Run the same again: index, or go on where it was cut off."""
    if path.exists():
        return ImageRetriever.load(path, **parameters).add(photos)
    return build(path, **parameters).fit(photos).report_


def contents(path):
    with Store.open(path) as store:
        assert store.check() == []
        found = {}
        for record in store.records():
            if record.status != "failed":
                features = store.features([record.key])
                arrays = (features.descriptors, features.keypoints, store.vectors([record.key]))
                found[record.id] = (
                    record.size,
                    record.width,
                    record.n_features,
                    *(array.tobytes() for array in arrays),
                )
        assert len(found) == sum(record.status != "failed" for record in store.records())
        return found


@pytest.fixture
def after_the_first_commit(monkeypatch):
    """Call a function once, after the first shard of a worker is committed."""
    todo = []
    adopt = Store.adopt_shard

    def adopted(store, *arguments):
        adopt(store, *arguments)
        if todo:
            todo.pop()()

    monkeypatch.setattr(Store, "adopt_shard", adopted)
    return todo.append


@pytest.fixture
def sabotaged(monkeypatch, tmp_path):
    """Have processes started from now on die of poison.png."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(SABOTAGE))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_processes_of_this_machine_give_the_same_index(photos, undisturbed, tmp_path):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        retriever = build(tmp_path / "a.cvr").fit(photos)
    assert retriever.report_.n_added == 24 and contents(tmp_path / "a.cvr") == undisturbed
    assert retriever.ids == sorted(undisturbed) and len(retriever._store.shard_records()) >= 6
    assert not list((tmp_path / "a.cvr" / "shards").glob(".tmp-*"))


def test_a_cluster_gives_the_same_index_and_the_same_answers(dask_client, photos, undisturbed, tmp_path):
    with joblib.parallel_config(backend="dask"):
        retriever = build(tmp_path / "a.cvr").fit(sorted(photos.glob("*.png"))[:20], ids=sorted(undisturbed)[:20])
        assert retriever.add(photos).n_added == 4 and retriever.add(photos).n_unchanged == 24
        answers = retriever.search(sorted(photos.glob("*.png"))[::5], k=5)
    assert [list(hits) for hits in answers.ids] == retriever.search(sorted(photos.glob("*.png"))[::5], k=5).ids
    assert contents(tmp_path / "a.cvr").keys() == undisturbed.keys()


def test_little_passes_the_scheduler(photos, tmp_path):
    build(tmp_path / "a.cvr").fit(photos).close()
    with Store.open(tmp_path / "a.cvr") as store:
        address = remote_tasks.StoreAddress(str(store.path), description_digest(store.path), store.model)
    images = [str(path) for path in sorted(photos.glob("*.png"))]
    done = remote_tasks.extract_images(address, images)
    assert done.shard.record.n_images == 24 and done.seconds > 0
    n_bytes = len(pickle.dumps((remote_tasks.extract_images, address, images))) + len(pickle.dumps(done))
    assert n_bytes / 24 < 2048


def test_codebooks_are_learned_on_the_cluster(dask_client, photos, tmp_path):
    features = build(tmp_path / "a.cvr").fit(photos).iter_features()
    with joblib.parallel_config(backend="dask"):
        found = GMMCodebook(4, max_iter=3, random_state=0).fit(features)
        tree = VocabularyTree(4, 3, random_state=0).fit(features)
    expected = GMMCodebook(4, max_iter=3, random_state=0).fit(list(features))
    np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-6)
    np.testing.assert_array_equal(tree.nodes_, VocabularyTree(4, 3, random_state=0).fit(list(features)).nodes_)
    assert not list((tmp_path / "a.cvr").glob(".cvretrieval-*"))


def test_images_that_are_no_files_and_unreadable_ones(dask_client, photos, undisturbed, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    array = cv2.cvtColor(cv2.imread(str(photos / "03.png")), cv2.COLOR_BGR2RGB)
    with joblib.parallel_config(backend="dask"):
        retriever = build(tmp_path / "a.cvr", on_error="skip").fit([photos, tmp_path / "broken.png"])
        retriever.add([array], ids=["array"])
        assert [path for path, _ in retriever.failures] == [str(tmp_path / "broken.png")]
        retriever.on_error = "raise"
        with pytest.raises(ValueError, match=r"broken\.png"):
            retriever.add(tmp_path / "broken.png")
    found = contents(tmp_path / "a.cvr")
    assert {name: found[name] for name in undisturbed} == undisturbed
    assert found["array"][3:] == undisturbed["03.png"][3:]


def test_a_worker_killed_in_the_middle(dask_client, photos, undisturbed, tmp_path, after_the_first_commit):
    pids = list(dask_client.run(os.getpid).values())
    after_the_first_commit(lambda: os.kill(pids[0], signal.SIGKILL))
    with joblib.parallel_config(backend="dask"), dask.config.set({"distributed.scheduler.allowed-failures": 3}):
        report = go_on(tmp_path / "a.cvr", photos)
    assert report.n_added == 24 and not report.failures
    assert contents(tmp_path / "a.cvr") == undisturbed


def test_two_clients_of_one_index(dask_client, photos, undisturbed, tmp_path, after_the_first_commit):
    refused = []

    def second():
        with pytest.raises(StoreError, match="being written by another process"):
            ImageRetriever.load(tmp_path / "a.cvr").add(photos)
        refused.append(True)

    after_the_first_commit(second)
    with joblib.parallel_config(backend="dask"):
        go_on(tmp_path / "a.cvr", photos)
    assert refused and contents(tmp_path / "a.cvr") == undisturbed


def test_poison_is_isolated_and_named(sabotaged, monkeypatch, photos, undisturbed, tmp_path):
    monkeypatch.setattr(cluster_ingestion, "_LEAST_IMAGES", 1)
    poison = tmp_path / "poison.png"
    cv2.imwrite(str(poison), np.zeros((60, 80, 3), np.uint8))
    files = [*sorted(photos.glob("*.png"))[:10], poison, *sorted(photos.glob("*.png"))[10:]]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        report = build(tmp_path / "a.cvr", on_error="skip").fit(files, ids=[path.name for path in files]).report_
    ((failed, reason),) = report.failures
    assert failed == str(poison) and "every process that read it died" in reason
    assert contents(tmp_path / "a.cvr") == undisturbed


def test_memory_that_runs_out(sabotaged, photos, tmp_path):
    huge = tmp_path / "huge.png"
    cv2.imwrite(str(huge), np.zeros((60, 80, 3), np.uint8))
    # Dask ends a worker that takes too much.
    with local_cluster(1, memory_limit="800 MB"), joblib.parallel_config(backend="dask"):
        report = build(tmp_path / "a.cvr", on_error="skip").fit([huge, photos / "01.png"], ids=["huge", "1"]).report_
    ((failed, _),) = report.failures
    assert failed == str(huge) and report.n_added == 1 and list(contents(tmp_path / "a.cvr")) == ["1"]


def test_a_full_disk_of_a_worker(sabotaged, monkeypatch, photos, undisturbed, tmp_path):
    monkeypatch.setenv("FULL_DISK", "1")
    with joblib.parallel_config(backend="loky", n_jobs=2), pytest.raises(StoreError, match="free some space"):
        go_on(tmp_path / "a.cvr", photos)
    monkeypatch.delenv("FULL_DISK")
    go_on(tmp_path / "a.cvr", photos)
    assert contents(tmp_path / "a.cvr") == undisturbed


def test_another_folder_of_that_name_is_refused(tmp_path, photos):
    build(tmp_path / "a.cvr").fit(photos).close()
    address = remote_tasks.StoreAddress(str(tmp_path / "a.cvr"), b"another", None)
    with pytest.raises(StoreError, match=r"A worker on .* cannot use the index .*another index lies there"):
        remote_tasks.extract_images(address, [str(photos / "00.png")])
    address = remote_tasks.StoreAddress(str(tmp_path / "none.cvr"), b"", None)
    with pytest.raises(StoreError, match="All workers must see it under the same path"):
        remote_tasks.extract_images(address, [str(photos / "00.png")])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def scheduler_and_worker(port):
    address = f"tcp://127.0.0.1:{port}"
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    started = [
        subprocess.Popen([*command, "--no-dashboard"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (scheduler, worker)
    ]
    try:
        yield address, started
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_the_scheduler_dies_and_then_the_client(photos, undisturbed, tmp_path, after_the_first_commit):
    port, path = free_port(), tmp_path / "a.cvr"
    with dask.config.set(SETTINGS):
        with (
            scheduler_and_worker(port) as (address, (scheduler, _)),
            distributed.Client(address) as client,
        ):
            client.wait_for_workers(1, timeout=30)
            after_the_first_commit(scheduler.kill)
            with joblib.parallel_config(backend="dask"), pytest.raises(ClusterError, match="run the same again"):
                go_on(path, photos)
        with Store.open(path) as store:
            n_kept = len(store.records())
        assert 0 < n_kept < 24
        with scheduler_and_worker(port) as (address, _):
            command = [sys.executable, "-m", "cvretrieval", "add", str(path), str(photos), "--cluster", address]
            client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for_commits(path, n_kept + 4)
            client.kill()
            client.communicate()
            again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert again.returncode == 0, again.stderr
    assert contents(path) == undisturbed


def wait_for_commits(path, n_images):
    for _ in range(3000):
        with Store.open(path) as store:
            if len(store.records()) >= n_images:
                return
        time.sleep(0.02)
    raise AssertionError("nothing is committed")


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
    with (
        pytest.raises(ValueError, match="No Dask scheduler answers at"),
        cluster.working_on(f"tcp://127.0.0.1:{free_port()}", None),
    ):
        pass
    with pytest.raises(ValueError, match="either --cluster or --workers"), cluster.working_on("x", 2):
        pass


class Threads(LocalProcesses):
    """Workers that die of odd numbers; a stand-in by threads, so that many orders of death can be tried."""

    def __init__(self, one_dies_alone, deadly):
        super().__init__(2)
        self.one_dies_alone = one_dies_alone
        self.deadly = deadly
        self.submitted = []

    def submit(self, function, items):
        self.submitted.append(list(items))
        return (function, items)

    def wait(self, futures):
        pass

    def result(self, future):
        function, items = future
        if self.deadly & set(items):
            raise WorkerDied
        return function(items)

    def abandon(self, futures):
        self.abandoned = futures


@pytest.mark.parametrize("deadly", [set(), {3}, {0, 19}, {7, 8}, set(range(20))])
def test_parts_are_halved_down_to_what_kills(deadly):
    workers = Threads(True, deadly)
    sizes = iter([1, 5, 8, 3, 9])
    parts = list(map_parts(workers, sum, range(20), lambda: next(sizes)))
    assert [item for part, _ in parts for item in part] == list(range(20))
    assert {item for part, result in parts if result is None for item in part} == deadly
    assert all(result == sum(part) for part, result in parts if result is not None)
    # Each is confirmed alone, and nothing else is done more often than halving asks for.
    assert all(workers.submitted.count([item]) >= 2 for item in deadly)
    assert len(workers.submitted) <= 5 + 10 * len(deadly)


def test_tasks_last_some_seconds_and_are_few_images_of_a_small_collection():
    pace = cluster_ingestion._Pace(100_000, 4)
    assert pace.next_size() == 4
    pace.note(4, 0.4)
    assert pace.next_size() == 200
    for _ in range(8):
        pace.note(10, 10.0)
    assert pace.next_size() in (20, 21, 22)
    small = cluster_ingestion._Pace(1000, 4)
    small.note(10, 0.01)
    assert small.next_size() == 15
