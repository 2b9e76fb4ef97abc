"""One writer, any number of readers: the second writer is refused, readers see whole commits only."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier, StoreError
from cvretrieval.retrieval.records import StaleSnapshotError
from cvretrieval.retrieval.store import Store
from tests.small_store import CONFIG, add, check_contents, features_of, vectors_of

ROOT = Path(__file__).resolve().parents[1]

# Adds pairs of images, removes whole pairs, compacts; every commit leaves pairs.
WRITER = """
import sys
from cvretrieval.retrieval.store import Store
from tests.small_store import add

path, n_rounds = sys.argv[1], int(sys.argv[2])
with Store.open(path, "w") as store:
    for i in range(n_rounds):
        add(store, [f"left {i}", f"right {i}"], encoded=i % 3 > 0)
        if i % 4 == 1:
            store.remove([f"left {i - 1}", f"right {i - 1}"])
        if i % 5 == 2:
            store.compact()
"""

# Holds the lock until its standard input is closed.
HOLDER = """
import sys
from cvretrieval.retrieval.store import Store

with Store.open(sys.argv[1], "w"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_writer(path, n_rounds):
    program = [sys.executable, "-c", WRITER, str(path), str(n_rounds)]
    return subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_readers_see_whole_commits_only(tmp_path):
    path = tmp_path / "index.cvr"
    with Store.create(path, CONFIG) as store:
        add(store, ["left 99", "right 99"])
    writer = start_writer(path, 32)
    n_rounds, generations, n_stale = 0, set(), 0
    with Store.open(path) as reader:
        while True:
            is_last = writer.poll() is not None
            reader.reload()
            records = reader.records()
            names = [record.id for record in records]
            numbers = {name.split()[1] for name in names}
            assert sorted(names) == sorted(f"{side} {number}" for number in numbers for side in ("left", "right"))
            try:
                found = reader.features([record.key for record in records])
                segments = list(reader.vector_segments())
            except StaleSnapshotError:
                assert not is_last
                n_stale += 1
                continue
            vectors = {key: row for keys, rows in segments for key, row in zip(keys, rows, strict=True)}
            np.testing.assert_array_equal(found.descriptors, features_of(names).descriptors)
            np.testing.assert_array_equal(found.keypoints, features_of(names).keypoints)
            for record in records:
                if record.key in vectors:
                    np.testing.assert_array_equal(vectors[record.key], vectors_of([record.id])[0])
            n_rounds += 1
            generations.add(reader.generation)
            if is_last:
                break
            time.sleep(0.005)
    assert writer.wait() == 0, writer.stderr.read()
    writer.stderr.close()
    # it has looked while the other one wrote, and has seen the end
    assert n_rounds > 3 and len(generations) > 3 and len(names) == 2 + 2 * (32 - 8)


def test_second_writer_is_refused_while_the_first_lives_and_no_longer(tmp_path):
    path = tmp_path / "index.cvr"
    Store.create(path, CONFIG).close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline()
    with pytest.raises(StoreError, match=rf"being written by another process \(process {holder.pid} on .*\); wait"):
        Store.open(path, "w")
    with Store.open(path) as reader:
        assert reader.records() == []
    holder.kill()
    holder.communicate()
    with Store.open(path, "w") as store:
        add(store, ["a"])
        check_contents(store, ["a"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for i in range(8):
        pixels = rng.integers(0, 256, (14, 14)).astype(np.uint8)
        Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(root / f"{i}.png")
    return sorted(root.iterdir())


def make(**parameters):
    return ImageRetriever(
        extractor=SIFT(root=True), encoder=VLAD(4, random_state=0), verifier=SpatialVerifier(), **parameters
    )


def test_searches_go_on_while_another_retriever_rewrites_the_index(photos, tmp_path):
    path = tmp_path / "index.cvr"
    stop, failures = threading.Event(), []

    def write():
        try:
            with ImageRetriever.load(path) as writer:
                while not stop.is_set():
                    writer.add(photos[4:])
                    writer.compact()
                    writer.remove([photo.as_posix() for photo in photos[4:]])
                    writer.compact()
        except BaseException as error:  # reported by the test, below
            failures.append(error)

    with make(location=path).fit(photos[:4]) as reader:
        thread = threading.Thread(target=write)
        thread.start()
        try:
            generations = set()
            for _ in range(40):
                result = reader.search(photos[:2], k=8)
                generations.add(reader._store.generation)
                for query, hits in zip(photos, result, strict=False):
                    assert hits.hits[0].id == query.as_posix() and hits.hits[0].verified
                    # all of the second half or none of it
                    assert len(hits.hits) in (4, 8)
                result = reader.search(ids=[photos[3].as_posix()], k=1)
                assert len(result[0].hits) == 1
        finally:
            stop.set()
            thread.join()
        assert not failures and len(generations) > 3


def test_a_search_that_meets_a_compaction_asks_again(photos, tmp_path):
    """The compaction comes at the worst moment: between the vectors and the features."""
    path = tmp_path / "index.cvr"
    with make(location=path).fit(photos[:4]) as reader, ImageRetriever.load(path) as writer:
        real, calls = reader.verifier.verify_candidates, []

        def verify(query, candidates, **options):
            calls.append(len(candidates))
            return real(query, candidates, **options)

        reader.verifier.verify_candidates = verify
        features = reader._store.features

        def late(keys):
            if not calls:
                calls.append("compacted")
                writer.remove([photos[0].as_posix()])
                writer.compact()
            return features(keys)

        reader._store.features = late
        hits = reader.search(photos[1:2], k=4)[0].hits
        assert calls == ["compacted", 3]
        assert sorted(hit.id for hit in hits) == [photo.as_posix() for photo in photos[1:4]]


def test_a_reader_learns_what_another_process_has_learned(photos, tmp_path):
    """Opened before there was anything to learn from."""
    path = tmp_path / "index.cvr"
    with make(location=path).fit([]) as reader, ImageRetriever.load(path) as writer:
        assert reader.search(photos[:1])[0].hits == ()
        writer.add(photos[:3])
        assert reader.search(photos[:1], k=1).ids == [[photos[0].as_posix()]]
        # and adds with the same words, not with its own
        reader.add(photos[3:5])
        assert writer.search(photos[4:5], k=1)[0].hits[0].score == pytest.approx(1, abs=1e-5)


def test_two_adds_at_once(photos, tmp_path):
    path = tmp_path / "index.cvr"
    with make(location=path).fit(photos[:4]) as one:
        with Store.open(path, "w"):
            with pytest.raises(StoreError, match="being written by another process"):
                one.add(photos[4:])
            assert one.search(photos[:1], k=1).ids == [[photos[0].as_posix()]]
        assert one.add(photos[4:]).n_added == 4
