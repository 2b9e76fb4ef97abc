"""Single arrays on disk: every form comes back as it was, everything else is refused."""

import ast
from functools import partial

import numpy as np
import pytest

from cvretrieval._durable import replace_file
from cvretrieval._npy_file import read_npy, write_npy


def write(path, array):
    return replace_file(path, partial(write_npy, array))[0]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "|u1", "|i1", "<i8", "<u4", "|b1", "<U7", "|S3", "<c8"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 128), (3,), (300, 128), (2, 3, 4)])
def test_arrays_come_back(tmp_path, rng, dtype, shape):
    array = rng.integers(0, 2, shape).astype(dtype)
    path = tmp_path / "a.npy"
    n_bytes = write(path, array)
    found = read_npy(path, n_bytes)
    assert found.dtype == array.dtype and not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(np.load(path), array)  # the format is NumPy's


def test_fortran_order_is_turned(tmp_path, rng):
    array = np.asfortranarray(rng.normal(size=(200, 100)))
    n_bytes = write(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy", n_bytes), array)


def test_reading_does_not_need_the_parser_of_python(tmp_path, monkeypatch):
    """CPython's issue 106905: it fails now and then when threads use it at the same time."""
    n_bytes = write(tmp_path / "a.npy", np.arange(5))
    monkeypatch.setattr(ast, "parse", None)
    assert read_npy(tmp_path / "a.npy", n_bytes).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "bytes instead of"),
        (lambda data: b"x" + data[1:], "does not begin"),
        (lambda data: data.replace(b"(40,)", b"(41,)"), "too small"),
        (lambda data: data.replace(b"(40,)", b"(-1,)"), "its header is"),
        (lambda data: data.replace(b"<i8", b"|O8"), "array of object"),
        (lambda data: data.replace(b"False", b"True "), "its header is"),
        (lambda data: data[:6] + b"\x02" + data[7:], "does not begin"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, damage, reason):
    path = tmp_path / "a.npy"
    n_bytes = write(path, np.arange(40))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((ValueError, TypeError), match=reason):
        read_npy(path, n_bytes)
