"""Every bad input of the list gets a clear answer, through the command line as a user meets it.

The image reader's own tests (`test_images.py`) look at the decoding of each kind more closely; full disks, read-only
targets and missing rights are in `test_faults_disk.py`, damaged and foreign indexes in `test_store_damage.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from cvretrieval import SIFT, VLAD, ImageReadError, ImageRetriever, StoreError
from cvretrieval.retrieval.description import FORMAT
from cvretrieval.retrieval.store import Store


def texture(seed, size=96):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (14, 14)).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)


def save_truncated(path):
    save(path, texture(1), quality=90)
    path.write_bytes(path.read_bytes()[:-400])


def save_huge_header(path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)))


def save_animation(path):
    frames = [Image.fromarray(texture(seed)) for seed in (2, 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def save_nan(path):
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(path)


LONG = "n" * 250 + ".png"

#: what cannot be read: name → how it is made, what is said
BAD = {
    "empty.jpg": (lambda path: path.touch(), "is empty (0 bytes)"),
    "truncated.jpg": (save_truncated, "damaged"),
    "text.jpg": (lambda path: path.write_text("Not an image at all.\n" * 40), "is not an image of a known format"),
    "huge.png": (save_huge_header, "has 400000000 pixels, more than the 178956970 that can be read"),
    "nan.tif": (save_nan, "contains NaN or infinite pixels"),
    "missing.png": (lambda path: path.symlink_to(path.parent / "nothing"), "does not exist"),
    "loop.png": (lambda path: path.symlink_to(path), "symbolic links"),
    "line\nbreak \x1b[31m.png": (lambda path: path.write_text("no"), "is not an image of a known format"),
}

#: what can: name → how it is made
GOOD = {
    "plain.png": lambda path: save(path, texture(0)),
    "sixteen.png": lambda path: save(path, texture(4).astype(np.uint16) * 257),
    "animation.gif": save_animation,
    "naïve 文字 😀.png": lambda path: save(path, texture(5)),
    LONG: lambda path: save(path, texture(6)),
    "-dash.png": lambda path: save(path, texture(7)),
    "sub/plain.png": lambda path: save(path, texture(8)),
    "folder.jpg/inside.png": lambda path: save(path, texture(9)),
}

#: what can, and has no features
EMPTY = {
    "dot.png": lambda path: save(path, np.full((1, 1), 9, np.uint8)),
    "blank.png": lambda path: save(path, np.full((60, 60), 128, np.uint8)),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder with all of them, and a link back to itself."""
    root = tmp_path_factory.mktemp("zoo")
    makers = {**{name: make for name, (make, _) in BAD.items()}, **GOOD, **EMPTY}
    for name, make in makers.items():
        (root / name).parent.mkdir(exist_ok=True)
        make(root / name)
    (root / "again").symlink_to(root)
    return root


@pytest.fixture(scope="module")
def index(zoo, tmp_path_factory, command_server):
    path = tmp_path_factory.mktemp("indexed") / "zoo.cvr"
    status, output = command_server.run("index", zoo, "--out", path, "--words", 8)
    return path, status, output


def check_failure_table(output, zoo):
    for name, (_, reason) in BAD.items():
        printed = str(zoo / name).replace("\n", "\\n").replace("\x1b", "\\x1b")
        lines = [line for line in output.splitlines() if line.startswith(f"{printed} ")]
        assert len(lines) == 1 and reason in lines[0], name


def test_skip_names_every_bad_file_and_takes_every_good_one(index, zoo):
    _, status, output = index
    assert status == 1 and "Traceback" not in output
    assert f"{len(GOOD) + len(EMPTY)} added" in output and "2 without any feature" in output
    assert f"{len(BAD)} images could not be read" in output
    check_failure_table(output, zoo)


def test_info_shows_the_same_table(index, zoo, command_server):
    status, output = command_server.run("info", index[0])
    assert status == 0 and f"unreadable ({len(BAD)})" in output
    check_failure_table(output, zoo)
    status, output = command_server.run("info", index[0], "--json", "--names")
    facts = json.loads(output)
    assert set(facts["ids"]) == {*GOOD, *EMPTY} and facts["n_failed"] == len(BAD) and facts["n_empty"] == 2
    assert {entry["path"] for entry in facts["failures"]} == {str(zoo / name) for name in BAD}


def test_index_again_tries_the_bad_ones_again(index, zoo, command_server, tmp_path):
    path = tmp_path / "again.cvr"
    shutil.copytree(index[0], path)
    status, output = command_server.run("index", zoo, "--out", path)
    assert status == 1 and f"0 added, 0 replaced, {len(GOOD) + len(EMPTY)} unchanged" in output
    check_failure_table(output, zoo)
    # those that are gone for good can be taken out of the table
    assert command_server.run("remove", path, zoo / "missing.png", zoo / "loop.png")[0] == 0
    output = command_server.run("info", path)[1]
    assert f"unreadable ({len(BAD) - 2})" in output and "missing.png" not in output


@pytest.mark.parametrize("name", BAD)
def test_raise_names_the_file(zoo, name, command_server, tmp_path):
    """One bad file among good ones; what was finished is kept."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for good in ("plain.png", "sixteen.png"):
        shutil.copy(zoo / good, folder)
    if (zoo / name).is_symlink():
        BAD[name][0](folder / name)
    else:
        shutil.copy(zoo / name, folder / name)
    arguments = ["index", folder, "--out", tmp_path / "x.cvr", "--words", 4, "-q"]
    status, output = command_server.run(*arguments, "--on-error", "raise")
    assert status == 1 and output.startswith(f"error: {folder / name}: ") and BAD[name][1] in output
    (folder / name).unlink()
    assert command_server.run(*arguments, "--on-error", "raise") == (0, "")
    with Store.open(tmp_path / "x.cvr") as store:
        assert [record.id for record in store.records()] == ["plain.png", "sixteen.png"]


@pytest.mark.parametrize("name", BAD)
def test_bad_queries_are_named_and_the_others_answered(index, zoo, name, command_server):
    status, output = command_server.run("search", index[0], zoo / name, zoo / "plain.png", "--json", "-k", 1)
    lines = output.splitlines()
    assert status == 1 and json.loads(lines[0])["results"][0]["id"] == "plain.png"
    assert "1 query could not be read" in output and BAD[name][1] in output
    status, output = command_server.run("search", index[0], zoo / name, "--on-error", "raise")
    assert status == 1 and output.startswith("error: ") and BAD[name][1] in output


@pytest.mark.parametrize("name", [*GOOD, *EMPTY])
def test_good_files_find_themselves_and_those_without_features_say_so(index, zoo, name, command_server):
    status, output = command_server.run("search", index[0], "--json", "-k", 1000, "--", zoo / name)
    assert status == 0, output
    results = json.loads(output)["results"]
    if name in EMPTY:
        assert results == []
        assert "no features in it" in command_server.run("search", index[0], zoo / name)[1]
    else:
        assert results[0]["id"] == name and results[0]["score"] == 1 and results[0]["n_inliers"] > 10
        assert len(results) == len(GOOD)  # k is larger than the index


def test_given_paths_that_do_not_exist(zoo, command_server, tmp_path):
    path = tmp_path / "x.cvr"
    status, output = command_server.run("index", tmp_path / "none", "--out", path)
    assert status == 2 and f"{tmp_path / 'none'} does not exist" in output and not path.exists()
    status, output = command_server.run("index", tmp_path / "none", zoo / "plain.png", "--out", path, "--words", 4)
    assert status == 1 and "1 added" in output and f"{tmp_path / 'none'}  does not exist" in output
    status, output = command_server.run("add", path, tmp_path / "none")
    assert status == 2 and "does not exist" in output


def test_equal_names_in_two_folders(zoo, command_server, tmp_path):
    for folder, seed in (("one", 11), ("two", 12)):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "same.png", texture(seed))
    path = tmp_path / "x.cvr"
    arguments = ["index", "one", "two", "two/same.png", "--out", path, "--words", 4]
    status, output = command_server.run(*arguments, folder=str(tmp_path))
    assert status == 0 and "2 added" in output
    for folder, name in (("one", "same.png"), ("two", "two/same.png")):
        status, output = command_server.run("search", path, tmp_path / folder / "same.png", "--json", "-k", 1)
        assert json.loads(output)["results"][0]["id"] == name


def test_a_photo_that_became_unreadable_stays(zoo, command_server, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("plain.png", "sixteen.png"):
        shutil.copy(zoo / name, folder)
    path = tmp_path / "x.cvr"
    arguments = ["index", folder, "--out", path, "--words", 4]
    assert command_server.run(*arguments)[0] == 0
    (folder / "plain.png").write_text("spoilt")
    status, output = command_server.run(*arguments)
    assert status == 1 and "plain.png  is not an image" in output and "its earlier version stays in the index" in output
    assert "2 in all" in output
    status, output = command_server.run("search", path, zoo / "plain.png", "--json", "-k", 1)
    assert status == 0 and json.loads(output)["results"][0]["id"] == "plain.png"
    shutil.copy(zoo / "plain.png", folder)
    assert command_server.run(*arguments)[0] == 0
    assert "unreadable" not in command_server.run("info", path)[1]


def test_an_index_inside_the_photos_folder_and_an_empty_folder_for_it(zoo, command_server, tmp_path):
    shutil.copy(zoo / "plain.png", tmp_path)
    (tmp_path / "x.cvr").mkdir()
    for expected in ("1 added, 0 replaced, 0 unchanged", "0 added, 0 replaced, 1 unchanged"):
        status, output = command_server.run("index", tmp_path, "--out", tmp_path / "x.cvr", "--words", 4)
        assert status == 0 and expected in output


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((40, 40), np.nan), "NaN"), (np.zeros((40, 40), np.int32), "wrong dtype"),
        (np.zeros((40, 40, 2), np.uint8), "shape of an image"), (np.full((40, 40), 3.0), "floats must lie in"),
    ],
)  # fmt: skip
def test_bad_arrays_in_python(array, reason):
    model = ImageRetriever(extractor=SIFT(), encoder=VLAD(4, random_state=0), on_error="skip")
    with model.fit([texture(0), array, texture(1)]) as retriever:
        assert len(retriever) == 2
        [(name, why)] = retriever.failures
        assert reason in why and name == "image-000002"
        result = retriever.search([array, texture(1)], k=1)
        assert reason in result.failures[0][1] and result.ids == [["image-000003"]]
        retriever.on_error = "raise"
        with pytest.raises(ImageReadError, match=reason):
            retriever.add([array])
        with pytest.raises(ImageReadError, match=reason):
            retriever.search([array])


# -- the index


def test_newer_format(index, command_server, tmp_path):
    path = tmp_path / "x.cvr"
    shutil.copytree(index[0], path)
    description = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps({**description, "format": FORMAT + 1}))
    for arguments in (["info", path], ["search", path, path], ["add", path, path], ["compact", path]):
        status, output = command_server.run(*arguments)
        assert status == 2 and f"has format {FORMAT + 1}" in output and "pip install -U" in output


def test_a_damaged_shard_from_the_message_to_the_mended_index(index, zoo, command_server, tmp_path):
    path = tmp_path / "x.cvr"
    shutil.copytree(index[0], path)
    shard = next((path / "shards").iterdir())
    (shard / "vectors.npy").write_bytes(b"garbage")
    status, output = command_server.run("search", path, zoo / "plain.png")
    assert status == 2 and "vectors.npy is damaged" in output and "--damaged" in output
    status, output = command_server.run("info", path, "--check")
    assert status == 1 and "1 damaged file" in output and f"{len(GOOD) + len(EMPTY)} images" in output
    status, output = command_server.run("info", path, "--check", "--json")
    assert status == 1 and str(shard / "vectors.npy") in output
    status, output = command_server.run("remove", path, "--damaged")
    assert status == 0 and f"removed {len(GOOD) + len(EMPTY)}, 0 left" in output
    assert "holds no images" in command_server.run("search", path, zoo / "plain.png")[1]
    assert command_server.run("index", zoo, "--out", path)[0] == 1
    assert command_server.run("compact", path)[0] == 0
    status, output = command_server.run("info", path, "--check")
    assert status == 0 and "every file is as it was written" in output
    status, output = command_server.run("search", path, zoo / "plain.png", "--json", "-k", 1)
    assert json.loads(output)["results"][0]["id"] == "plain.png"


def test_second_writer_is_refused_with_a_message_and_readers_are_not(index, zoo, command_server):
    with Store.open(index[0], "w"):
        for arguments in (["add", index[0], zoo], ["remove", index[0], "plain.png"], ["compact", index[0]]):
            status, output = command_server.run(*arguments)
            assert status == 2 and f"being written by another process (process {os.getpid()} on " in output
        status, output = command_server.run("search", index[0], zoo / "plain.png", "--json", "-k", 1)
        assert status == 0 and json.loads(output)["results"][0]["id"] == "plain.png"


def test_remove_wants_names(index, command_server):
    status, output = command_server.run("remove", index[0])
    assert status == 2 and "NAME" in output
    status, output = command_server.run("remove", index[0], "plain.png", "unknown.png")
    assert status == 2 and "'unknown.png'" in output and "Nothing was removed" in output


# -- loading never executes code from the file


@pytest.fixture
def crafted(index, tmp_path):
    """A copy of an index whose description is changed by a function."""

    def craft(change):
        path = tmp_path / "x.cvr"
        shutil.copytree(index[0], path)
        description = json.loads((path / "index.json").read_text())
        change(description["config"])
        (path / "index.json").write_text(json.dumps(description))
        return path

    return craft


@pytest.mark.parametrize(
    "stage",
    [
        {"class": "os.system", "params": {"command": "false"}},
        {"class": "Popen", "params": {"args": "false"}},
        {"class": "make_scenes", "params": {}},
        {"class": "__class__", "params": {}},
        {"class": "SIFT", "params": {"reader": {"estimator": {"class": "eval", "params": {}}}}},
        {"class": "SIFT", "params": {"unknown": 1}},
        {"class": "SIFT", "params": [1]},
        {"class": ["SIFT"], "params": {}},
        "SIFT",
        None,
        {},
    ],
    ids=str,
)
def test_only_the_estimators_that_may_be_stored_are_built(crafted, stage):
    path = crafted(lambda config: config.update(extractor=stage))
    with pytest.raises(StoreError, match="description of the stages cannot be used"):
        ImageRetriever.load(path)


@pytest.mark.parametrize(
    "meta",
    [
        {"values": {"transform": 1}}, {"values": {"__class__": 1}}, {"arrays": {"_private_": "words"}},
        {"arrays": {"codebook_": "nowhere"}},
        {"estimators": {"codebook_": {"config": {"class": "exec", "params": {}}}}},
        {"steps": [{}]}, {"values": []}, {"values": {"n_dims_": {"estimator": {"class": "eval", "params": {}}}}},
    ],
    ids=str,
)  # fmt: skip
def test_the_model_sets_learned_attributes_only(index, tmp_path, meta):
    with Store.open(index[0]) as store:
        config = store.config
    with Store.create(tmp_path / "x.cvr", config) as store:
        store.write_model({"words": np.zeros((2, 2))}, meta)
    with pytest.raises(StoreError, match="description of the stages cannot be used"):
        ImageRetriever.load(tmp_path / "x.cvr")


def test_loading_unpickles_and_starts_nothing(index):
    """The interpreter itself is asked."""
    program = """
import sys
from cvretrieval import ImageRetriever

def use():
    retriever = ImageRetriever.load(sys.argv[1])
    retriever._store.features([record.key for record in retriever._store.records() if record.status == "ok"])
    list(retriever._store.vector_segments())
    retriever.check()
    retriever.close()

use()  # what is imported now is not imported again
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
use()
# (not "compile": NumPy parses its headers as literals; without "exec" nothing runs)
bad = {"pickle.find_class", "exec", "import", "os.system", "os.exec", "os.fork", "os.posix_spawn",
       "subprocess.Popen", "ctypes.dlopen", "marshal.loads", "socket.connect"}
print(sorted(bad & set(seen)), "open" in seen)
"""
    done = subprocess.run([sys.executable, "-c", program, index[0]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] True"
