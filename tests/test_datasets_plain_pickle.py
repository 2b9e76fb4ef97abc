"""Pickles are parsed as data: what is plain comes back equal, what would run is refused."""

from __future__ import annotations

import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval.datasets import read_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes, folder):
    file = folder / "data.pkl"
    file.write_bytes(data)
    return read_plain_pickle(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=20),
    st.binary(max_size=20),
)  # fmt: skip
hashable = st.one_of(st.integers(), st.text(max_size=8), st.tuples(st.integers(), st.text(max_size=3)))
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.tuples(inner, inner, inner, inner),
        st.dictionaries(hashable, inner, max_size=5),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(folder, value, protocol):
    found = read(pickle.dumps(value, protocol=protocol), folder)
    assert found == value
    assert _types(found) == _types(value)


def _types(value):
    if isinstance(value, (list, tuple)):
        return (type(value), [_types(item) for item in value])
    if isinstance(value, dict):
        return (dict, {key: _types(item) for key, item in value.items()})
    return type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6), np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(6.0).reshape(2, 3).T,
        np.array([], dtype=np.int32), np.array(3.5), np.array([True, False]), np.arange(4, dtype=">i4"),
        np.array(["ä", "bcd"]), np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)), np.int64(7),
        np.float32(0.1),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)  # fmt: skip
def test_arrays_come_back(folder, array, protocol):
    value = {"first": array, "again": [array, (array,)], "other": [array.copy()]}
    found = read(pickle.dumps(value, protocol=protocol), folder)
    for part in (found["first"], found["again"][0], found["again"][1][0], found["other"][0]):
        np.testing.assert_array_equal(part, array)
        assert part.dtype == array.dtype
        assert part.shape == array.shape
    if array.ndim:
        assert found["first"] is found["again"][0]
        found["other"][0].setflags(write=True)
        assert not np.shares_memory(found["first"], found["other"][0])


def test_python_2_pickles(folder):
    """Byte strings of Python 2 are text; these are its bytes for {'imlist': ['a', 'b'], 'n': 3L}."""
    data = b"(dp0\nS'imlist'\np1\n(lp2\nS'a'\np3\naS'b'\np4\nasS'n'\np5\nL3L\ns."
    assert read(data, folder) == {"imlist": ["a", "b"], "n": 3}
    binary = b"\x80\x02}q\x00(U\x06imlistq\x01]q\x02(U\x01aq\x03U\x01bq\x04eU\x01nq\x05\x8a\x01\x03u."
    assert read(binary, folder) == {"imlist": ["a", "b"], "n": 3}


def test_loops_end(folder):
    loop: list = [1]
    loop.append(loop)
    found = read(pickle.dumps(loop), folder)
    assert found[0] == 1
    assert found[1] is found


class _RunsOnLoad:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_nothing_is_executed(folder):
    """Each of these, unpickled, would make a file, or run something else."""
    victim = folder / "executed"
    payloads = {
        "system": _RunsOnLoad(os.system, f"touch {victim}"),
        "eval": _RunsOnLoad(eval, f"open({str(victim)!r}, 'w')"),
        "open": _RunsOnLoad(open, str(victim), "w"),
        "exec": _RunsOnLoad(exec, f"open({str(victim)!r}, 'w')"),
        "bytes": _RunsOnLoad(bytes, 2**40),
        "fromfile": _RunsOnLoad(np.fromfile, str(victim)),
        "object": _RunsOnLoad(np.dtype, "O"),
        "structure": _RunsOnLoad(np.dtype, "i4,O"),
        "object array": np.array([_RunsOnLoad(os.system, f"touch {victim}")], dtype=object),
        "class": _Plain(),
    }
    for name, payload in payloads.items():
        for protocol in PROTOCOLS:
            with pytest.raises(ValueError, match=r"cannot be read as plain data.*Nothing in it was executed"):
                read(pickle.dumps({"imlist": [], "gnd": [payload]}, protocol=protocol), folder)
            assert not victim.exists(), name


class _Plain:
    pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "the name of a program, posix.system|the name of a program, os.system"),
        (b"(ios\nsystem\n.", "the instruction INST"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
        (b"\x80\x02cnumpy\nndarray\n.", "something that is not plain data"),
        (b"\x80\x02]cnumpy\nndarray\na.", "something that is not plain data"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"P1\n.", "the instruction PERSID"),
        (b"\x80\x02Q.", "the instruction BINPERSID"),
        (b"]K\x01R.", "int where tuple should be"),
        (b"]K\x01b.", "list where dtype should be"),
        (b"K\x01K\x02a.", "int where list should be"),
        (b"K\x01K\x02.", "an end with 2 objects"),
        (b"(K\x01d.", "a key without a value"),
        (b"h\x05.", r"a damaged part \(KeyError\)"),
        (b"0.", r"a damaged part \(IndexError\)"),
        (b"", "pickle exhausted"),
        (b"\x80\x02]", "pickle exhausted"),
        (b"\xff\xd8\xff\xe0", "opcode"),
        (b"X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
        (b"}(]K\x01u.", r"a damaged part \(TypeError\)"),
    ],
)
def test_what_is_refused(folder, data, reason):
    with pytest.raises(ValueError, match=reason):
        read(data, folder)


def test_arrays_that_lie_about_their_size(folder):
    honest = pickle.dumps(np.arange(4, dtype=np.int64), protocol=2)
    # The shape (4,) is a small integer right before the first TUPLE1 that follows the state's version.
    for opcode, argument, at in pickletools.genops(honest):
        if opcode.name == "BININT1" and argument == 4:
            lying = honest[: at + 1] + b"\xc8" + honest[at + 2 :]
            break
    with pytest.raises(ValueError, match=r"an array of shape \(200,\) in 32 bytes"):
        read(lying, folder)


def test_every_cut_is_refused(folder):
    data = pickle.dumps({"imlist": ["a"], "gnd": [{"easy": np.arange(3), "bbx": [1.0, 2.0, 3.0, 4.0]}]})
    for length in range(len(data)):
        with pytest.raises(ValueError, match="cannot be read as plain data"):
            read(data[:length], folder)


def test_deep_nesting_is_refused(folder):
    # Written by hand: the pickler itself gives up on so many levels.
    with pytest.raises(ValueError, match="nested too deeply"):
        read(b"\x80\x02" + b"]" * 5_000 + b"a" * 4_999 + b".", folder)
