"""Downloading one file: only when called, resumed where it stopped, checked, and never half there."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvretrieval._durable import cannot_write, sync_folder
from cvretrieval._validation import StoreError, check_number

#: Beside the file while it is incomplete: what has come so far, and what it is a part of.
PARTIAL, ORIGIN = ".part", ".part.json"

_BLOCK = 1 << 20


class DownloadError(OSError):
    """A download that failed; what has come so far is kept if the next call can go on from there."""


@dataclass
class _Interrupted(Exception):
    """The connection ended early."""

    reason: str


def fetch(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    timeout: float = 60.0,
    n_retries: int = 3,
    verbose: bool = False,
) -> Path:
    """Download a file, or go on with a download that was interrupted.

    Parameters
    ----------
    url : str
        http or https.
    path : path
        Of the file; its folder is made. A file that is there already is checked and kept.
    sha256, md5 : str, optional
        Hexadecimal digest that the file must have. MD5 guards against damage only, for files whose authors publish
        nothing better.
    size : int, optional
        Bytes that the file must have.
    timeout : float, default=60
        Seconds without a byte after which the connection counts as interrupted.
    n_retries : int, default=3
        How often in one call an interrupted download is taken up again.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    DownloadError
        If the server refuses or the connection is interrupted too often.
    ValueError
        If the file has another size or digest than it must; it is not kept.
    StoreError
        If the file cannot be written.

    Notes
    -----
    What has come so far is kept in ``path.part``. It is taken up again (HTTP ``Range`` with ``If-Range``) if the server
    says by an ETag or a date that it is still a part of the same file; else the download begins anew. The file gets its
    name when it is complete and checked. One process at a time may download to a path.

    Examples
    --------
    >>> from cvretrieval.datasets import fetch
    >>> fetch(
    ...     "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    ...     "data/CUB_200_2011.tgz",
    ...     md5="97eceeb196236b17998738112f37df78",
    ... )  # doctest: +SKIP
    PosixPath('data/CUB_200_2011.tgz')
    """
    check_number("fetch", "n_retries", n_retries, low=0, integer=True)
    check_number("fetch", "timeout", timeout, low=0.0, low_open=True)
    check_number("fetch", "size", size, low=0, integer=True, optional=True)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"The 'url' parameter of fetch must begin with http:// or https://. Got {url!r} instead.")
    expected = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value is not None}
    target = Path(path)
    if target.is_file():
        _check(target, url, size, expected, f"Remove {target} to download it again.")
        return target
    partial = target.with_name(target.name + PARTIAL)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _complete(url, partial, size, timeout, n_retries, verbose)
        try:
            _check(partial, url, size, expected, "It was not kept.")
        except ValueError:
            _discard(partial)
            raise
        os.replace(partial, target)
        _origin_of(partial).unlink(missing_ok=True)
        sync_folder(target.parent)
    except (DownloadError, StoreError):
        raise
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _complete(url: str, partial: Path, size: int | None, timeout: float, n_retries: int, verbose: bool) -> None:
    failures = 0
    while True:
        n_before = _size(partial)
        try:
            _receive(url, partial, size, timeout, verbose)
            return
        except _Interrupted as interruption:
            failures += 1
            n_bytes = _size(partial)
            if failures > n_retries:
                raise DownloadError(
                    f"{url} was interrupted after {n_bytes:,} bytes ({interruption.reason}). Call again to go on."
                ) from interruption
            if n_bytes <= n_before:
                time.sleep(2.0**failures)  # a server in trouble is not helped by being asked at once


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _receive(url: str, partial: Path, size: int | None, timeout: float, verbose: bool) -> None:
    """Ask for what is missing and write it."""
    headers = {"User-Agent": "cvretrieval", "Accept-Encoding": "identity"}
    validator = _validator(url, partial)
    n_present = partial.stat().st_size if validator is not None else 0
    if n_present:
        headers |= {"Range": f"bytes={n_present}-", "If-Range": str(validator)}
    try:
        # The scheme was checked: nothing but http and https.
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            start, total = _extent(response, n_present)
            if size is not None and total is not None and total != size:
                _discard(partial)
                raise ValueError(f"{url} has {total:,} bytes, but must have {size:,}. It is not what was expected.")
            _note_origin(url, partial, response, start)
            _write(response, partial, start, total, verbose)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and n_present:
            if error.headers.get("Content-Range") == f"bytes */{n_present}":
                return  # all of it is here; only its name was missing
            _discard(partial)
            raise _Interrupted("the server has no more bytes than are here") from error
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _Interrupted(f"the server says {error.code} {error.reason}") from error
        raise DownloadError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}.") from error
    except urllib.error.URLError as error:
        raise _Interrupted(str(error.reason)) from error
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _extent(response: Any, n_present: int) -> tuple[int, int | None]:
    """Return at which byte the answer begins, and how many the whole file has, if the server says."""
    length = response.headers.get("Content-Length")
    if response.status != http.client.PARTIAL_CONTENT:
        return 0, int(length) if length is not None and length.isdecimal() else None
    named = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not named or int(named[1]) != n_present:
        raise _Interrupted(f"the server sent another part: {response.headers.get('Content-Range')!r}")
    return n_present, None if named[2] == "*" else int(named[2])


def _write(response: Any, partial: Path, start: int, total: int | None, verbose: bool) -> None:
    from tqdm import tqdm

    with (
        partial.open("r+b" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.name.removesuffix(PARTIAL),
             disable=None if verbose else True) as bar,
    ):  # fmt: skip
        file.seek(start)
        n_bytes = start
        while block := _read(response):
            file.write(block)
            n_bytes += len(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and n_bytes < total:
        raise _Interrupted(f"{total:,} bytes were announced")


def _read(response: Any) -> bytes:
    """Read what there is; an error of the connection must not look like one of the disk."""
    try:
        return response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _origin_of(partial: Path) -> Path:
    return partial.with_name(partial.name.removesuffix(PARTIAL) + ORIGIN)


def _validator(url: str, partial: Path) -> str | None:
    """Return what the server must recognise for the part to be taken up; None if there is none of this address."""
    try:
        origin = json.loads(_origin_of(partial).read_text(encoding="utf-8"))
        if partial.is_file() and origin["url"] == url and isinstance(origin["validator"], str):
            return origin["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _note_origin(url: str, partial: Path, response: Any, start: int) -> None:
    if start:
        return
    _discard(partial)
    etag = response.headers.get("ETag")
    # A weak tag promises the same meaning, not the same bytes.
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        _origin_of(partial).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _discard(partial: Path) -> None:
    _origin_of(partial).unlink(missing_ok=True)
    partial.unlink(missing_ok=True)


def _check(file: Path, url: str, size: int | None, expected: dict[str, str], way_out: str) -> None:
    n_bytes = file.stat().st_size
    if size is not None and n_bytes != size:
        raise ValueError(f"{url} should have {size:,} bytes, but {file.name} has {n_bytes:,}. {way_out}")
    for name, digest in expected.items():
        found = hashlib.new(name, usedforsecurity=False)
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                found.update(block)
        if found.hexdigest() != digest:
            raise ValueError(
                f"{url} should have the {name} digest {digest}, but {file.name} has {found.hexdigest()}: it is damaged "
                f"or has been changed. {way_out}"
            )
