"""Named arrays and strings in one safetensors file, bit by bit as they were, with a checksum of all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Metadata that belong to the file itself: BLAKE2b of everything else, and names of arrays that lie transposed.
_DIGEST, _TRANSPOSED = "digest", "transposed"


class DamagedFileError(ValueError):
    """A file that is no safetensors file, or whose contents are not those that were written."""


def array_file(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the contents of a file that holds arrays of numbers or booleans, and strings."""
    from safetensors.numpy import save

    plain = {name: _in_one_piece(array) for name, array in arrays.items()}
    # A matrix product in another memory order differs in the last bits, so arrays in Fortran's stay in it.
    turned = [name for name, array in plain.items() if not array.flags.c_contiguous]
    plain.update({name: plain[name].T for name in turned})
    strings = {**metadata, _TRANSPOSED: json.dumps(turned)}
    return save(plain, metadata={**strings, _DIGEST: digest_of(plain, strings)})


def read_array_file(
    path: Path, check: Callable[[Mapping[str, str]], None] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and strings that `array_file` was given; `check` sees the strings before the rest is read.

    Raises
    ------
    DamagedFileError
        If the file is damaged, or no such file.
    OSError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if check is not None:
                check(metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except SafetensorError as error:
        raise DamagedFileError(str(error)) from error
    if metadata.get(_DIGEST) != digest_of(arrays, metadata):
        raise DamagedFileError("its checksum differs from the one in its header")
    arrays.update({name: arrays[name].T for name in json.loads(metadata[_TRANSPOSED])})
    return arrays, metadata


def digest_of(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Return the BLAKE2b digest (16 bytes, hexadecimal) of all that is in a file but the digest itself."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(metadata.keys() - {_DIGEST}):
        found.update(json.dumps([name, metadata[name]]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _in_one_piece(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array without gaps, in the order of its axes in memory and in the byte order of the format."""
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return array
    array = array.copy(order="K")
    return array if array.flags.f_contiguous else np.ascontiguousarray(array)
