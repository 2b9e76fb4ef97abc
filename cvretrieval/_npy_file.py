"""Single arrays in NumPy's format, version 1.0, written through a digest and mapped into memory."""

from __future__ import annotations

import mmap
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._durable import HashingFile

# A smaller array is read at once: it is not worth a map, and an array without elements cannot have one.
_SMALLEST_MAP = 65_536
# A map keeps no file open where Python allows that: an index may have more shards than a process may open files.
_MAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) and os.name == "posix" else {}

_MAGIC = b"\x93NUMPY\x01\x00"
# NumPy reads the header with `ast.literal_eval`, which fails now and then while other threads do the same (CPython's
# issue 106905, "AST constructor recursion depth mismatch"); what `write_npy` writes has this one form.
_HEADER = re.compile(rb"\{'descr': '([<>|=]?[a-zA-Z]\d*)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")


def write_npy(array: NDArray[Any], file: HashingFile) -> None:
    """Write one array in C order."""
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)  # type: ignore[arg-type]


def read_npy(path: Path, n_bytes: int) -> NDArray[Any]:
    """Return the read-only array of a file that `write_npy` wrote; a large one is memory-mapped.

    Raises
    ------
    ValueError
        If the file has not the given size, or is no such file.
    OSError
        If it cannot be opened.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size != n_bytes:
            raise ValueError(f"{size} bytes instead of {n_bytes}")
        file.seek(0)
        start = file.read(len(_MAGIC) + 2)
        if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + 2:
            raise ValueError("it does not begin like an array of NumPy's format 1.0")
        header = file.read(int.from_bytes(start[-2:], "little"))
        matched = _HEADER.fullmatch(header)
        if matched is None:
            raise ValueError(f"its header is {header[:100]!r}")
        dtype = np.dtype(matched[1].decode())
        if dtype.hasobject:
            raise ValueError(f"an array of {dtype}")
        shape = tuple(int(length) for length in matched[2].replace(b" ", b"").split(b",") if length)
        offset = file.tell()
        if size < _SMALLEST_MAP or 0 in shape:
            data: Any = file.read()
            array: NDArray[Any] = np.ndarray(shape, dtype, buffer=data)
        else:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_MAP_OPTIONS)
            array = np.ndarray(shape, dtype, buffer=data, offset=offset)
    array.setflags(write=False)
    return array
