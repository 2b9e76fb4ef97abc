"""`kill -9` at any instant leaves a store that opens, holds every committed image, and resumes.

A reader polls the store while the command runs: what it has seen is committed, so it must be there after the kill.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvretrieval import StoreError
from cvretrieval.retrieval.store import Store

N_KILLS = 12
SHARD_IMAGES = 4
REMOVED = [f"{i:02d}.png" for i in range(0, 12, 3)]
OPTIONS = {"shard_images": SHARD_IMAGES}


@dataclass
class Case:
    """A command, the store it starts from (None: it makes one), what it should end with, and how long it takes."""

    arguments: list[str]
    before: Path | None
    after: dict
    seconds: float


@pytest.fixture(scope="module")
def cases(command_server, tmp_path_factory):
    """Undisturbed runs of the four commands."""
    root = tmp_path_factory.mktemp("undisturbed")
    rng = np.random.default_rng(7)
    for i in range(20):
        path = root / ("photos" if i < 12 else "more") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (12, 12)).astype(np.uint8)
        Image.fromarray(pixels).resize((80, 80), Image.Resampling.BICUBIC).save(path)
    (root / "photos" / "99.png").write_text("no image")
    store = root / "index.cvr"
    made = {}
    for verb, arguments in {
        "index": ["index", root / "photos", "--words", 8, "-j", 2, "-q", "--out"],
        "add": ["add", "-j", 2, "-q"],
        "remove": ["remove", "-q"],
        "compact": ["compact", "-q"],
    }.items():
        last = {"add": [root / "more"], "remove": REMOVED}.get(verb, [])
        arguments = [str(argument) for argument in (*arguments, "{store}", *last)]  # noqa: PLW2901
        before = None
        if verb != "index":
            before = root / f"{verb}.cvr"
            shutil.copytree(store, before)
        start = time.perf_counter()
        status, output = command_server.run(*[a.format(store=store) for a in arguments], **OPTIONS)
        # the unreadable photo is named
        assert status == (1 if verb == "index" else 0), output
        made[verb] = Case(arguments, before, contents(store), time.perf_counter() - start)
    assert len(made["index"].after) == 13 and len(made["add"].after) == 21
    assert len(made["remove"].after) == len(made["compact"].after) == 21 - len(REMOVED)
    return made


def contents(path):
    """id → status, descriptors, keypoints and vector (None before it is made), in the order of the store."""
    with Store.open(path) as store:
        vectors = {key: row for keys, rows in store.vector_segments() for key, row in zip(keys, rows, strict=True)}
        found = {}
        for record in store.records():
            if record.status == "failed":
                found[record.id] = ("failed", record.reason)
                continue
            features = store.features([record.key])
            vector = vectors.get(record.key)
            found[record.id] = (
                record.status, features.descriptors.tobytes(), features.keypoints.tobytes(),
                None if vector is None else vector.tobytes(),
            )  # fmt: skip
        return found


def committed(path):
    """What a reader sees this instant; nothing before the store is made."""
    try:
        with Store.open(path) as store:
            return {record.id: record.status for record in store.records()}
    except StoreError as error:
        assert "does not exist" in str(error)
        return {}


def prepare(case, folder):
    store = folder / "index.cvr"
    if case.before is not None:
        shutil.copytree(case.before, store)
    return store, [argument.format(store=store) for argument in case.arguments]


def check_after_kill(verb, case, store, seen):
    """The store opens and holds what was committed, all of it whole."""
    if not store.exists():
        assert verb == "index" and not seen
        return
    with Store.open(store) as opened:
        assert opened.check() == []
    found = contents(store)
    assert seen.keys() <= found.keys() or verb == "remove"
    if verb == "remove":
        assert found.keys() in ({*case.after, *REMOVED}, {*case.after})
    for name, image in found.items():
        if name in case.after and image[0] != "failed":
            assert image[:3] == case.after[name][:3] and image[3] in (None, case.after[name][3])


def check_after_resuming(verb, case, store, arguments, server):
    """The same command again ends where an undisturbed run does, and nothing lies about."""
    if verb != "remove" or REMOVED[0] in committed(store):
        status, output = server.run(*arguments, **OPTIONS)
        assert status == (1 if verb == "index" else 0), output
    found = contents(store)
    assert found == case.after
    readable = [[name for name in ids if name in found and found[name][0] != "failed"] for ids in (found, case.after)]
    assert readable[0] == readable[1]
    with Store.open(store, "w") as opened:
        named = {f"{shard.shard:08d}" for shard in opened.shard_records()}
        assert opened.check() == []
    assert {path.name for path in (store / "shards").iterdir()} == named
    assert not list(store.rglob(".tmp-*")) and not list(store.parent.glob(".cvretrieval-*"))


@pytest.mark.parametrize("verb", ["index", "add", "remove", "compact"])
def test_kill_at_random_instants(verb, cases, command_server, tmp_path):
    case = cases[verb]
    rng = random.Random(verb)
    n_killed = 0
    for attempt in range(10 * N_KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        store, arguments = prepare(case, folder)
        seen = committed(store)
        deadline = time.perf_counter() + rng.uniform(0, case.seconds)
        command = command_server.start(*arguments, **OPTIONS)
        while time.perf_counter() < deadline:
            if verb in ("index", "add"):
                seen = committed(store)
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            command.kill()
        n_killed += command.wait() == -signal.SIGKILL
        check_after_kill(verb, case, store, seen)
        check_after_resuming(verb, case, store, arguments, command_server)
        if n_killed == N_KILLS:
            return
    pytest.fail(f"only {n_killed} of {10 * N_KILLS} commands were killed before their end")


@pytest.mark.parametrize(("verb", "step"), [("index", 9), ("add", 7), ("remove", 1), ("compact", 4)])
def test_death_before_each_change_of_a_file(verb, step, cases, command_server, tmp_path):
    """Beside the random instants: right between two changes, where half-done work would show."""
    case = cases[verb]
    for n in range(1, 500, step):
        folder = tmp_path / str(n)
        folder.mkdir()
        store, arguments = prepare(case, folder)
        seen = committed(store)
        status, output = command_server.run(*arguments, die_at=n, **OPTIONS)
        check_after_kill(verb, case, store, seen)
        check_after_resuming(verb, case, store, arguments, command_server)
        if status >= 0:
            assert n > 1, output
            return
        assert status == -signal.SIGKILL
    pytest.fail("the command never came to its end")


@pytest.mark.parametrize("verb", ["index", "add", "compact"])
def test_what_is_committed_is_on_the_disk_before(verb, cases, command_server, tmp_path):
    """Contents are synced before they get their name, names before the commit, and old shards go after it."""
    case = cases[verb]
    arguments = prepare(case, tmp_path)[1]
    command_server.run(*arguments, trace=tmp_path / "trace", **OPTIONS)
    events = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    unsynced, unnamed, last_sql, n_commits, writing = set(), set(), "", 0, False
    for kind, *values in events:
        path = Path(values[0])
        if kind == "sql":
            last_sql = values[0]
            writing = writing or last_sql.startswith("BEGIN IMMEDIATE")
            if last_sql == "COMMIT" and writing:
                assert not unsynced and not unnamed
                n_commits, writing = n_commits + 1, False
        elif path.name == "lock" or path.name.startswith("manifest.sqlite"):
            continue
        elif kind == "open":
            unsynced.add(path)
            unnamed.add(path.parent)
        elif kind == "mkdir":
            unnamed.add(path.parent)
        elif kind == "sync":
            unsynced.discard(path)
            unnamed.discard(path)
        elif kind == "rename":
            assert not [p for p in unsynced if p == path or path in p.parents]
            assert not [p for p in unnamed if p == path or path in p.parents]
            unnamed.add(Path(values[1]).parent)
        elif kind == "rmtree" and path.parent.name == "shards":
            assert last_sql == "COMMIT"
    assert n_commits == {"index": 4 + 1 + 3, "add": 2, "compact": 1}[verb]
    assert not unsynced and not unnamed


def test_the_installed_program(cases, tmp_path):
    """Once with nothing of the tests inside: killed after its first commit, then run again."""
    case = cases["index"]
    store, arguments = prepare(case, tmp_path)
    program = [Path(sys.executable).with_name("cvretrieval"), *arguments]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not committed(store):
        time.sleep(0.002)
    process.kill()
    process.wait()
    check_after_kill("index", case, store, committed(store))
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 1 and "99.png" in done.stderr
    found = contents(store)
    assert found == case.after
