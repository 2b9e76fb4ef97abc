"""Damaged and crafted stores: refused with the file's name and a way out; nothing in them is executed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest

from cvretrieval import StoreError
from cvretrieval import _durable as durable
from cvretrieval.retrieval.description import FORMAT
from cvretrieval.retrieval.shards import ShardError
from cvretrieval.retrieval.store import Store
from tests.small_store import CONFIG, NAMES, add, check_contents, cut_off_commit, filled, path

__all__ = ["filled", "path"]


# -- the unfinished commit of a killed writer


@pytest.fixture
def cut_off(filled, tmp_path):
    cut_off_commit(filled, tmp_path / "cut.cvr")
    return tmp_path / "cut.cvr"


def test_a_reader_undoes_it(cut_off):
    with Store.open(cut_off) as store:
        check_contents(store, NAMES)
    assert b"half done" not in (cut_off / "manifest.sqlite").read_bytes()


def test_a_reader_that_is_open_meanwhile_undoes_it(cut_off, tmp_path):
    """The writer dies while a reader has the manifest open."""
    journal, data = ((cut_off / name).read_bytes() for name in ("manifest.sqlite-journal", "manifest.sqlite"))
    with Store.open(cut_off) as store:
        (cut_off / "manifest.sqlite").write_bytes(data)
        (cut_off / "manifest.sqlite-journal").write_bytes(journal)
        store.reload()
        check_contents(store, NAMES)


# -- damage


def damage_size(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_magic(path):
    data = bytearray(path.read_bytes())
    data[:6] = b"notnpy"
    path.write_bytes(data)


def damage_header(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'descr'", b"'wrong'"))


def make_object_array(path):
    """What a file would look like that wants to be unpickled."""
    data = path.read_bytes()
    start, end = data.index(b"'descr': '") + 10, data.index(b"', 'fortran_order'")
    path.write_bytes(data[:start] + b"|O".ljust(end - start) + data[end:])


def delete(path):
    path.unlink()


def delete_folder(path):
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("damage", [damage_size, damage_magic, damage_header, make_object_array, delete, delete_folder])
@pytest.mark.parametrize("name", ["descriptors", "keypoints", "offsets", "image_sizes", "vectors"])
def test_damaged_shards_are_refused_by_name(filled, name, damage):
    path = filled / "shards" / "00000002" / f"{name}.npy"
    damage(path)
    with Store.open(filled) as store:  # the other shard can be read
        store.features([store.find("a").key])
        with pytest.raises(ShardError, match="00000002.*(damaged|missing).*remove INDEX --damaged"):
            if name == "vectors":
                list(store.vector_segments())
            else:
                store.features([store.find("c").key])
        found = store.check()
        assert path in [damage.path for damage in found]
        assert all(damage.ids == ("c", *NAMES[4:]) and damage.reason for damage in found)


@pytest.mark.parametrize("name", ["descriptors", "keypoints", "offsets", "image_sizes", "vectors"])
def test_one_flipped_bit_is_found_by_check(filled, name):
    path = filled / "shards" / "00000001" / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with Store.open(filled) as store:
        [found] = store.check()
        assert (found.path, found.reason, found.ids) == (path, "its checksum is wrong", ("a", "b", "blank 1"))


def test_offsets_that_do_not_fit_are_refused_at_once(filled):
    path = filled / "shards" / "00000001" / "offsets.npy"
    path.write_bytes(path.read_bytes()[:-32] + struct.pack("<4q", 0, 5, 2, 6))
    with Store.open(filled) as store, pytest.raises(ShardError, match="offsets.npy is damaged"):
        store.features([store.find("a").key])


def test_damaged_images_can_be_removed_and_added_again(filled):
    shutil.rmtree(filled / "shards" / "00000001")
    with Store.open(filled, "w") as store:
        lost = {name for damage in store.check() for name in damage.ids}
        store.remove(sorted(lost))
        check_contents(store, NAMES[3:])
        store.compact()
        add(store, sorted(lost))
        check_contents(store, [*NAMES[3:], *sorted(lost)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"), (b"{", "damaged"), (b"[" * 100_000, "damaged"), (b'"text"', "damaged"),
        (b'{"format": 1}', "damaged"), (b'{"format": "x", "config": {}, "versions": {}}', "damaged"),
        (b'{"format": 1, "config": [], "versions": {}}', "'config' is no object"), (b"\xff\xfe", "damaged"),
    ],
)  # fmt: skip
def test_damaged_description(filled, content, reason):
    (filled / "index.json").write_bytes(content)
    with pytest.raises(StoreError, match=f"index.json.*{reason}"):
        Store.open(filled)


def test_newer_format_is_refused_with_the_way_out(filled):
    description = json.loads((filled / "index.json").read_text())
    (filled / "index.json").write_text(json.dumps({**description, "format": FORMAT + 1}))
    for mode in "rw":
        with pytest.raises(StoreError, match=f"has format {FORMAT + 1}, .* upgrade it with: pip install -U"):
            Store.open(filled, mode)


@pytest.mark.parametrize("damage", ["empty", "text", "middle", "half", "missing", "folder"])
def test_damaged_manifest(filled, damage):
    path = filled / "manifest.sqlite"
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        broken = {"empty": b"", "text": b"no database" * 1000, "half": data[: len(data) // 2],
                  "middle": data[:4096] + b"\xaa" * (len(data) - 4096)}[damage]  # fmt: skip
        path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"manifest\.sqlite.*(damaged|missing)"):
        with Store.open(filled) as store:
            assert store.check() == []
    # the lock went with the failure
    with pytest.raises(StoreError, match=r"manifest\.sqlite"):
        with Store.open(filled, "w") as store:
            assert store.check() == []


def change_manifest(path, *statements):
    with closing(sqlite3.connect(path / "manifest.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
        "CREATE VIEW v AS SELECT * FROM images",
        "CREATE TABLE more (x)",
        "DROP INDEX images_of_shard",
        "ALTER TABLE images ADD COLUMN extra AS (abs(key))",
    ],
)
def test_a_manifest_with_anything_that_runs_is_refused(filled, statement):
    change_manifest(filled, statement)
    for mode in "rw":
        with pytest.raises(StoreError, match="its tables are not those of an index"):
            Store.open(filled, mode)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET row = 99 WHERE key = 1", "UPDATE images SET shard = 9 WHERE key = 1",
        "UPDATE images SET row = 'x' WHERE key = 1", "UPDATE images SET id = 'text' WHERE key = 1",
        "UPDATE images SET path = 5 WHERE key = 1", "UPDATE images SET shard = NULL WHERE key = 1",
        "DELETE FROM facts WHERE name = 'generation'", "DELETE FROM shards WHERE shard = 1",
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(filled, statement):
    change_manifest(filled, statement)
    with pytest.raises(StoreError, match=r"manifest\.sqlite is damaged"):
        Store.open(filled)


@pytest.mark.parametrize("damage", ["missing", "empty", "flipped", "other"])
def test_damaged_model(filled, damage, tmp_path):
    path = filled / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        with Store.create(tmp_path / "other.cvr", CONFIG) as other:
            other.write_model({"words": np.zeros((2, 3))}, {"values": {"n": 2}})
        shutil.copy(tmp_path / "other.cvr" / "model.safetensors", path)
    else:
        data[-1] ^= 1
        path.write_bytes(b"" if damage == "empty" else data)
    with Store.open(filled) as store:
        with pytest.raises(StoreError, match=r"model\.safetensors is (missing|damaged)"):
            store.read_model()
        assert [found.path for found in store.check()] == [path]


def test_a_model_that_was_never_committed_does_not_count(filled, tmp_path):
    """Killed between the file and the commit: it is learned anew, for no vector was made with it."""
    with Store.create(tmp_path / "new.cvr", CONFIG) as store:
        shutil.copy(filled / "model.safetensors", store.model_path)
        assert store.read_model() is None
        store.write_model({"words": np.ones(1)}, {})
        assert store.read_model()[0]["words"] == 1


# -- durability


def test_commits_survive_a_loss_of_power_as_sqlite_says(filled):
    with Store.open(filled, "w") as store:
        query = store._manifest._connection.execute
        assert query("PRAGMA synchronous").fetchall() == [(3,)]  # EXTRA
        assert query("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_folders_that_cannot_be_synced_are_no_failure_but_bad_disks_are(tmp_path, monkeypatch):
    for number, fails in ((errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)):

        def fsync(descriptor, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(durable.os, "fsync", fsync)
        if fails:
            with pytest.raises(OSError, match="Input/output"):
                durable.sync_folder(tmp_path)
        else:
            durable.sync_folder(tmp_path)
