"""Images behind URLs: ``s3://``, ``gs://``, ``http://`` and whatever else fsspec has a driver for.

An image of a URL is unchanged as long as the size and the validators that the server gives (ETag, checksum, time of the
last change) are; where it gives none, as long as its bytes are, which takes reading it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from cvretrieval._optional import import_optional
from cvretrieval._parallel import map_blocks
from cvretrieval._validation import ImageReadError
from cvretrieval.image_files import IMAGE_SUFFIXES

# A letter and a colon is a drive; "simplecache::s3://" is one of fsspec's chains.
_URL = re.compile(r"(?:[a-zA-Z][\w+.-]*::)*[a-zA-Z][\w+.-]+://")
# What servers say of a version of a file, in fsspec's words for several of them.
_VALIDATORS = ("etag", "content-md5", "digest", "last-modified", "lastmodified", "md5hash", "crc32c", "generation",
               "versionid", "mtime", "updated", "created", "modified")  # fmt: skip
# Servers are asked about so many files at once: it is waiting, not work.
_REQUESTS = 16


def is_url(source: Any) -> bool:
    """Whether an image, or a folder of them, is named by a URL rather than a path."""
    return isinstance(source, str) and _URL.match(source) is not None


def absolute(source: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file, or its URL as it is."""
    text = os.fspath(source)
    return text if is_url(text) else os.path.abspath(text)


def read_url(url: str) -> bytes:
    """Return the content of a URL.

    Raises
    ------
    ImageReadError
        If it cannot be read in full; naming the URL.
    ImportError
        If fsspec or its driver for the URL is missing.
    """
    files, path = _open(url)
    try:
        return bytes(files.cat_file(path))
    except Exception as error:  # each driver has errors of its own
        raise ImageReadError(url, _reason(error)) from error


def stamp_urls(urls: Sequence[str]) -> list[tuple[int, int]]:
    """Return the size and a number that stands for the version of each URL; zeros where reading it will say why."""
    return list(map_blocks(_stamp, urls, n_jobs=min(_REQUESTS, max(1, len(urls)))))


def is_folder(url: str) -> bool:
    """Whether a URL is to be listed: one that ends in a slash, or that the driver says is a folder.

    A page of a web server is one only by its slash, and one with the suffix of an image is not looked at.
    """
    if url.endswith("/"):
        return True
    if _is_image(url) or _is_web(url):
        return False
    files, path = _open(url)
    try:
        return bool(files.isdir(path))
    except Exception:  # reading it will say why
        return False


def find_urls(folder: str) -> list[str]:
    """List the URLs of the image files under a folder, sorted, by their suffixes; hidden ones are left out.

    Raises
    ------
    ImageReadError
        If the folder cannot be listed.
    ImportError
        If fsspec or its driver for the URL is missing.
    """
    files, path = _open(folder)
    try:
        # Listings are kept by some drivers; what has changed since would not be seen.
        files.invalidate_cache()
        if not files.exists(path):
            raise FileNotFoundError(folder)
        found = files.find(path)
    except Exception as error:  # each driver has errors of its own
        raise ImageReadError(folder, f"cannot be listed ({_reason(error)})") from error
    root = files._strip_protocol(path).rstrip("/")
    prefix = folder.rstrip("/")
    urls = []
    for name in found:
        within = name.removeprefix(root).lstrip("/")
        if _is_image(within) and not any(part.startswith(".") for part in within.split("/")):
            urls.append(f"{prefix}/{within}")
    return sorted(urls)


def _is_web(url: str) -> bool:
    return url.partition("://")[0].rpartition("::")[2].lower() in ("http", "https")


def _is_image(name: str) -> bool:
    # Elsewhere question marks and hashes are letters.
    path = urlsplit(name).path if is_url(name) and _is_web(name) else name
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and its path there."""
    fsspec = import_optional("fsspec.core", f"Reading {url}")
    try:
        files, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"{url} cannot be read: fsspec needs another package for it ({error}).") from error
    except Exception as error:  # an unknown protocol, or missing credentials
        raise ImageReadError(url, f"cannot be opened ({_text(error)})") from error
    return files, path


def _stamp(url: str) -> tuple[int, int]:
    files, path = _open(url)
    try:
        info = files.info(path)
        size = int(info.get("size") or 0)
        version = sorted((str(name).lower(), str(value)) for name, value in info.items() if value is not None)
        version = [pair for pair in version if pair[0] in _VALIDATORS]
        content = repr(version).encode() if version else bytes(files.cat_file(path))
    except Exception:  # reading it will say why
        return 0, 0
    return size, int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, IsADirectoryError):
        return "is a folder; give it with a slash at its end to list the images in it"
    if isinstance(error, PermissionError):
        return "cannot be opened (permission denied)"
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        return f"cannot be opened (the server answers {status} {getattr(error, 'message', '')}".rstrip() + ")"
    if type(error).__name__ == "ClientPayloadError":
        return "broke off before its end"
    return f"cannot be read ({_text(error)})"


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
