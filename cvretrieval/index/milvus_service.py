"""The connection to Milvus: addresses, credentials, what is tried again, and what errors say.

Credentials come from the environment (``MILVUS_TOKEN``, as ``user:password`` or an API key) whenever a connection is
made; they are held nowhere and written nowhere. One connection per address serves all indexes and threads of a process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cvretrieval._optional import import_optional
from cvretrieval._validation import StoreError

#: Where the credentials are.
TOKEN = "MILVUS_TOKEN"  # the name of the variable, no secret

# A call is tried again for so long, after pauses that double.
_PATIENCE_S = 60.0
# Such calls wait for what is done in the background, as building a graph.
_LONG = ("create_index", "drop_collection", "flush", "load_collection")
_LONG_PATIENCE_S = 1200.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_CONNECT_S = 10.0

# Milvus's code of a collection that is not loaded.
_NOT_LOADED = 101

_clients: dict[tuple[int, str], Any] = {}
_lock = threading.Lock()


def check_uri(uri: Any) -> str:
    """Return the address of Milvus: that of a server as it is, a local ``.db`` path absolute.

    Raises
    ------
    ValueError
        If it is neither, or holds credentials, which would be saved with it.
    """
    text = os.fspath(uri) if isinstance(uri, os.PathLike) else uri
    if isinstance(text, str) and text.startswith(("http://", "https://", "tcp://")):
        if "@" in urlsplit(text).netloc:
            raise ValueError(
                "The 'uri' parameter of MilvusIndex must not hold credentials, which would be saved with the index. "
                f"Set the environment variable {TOKEN} to user:password instead."
            )
        return text
    if isinstance(text, str) and text.endswith(".db") and "://" not in text:
        return os.path.abspath(text)
    raise ValueError(
        "The 'uri' parameter of MilvusIndex must be the address of a server, as http://localhost:19530, or a local "
        f"path that ends in .db, for the embedded Milvus Lite. Got {uri!r} instead."
    )


def is_embedded(uri: str) -> bool:
    """Whether an address is that of Milvus Lite, a folder of this machine that one process at a time may use."""
    return "://" not in uri


def call(uri: str, method: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of ``pymilvus.MilvusClient``, again after a pause while the server is busy or gone for a moment.

    Raises
    ------
    StoreError
        If it cannot be reached, or refuses; naming the address.
    ImportError
        If pymilvus, or for a local path milvus-lite, is missing.
    """
    client = connect(uri)
    patience = _LONG_PATIENCE_S if method in _LONG else _PATIENCE_S
    deadline, pause, is_loaded = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S, method == "load_collection"
    while True:
        try:
            return getattr(client, method)(*arguments, timeout=patience, **options)
        except Exception as error:
            if not _comes_from_milvus(error):
                raise
            if _is_unloaded(error) and not is_loaded:
                # Closed meanwhile, or released by somebody else to save memory.
                is_loaded = True
                call(uri, "load_collection", arguments[0])
                continue
            if not _is_transient(error):
                raise StoreError(f"Milvus at {uri} refuses ({method}): {_reason(error)}.") from error
            if time.monotonic() + pause > deadline:
                raise _unreachable(uri, error) from error
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        # Without a connection this call tells why; the next one may have better luck.
        with contextlib.suppress(StoreError):
            client = connect(uri, anew=True)


def connect(uri: str, *, anew: bool = False) -> Any:
    """Return the client of an address; `anew` replaces the one that is known.

    Raises
    ------
    StoreError, ImportError
    """
    place = os.getpid(), uri  # a forked process has the threads of none
    with _lock:
        if anew:
            _close(_clients.pop(place, None))
        if place not in _clients:
            _clients[place] = _new_client(uri)
        return _clients[place]


def disconnect(uri: str) -> None:
    """Close the connection, so that another process may use a database of Milvus Lite; a later call opens it again."""
    with _lock:
        client = _clients.pop((os.getpid(), uri), None)
        if client is None:
            return
        _close(client)
        if is_embedded(uri):
            manager = import_optional("milvus_lite.server_manager", "MilvusIndex of a local path")
            manager.server_manager_instance.release_server(uri)


def _new_client(uri: str) -> Any:
    pymilvus = import_optional("pymilvus", "MilvusIndex")
    if is_embedded(uri):
        import_optional("milvus_lite", "MilvusIndex of a local path")
        if not Path(uri).parent.is_dir():
            raise StoreError(f"The folder {Path(uri).parent} for the database of Milvus Lite does not exist.")
    # Both print tracebacks of errors that they raise as well.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return pymilvus.MilvusClient(uri=uri, token=os.environ.get(TOKEN, ""), timeout=_CONNECT_S)
    except Exception as error:
        if not _comes_from_milvus(error):
            raise
        raise _unreachable(uri, error) from error


def _close(client: Any) -> None:
    if client is not None:
        with contextlib.suppress(Exception):  # it may be broken, which is why it is closed
            client.close()


def _unreachable(uri: str, error: Exception) -> StoreError:
    if "DEADLINE_EXCEEDED" in str(_code(error)):
        return StoreError(f"Milvus at {uri} has not answered in time. Is it overloaded? Try again.")
    if is_embedded(uri):
        return StoreError(
            f"The database of Milvus Lite at {uri} cannot be opened ({_reason(error)}). One process at a time may use "
            "it: close the other one, or run a Milvus server and give its address."
        )
    credentials = "" if os.environ.get(TOKEN) else f" If it asks for credentials, set {TOKEN}."
    return StoreError(
        f"Milvus at {uri} cannot be reached ({_reason(error)}). Is the address right, and does it run?{credentials}"
    )


def _comes_from_milvus(error: Exception) -> bool:
    import grpc
    from pymilvus.exceptions import MilvusException

    # grpc raises ValueError for a channel that another thread has closed.
    return isinstance(error, (MilvusException, grpc.RpcError)) or _is_closed(error)


def _code(error: Exception) -> Any:
    """Return Milvus's or grpc's code of an error."""
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: no connection, no answer in time, too many requests."""
    import grpc
    from pymilvus.exceptions import ConnectError, ErrorCode, MilvusUnavailableException

    passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    code = _code(error)
    passing_types = (ConnectError, MilvusUnavailableException)
    return isinstance(error, passing_types) or code in (*passing, ErrorCode.RATE_LIMIT) or _is_closed(error)


def _is_unloaded(error: Exception) -> bool:
    """Whether a collection is not in the memory of Milvus, which has a code for it, and Milvus Lite words."""
    return getattr(error, "code", None) == _NOT_LOADED or "in state 'released'" in str(error)


def _is_closed(error: Exception) -> bool:
    return isinstance(error, ValueError) and "closed channel" in str(error)


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)  # of grpc's errors
    text = str(getattr(error, "message", "") or (details() if callable(details) else None) or error)
    return " ".join(text.split()).rstrip(".")[:300]
