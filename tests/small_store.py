"""A small store whose every value can be told from the name of its image."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from cvretrieval import LocalFeatures
from cvretrieval.retrieval.records import ImageRecord
from cvretrieval.retrieval.store import Store

CONFIG = {"what": ["ever", 1, None]}


def features_of(names):
    """Three features per image, every value told by its name; none for names that begin with "blank"."""
    images = []
    for name in names:
        n = 0 if name.startswith("blank") else 3
        value = float(sum(map(ord, name)) % 97)
        images.append((np.full((n, 8), value, np.uint8), np.full((n, 4), value, np.float32), (100.0, 50.0 + value)))
    return LocalFeatures.from_images(images, n_dims=8)


def vectors_of(names):
    return np.array([[sum(map(ord, name)) % 97, len(name), 1] for name in names], np.float32).reshape(len(names), 3)


def records_of(names):
    return [ImageRecord(name, f"/photos/{name}", 7, 9, n_features=0 if name.startswith("blank") else 3,
                        status="empty" if name.startswith("blank") else "ok") for name in names]  # fmt: skip


def add(store, names, encoded=True):
    store.write_shard(records_of(names), features_of(names), vectors_of(names) if encoded else None)


def check_contents(store, names):
    """Every image has its own features and vector, in this order, and `check` finds nothing."""
    records = [record for record in store.records() if record.status != "failed"]
    assert [record.id for record in records] == list(names)
    expected = features_of(names)
    found = store.features([record.key for record in records])
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    if len(found):
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_array_equal(found.image_sizes, expected.image_sizes)
    by_key = {key: row for keys, rows in store.vector_segments() for key, row in zip(keys, rows, strict=True)}
    by_key.pop(-1, None)
    searchable = [record for record in records if record.status == "ok"]
    assert by_key.keys() == {record.key for record in searchable}
    if searchable:
        found = np.array([by_key[record.key] for record in searchable])
        np.testing.assert_array_equal(found, vectors_of([record.id for record in searchable]))
    assert store.check() == []


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.cvr"


@pytest.fixture
def filled(path):
    """A closed store of two shards and a model."""
    with Store.create(path, CONFIG) as store:
        store.write_model({"words": np.arange(6.0).reshape(2, 3)}, {"values": {"n": 2}})
        add(store, ["a", "b", "blank 1"])
        add(store, ["c", "naïve 文字", "\udcff bytes"])
    return path


NAMES = ["a", "b", "blank 1", "c", "naïve 文字", "\udcff bytes"]


def cut_off_commit(source, target):
    """Copy a store as `kill -9` in the middle of a commit leaves it: pages half written, the journal beside them."""
    with closing(sqlite3.connect(source / "manifest.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # makes it write pages before the commit
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE images SET reason = 'half done ' || hex(randomblob(4000)), shard = 1, row = 1000 + key"
        )
        shutil.copytree(source, target)
        connection.execute("ROLLBACK")
    assert (target / "manifest.sqlite-journal").stat().st_size > 512
    assert b"half done" in (target / "manifest.sqlite").read_bytes()
