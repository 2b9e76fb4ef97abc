"""Which images are new, which are known, and what they are called."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from cvretrieval.retrieval.sources import plan


def record(path, name, status="ok"):
    stamp = os.stat(path) if os.path.exists(path) else SimpleNamespace(st_size=1, st_mtime_ns=1)
    return SimpleNamespace(id=name, path=str(path), size=stamp.st_size, mtime_ns=stamp.st_mtime_ns, status=status)


@pytest.fixture
def photos(tmp_path):
    for name in ("a/one.jpg", "a/deep/two.jpg", "b/one.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def ids(result):
    return [source.id for source in result.sources]


def test_images_of_a_folder_are_named_by_their_path_within(photos):
    assert ids(plan([photos / "a"], None, [])) == ["deep/two.jpg", "one.jpg"]
    assert ids(plan(photos / "a", None, [])) == ["deep/two.jpg", "one.jpg"]


def test_files_are_named_as_given(photos, monkeypatch):
    monkeypatch.chdir(photos)
    result = plan(["a/one.jpg", photos / "b" / "one.jpg"], None, [])
    assert ids(result) == ["a/one.jpg", (photos / "b/one.jpg").as_posix()]
    assert [source.path for source in result.sources] == [str(photos / "a/one.jpg"), str(photos / "b/one.jpg")]


def test_equal_names_of_two_folders_are_told_apart(photos):
    assert ids(plan([photos / "a", photos / "b"], None, [])) == ["deep/two.jpg", "one.jpg", "b/one.jpg"]
    held = [record(photos / "a/one.jpg", "one.jpg"), record(photos / "a/deep/two.jpg", "b/one.jpg")]
    assert ids(plan([photos / "b"], None, held)) == ["b/one.jpg (2)"]


def test_unchanged_files_are_skipped_and_changed_ones_replaced(photos):
    held = [record(photos / "a/one.jpg", "one.jpg"), record(photos / "a/deep/two.jpg", "deep/two.jpg")]
    result = plan([photos / "a"], None, held)
    assert result.sources == [] and result.n_unchanged == 2
    (photos / "a/one.jpg").write_bytes(b"another size")
    result = plan([photos / "a"], None, held)
    assert ids(result) == ["one.jpg"] and result.sources[0].known and result.n_unchanged == 1


def test_changed_time_alone_counts_as_changed(photos):
    held = [record(photos / "b/one.jpg", "one.jpg")]
    os.utime(photos / "b/one.jpg", ns=(5, 5))
    assert ids(plan([photos / "b"], None, held)) == ["one.jpg"]


def test_failed_files_are_tried_again(photos):
    held = [record(photos / "b/one.jpg", "one.jpg", status="failed")]
    assert ids(plan([photos / "b"], None, held)) == ["one.jpg"]


def test_a_moved_folder_keeps_its_ids(photos):
    held = [record(photos / "b/one.jpg", "one.jpg")]
    (photos / "b").rename(photos / "c")
    result = plan([photos / "c"], None, held)
    assert ids(result) == ["one.jpg"] and result.sources[0].known


def test_a_file_reached_twice_is_taken_once(photos):
    (photos / "a" / "back").symlink_to(photos / "a")
    assert len(plan([photos / "a", photos / "a", photos / "a/one.jpg"], None, []).sources) == 2


def test_arrays_are_numbered_after_what_is_there(rng):
    images = [np.zeros((4, 4), np.uint8)] * 2
    assert ids(plan(images, None, [])) == ["image-000001", "image-000002"]
    held = [SimpleNamespace(id="image-000002", path=None, size=0, mtime_ns=0, status="ok")]
    assert ids(plan(images, None, held)) == ["image-000003", "image-000004"]
    assert ids(plan(images, ["x", "y"], held)) == ["x", "y"]
    with pytest.raises(ValueError, match="'image-000002' .* in the index already"):
        plan(images, ["x", "image-000002"], held)


def test_missing_files_are_left_to_the_reader(photos):
    source = plan([photos / "none.jpg"], None, []).sources[0]
    assert source.path == str(photos / "none.jpg") and (source.size, source.mtime_ns) == (0, 0)


def test_wrong_ids(photos):
    with pytest.raises(ValueError, match="There are 1 images, but 2 ids"):
        plan([photos / "a/one.jpg"], ["x", "y"], [])
    with pytest.raises(ValueError, match="Given twice: x"):
        plan([photos / "a/one.jpg", photos / "b/one.jpg"], ["x", "x"], [])
    with pytest.raises(ValueError, match="is a folder"):
        plan([photos / "a"], ["x"], [])
