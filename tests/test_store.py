"""The store: what is committed comes back, one writer, any number of readers."""

from __future__ import annotations

import errno
import gc
import os

import numpy as np
import pytest

from cvretrieval import StoreError
from cvretrieval.retrieval import compaction, lock
from cvretrieval.retrieval import store as store_module
from cvretrieval.retrieval.manifest import Manifest
from cvretrieval.retrieval.records import ImageRecord, StaleSnapshotError
from cvretrieval.retrieval.store import Store
from tests.small_store import CONFIG, NAMES, add, check_contents, features_of, filled, path, records_of, vectors_of

__all__ = ["filled", "path"]


# -- what is committed comes back


def test_round_trip(filled):
    with Store.open(filled) as store:
        check_contents(store, NAMES)
        assert store.config == CONFIG
        arrays, meta = store.read_model()
        np.testing.assert_array_equal(arrays["words"], np.arange(6.0).reshape(2, 3))
        assert meta == {"values": {"n": 2}} and store.find("c").path == "/photos/c" and store.find("d") is None
        info = store.info()
        assert (info["n_images"], info["n_empty"], info["n_features"], info["n_shards"]) == (6, 1, 15, 2)
        assert info["n_bytes"] > info["n_bytes_descriptors"] + info["n_bytes_vectors"] > 0 == info["n_removed"]


def test_features_first_vectors_later(path):
    with Store.create(path, CONFIG) as store:
        assert store.read_model() is None
        add(store, ["a", "b"], encoded=False)
        add(store, ["c"], encoded=False)
        assert list(store.vector_segments()) == [] and store.info()["n_pending"] == 3
        with Store.open(path) as reader:
            reader.features([record.key for record in reader.records()])
            for shard in store.pending_shards():
                names = [r.id for r in store.records() if r.shard == shard.shard]
                store.write_vectors(shard, vectors_of(names))
            assert store.pending_shards() == []
            check_contents(store, ["a", "b", "c"])
            # a shard that a reader had open is opened anew
            assert list(reader.vector_segments()) == [] and reader.reload()
            check_contents(reader, ["a", "b", "c"])


def test_the_writers_own_picture_is_that_of_the_manifest(path):
    """It is not read again after every commit, so it must agree with what a reader finds."""
    with Store.create(path, CONFIG) as store:
        add(store, ["a", "b"], encoded=False)
        store.write_shard(
            [ImageRecord("x", status="failed", reason="why"), *records_of(["a"])], features_of(["a"]), None
        )
        store.write_shard([ImageRecord("b", status="failed", reason="later")], None, None)
        store.write_vectors(store.pending_shards()[0], vectors_of(["a", "b"]))
        with Store.open(path) as reader:
            assert store.records() == reader.records() and store.shard_records() == reader.shard_records()
            assert store.generation == reader.generation == 4


def test_images_of_the_same_id_are_replaced(filled):
    with Store.open(filled, "w") as store:
        key = store.find("b").key
        add(store, ["b", "d"])
        assert store.find("b").key > key and store.info()["n_removed"] == 1
        check_contents(store, ["a", "blank 1", "c", *NAMES[4:], "b", "d"])


def test_unreadable_images_are_recorded_and_an_earlier_version_stays(filled):
    with Store.open(filled, "w") as store:
        store.write_shard([ImageRecord("x", "/x", status="failed", reason="is empty")], None, None)
        store.write_shard([ImageRecord("b", "/photos/b", status="failed", reason="is damaged")], None, None)
        check_contents(store, NAMES)
        assert store.failures() == [
            ("/photos/b", "is damaged; its earlier version stays in the index"), ("/x", "is empty")
        ]  # fmt: skip
        assert store.info()["n_failed"] == 2 and store.info()["n_images"] == 6
        with pytest.raises(KeyError, match="'x' could not be read"):
            store.features([store.find("x").key])
        add(store, ["b", "x"])
        assert store.failures() == []


def test_remove_by_id_or_path_all_or_none(filled):
    with Store.open(filled, "w") as store:
        with pytest.raises(KeyError, match=r"'none', '/photos/none'\. Nothing was removed"):
            store.remove(["a", "none", "/photos/none"])
        check_contents(store, NAMES)
        store.remove(["a", "/photos/c", "c"])
        check_contents(store, ["b", "blank 1", *NAMES[4:]])


def test_keys_and_shards_are_never_used_twice(filled):
    with Store.open(filled, "w") as store:
        keys = {record.key for record in store.records()}
        store.remove(NAMES)
        store.compact()
        assert store.shard_records() == []
        add(store, ["a"])
        assert store.find("a").key not in keys and [shard.shard for shard in store.shard_records()] == [3]


@pytest.mark.parametrize("shard_bytes", [1, 700, 256_000_000])
def test_compaction_keeps_what_is_alive(filled, monkeypatch, shard_bytes):
    monkeypatch.setattr(compaction, "SHARD_BYTES", shard_bytes)
    with Store.open(filled, "w") as store:
        add(store, ["blank 2"])
        add(store, ["e", "f"])
        add(store, ["gone"])
        store.remove(["a", "c", "gone"])
        before = store.info()["n_bytes"]
        store.compact()
        alive = ["b", "blank 1", *NAMES[4:], "blank 2", "e", "f"]
        check_contents(store, alive)
        info = store.info()
        assert info["n_removed"] == 0 and info["n_bytes"] < before
        assert info["n_shards"] == {1: 4, 700: info["n_shards"], 256_000_000: 1}[shard_bytes]
        names = {path.name for path in (filled / "shards").iterdir()}
        assert len(names) == info["n_shards"]
        # nothing is left to do
        store.compact()
        assert {path.name for path in (filled / "shards").iterdir()} == names


def test_compaction_of_shards_without_vectors(filled):
    with Store.open(filled, "w") as store:
        add(store, ["d"], encoded=False)
        add(store, ["e"], encoded=False)
        store.remove(["a"])
        store.compact()
        assert [shard.encoded for shard in store.shard_records()] in ([True, False], [False, True])
        for shard in store.pending_shards():
            store.write_vectors(shard, vectors_of(["d", "e"]))
        check_contents(store, [*NAMES[1:], "d", "e"])


def test_copy_while_another_process_compacts(filled, tmp_path, monkeypatch):
    with Store.open(filled) as reader, Store.open(filled, "w") as writer:
        from cvretrieval.retrieval import copying

        real, calls = copying.copy_file, []

        def copy_file(source, target):
            calls.append(source)
            if len(calls) == 5:  # in the middle of the first shard
                writer.remove(["a"])
                writer.compact()
            real(source, target)

        monkeypatch.setattr(copying, "copy_file", copy_file)
        reader.copy(tmp_path / "copy.cvr")
    with Store.open(tmp_path / "copy.cvr") as store:
        check_contents(store, NAMES[1:])
        assert store.read_model() is not None


def test_copy_refuses_a_place_that_is_taken(filled, tmp_path):
    with Store.open(filled) as store:
        with pytest.raises(StoreError, match="exists already"):
            store.copy(filled)
        (tmp_path / "empty").mkdir()
        assert Store.open(store.copy(tmp_path / "empty")).info()["n_images"] == 6


# -- misuse


def test_create_and_open_say_what_is_wrong(filled, tmp_path):
    with pytest.raises(StoreError, match="exists already"):
        Store.create(filled, CONFIG)
    with pytest.raises(StoreError, match="none cannot be written|cannot be written"):
        Store.create(tmp_path / "none" / "x.cvr", CONFIG)
    with pytest.raises(StoreError, match=r"none\.cvr does not exist\. Make an index with: cvretrieval index"):
        Store.open(tmp_path / "none.cvr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder is not an index"):
        Store.open(tmp_path / "folder")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(filled / "index.json")
    with pytest.raises(ValueError, match="mode must be"):
        Store.open(filled, "a")
    assert not list(tmp_path.glob(".cvretrieval-*"))


def test_a_reader_does_not_write(filled):
    with Store.open(filled) as store:
        for change in (
            lambda: add(store, ["d"]), lambda: store.remove(["a"]), store.compact,
            lambda: store.write_model({}, {}), lambda: store.write_vectors(store.shard_records()[0], vectors_of("abc")),
        ):  # fmt: skip
            with pytest.raises(StoreError, match="open for reading"):
                change()


def test_wrong_numbers_are_refused(filled):
    with Store.open(filled, "w") as store:
        with pytest.raises(ValueError, match="2 readable images, but features of 1"):
            store.write_shard(records_of(["d", "e"]), features_of(["d"]), None)
        with pytest.raises(ValueError, match="2 readable images, but vectors of 3"):
            store.write_shard(records_of(["d", "e"]), features_of(["d", "e"]), vectors_of("def"))
        with pytest.raises(ValueError, match="same id"):
            store.write_shard(records_of(["d", "d"]), features_of(["d", "d"]), None)
        with pytest.raises(ValueError, match=r"has 3 images\. Got 1 vectors"):
            store.write_vectors(store.shard_records()[0], vectors_of("a"))
        with pytest.raises(StoreError, match=r"model\.safetensors exists already"):
            store.write_model({"words": np.zeros(2)}, {})
        check_contents(store, NAMES)


# -- leftovers and locks


def test_what_a_killed_writer_left_is_cleared_away_and_nothing_else(filled):
    (filled / "shards" / "00000077").mkdir()
    (filled / "shards" / ".tmp-00000003").mkdir()
    (filled / "shards" / "00000001" / ".tmp-vectors.npy").touch()
    (filled / ".tmp-model.safetensors").touch()
    (filled / "shards" / "my notes").mkdir()
    with Store.open(filled) as store:
        check_contents(store, NAMES)
    with Store.open(filled, "w") as store:
        check_contents(store, NAMES)
    left = {path.name for path in (filled / "shards").iterdir()}
    assert left == {"00000001", "00000002", "my notes"} and not list(filled.rglob(".tmp-*"))


def test_unfinished_stores_are_cleared_away_unless_someone_is_at_it(path):
    left, alive, empty = (path.parent / f".cvretrieval-{i}" for i in range(3))
    for folder in (left, alive, empty):
        folder.mkdir()
    (left / "lock").touch()
    held = lock.WriterLock(alive / "lock")
    Store.create(path, CONFIG).close()
    assert not left.exists() and alive.exists() and empty.exists()
    held.release()


def test_a_shard_number_whose_commit_failed_can_be_used_again(filled, monkeypatch):
    with Store.open(filled, "w") as store:
        with monkeypatch.context() as patch:
            patch.setattr(Manifest, "add_images", lambda self, records: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                add(store, ["d"])
        check_contents(store, NAMES)
        add(store, ["e"])
        check_contents(store, [*NAMES, "e"])


def test_second_writer_is_refused_and_told_who_holds_it(filled):
    with Store.open(filled, "w"):
        with pytest.raises(StoreError, match=f"being written by another process \\(process {os.getpid()} on "):
            Store.open(filled, "w")
        with Store.open(filled) as reader:
            check_contents(reader, NAMES)
    Store.open(filled, "w").close()


def test_a_forgotten_writer_lets_go(filled):
    store = Store.open(filled, "w")
    with pytest.raises(StoreError, match="is being written by another process"):
        Store.open(filled, "w")
    del store
    gc.collect()
    with Store.open(filled, "w") as next_writer:
        check_contents(next_writer, NAMES)


def test_a_file_system_without_locks_is_no_other_writer(filled, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked \(No locks available\)"):
        Store.open(filled, "w")


def test_releasing_twice_does_not_release_the_next_one(tmp_path):
    first = lock.WriterLock(tmp_path / "lock")
    first.release()
    second = lock.WriterLock(tmp_path / "lock")
    first.release()
    with pytest.raises(StoreError):
        lock.WriterLock(tmp_path / "lock")
    second.release()


# -- readers beside a writer


def test_a_snapshot_stays_until_the_reader_takes_a_new_one(filled):
    with Store.open(filled) as reader, Store.open(filled, "w") as writer:
        writer.remove(["a"])
        add(writer, ["d"])
        check_contents(reader, NAMES)
        assert reader.reload() and not reader.reload()
        check_contents(reader, [*NAMES[1:], "d"])


def test_a_reader_whose_shards_were_compacted_is_told_so(filled):
    with Store.open(filled) as reader, Store.open(filled, "w") as writer:
        held = reader.features([reader.find("a").key])
        vectors = list(reader.vector_segments())
        writer.remove(["b"])
        writer.compact()
        # what was mapped stays, what was not is asked for anew
        assert held.n_descriptors == 3 and vectors[0][1][0, 2] == 1
        reader.forget_shards([1, 2])
        with pytest.raises(StaleSnapshotError, match="compacted away by another process"):
            reader.features([reader.find("c").key])
        with pytest.raises(StaleSnapshotError):
            list(reader.vector_segments())
        reader.reload()
        check_contents(reader, ["a", *NAMES[2:]])


def test_few_shards_stay_open(filled, monkeypatch):
    monkeypatch.setattr(store_module, "_OPEN_SHARDS", 1)
    with Store.open(filled) as store:
        check_contents(store, NAMES)
        assert len(store._shards) == 1
