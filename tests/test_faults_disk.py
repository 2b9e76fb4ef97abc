"""Full disks, read-only targets, permissions, too few open files, Ctrl-C: a message, and nothing is lost.

As root these run all the same: commands are given another user, or a small file system of their own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval import StoreError, _npy_file
from cvretrieval import _durable as durable
from cvretrieval.retrieval.store import Store
from tests.command_server import CommandServer
from tests.small_store import CONFIG, NAMES, add, check_contents, cut_off_commit, filled, path, vectors_of

__all__ = ["filled", "path"]

NOBODY = 65534 if os.geteuid() == 0 else None
N_PHOTOS = 12


@pytest.fixture(scope="module")
def root():
    """A folder that everybody may enter, unlike pytest's own, with photos and an index of one photo per commit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "photos").mkdir()
        rng = np.random.default_rng(1)
        for i in range(N_PHOTOS):
            pixels = rng.integers(0, 256, (14, 14)).astype(np.uint8)
            Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i:02d}.png")
        yield folder


@pytest.fixture(scope="module")
def index(root, command_server):
    path = root / "index.cvr"
    status, output = command_server.run("index", root / "photos", "--out", path, "--words", 8, shard_images=1)
    assert status == 0, output
    return path


def index_contents(path):
    with Store.open(path) as store:
        assert store.check() == []
        vectors = {key: row for keys, rows in store.vector_segments() for key, row in zip(keys, rows, strict=True)}
        return {
            record.id: (store.features([record.key]).descriptors.tobytes(), vectors[record.key].tobytes())
            for record in store.records()
        }


# -- disk full


@pytest.mark.parametrize("operation", ["create", "add", "write_vectors", "write_model", "compact", "copy"])
def test_no_write_that_fails_loses_anything(filled, tmp_path, monkeypatch, operation):
    """The disk is full at the first, second, … write of every operation."""
    with Store.open(filled, "w") as store:
        add(store, ["pending"], encoded=False)
        store.remove(["pending"])
        add(store, ["later"], encoded=False)
    if operation == "write_model":
        with Store.create(tmp_path / "other.cvr", CONFIG) as store:
            add(store, ["a"], encoded=False)
        filled = tmp_path / "other.cvr"
    run = {
        "create": lambda store: Store.create(tmp_path / "new.cvr", CONFIG).close(),
        "add": lambda store: add(store, ["d", "e"]),
        "write_vectors": lambda store: store.write_vectors(store.pending_shards()[0], vectors_of(["later"])),
        "write_model": lambda store: store.write_model({"words": np.zeros(3)}, {}),
        "compact": lambda store: (store.remove(["a"]) if store.find("a") else None, store.compact()),
        "copy": lambda store: store.copy(tmp_path / "copy.cvr"),
    }[operation]
    real = durable.HashingFile.write
    before = [record.id for record in Store.open(filled).records()]
    n_failed = 0
    while True:
        left = n_failed

        def write(self, data):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(durable.HashingFile, "write", write)
        try:
            with Store.open(filled, "w") as store:
                run(store)
            break
        except StoreError as error:
            assert "No space left on device" in str(error)
            n_failed += 1
        finally:
            monkeypatch.setattr(durable.HashingFile, "write", real)
        with Store.open(filled) as store:
            assert store.check() == []
            assert [record.id for record in store.records()] == [
                n for n in before if operation != "compact" or n != "a"
            ]
        assert not list(tmp_path.rglob(".tmp-*")) and not list(tmp_path.glob(".cvretrieval-*"))
        assert not (tmp_path / "new.cvr").exists() and not (tmp_path / "copy.cvr").exists()
    assert n_failed >= 1


@pytest.fixture(scope="module")
def largest_shard_file(root, command_server):
    """Bytes of the largest file that shards of six photos have; features, and so sizes, differ a little by machine."""
    path = root / "six.cvr"
    status, output = command_server.run("index", root / "photos", "--out", path, "--words", 8, shard_images=6)
    assert status == 0, output
    return max(file.stat().st_size for file in (path / "shards").rglob("*.npy"))


@pytest.mark.parametrize("share", [0.06, 0.25, 0.95])
def test_a_limit_of_the_file_size_is_a_full_disk(root, index, largest_shard_file, command_server, tmp_path, share):
    """Works without any rights: the kernel refuses writes beyond the limit, SQLite's among them."""
    path = tmp_path / "index.cvr"
    arguments = ["index", root / "photos", "--out", path, "--words", 8]
    limit = int(share * largest_shard_file)
    status, output = command_server.run(*arguments, shard_images=6, limits={"RLIMIT_FSIZE": limit})
    assert (
        status == 2 and "Traceback" not in output and ("cannot be written" in output or "cannot be read or" in output)
    )
    if path.exists():
        with Store.open(path) as store:
            assert store.check() == []
    status, output = command_server.run(*arguments)
    assert status == 0, output
    assert index_contents(path) == index_contents(index)


@pytest.fixture(scope="module")
def mounts(index, tmp_path_factory):
    """A folder with a ``disk`` of 1,100 kB and a ``fixed`` folder, mounted read-only, and a server that sees them."""
    folder = tmp_path_factory.mktemp("mounts")
    (folder / "disk").mkdir()
    shutil.copytree(index, folder / "fixed" / "index.cvr")
    line = (
        'cd "$0" && mount -t tmpfs -o size=1100k none disk && mount --bind fixed fixed'
        " && mount -o remount,bind,ro fixed"
    )
    options = ["--mount", "--propagation", "private"] + ["--map-root-user"] * (os.geteuid() != 0)
    prefix = ["unshare", *options, "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, line, folder], capture_output=True).returncode:
        pytest.skip("no right to mount; the limit of the file size and missing rights to write stand in for it")
    server = CommandServer(folder, [*prefix, f'{line} && exec "$@"', str(folder)])
    yield folder, server
    server.close()


def test_a_disk_that_is_full(root, index, mounts, tmp_path):
    folder, server = mounts[0] / "disk", mounts[1]
    server.run("sh", "-c", f"rm -rf {folder}/*", shell=True)
    path = folder / "index.cvr"
    arguments = ["index", root / "photos", "--out", path, "--words", 8]
    messages = set()
    for n_free in (16, 60, 110, 180, 240, 600):
        shell = f"head -c {(1100 - n_free) * 1024} /dev/zero > {folder}/filler"
        assert server.run("sh", "-c", shell, shell=True)[0] == 0
        status, output = server.run(*arguments, shard_images=3)
        assert status == 2 and "Traceback" not in output and "space" in output
        messages.add(output.partition(str(folder))[2].split()[0])
        status, output = server.run("info", path, "--check", "--names")
        assert ("every file is as it was written" in output) if status == 0 else ("does not exist" in output)
        committed = {line for line in output.splitlines() if line.endswith(".png")}
        assert server.run("rm", folder / "filler", shell=True)[0] == 0
        status, output = server.run(*arguments, shard_images=3)
        assert status == 0 and f"{len(committed)} unchanged, {N_PHOTOS} in all" in output
        shutil.rmtree(tmp_path / "copy.cvr", ignore_errors=True)
        assert server.run("mv", path, tmp_path / "copy.cvr", shell=True)[0] == 0
        assert index_contents(tmp_path / "copy.cvr") == index_contents(index)
    assert len(messages) > 1  # full in different places


def test_removing_makes_room_on_a_full_disk(root, mounts):
    folder, server = mounts[0] / "disk", mounts[1]
    server.run("sh", "-c", f"rm -rf {folder}/*", shell=True)
    path = folder / "index.cvr"
    assert server.run("index", root / "photos", "--out", path, "--words", 8, shard_images=3)[0] == 0
    assert server.run("sh", "-c", f"head -c 1000000 /dev/zero > {folder}/filler", shell=True)[0] != 0
    status, output = server.run("add", path, root / "photos" / "00.png")
    assert status == 0 and "1 unchanged" in output
    status, output = server.run("remove", path, "00.png")
    assert status == 2 and "free some space" in output
    assert server.run("sh", "-c", f"truncate -s -90k {folder}/filler", shell=True)[0] == 0
    assert server.run("remove", path, *(f"{i:02d}.png" for i in range(7)))[0] == 0
    status, output = server.run("compact", path)
    assert status == 0, output
    status, output = server.run("info", path, "--check")
    assert status == 0 and "every file is as it was written" in output


# -- read-only targets and permissions


@pytest.fixture
def read_only(index, root, request):
    """A copy of the index that the user of the commands may read and not write."""
    path = root / f"{request.node.name}.cvr"
    shutil.copytree(index, path)
    yield path
    change_rights(path, 0o755, 0o644)
    shutil.rmtree(path)


def change_rights(path, folders, files):
    for parent, _, names in os.walk(path):
        for name in names:
            os.chmod(Path(parent, name), files)
    for parent, _, _ in os.walk(path, topdown=False):
        os.chmod(parent, folders)


def check_that_it_can_be_read_and_not_written(path, root, run):
    status, output = run("info", path, "--check", "--names")
    assert status == 0 and all(f"{i:02d}.png" in output for i in range(N_PHOTOS)), output
    status, output = run("search", path, root / "photos" / "03.png", "--json", "-k", 1)
    assert status == 0 and json.loads(output.splitlines()[0])["results"][0]["id"] == "03.png"
    for arguments in (
        ["add", path, root / "photos"], ["remove", path, "00.png"], ["compact", path],
        ["index", root / "photos", "--out", path], ["index", root / "photos", "--out", path.parent / "new.cvr"],
    ):  # fmt: skip
        status, output = run(*arguments)
        assert status == 2 and "cannot be written" in output and "Traceback" not in output, output


def test_an_index_without_the_right_to_write(read_only, root, command_server):
    change_rights(read_only, 0o555, 0o444)
    root.chmod(0o555)
    try:
        check_that_it_can_be_read_and_not_written(
            read_only, root, lambda *arguments: command_server.run(*arguments, user=NOBODY)
        )
    finally:
        root.chmod(0o755)


def test_a_killed_writers_commit_is_undone_in_a_copy_where_nothing_may_be_written(read_only, root, command_server):
    path = root / "cut.cvr"
    cut_off_commit(read_only, path)
    change_rights(path, 0o555, 0o444)
    root.chmod(0o555)
    try:
        check_that_it_can_be_read_and_not_written(
            path, root, lambda *arguments: command_server.run(*arguments, user=NOBODY)
        )
        assert (path / "manifest.sqlite-journal").exists()
    finally:
        root.chmod(0o755)
        change_rights(path, 0o755, 0o644)
    status, output = command_server.run("remove", path, "00.png")
    assert status == 0 and "11 left" in output


def test_a_read_only_file_system(root, mounts):
    path, server = mounts[0] / "fixed" / "index.cvr", mounts[1]
    check_that_it_can_be_read_and_not_written(path, root, server.run)
    assert "Read-only file system" in server.run("compact", path)[1]


def test_photos_that_may_not_be_read(root, command_server):
    folder = root / "forbidden"
    shutil.copytree(root / "photos", folder / "open")
    shutil.copytree(root / "photos", folder / "closed")
    (folder / "open" / "05.png").chmod(0)
    (folder / "closed").chmod(0)
    folder.chmod(0o777)
    try:
        status, output = command_server.run("index", folder, "--out", folder / "index.cvr", "--words", 4, user=NOBODY)
        assert status == 1 and "11 added" in output and "2 images could not be read" in output
        assert f"{folder / 'open' / '05.png'}  cannot be opened (permission denied)" in output
        assert f"{folder / 'closed'}  " in output and "cannot be listed (Permission denied)" in output
        status, output = command_server.run("info", folder / "index.cvr", user=NOBODY)
        assert status == 0 and "05.png  cannot be opened (permission denied)" in output
    finally:
        (folder / "closed").chmod(0o755)


# -- few files, Ctrl-C


def test_more_shards_than_files_that_may_be_open(filled, monkeypatch):
    """Small arrays are read and need no open file, nor do maps in newer Pythons; else the message says what helps."""
    resource = pytest.importorskip("resource")
    with Store.open(filled, "w") as store:
        for i in range(30):
            add(store, [str(i)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 20, hard))
    try:
        with Store.open(filled) as store:
            assert sum(len(rows) for _, rows in store.vector_segments()) == len(NAMES) + 30
        monkeypatch.setattr(_npy_file, "_SMALLEST_MAP", 0)
        with Store.open(filled) as store:
            if sys.version_info < (3, 13):
                with pytest.raises(StoreError, match=r"Too many open files.*`cvretrieval compact`"):
                    list(store.vector_segments())
        with Store.open(filled, "w") as store:
            store.compact()
            check_contents(store, [*NAMES, *map(str, range(30))])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ctrl_c_keeps_what_is_finished(root, index, command_server, tmp_path):
    n_interrupted = 0
    for attempt in range(40):
        path = tmp_path / f"{attempt}.cvr"
        arguments = ["index", root / "photos", "--out", path, "--words", 8]
        command = command_server.start(*arguments, shard_images=2)
        while not path.exists() and not command.output:
            time.sleep(0.001)
        time.sleep(attempt % 8 * 0.02)
        command.kill(signal.SIGINT)
        status = command.wait()
        assert status in (0, 130), command.output
        if status == 130:
            n_interrupted += 1
            assert command.output.strip() == (
                "interrupted; what was committed is kept, run the same command again to go on"
            )
        status, output = command_server.run(*arguments)
        assert status == 0 and f"{N_PHOTOS} in all" in output
        assert index_contents(path) == index_contents(index)
        if n_interrupted == 4:
            return
    pytest.fail(f"only {n_interrupted} of 40 commands were interrupted before their end")
